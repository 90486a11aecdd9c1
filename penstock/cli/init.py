"""`penstock init`: a first penstock.yaml that fits what lies in the repository."""

from pathlib import Path
from typing import Annotated

import typer

from penstock.errors import ConflictError, InputError
from penstock.pipeline.initial import Listing, propose, proposed_steps
from penstock.settings import repository_root, require_git
from penstock.sources.command import git

FILE = "penstock.yaml"
READ_LIMIT_BYTES = 1024 * 1024


def init(
    path: Annotated[Path, typer.Argument(help="A folder of a git repository.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the penstock.yaml that is there.")] = False,
) -> None:
    """
    Write a penstock.yaml that fits the repository (Python, Node, Makefile), explained by comments.

    Examples:

        penstock init
        penstock init ../shop --force
    """
    require_git()
    target = find_root(path) / FILE
    if target.exists() and not force:
        raise ConflictError("it is there already", where=str(target), remedy="overwrite it by --force")
    files = list_files(target.parent)
    try:
        text, steps = propose(files), proposed_steps(files)
    except InputError as error:
        raise InputError(error.what, where=str(target.parent), remedy=error.remedy) from error
    write(target, text)
    typer.echo(f"wrote {target}: {', '.join(step.name for step in steps)}; commit it, then `penstock run`")


def find_root(path: Path) -> Path:
    """
    The root of the repository around `path`.

    Raises: InputError when there is no such folder or no repository.
    """
    if not path.is_dir():
        raise InputError("this is no folder", where=str(path), remedy="name the folder of a git repository")
    root = repository_root(path)
    if not (root / ".git").exists():
        raise InputError("this is no git repository", where=str(path.absolute()), remedy="make it one by `git init`")
    return root


def list_files(root: Path) -> Listing:
    """The files that git knows or would add, except for the pipeline itself."""
    listing = git("-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = {name for name in listing.decode("utf-8", "replace").split("\0") if name and name != FILE}
    return Listing(frozenset(names), lambda name: _text(root / name))


def _text(file: Path) -> str:
    try:
        return "" if file.stat().st_size > READ_LIMIT_BYTES else file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # deleted but still in git's index, or a link to nowhere: as good as empty
        return ""


def write(target: Path, text: str) -> None:
    """Raises: InputError when it cannot be written."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write it: {error.strerror}", where=str(target), remedy="check the folder") from error
