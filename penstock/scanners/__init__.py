"""
The scanners: one file each, and this registry.

A scanner names its tool's locked environment, its command line and what its report and exit code mean.
The step that runs it (`penstock/steps/scan_*.py`) knows none of that. **A scan that could not look is an
error, never a clean result**: `Scanner.look` decides it, from what the tool wrote.
"""

import hashlib
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

import attrs

from penstock.errors import NotFoundError

SARIF_FILE = "report.sarif"
DETAIL_FILE = "detail.json"

_HERE = Path(__file__).parent
_FILES = {
    "semgrep": "semgrep",
    "bandit": "bandit",
}


@attrs.frozen
class ScanRequest:
    """
    What to scan, in the words of every scanner.

    bin: the folder of the tool's commands. workspace: the checkout on this machine.
    paths: files and folders, relative to the workspace. exclude: names, paths or globs of files and folders
    not to look at. output: folder, relative to the workspace, where SARIF_FILE (and DETAIL_FILE) must appear.
    """

    bin: Path
    workspace: Path
    paths: tuple[str, ...]
    exclude: tuple[str, ...]
    output: str

    @property
    def sarif(self) -> str:
        """Where the tool writes its report, relative to the workspace."""
        return f"{self.output}/{SARIF_FILE}"

    @property
    def detail(self) -> str:
        """Where the tool writes what SARIF has no room for, relative to the workspace."""
        return f"{self.output}/{DETAIL_FILE}"


@attrs.frozen
class ToolRun:
    """How a tool ended: its exit code, the end of what it printed, and the files that it wrote (None: it did not)."""

    code: int
    output: str
    sarif: bytes | None
    detail: bytes | None = None


@attrs.frozen
class Looked:
    """What a scan has read. files: how many; unreadable: those that it could not understand, ascending."""

    files: int
    unreadable: tuple[str, ...] = ()


@attrs.frozen
class Refused:
    """
    Why a scan's report must not be believed.

    fault: `repository` when there was nothing that it could read, `tool` when the tool itself failed.
    """

    reason: str
    fault: Literal["repository", "tool"] = "tool"


class Scanner(Protocol):
    """A tool that writes SARIF."""

    @property
    def name(self) -> str:
        """What penstock.yaml calls it; its lock is `locks/<name>.lock`."""

    @property
    def read_only(self) -> tuple[Path, ...]:
        """Folders besides its environment that it must see, such as its rules."""

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """Its command line; paths are relative to the workspace, or absolute and in `read_only`."""

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """Variables that it needs, `own_environment` among them."""

    def look(self, run: ToolRun) -> Looked | Refused:
        """Whether it has looked, by its exit code and what it wrote; pure."""


def scanner_names() -> tuple[str, ...]:
    """Every scanner's name, the default first."""
    return tuple(_FILES)


def open_scanner(name: str) -> Scanner:
    """
    The scanner called `name`.

    Raises: NotFoundError with the names that there are.
    """
    if name not in _FILES:
        raise NotFoundError(f'no scanner is called "{name}"', remedy=f"there are: {', '.join(_FILES)}")
    scanner: Scanner = import_module(f"penstock.scanners.{_FILES[name]}").SCANNER
    return scanner


def lock_file(name: str) -> Path:
    """The tool's requirements, every version and hash fixed."""
    return _HERE / "locks" / f"{name}.lock"


def environment_name(name: str) -> str:
    """`<tool>-<hash>`: another lock or another Python is another environment."""
    python = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(python.encode() + b"\0" + lock_file(name).read_bytes())
    return f"{name}-{digest.hexdigest()[:12]}"


def own_environment(request: ScanRequest) -> Mapping[str, str]:
    """Variables by which the repository's `defaults.env` could put code of its own into a tool, made harmless."""
    empty = dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH"), "")
    return {**empty, "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PATH": f"{request.bin}:/usr/bin:/bin"}


def last_line(text: str) -> str:
    """The last line of a tool's output that says something, at most 300 characters; empty if none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
