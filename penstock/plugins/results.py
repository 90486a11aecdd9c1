"""
What a plugin left in /ci, read as a stranger's: bounded, links not followed, nothing but regular files.

All processes of the plugin are gone by then, so nothing changes while it is read.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import attrs
import msgspec

from penstock.errors import StepFailure
from penstock.pipeline.complaints import shortened
from penstock.plugins.contract import (
    ARTIFACT_COUNT,
    ARTIFACT_FILES,
    ARTIFACTS,
    CI,
    LINES_BYTES,
    MIB,
    OUTPUT,
    OUTPUT_BYTES,
    REPORT_BYTES,
    REPORT_FILES,
    RESULTS,
)
from penstock.plugins.data import bounded_lines
from penstock.plugins.manifest import Manifest
from penstock.plugins.schemas import check_value

LONGEST_LINE = 64 * 1024
ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PIECE = 1024 * 1024


@attrs.frozen
class Report:
    """SARIF, or a list of components. name: the file's, without its suffix."""

    name: str
    data: bytes


@attrs.frozen
class Left:
    """The folder that a plugin saw as /ci."""

    folder: Path

    def outputs(self, manifest: Manifest) -> Mapping[str, Any]:
        """
        output.json; none is an empty one.

        Raises: StepFailure when it is no JSON object, or does not fit the manifest.
        """
        data = self._whole(OUTPUT, OUTPUT_BYTES)
        values = {} if data is None else _json_object(data)
        if wrong := check_value(manifest.output_schema, values, "outputs"):
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise StepFailure(f"{wrong[0].where} {wrong[0].what}{more}", where=f"{CI}/{OUTPUT}", remedy=_MEND)
        return values

    def lines(self, name: str) -> Iterator[bytes]:
        """
        The lines of a file, of one that is too long its first bytes; none when there is no such file.

        Raises: StepFailure for a file that is none, or has more than 256 MiB.
        """
        with self._opened(name, LINES_BYTES) as file:
            if file is not None:
                yield from bounded_lines(iter(lambda: file.read(_PIECE), b""), LONGEST_LINE)

    def reports(self) -> tuple[Report, ...]:
        """Every `results/*.sarif`, by name. Raises: StepFailure."""
        return self._reports(".sarif")

    def sboms(self) -> tuple[Report, ...]:
        """Every `results/*.cdx.json`: a list of components. Raises: StepFailure."""
        return self._reports(".cdx.json")

    def _reports(self, suffix: str) -> tuple[Report, ...]:
        names = sorted(name for name in self._names(RESULTS) if name.endswith(suffix))
        if len(names) > REPORT_FILES:
            raise StepFailure(f"{len(names)} reports, at most {REPORT_FILES} are read", where=f"{CI}/{RESULTS}")
        return tuple(
            Report(name.removesuffix(suffix), self._whole(f"{RESULTS}/{name}", REPORT_BYTES) or b"") for name in names
        )

    def artifacts(self) -> tuple[Path, ...]:
        """
        Every file and folder of `artifacts/`, by name, each safe to store.

        Raises: StepFailure for a link that leads out, a pipe, a device, or too many files.
        """
        names = sorted(self._names(ARTIFACTS))
        if len(names) > ARTIFACT_COUNT:
            raise StepFailure(f"{len(names)} artifacts, at most {ARTIFACT_COUNT} are kept", where=f"{CI}/{ARTIFACTS}")
        paths = []
        for name in names:
            if not ARTIFACT_NAME.fullmatch(name):
                raise StepFailure(
                    f'"{shortened(name)}" is no name of an artifact',
                    where=f"{CI}/{ARTIFACTS}",
                    remedy="use letters, digits, ., - and _, a letter or digit first",
                )
            paths.append(self.folder / ARTIFACTS / name)
            _check_tree(paths[-1], self.folder)
        return tuple(paths)

    def _names(self, name: str) -> list[str]:
        """The entries of a folder that the plugin may have replaced by anything."""
        try:
            folder = os.open(self.folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StepFailure("it is no folder any more", where=f"{CI}/{name}", remedy=_MEND) from error
        try:
            with os.scandir(folder) as entries:
                return [entry.name for entry in entries]
        finally:
            os.close(folder)

    def _whole(self, name: str, limit: int) -> bytes | None:
        with self._opened(name, limit) as file:
            return None if file is None else file.read(limit + 1)

    @contextmanager
    def _opened(self, name: str, limit: int) -> Iterator[IO[bytes] | None]:
        """None when it is not there."""
        folder, _, last = name.rpartition("/")
        if folder:
            self._names(folder)  # no link, as every part of the path must be none
        try:
            number = os.open(self.folder / folder / last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise StepFailure("a link or a pipe is not read", where=f"{CI}/{name}", remedy=_MEND) from error
        with os.fdopen(number, "rb") as file:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                raise StepFailure("only regular files are read", where=f"{CI}/{name}", remedy=_MEND)
            if found.st_size > limit:
                size = f"{found.st_size / MIB:.0f} MiB, at most {limit / MIB:g} MiB are read"
                raise StepFailure(size, where=f"{CI}/{name}", remedy="write less of it")
            yield file


_MEND = "mend the plugin"


def _json_object(data: bytes) -> dict[str, Any]:
    if b"\\u0000" in data:
        raise StepFailure("it holds a NUL character", where=f"{CI}/{OUTPUT}", remedy=_MEND)
    try:
        values = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:120]
        raise StepFailure(f"this is no JSON: {what}", where=f"{CI}/{OUTPUT}", remedy=_MEND) from error
    if not isinstance(values, dict):
        raise StepFailure("expected a JSON object", where=f"{CI}/{OUTPUT}", remedy='write {"name": value}')
    return values


def _check_tree(path: Path, root: Path) -> None:
    """Raises: StepFailure for what must not be stored."""
    todo, seen = [path], 0
    while todo:
        one = todo.pop()
        seen += 1
        if seen > ARTIFACT_FILES:
            raise StepFailure(f"more than {ARTIFACT_FILES} files", where=_inside(path, root), remedy="pack them")
        mode = one.lstat().st_mode
        if stat.S_ISLNK(mode):
            _check_link(one, path, root)
        elif stat.S_ISDIR(mode):
            with os.scandir(one) as entries:
                todo += [Path(entry.path) for entry in entries]
        elif not stat.S_ISREG(mode):
            raise StepFailure("a pipe, a socket or a device is no artifact", where=_inside(one, root), remedy=_MEND)


def _check_link(link: Path, artifact: Path, root: Path) -> None:
    """Inside of a folder links may lead to what lies in that folder."""
    with suppress(OSError, RuntimeError):  # it leads in a circle
        if link != artifact and link.resolve().is_relative_to(artifact.resolve()):
            return
    raise StepFailure("this link leads out of the artifact", where=_inside(link, root), remedy=_MEND)


def _inside(path: Path, root: Path) -> str:
    return f"{CI}/{shortened(path.relative_to(root))}"


def ci_bytes(folders: tuple[Path, ...], stop_above: int, count_above: int) -> tuple[int, int]:
    """What folders take on the disk, and how many files they have; counted no further than the limits."""
    size = count = 0
    todo = list(folders)
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                count += 1
                if size > stop_above or count > count_above:
                    return size, count
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
    return size, count
