"""
What the scan steps share: their fields, the job that runs a scanner, and what its findings decide.

Scanners run in the process engine's sandbox whatever engine runs the pipeline's commands: their environments lie on
this machine, and they execute nothing of the repository's.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import attrs
import msgspec
from pydantic import Field, StringConstraints

from penstock.engines import Engine, Exit, Job
from penstock.errors import PlatformError, ReportError, StepFailure
from penstock.findings import SEVERITIES, Finding, Report, Scope, read_report
from penstock.findings.policy import Policy, judge
from penstock.pipeline.spec import WORKSPACE, Kind, StepFields
from penstock.scanners import DETAIL_FILE, SARIF_FILE, SBOM_FILE, Looked, Refused, Scanner, ScanRequest, ToolRun
from penstock.scanners.tools import Tool
from penstock.steps.context import Artifact, ScanOutcome, StepContext, StepResult, Verdict
from penstock.steps.listing import REPORTS, list_components
from penstock.steps.workspace import inside

ALWAYS_EXCLUDED = (".git", REPORTS)
SHOWN = 20
NAMED = 3
TAIL = 40

Severity = Literal["critical", "high", "medium", "low", "none"]
Exclusion = Annotated[str, StringConstraints(pattern=r"^[^,\x00\n!-][^,\x00\n]*$")]


class ScanFields(StepFields):
    """What every scan step may say."""

    kind: ClassVar[Kind] = "report"

    fail_on_severity: Severity = Field(
        "high", description="Fail when there is a finding of this severity or worse; none: only report."
    )
    ignore_unfixed: bool = Field(
        False, description="Let findings of packages pass that no version mends yet; they stay in the report."
    )

    def artifact_keys(self) -> tuple[str, ...]:
        """Its report."""
        return (f"{self.name}.sarif",)

    def check_name(self) -> str | None:
        """A scan decides the check `findings`."""
        return "findings"


@attrs.frozen
class Scan:
    """
    One scanner over one thing.

    request.workspace: the folder that the job works in. read_only: what it must see besides.
    seen_manifests: `request.manifests` as the scanner names them. source: what it looks into, as `BillOutcome` says.
    """

    scanner: Scanner
    request: ScanRequest
    read_only: tuple[Path, ...]
    network: bool = False
    seen_manifests: tuple[str, ...] = ()
    source: str = "checkout"


def check_paths(step: str, paths: Sequence[str], workspace: Path) -> None:
    """Raises: StepFailure for a path that is not there, InputError for one that leads out of the workspace."""
    for path in paths:
        if not inside(workspace, path).exists():
            raise StepFailure(f'there is no "{path}" at this commit', where=step, remedy="mend `paths`")


@contextmanager
def scan_folder(workspace: Path) -> Iterator[Path]:
    """A folder with a name that no commit can have foreseen, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".penstock-scan-", dir=workspace))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sandbox(context: StepContext) -> Engine:
    """The engine that scanners run in."""
    from penstock.engines.process import ProcessEngine

    return context.engine if context.engine.name == "process" else ProcessEngine(context.settings)


def tool_files(tool: Tool, scanner: Scanner) -> tuple[Path, ...]:
    """What of a tool its job must see."""
    return (*tool.read_only, *scanner.read_only)


def run_scan(config: ScanFields, context: StepContext, scan: Scan) -> StepResult:
    """
    Run the scanner and judge what it found.

    Raises: PlatformError when the scanner itself failed, or wrote what cannot be read.
    """
    ended = sandbox(context).run(_job(config, context, scan), context.log.output, context.token)
    if stopped := _stopped(ended, config):
        return stopped
    return _judge(config, context, scan, _tool_run(ended, context, scan))


def _job(config: ScanFields, context: StepContext, scan: Scan) -> Job:
    """Without the variables of the file's `defaults`: a scanner takes settings from variables, too."""
    return Job(
        run_id=context.run.id,
        step=config.name,
        argv=scan.scanner.argv(scan.request),
        workspace=scan.request.workspace,
        env={**context.ci_env(config.name), **scan.scanner.env(scan.request)},
        read_only=scan.read_only,
        network=scan.network,
        timeout_s=float(config.timeout),
    )


def _stopped(ended: Exit, config: ScanFields) -> StepResult | None:
    if ended.state == "cancelled":
        return StepResult("cancelled", reason="cancelled", exit_code=ended.code)
    if ended.state == "timed_out":
        reason = f"took longer than its limit of {config.timeout} s"
        return StepResult("timed_out", reason=reason, exit_code=ended.code, verdict=failed(reason))
    return None


def _tool_run(ended: Exit, context: StepContext, scan: Scan) -> ToolRun:
    output = scan.request.workspace / scan.request.output
    return ToolRun(
        code=ended.code,
        output="\n".join(context.log.tail(TAIL)),
        sarif=_bytes_of(output / SARIF_FILE),
        detail=_bytes_of(output / DETAIL_FILE),
        sbom=_bytes_of(output / SBOM_FILE),
        manifests=scan.seen_manifests,
        look_for=scan.request.look_for,
    )


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def _judge(config: ScanFields, context: StepContext, scan: Scan, done: ToolRun) -> StepResult:
    looked = scan.scanner.look(done)
    if isinstance(looked, Refused):
        if looked.fault == "tool":
            raise PlatformError(looked.reason, where=config.name)
        return StepResult("failed", reason=looked.reason, exit_code=done.code, verdict=failed(looked.reason))
    sarif = looked.sarif or done.sarif or b""
    report = _read(config, context, scan, sarif)
    blob = context.store.put_bytes(sarif)
    found = as_decided(report.findings, context.suppressed)
    verdict = judge_findings(found, config.fail_on_severity, looked, ignore_unfixed=config.ignore_unfixed)
    listed = list_components(config.name, context, looked.sbom, scan.source) if looked.sbom else None
    _tell(context, found, verdict, looked)
    return StepResult(
        state="succeeded" if verdict.passed else "failed",
        reason=None if verdict.passed else verdict.summary,
        exit_code=done.code,
        artifacts=(
            Artifact(f"{config.name}.sarif", f"{REPORTS}/{config.name}.sarif", "file", blob.digest, blob.size_bytes),
            *([listed.artifact] if listed else ()),
        ),
        bills=(listed.outcome,) if listed else (),
        verdict=verdict,
        scans=(ScanOutcome(report.runs[0].tool, config.name, report, blob.digest),),
    )


def _read(config: ScanFields, context: StepContext, scan: Scan, sarif: bytes) -> Report:
    """
    The findings, in the category of this step: two scans of one tool are apart.

    Raises: PlatformError for a report that is none or says that the scan failed.
    """
    name = scan.scanner.name
    roots = (WORKSPACE, str(scan.request.workspace))
    scope = Scope(repository=context.run.project, category=config.name, roots=roots)
    try:
        report = read_report(sarif, scope=scope, where=f"{name}'s report")
    except ReportError as error:
        raise PlatformError(str(error), where=config.name) from error
    unsuccessful = [run.failure or "it says so" for run in report.runs if run.succeeded is False]
    if not report.runs or unsuccessful:
        why = unsuccessful[0] if unsuccessful else "its report holds no run"
        raise PlatformError(f"{name} did not finish: {why}", where=config.name)
    return report


def as_decided(findings: Sequence[Finding], suppressed: Callable[[], Mapping[str, str]]) -> Sequence[Finding]:
    """
    The findings with what people decided: suppressed ones as if the report itself suppressed them.

    The report that is recorded stays as the tool wrote it: a decision ends some day, and its finding is open again.
    suppressed: asked only if there is something open.
    """
    if not any(not one.suppressed for one in findings):
        return findings
    decided = suppressed()
    return [
        one if one.suppressed or one.fingerprint not in decided else _suppressed(one, decided[one.fingerprint])
        for one in findings
    ]


def _suppressed(finding: Finding, reason: str) -> Finding:
    return msgspec.structs.replace(finding, suppressed=True, suppression_reason=reason)


def judge_findings(
    findings: Sequence[Finding], fail_on: Severity, looked: Looked, *, ignore_unfixed: bool = False
) -> Verdict:
    """The verdict over what is not suppressed, with counts per severity and the worst as `path:line rule`."""
    policy = Policy(fail_on_severity=None if fail_on == "none" else fail_on, fixable_only=ignore_unfixed)
    judged = judge(policy, findings)
    open_ones = worst_first(findings)
    waiting = [one for one in open_ones if ignore_unfixed and one.package is not None and one.fixed_version is None]
    evidence: dict[str, str | int | float] = {
        **judged.counts,
        "suppressed": len(findings) - len(open_ones),
        **_read_evidence(looked),
    }
    if ignore_unfixed:
        evidence["unfixed"] = len(waiting)
    if open_ones:
        evidence["worst"] = ", ".join(place(finding) for finding in open_ones[:NAMED])
    text = _in_words(open_ones, judged.offenders, fail_on)
    summary = "; ".join([text, *_remarks(len(waiting), len(findings) - len(open_ones), looked)])
    return Verdict("findings", judged.passed, summary, evidence)


def _read_evidence(looked: Looked) -> Mapping[str, str | int | float]:
    evidence: dict[str, str | int | float] = {} if looked.files is None else {f"{looked.unit}s": looked.files}
    if looked.unreadable:
        evidence |= {"unreadable": len(looked.unreadable), "unreadable_files": ", ".join(looked.unreadable[:NAMED])}
    return evidence | ({"caution": looked.caution} if looked.caution else {})


def _remarks(waiting: int, suppressed: int, looked: Looked) -> Iterator[str]:
    if suppressed:
        yield f"{count(suppressed, 'finding')} suppressed"
    if waiting:
        yield f"{count(waiting, 'finding')} that no version mends yet {'was' if waiting == 1 else 'were'} let pass"
    if looked.unreadable:
        what = "file" if looked.unit == "file" else "entry"
        yield f"{count(len(looked.unreadable), what)} could not be read"
    if looked.caution:
        yield looked.caution


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are not suppressed, by severity, then by place."""
    open_ones = [finding for finding in findings if not finding.suppressed]
    return sorted(open_ones, key=lambda one: (SEVERITIES.index(one.severity), one.path or "", one.line or 0))


def place(finding: Finding) -> str:
    """`path:line rule`; of a package `name@version rule`, which says more than the file that lists it."""
    if finding.package is not None:
        return f"{finding.package.partition('/')[2].partition('?')[0]} {finding.rule_id}"
    where = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return f"{where} {finding.rule_id}" if where else finding.rule_id


def _in_words(open_ones: Sequence[Finding], above: Sequence[Finding], fail_on: Severity) -> str:
    if above:
        named = ", ".join(place(finding) for finding in worst_first(above)[:NAMED])
        return f"{count(len(above), 'finding')} at or above {fail_on}: {named}{', …' if len(above) > NAMED else ''}"
    if not open_ones:
        return "no findings"
    return count(len(open_ones), "finding") + ("" if fail_on == "none" else f", none at or above {fail_on}")


def count(number: int, what: str) -> str:
    """`1 file`, `2 files`, `3 entries`."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def failed(reason: str) -> Verdict:
    """The verdict of a scan that did not come to one."""
    return Verdict("findings", passed=False, summary=reason)


def _tell(context: StepContext, findings: Sequence[Finding], verdict: Verdict, looked: Looked) -> None:
    open_ones = worst_first(findings)
    for finding in open_ones[:SHOWN]:
        message = " ".join(finding.message.split())
        context.log.line(f"{finding.severity}: {place(finding)}: {message}")
    if len(open_ones) > SHOWN:
        context.log.line(f"… and {len(open_ones) - SHOWN} more")
    for path in looked.unreadable[:SHOWN]:
        context.log.line(f"could not read {path}")
    read = "" if looked.files is None else f"{count(looked.files, looked.unit)} read: "
    context.log.line(f"{read}{verdict.summary}")
