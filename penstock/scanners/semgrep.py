"""
Semgrep with Penstock's own rules (`rules/*.yaml`), without network, metrics or update check.

It exits 0 with or without findings, 2 on a fatal error, 7 without rules. A file that it cannot parse, a
folder without files and a rule that timed out are exit 0: its JSON report says what it has read.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import attrs
import msgspec

from penstock.scanners import Looked, Refused, ScanRequest, ToolRun, last_line, own_environment

RULES = Path(__file__).parent / "rules"

# Files that a rule for a language reads; the others are only searched as text.
_CODE = re.compile(r"\.(py|pyi|js|jsx|cjs|mjs|ts|tsx|cts|mts)$|(^|/|\.)Dockerfile$", re.IGNORECASE)


class _Error(msgspec.Struct, frozen=True):
    level: str = "error"
    message: str = ""
    path: str | None = None


class _Paths(msgspec.Struct, frozen=True):
    scanned: list[str] = []


class _Detail(msgspec.Struct, frozen=True):
    errors: list[_Error]
    paths: _Paths


@attrs.frozen
class Semgrep:
    """Semgrep's free engine."""

    name: str = "semgrep"
    read_only: tuple[Path, ...] = (RULES,)
    network: bool = False

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """`-I` keeps the repository's modules out of the tool; `pysemgrep` is `semgrep` without a detour over PATH."""
        options = [
            *("--metrics=off", "--disable-version-check", "--no-git-ignore", "--no-rewrite-rule-ids"),
            *("--quiet", "--config", str(RULES)),
            *("--sarif", f"--output={request.sarif}", f"--json-output={request.detail}"),
            *(f"--exclude={word}" for word in (*request.exclude, request.output)),
        ]
        if not (request.workspace / ".semgrepignore").is_file():
            # Without it, a list inside Semgrep hides tests and more: what is left out stands in penstock.yaml.
            options.append("--x-ignore-semgrepignore-files")
        command = (str(request.bin / "python"), "-I", str(request.bin / "pysemgrep"), "scan")
        return (*command, *options, "--", *request.paths)

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """No colours and no telemetry, whatever the repository's `defaults` say."""
        own = own_environment(request)
        return {**own, "SEMGREP_SEND_METRICS": "off", "SEMGREP_FORCE_COLOR": "", "NO_COLOR": "1"}

    def look(self, run: ToolRun) -> Looked | Refused:
        """See `Scanner.look`."""
        try:
            detail = msgspec.json.decode(run.detail or b"", type=_Detail)
        except msgspec.DecodeError:
            return Refused(f"semgrep exited with {run.code}: {last_line(run.output) or 'it said nothing'}")
        fatal = [error for error in detail.errors if error.level == "error"]
        if fatal or run.code not in {0, 1} or run.sarif is None:
            said = fatal[0].message if fatal else last_line(run.output)
            return Refused(f"semgrep exited with {run.code}: {_one_line(said) or 'it said nothing'}")
        return _judge(set(detail.paths.scanned), {error.path for error in detail.errors if error.path})


def _judge(scanned: set[str], failed: set[str]) -> Looked | Refused:
    if not scanned:
        reason = "semgrep found no file to look at; check `paths`, `exclude` and .semgrepignore"
        return Refused(reason, fault="repository")
    code = {path for path in scanned if _CODE.search(PurePosixPath(path).as_posix())}
    if code and code <= failed:
        reason = f"semgrep could not parse any of {len(code)} source files, such as {min(code)}; mend or exclude them"
        return Refused(reason, fault="repository")
    return Looked(len(scanned - failed), tuple(sorted(failed)))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


SCANNER = Semgrep()
