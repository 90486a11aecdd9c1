"""
The scanners: one file each, and this registry.

A scanner names its tool's locked environment, its command line and what its report and exit code mean.
The step that runs it (`penstock/steps/scan_*.py`) knows none of that. **A scan that could not look is an
error, never a clean result**: `Scanner.look` decides it, from what the tool wrote.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import attrs

from penstock.errors import NotFoundError
from penstock.toolbox import last_line as last_line

SARIF_FILE = "report.sarif"
DETAIL_FILE = "detail.json"
SBOM_FILE = "sbom.cdx.json"

Subject = Literal["source", "dependencies", "image"]
Weakness = Literal["vulnerabilities", "secrets", "misconfiguration"]
VULNERABILITIES: tuple[Weakness, ...] = ("vulnerabilities",)


class _Entry(NamedTuple):
    file: str
    subjects: tuple[Subject, ...]


_HERE = Path(__file__).parent
_FILES = {  # the first of a subject is its default
    "semgrep": _Entry("semgrep", ("source",)),
    "bandit": _Entry("bandit", ("source",)),
    "trivy": _Entry("trivy", ("dependencies", "image")),
    "grype": _Entry("grype", ("dependencies", "image")),
    "pip-audit": _Entry("pip_audit", ("dependencies",)),
}


@attrs.frozen
class ImageInput:
    """
    An image to look into.

    place: of an archive of `docker save` or a folder in OCI layout, relative to the workspace; the image's name when
    the scanner asks a registry itself, with `username` and `password` if it wants a login.
    """

    form: Literal["docker-archive", "oci-dir", "registry"]
    place: str
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class ScanRequest:
    """
    What to scan, in the words of every scanner.

    bin: the folder of the tool's commands. workspace: the checkout on this machine.
    paths: files and folders, relative to the workspace. exclude: names, paths or globs of files and folders
    not to look at. output: folder, relative to the workspace, where SARIF_FILE (and DETAIL_FILE) must appear.
    manifests: files below `paths`, relative to the workspace, that name dependencies. image: instead of paths.
    database: the scanner's own of vulnerabilities, brought up to date; mirror: where it is asked for instead.
    """

    bin: Path
    workspace: Path
    paths: tuple[str, ...]
    exclude: tuple[str, ...]
    output: str
    manifests: tuple[str, ...] = ()
    image: ImageInput | None = None
    look_for: tuple[Weakness, ...] = VULNERABILITIES
    database: Path | None = None
    mirror: str | None = None

    @property
    def sarif(self) -> str:
        """Where the tool writes its report, relative to the workspace."""
        return f"{self.output}/{SARIF_FILE}"

    @property
    def detail(self) -> str:
        """Where the tool writes what SARIF has no room for, relative to the workspace."""
        return f"{self.output}/{DETAIL_FILE}"

    @property
    def sbom(self) -> str:
        """Where a tool that lists components writes CycloneDX, relative to the workspace."""
        return f"{self.output}/{SBOM_FILE}"


@attrs.frozen
class ToolRun:
    """
    How a tool ended: its exit code, the end of what it printed, and the files that it wrote (None: it did not).

    manifests: files, relative to the path that was scanned, in which it should have found packages.
    look_for: what it was asked to look for.
    """

    code: int
    output: str
    sarif: bytes | None
    detail: bytes | None = None
    manifests: tuple[str, ...] = ()
    look_for: tuple[Weakness, ...] = VULNERABILITIES
    sbom: bytes | None = None


@attrs.frozen
class Looked:
    """
    What a scan has read.

    files: how many of `unit`, None where the tool does not tell. unreadable: those that it could not understand,
    ascending. sarif: the report where the tool itself writes none, or one that says too little.
    sbom: the components that it has read, as CycloneDX JSON, from a tool that lists them.
    caution: why the result may be incomplete all the same.
    """

    files: int | None
    unreadable: tuple[str, ...] = ()
    unit: Literal["file", "package"] = "file"
    sarif: bytes | None = None
    sbom: bytes | None = None
    caution: str | None = None


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
        """What penstock.yaml calls it; its lock is `locks/<name>.lock`, or else it is a command on PATH."""

    @property
    def read_only(self) -> tuple[Path, ...]:
        """Files and folders besides its environment that it must see, such as its rules."""

    @property
    def network(self) -> bool:
        """Whether it asks a server while it scans."""

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """Its command line; paths are relative to the workspace, or absolute and in `read_only`."""

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """Variables that it needs, `own_environment` among them."""

    def look(self, run: ToolRun) -> Looked | Refused:
        """Whether it has looked, by its exit code and what it wrote; pure."""


class PackageScanner(Scanner, Protocol):
    """A scanner that finds packages in manifests, lock files or images."""

    @property
    def looks_for(self) -> tuple[Weakness, ...]:
        """What it can look for."""

    @property
    def one_path(self) -> bool:
        """Whether it looks at one path at a time."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names, as globs, of the files that tell it of packages."""


@attrs.frozen
class DatabaseRequest:
    """
    A database of vulnerabilities to bring up to date.

    bin: the folder of the tool's commands. mirror: where from, None for the tool's own place.
    java: whether the index of Java archives is wanted too; java_mirror: where that comes from.
    """

    bin: Path
    mirror: str | None = None
    java: bool = False
    java_mirror: str | None = None


@runtime_checkable
class KeepsDatabase(Protocol):
    """A scanner with a database of its own, which is fetched before it scans."""

    def fetch(self, request: DatabaseRequest) -> tuple[str, ...]:
        """The command line that brings the database in the current folder up to date."""

    def fetch_env(self, request: DatabaseRequest) -> Mapping[str, str]:
        """Variables for it."""

    def why_not(self, run: ToolRun) -> str:
        """Why the database could not be had, from what the command said; pure."""


def scanner_names(subject: Subject | None = None) -> tuple[str, ...]:
    """The names of all scanners, or of those for one subject, the default first."""
    return tuple(name for name, entry in _FILES.items() if subject is None or subject in entry.subjects)


def open_scanner(name: str) -> Scanner:
    """
    The scanner called `name`.

    Raises: NotFoundError with the names that there are.
    """
    if name not in _FILES:
        raise NotFoundError(f'no scanner is called "{name}"', remedy=f"there are: {', '.join(_FILES)}")
    scanner: Scanner = import_module(f"penstock.scanners.{_FILES[name].file}").SCANNER
    return scanner


def lock_file(name: str) -> Path:
    """The tool's requirements, every version and hash fixed; there is none for a tool that is not a package."""
    return _HERE / "locks" / f"{name}.lock"


def own_environment(request: ScanRequest) -> Mapping[str, str]:
    """Variables by which the repository's `defaults.env` could put code of its own into a tool, made harmless."""
    empty = dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH"), "")
    return {**empty, "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PATH": f"{request.bin}:/usr/bin:/bin"}
