"""A plugin's folder: its manifest, README and docs, and everything that keeps it out of a catalog."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from penstock.errors import InputError
from penstock.pipeline.complaints import shortened
from penstock.plugins.contract import LABEL, MANIFEST, MANIFEST_BYTES
from penstock.plugins.label import label_of, read_label
from penstock.plugins.manifest import Manifest, read_manifest
from penstock.plugins.packages import check_lock
from penstock.plugins.schemas import Complaint

README, DOCS = "README.md", "docs"
PAGE_BYTES = 1024 * 1024
PAGES = 200


@attrs.frozen
class PluginFolder:
    """What a plugin brings along. docs: path below `docs/` → its text."""

    path: Path
    manifest: Manifest
    readme: str
    docs: Mapping[str, str]


@attrs.frozen
class Examined:
    """A folder as far as it can be read, and everything that is wrong with it."""

    folder: PluginFolder | None
    complaints: tuple[Complaint, ...]


def open_folder(path: Path) -> PluginFolder:
    """
    A plugin with nothing wrong with it.

    Raises: InputError for the first thing that is, and how many more there are.
    """
    examined = examine(path)
    if examined.folder is not None and not examined.complaints:
        return examined.folder
    first, more = examined.complaints[0], len(examined.complaints) - 1
    what = first.what + (f" (and {more} more)" if more else "")
    raise InputError(what, where=first.where, remedy=f"{first.remedy}; `penstock plugin check {path}` says all")


def examine(path: Path, label: str | None = None) -> Examined:
    """
    Look at everything.

    label: the manifest that the image carries, if it was looked at.
    """
    if not path.is_dir():
        return Examined(None, (Complaint(str(path), "there is no such folder", "name the plugin's folder"),))
    manifest, wrong = _manifest(path)
    readme, docs = _text(path / README) or "", dict(_pages(path / DOCS))
    wrong += _prose(path, readme, docs)
    if manifest is not None:
        wrong += [*_command(path, manifest), *check_lock(path), *_compared(manifest, label)]
        return Examined(PluginFolder(path, manifest, readme, docs), tuple(wrong))
    return Examined(None, tuple(wrong))


def _manifest(path: Path) -> tuple[Manifest | None, list[Complaint]]:
    file = path / MANIFEST
    try:
        data = _bytes(file, MANIFEST_BYTES + 1)
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        return None, [Complaint(str(file), what, "write one, or begin with `penstock plugin new`")]
    found = read_manifest(data, str(file))
    return found.manifest, list(found.complaints)


def _prose(path: Path, readme: str, docs: Mapping[str, str]) -> list[Complaint]:
    found = []
    if not _says_something(readme):
        state = "is missing" if not (path / README).is_file() else "says nothing"
        found.append(Complaint(str(path / README), state, "describe how the plugin is built: its architecture"))
    if not any(_says_something(text) for text in docs.values()):
        state = "is missing" if not (path / DOCS).is_dir() else "has no page that says anything"
        found.append(Complaint(str(path / DOCS), state, "write at least docs/index.md for those who use the plugin"))
    return found


def _says_something(text: str) -> bool:
    """More than headings and blank lines."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _pages(docs: Path) -> Iterator[tuple[str, str]]:
    if docs.is_symlink() or not docs.is_dir():
        return
    files = sorted(path for path in docs.rglob("*.md") if not path.is_symlink())
    for path in files[:PAGES]:
        if (text := _text(path)) is not None:
            yield path.relative_to(docs).as_posix(), text


def _text(path: Path) -> str | None:
    try:
        return _bytes(path, PAGE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _bytes(path: Path, limit: int) -> bytes:
    """At most so many bytes of a regular file. Raises: OSError, also for a link or a pipe."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no file")
        return file.read(limit)


def _command(path: Path, manifest: Manifest) -> Iterator[Complaint]:
    """A relative path in the command must lead to a file of the folder."""
    for word in manifest.command or ():
        if word.startswith("./") and not (path / word).is_file():
            yield Complaint(str(path / MANIFEST), f'command: there is no "{shortened(word)}"', "mend `command`")
    first = (manifest.command or ("",))[0]
    if first.startswith("./") and (path / first).is_file() and not os.access(path / first, os.X_OK):
        yield Complaint(str(path / first), "it cannot be executed", f"chmod +x {first}")


def _compared(manifest: Manifest, label: str | None) -> Iterator[Complaint]:
    if label is None:
        return
    where = f"image {manifest.image}: label {LABEL}"
    build = f'build it with --label {LABEL}="$(penstock plugin label DIR)"'
    if not label:
        yield Complaint(where, "is missing", build)
        return
    try:
        carried = read_label(label)
    except InputError as error:
        yield Complaint(where, error.what, build)
        return
    if label_of(carried) != label_of(manifest):
        yield Complaint(where, "says something else than plugin.yaml", build)
