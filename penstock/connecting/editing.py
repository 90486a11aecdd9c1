"""A penstock.yaml that is written on a page: read from a branch, and committed to a branch where the login may."""

import re
from typing import Final

import attrs

from penstock.connecting.connect import Connecting
from penstock.errors import ConflictError, InputError, NotFoundError, PlatformError
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import Graph, compile_graph
from penstock.pipeline.templates import Library, read_template
from penstock.sources.git import Repository, commit_file, mirror, push
from penstock.sources.projects import Project, get_project

FILE: Final = "penstock.yaml"
LARGEST_BYTES = 1_000_000
_LONGEST_MESSAGE = 5000


@attrs.frozen
class Draft:
    """A file as it is on a branch. commit: where the branch was; None for a repository without commits."""

    branch: str
    commit: str | None
    text: str


def branches(room: Connecting, project: str) -> tuple[str, ...]:
    """Branch names, the default one first. Raises: NotFoundError, PlatformError."""
    known = get_project(room.database, project)
    listing = _mirror(room, known).run("for-each-ref", "--format=%(refname:strip=2)", "refs/heads/")
    names = listing.decode("utf-8", "replace").split("\n")
    return tuple(sorted(filter(None, names), key=lambda name: (name != known.default_branch, name)))


def read(room: Connecting, project: str, branch: str | None = None) -> Draft:
    """
    The pipeline of a branch; empty where it has none.

    branch: None is the default one. Raises: NotFoundError for a branch that is not there, PlatformError, InputError.
    """
    known = get_project(room.database, project)
    wanted = branch or known.default_branch
    repository = _mirror(room, known)
    commit = _head(repository, wanted)
    if commit is None:
        if branch is not None and branch != known.default_branch:
            raise NotFoundError(f'{project} has no branch "{branch[:80]}"', where="branch")
        return Draft(wanted, None, "")
    found = repository.read_file(commit, FILE, limit_bytes=LARGEST_BYTES) or b""
    return Draft(wanted, commit, found.decode("utf-8", "replace"))


def check(room: Connecting, project: str, text: str, *, base: str | None) -> Graph:
    """
    The graph of a pipeline as it would be on top of `base`, with that commit's templates; nothing is fetched.

    Raises: SpecError for what could not run, NotFoundError.
    """
    repository = get_project(room.database, project).repository(room.settings)
    return _compiled(room, repository, base, text.encode("utf-8", "surrogatepass"))


def _compiled(room: Connecting, repository: Repository, base: str | None, content: bytes) -> Graph:
    if len(content) > LARGEST_BYTES:
        raise InputError(f"it has {len(content)} bytes, more than {LARGEST_BYTES}", where=FILE)

    def of_repository(path: str) -> bytes | None:
        return repository.read_file(base, path, limit_bytes=LARGEST_BYTES) if base else None

    library = Library(of_repository, lambda pinned: read_template(room.settings.templates_path, pinned))
    return compile_graph(load_spec(content, library=library))


def write(
    room: Connecting, project: str, text: str, *, branch: str, base: str | None, message: str, author: str
) -> str:
    """
    Commit the pipeline to a branch, which is made from `base` where it is new, and push it; never by force.

    base: the commit that was read; None for a repository without commits. author: who asked for it.
    Returns: the commit. Raises: InputError for a pipeline, name or message that cannot be, or when the repository takes
    no push, ConflictError when the branch went on meanwhile, NotFoundError.
    """
    known = get_project(room.database, project)
    _check(branch, message)
    content = text.encode("utf-8", "surrogatepass")
    repository = _mirror(room, known)
    _compiled(room, repository, base, content)
    head = _head(repository, branch)
    if head is not None and head != base:
        raise ConflictError(f'the branch "{branch}" is at {head[:12]} by now', where=project, remedy="read it again")
    if base is not None and not repository.has(base):
        raise NotFoundError(f"there is no commit {base[:12]}", where=project)
    if base is not None and repository.read_file(base, FILE, limit_bytes=LARGEST_BYTES) == content:
        raise InputError("nothing has changed", where=FILE)
    commit = commit_file(repository, FILE, content, onto=base, message=message, author=author)
    try:
        push(repository, known.remote(room.settings), commit, branch)
    except PlatformError as error:
        what = f"the repository takes no push: {error}"
        remedy = "give the connection a login that may write, or commit the text yourself"
        raise InputError(what, where=project, remedy=remedy) from error
    return commit


def _mirror(room: Connecting, project: Project) -> Repository:
    return mirror(project.remote(room.settings), project.mirror_folder(room.settings))


def _head(repository: Repository, branch: str) -> str | None:
    try:
        return repository.resolve(f"refs/heads/{branch}")
    except NotFoundError:
        return None


def _check(branch: str, message: str) -> None:
    bad = re.search(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.", branch)
    if not branch or bad or branch.startswith("-") or branch.endswith(("/", ".")) or branch.startswith("/"):
        raise InputError(f'"{branch[:80]}" is no name for a branch', where="branch", remedy="such as pipeline-edit")
    if not message.strip() or "\0" in message or len(message) > _LONGEST_MESSAGE:
        raise InputError("the commit needs a message", where="message", remedy="say what changes, and why")
