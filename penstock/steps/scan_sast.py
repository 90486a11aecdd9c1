"""step.scan_sast: read the source for weaknesses; findings at or above a severity stop the pipeline."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from penstock.engines import Exit
from penstock.errors import PlatformError, ReportError, StepFailure
from penstock.findings import SEVERITIES, Finding, Report, Scope, read_report
from penstock.findings.policy import Policy, judge
from penstock.pipeline.spec import WORKSPACE, Kind, StepFields, WorkspacePath
from penstock.scanners import (
    DETAIL_FILE,
    SARIF_FILE,
    Looked,
    Refused,
    Scanner,
    ScanRequest,
    ToolRun,
    open_scanner,
)
from penstock.scanners.tools import ensure_tool
from penstock.steps.context import Artifact, ScanOutcome, StepContext, StepResult, Verdict
from penstock.steps.workspace import inside

REPORTS = ".penstock"  # where a scan's SARIF lies in the workspaces of steps that need it
ALWAYS_EXCLUDED = (".git", REPORTS)
TESTS_AND_DEPENDENCIES = ("tests", "test", "test_*.py", "conftest.py", "node_modules", "vendor", ".venv", "venv")
SHOWN = 20
NAMED = 3

Severity = Literal["critical", "high", "medium", "low", "none"]
Exclusion = Annotated[str, StringConstraints(pattern=r"^[^,\x00\n!-][^,\x00\n]*$")]


class Config(StepFields):
    """What to scan, by what, and from which severity on it fails."""

    kind: ClassVar[Kind] = "report"
    summary: ClassVar[str] = "Scan the source for weaknesses (Semgrep, Bandit)."

    scanner: Literal["semgrep", "bandit"] = Field(
        "semgrep", description="semgrep: Python, JavaScript, TypeScript, Dockerfiles, secrets. bandit: Python."
    )
    paths: tuple[WorkspacePath, ...] = Field((".",), min_length=1, description="Files and folders to look at.")
    exclude: tuple[Exclusion, ...] = Field(
        TESTS_AND_DEPENDENCIES, description="Names, paths or globs not to look at; default: tests and dependencies."
    )
    fail_on_severity: Severity = Field(
        "high", description="Fail when there is a finding of this severity or worse; none: only report."
    )

    def check_name(self) -> str | None:
        """A scan decides the check `findings`."""
        return "findings"


def run(config: Config, context: StepContext) -> StepResult:
    """
    Scan the workspace.

    Raises: StepFailure for a path that is not there, PlatformError when the scanner itself failed.
    """
    _check_paths(config, context.workspace)
    scanner = open_scanner(config.scanner)
    tool = ensure_tool(context.settings, scanner, token=context.token, say=context.log.line)
    with _output_folder(context.workspace) as output:
        request = ScanRequest(
            bin=tool,
            workspace=context.workspace,
            paths=config.paths,
            exclude=(*config.exclude, *ALWAYS_EXCLUDED),
            output=output.name,
        )
        ended = _start(config, context, scanner, request)
        if stopped := _stopped(ended, config):
            return stopped
        done = _tool_run(ended, context, output)
    return _judge(config, context, scanner, done)


def _check_paths(config: Config, workspace: Path) -> None:
    for path in config.paths:
        if not inside(workspace, path).exists():
            raise StepFailure(f'there is no "{path}" at this commit', where=config.name, remedy="mend `paths`")


@contextmanager
def _output_folder(workspace: Path) -> Iterator[Path]:
    """A folder with a name that no commit can have foreseen, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".penstock-scan-", dir=workspace))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(config: Config, context: StepContext, scanner: Scanner, request: ScanRequest) -> Exit:
    job = context.job(
        config.name,
        scanner.argv(request),
        env=dict(scanner.env(request)),
        read_only=(request.bin.parent, *scanner.read_only),
        network=False,
        timeout_s=float(config.timeout),
    )
    return context.engine.run(job, context.log.output, context.token)


def _stopped(ended: Exit, config: Config) -> StepResult | None:
    if ended.state == "cancelled":
        return StepResult("cancelled", reason="cancelled", exit_code=ended.code)
    if ended.state == "timed_out":
        reason = f"took longer than its limit of {config.timeout} s"
        return StepResult("timed_out", reason=reason, exit_code=ended.code, verdict=_failed(reason))
    return None


def _tool_run(ended: Exit, context: StepContext, output: Path) -> ToolRun:
    said = "\n".join(context.log.tail(SHOWN))
    return ToolRun(ended.code, said, _bytes_of(output / SARIF_FILE), _bytes_of(output / DETAIL_FILE))


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def _judge(config: Config, context: StepContext, scanner: Scanner, done: ToolRun) -> StepResult:
    looked = scanner.look(done)
    if isinstance(looked, Refused):
        if looked.fault == "tool":
            raise PlatformError(looked.reason, where=config.name)
        return StepResult("failed", reason=looked.reason, exit_code=done.code, verdict=_failed(looked.reason))
    sarif = done.sarif or b""
    report = _read(config, context, sarif)
    blob = context.store.put_bytes(sarif)
    verdict = judge_findings(report.findings, config.fail_on_severity, looked)
    _tell(context, report, verdict, looked)
    return StepResult(
        state="succeeded" if verdict.passed else "failed",
        reason=None if verdict.passed else verdict.summary,
        exit_code=done.code,
        artifacts=(
            Artifact(f"{config.name}.sarif", f"{REPORTS}/{config.name}.sarif", "file", blob.digest, blob.size_bytes),
        ),
        verdict=verdict,
        scans=(ScanOutcome(report.runs[0].tool, config.name, report, blob.digest),),
    )


def _read(config: Config, context: StepContext, sarif: bytes) -> Report:
    """
    The findings, in the category of this step: two scans of one tool are apart.

    Raises: PlatformError for a report that is none or says that the scan failed.
    """
    roots = (WORKSPACE, str(context.workspace))
    scope = Scope(repository=context.run.project, category=config.name, roots=roots)
    try:
        report = read_report(sarif, scope=scope, where=f"{config.scanner}'s report")
    except ReportError as error:
        raise PlatformError(str(error), where=config.name) from error
    unsuccessful = [run.failure or "it says so" for run in report.runs if run.succeeded is False]
    if not report.runs or unsuccessful:
        why = unsuccessful[0] if unsuccessful else "its report holds no run"
        raise PlatformError(f"{config.scanner} did not finish: {why}", where=config.name)
    return report


def judge_findings(findings: Sequence[Finding], fail_on: Severity, looked: Looked) -> Verdict:
    """The verdict over what is not suppressed, with counts per severity and the worst as `path:line rule`."""
    judged = judge(Policy(fail_on_severity=None if fail_on == "none" else fail_on), findings)
    open_ones = worst_first(findings)
    evidence: dict[str, str | int | float] = {
        **judged.counts,
        "suppressed": len(findings) - len(open_ones),
        "files": looked.files,
    }
    if looked.unreadable:
        evidence |= {"unreadable": len(looked.unreadable), "unreadable_files": ", ".join(looked.unreadable[:NAMED])}
    if open_ones:
        evidence["worst"] = ", ".join(place(finding) for finding in open_ones[:NAMED])
    return Verdict("findings", judged.passed, _in_words(open_ones, judged.offenders, fail_on, looked), evidence)


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are not suppressed, by severity, then by place."""
    open_ones = [finding for finding in findings if not finding.suppressed]
    return sorted(open_ones, key=lambda one: (SEVERITIES.index(one.severity), one.path or "", one.line or 0))


def place(finding: Finding) -> str:
    """`path:line rule`."""
    where = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return f"{where} {finding.rule_id}" if where else finding.rule_id


def _in_words(open_ones: Sequence[Finding], above: Sequence[Finding], fail_on: Severity, looked: Looked) -> str:
    if above:
        named = ", ".join(place(finding) for finding in worst_first(above)[:NAMED])
        text = f"{_count(len(above), 'finding')} at or above {fail_on}: {named}{', …' if len(above) > NAMED else ''}"
    elif not open_ones:
        text = "no findings"
    else:
        text = _count(len(open_ones), "finding") + ("" if fail_on == "none" else f", none at or above {fail_on}")
    if looked.unreadable:
        text += f"; {_count(len(looked.unreadable), 'file')} could not be read"
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _failed(reason: str) -> Verdict:
    return Verdict("findings", passed=False, summary=reason)


def _tell(context: StepContext, report: Report, verdict: Verdict, looked: Looked) -> None:
    open_ones = worst_first(report.findings)
    for finding in open_ones[:SHOWN]:
        context.log.line(f"{finding.severity}: {place(finding)}: {finding.message}")
    if len(open_ones) > SHOWN:
        context.log.line(f"… and {len(open_ones) - SHOWN} more")
    for path in looked.unreadable[:SHOWN]:
        context.log.line(f"could not read {path}")
    context.log.line(f"{_count(looked.files, 'file')} read: {verdict.summary}")
