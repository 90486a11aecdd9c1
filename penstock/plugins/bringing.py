"""What a plugin left, brought to where it belongs: findings, components, artifacts, metrics and data."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from penstock.errors import ReportError, StepFailure
from penstock.findings import Scope as FindingScope
from penstock.findings import read_report
from penstock.pipeline.spec import WORKSPACE
from penstock.plugins.contract import CI, DATA, METRICS, PIPES, RESULTS
from penstock.plugins.data import PluginData, Scope, Taken
from penstock.plugins.manifest import Manifest
from penstock.plugins.pipes import read_messages
from penstock.plugins.results import Left, Report
from penstock.plugins.told import Told
from penstock.steps.context import Artifact, BillOutcome, ScanOutcome, StepContext, Verdict
from penstock.steps.listing import REPORTS, list_components

if TYPE_CHECKING:
    from penstock.steps.plugin import Config


@attrs.frozen
class Brought:
    """Parts of a step's result. told: how many metrics and data were taken; metrics: their last values."""

    outputs: Mapping[str, Any]
    scans: tuple[ScanOutcome, ...]
    bills: tuple[BillOutcome, ...]
    artifacts: tuple[Artifact, ...]
    verdict: Verdict | None
    told: int
    metrics: Mapping[str, float]


def bring_in(config: "Config", context: StepContext, manifest: Manifest, left: Left, scope: Scope) -> Brought:
    """
    Read everything, then keep it.

    Raises: StepFailure for whatever does not fit the contract, ConflictError when it told more than it may.
    """
    outputs = left.outputs(manifest)
    scans = tuple(_scans(config, context, left.reports()))
    artifacts = _artifacts(config, context, left)
    bills = []
    for sbom in left.sboms():
        if listed := list_components(f"{config.name}-{sbom.name}", context, sbom.data):
            bills.append(listed.outcome)
            artifacts.append(listed.artifact)
    told, metrics = take_told(PluginData(context.database, context.settings), scope, manifest, left, context)
    return Brought(outputs, scans, tuple(bills), tuple(artifacts), _verdict(config, context, scans), told, metrics)


def _scans(config: "Config", context: StepContext, reports: tuple[Report, ...]) -> Iterator[ScanOutcome]:
    """A report is of the category of the step, and of its file where there are several."""
    for sarif in reports:
        where = f"{CI}/{RESULTS}/{sarif.name}.sarif"
        category = config.name if len(reports) == 1 else f"{config.name}/{sarif.name}"
        scope = FindingScope(
            repository=context.run.project, category=category, roots=(WORKSPACE, str(context.workspace))
        )
        try:
            report = read_report(sarif.data, scope=scope, where=where)
        except ReportError as error:
            raise StepFailure(str(error.what), where=where, remedy="mend the plugin") from error
        unsuccessful = [run.failure or "it says so" for run in report.runs if run.succeeded is False]
        if not report.runs or unsuccessful:
            why = unsuccessful[0] if unsuccessful else "it holds no run"
            raise StepFailure(f"its scan did not finish: {why}", where=where)
        yield ScanOutcome(report.runs[0].tool, category, report, context.store.put_bytes(sarif.data).digest)


def _artifacts(config: "Config", context: StepContext, left: Left) -> list[Artifact]:
    made = []
    for path in left.artifacts():
        blob, kind = context.store.put_path(path)
        made.append(Artifact(path.name, f"{REPORTS}/{config.name}/{path.name}", kind, blob.digest, blob.size_bytes))
    if missing := set(config.artifacts_out) - {artifact.key for artifact in made}:
        raise StepFailure(f'it left no artifact "{sorted(missing)[0]}"', where=f"{CI}/artifacts", remedy="see its docs")
    return made


def _verdict(config: "Config", context: StepContext, scans: tuple[ScanOutcome, ...]) -> Verdict | None:
    if not scans and config.check_name() is None:
        return None
    from penstock.scanners import Looked
    from penstock.steps.scanning import as_decided, judge_findings

    found = [finding for scan in scans if scan.report for finding in scan.report.findings]
    judged = judge_findings(as_decided(found, context.suppressed), config.fail_on_severity, Looked(files=None))
    context.log.line(judged.summary)
    return judged


def take_told(
    data: PluginData, scope: Scope, manifest: Manifest, left: Left, context: StepContext
) -> tuple[int, Mapping[str, float]]:
    """Metrics and data, those told by Dagster Pipes too. Returns: how many were taken, and metrics' last values."""
    pipes = read_messages(left.lines(PIPES), manifest, context.log.line)
    told = Told(manifest)
    metrics = data.take_metrics(scope, told.metrics(_both(left.lines(METRICS), pipes.metrics)))
    taken, totals = _said(METRICS, metrics, told, context), told.totals()
    told = Told(manifest)
    more = data.take_data(scope, told.data(_both(left.lines(DATA), pipes.data)))
    return taken + _said(DATA, more, told, context), totals


def _both(first: Iterator[bytes], second: tuple[bytes, ...]) -> Iterator[bytes]:
    yield from first
    yield from second


def _said(file: str, taken: Taken, told: Told, context: StepContext) -> int:
    for reason in (*told.reasons, *taken.reasons):
        context.log.line(f"{file}: {reason}")
    if refused := told.refused + taken.rejected:
        context.log.line(f"{file}: {refused} lines were not taken, {taken.accepted} were")
    if taken.is_cut:
        raise StepFailure("it told more than a step may", where=f"{CI}/{file}", remedy="tell sums, not each event")
    return taken.accepted
