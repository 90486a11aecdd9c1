"""
Bandit: weaknesses in Python.

It exits 0 when it found nothing, 1 when it found something, 2 when it was called wrongly. A path that
does not exist and a file that it cannot parse are exit 0 too, and only a notification in its SARIF.
"""

from collections.abc import Mapping
from pathlib import Path

import attrs
import msgspec

from penstock.scanners import Looked, Refused, ScanRequest, ToolRun, last_line, own_environment


class _Location(msgspec.Struct, frozen=True, rename="camel"):
    uri: str = ""


class _Physical(msgspec.Struct, frozen=True, rename="camel"):
    artifact_location: _Location = _Location()


class _Place(msgspec.Struct, frozen=True, rename="camel"):
    physical_location: _Physical = _Physical()


class _Notification(msgspec.Struct, frozen=True):
    locations: list[_Place] = []


class _Invocation(msgspec.Struct, frozen=True, rename="camel"):
    tool_configuration_notifications: list[_Notification] = []


class _Properties(msgspec.Struct, frozen=True):
    metrics: dict[str, msgspec.Raw] = {}


class _Run(msgspec.Struct, frozen=True):
    invocations: list[_Invocation] = []
    properties: _Properties = _Properties()


class _Report(msgspec.Struct, frozen=True):
    runs: list[_Run]


@attrs.frozen
class Bandit:
    """PyCQA's Bandit with all of its own tests."""

    name: str = "bandit"
    read_only: tuple[Path, ...] = ()
    network: bool = False

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """`-I` keeps the repository's modules out of the tool."""
        excluded = ",".join(pattern for word in (*request.exclude, request.output) for pattern in _globs(word))
        options = ("--recursive", "--format", "sarif", "--output", request.sarif, "--exclude", excluded, "--quiet")
        targets = tuple(path if path == "." else f"./{path}" for path in request.paths)
        return (str(request.bin / "python"), "-I", "-m", "bandit", *options, "--", *targets)

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """Nothing of its own."""
        return own_environment(request)

    def look(self, run: ToolRun) -> Looked | Refused:
        """See `Scanner.look`."""
        if run.code not in {0, 1} or run.sarif is None:
            return Refused(f"bandit exited with {run.code}: {last_line(run.output) or 'it said nothing'}")
        try:
            report = msgspec.json.decode(run.sarif, type=_Report)
        except msgspec.DecodeError as error:
            return Refused(f"bandit's report cannot be read: {error}")
        read = {_plain(path) for part in report.runs for path in part.properties.metrics if path != "_totals"}
        failed = {_plain(path) for path in _notified(report)}
        if not read - failed:
            return Refused(_nothing_read(read, failed), fault="repository")
        return Looked(len(read - failed), tuple(sorted(failed)))


def _globs(word: str) -> tuple[str, ...]:
    """Bandit takes a bare word as a substring of the path (`test` would hide `latest.py`), a glob as a glob."""
    word = word.strip("/")
    return (f"*/{word}", f"*/{word}/*")


def _plain(path: str) -> str:
    return path.removeprefix("./")


def _notified(report: _Report) -> list[str]:
    return [
        place.physical_location.artifact_location.uri
        for run in report.runs
        for invocation in run.invocations
        for notification in invocation.tool_configuration_notifications
        for place in notification.locations
    ]


def _nothing_read(read: set[str], failed: set[str]) -> str:
    if not read:
        return "bandit found no Python file to look at; check `paths` and `exclude`, or remove the step"
    return f"bandit could not parse any of {len(failed)} files, such as {min(failed)}; mend or exclude them"


SCANNER = Bandit()
