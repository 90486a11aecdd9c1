"""Every step of a pipeline as an asset, of the kind that its type makes, partitioned by commit."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from penstock.events.dispatch import TAG_STRUCTURE, KnownStructure, op_name, partitions_name, word
from penstock.pipeline.plan import Node
from penstock.steps.context import StepResult, Verdict
from resources.session import PenstockRun

GRAIN = {
    "build": "One output per commit.",
    "report": "One report per commit.",
    "image": "One image per commit.",
    "deployment": "One release per commit that was deployed.",
}


def asset_key(project: str, step: str) -> dg.AssetKey:
    """`[project, step]`."""
    return dg.AssetKey([project, step])


def step_assets(known: KnownStructure) -> list[dg.AssetsDefinition]:
    """The assets of a project: one for each step of its default branch."""
    return [_step_asset(known.project, node) for node in known.structure.nodes]


def _step_asset(project: str, node: Node) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(project, node.name),
        deps=[asset_key(project, need) for need in node.needs],
        partitions_def=dg.DynamicPartitionsDefinition(name=partitions_name(project)),
        check_specs=_checks(project, node),
        group_name=word(project),
        kinds={node.kind},
        description=f"{node.type}. {GRAIN[node.kind]}",
        output_required=False,
    )
    def step_asset(context: dg.AssetExecutionContext, penstock: dg.ResourceParam[PenstockRun]) -> Any:
        result = penstock.step(project, node.name)
        _show_output(context, penstock, node)
        yield from _as_events(project, node, result)

    return step_asset


def _show_output(context: dg.OpExecutionContext | dg.AssetExecutionContext, penstock: PenstockRun, node: Node) -> None:
    """The end of the step's log as one event, so that it can be read where the asset is."""
    if printed := penstock.output(node.name):
        context.log.info(printed)


def _checks(project: str, node: Node) -> Sequence[dg.AssetCheckSpec]:
    if node.check is None:
        return []
    return [dg.AssetCheckSpec(node.check, asset=asset_key(project, node.name), blocking=True)]


def _as_events(project: str, node: Node, result: StepResult) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """
    A report exists even where its gate is shut; a build, image or deployment exists only if it succeeded.

    Dagster skips what comes after a step that yields nothing: one that need not succeed yields what became of it.
    """
    check = _check_result(project, node, result)
    if _exists(node, result):
        yield dg.MaterializeResult(metadata=metadata_of(result), check_results=[check] if check else [])
    elif check:
        yield check
    raise_unless_done(result)


def _exists(node: Node, result: StepResult) -> bool:
    reported = node.kind == "report" and result.verdict is not None
    return result.state == "succeeded" or reported or result.allowed or result.unneeded


def _check_result(project: str, node: Node, result: StepResult) -> dg.AssetCheckResult | None:
    if node.check is None:
        return None
    verdict = result.verdict
    if verdict is None and not (result.allowed or result.unneeded):
        return None
    summary = verdict.summary if verdict else f"{result.state}: {result.reason}"
    return dg.AssetCheckResult(
        check_name=node.check,
        asset_key=asset_key(project, node.name),
        passed=verdict.passed if verdict else result.unneeded,
        severity=dg.AssetCheckSeverity.WARN if result.allowed else dg.AssetCheckSeverity.ERROR,
        metadata={**(_evidence_of(verdict) if verdict else {}), "summary": summary},
    )


def raise_unless_done(result: StepResult) -> None:
    """Raises: dagster.Failure unless the steps after it may begin."""
    if not result.lets_go_on:
        described = f"{result.state}: {result.reason}"
        raise dg.Failure(described, metadata={"state": result.state}, allow_retries=False)


def metadata_of(result: StepResult) -> dict[str, Any]:
    """What can be read where the asset is: verdict, artifacts, outputs, metrics (Dagster plots numbers), cost."""
    values: dict[str, Any] = {"state": result.state}
    if result.verdict:
        values |= {**_evidence_of(result.verdict), "summary": result.verdict.summary}
    values |= {f"artifact/{made.key}": f"sha256:{made.digest} ({made.size_bytes} bytes)" for made in result.artifacts}
    values |= {f"output/{name}": _clickable(text) for name, text in result.outputs.items()}
    values |= {f"metric/{name}": value for name, value in result.metrics.items()}
    if result.cpu_s is not None:
        values["cpu_s"] = result.cpu_s
    return values


def _evidence_of(verdict: Verdict) -> dict[str, Any]:
    """
    On what a check was decided.

    Of a deployment: release, digest, environment, url, strategy, health (the last probe's words), and what its
    verification and its smoke tests said.
    """
    return {name: _clickable(value) for name, value in verdict.evidence.items()}


def _clickable(value: Any) -> Any:
    is_address = isinstance(value, str) and value.startswith(("http://", "https://"))
    return dg.MetadataValue.url(value) if is_address else value


def structure_job(known: KnownStructure) -> dg.JobDefinition:
    """
    A job of its own for commits whose graph is shaped differently than the default branch's.

    Its ops do what the assets do and record materialisations of the same asset keys.
    """
    ops = {node.name: _step_op(known, node) for node in known.structure.nodes}
    dependencies: dict[dg.NodeInvocation, dict[str, Any]] = {
        dg.NodeInvocation(op.name, alias=op_name(known.project, name)): _inputs(known, name) for name, op in ops.items()
    }
    graph = dg.GraphDefinition(known.job, node_defs=list(ops.values()), dependencies=dependencies)
    partitions = dg.DynamicPartitionsDefinition(name=partitions_name(known.project))
    return graph.to_job(name=known.job, partitions_def=partitions, tags={TAG_STRUCTURE: known.structure.hash})


def _inputs(known: KnownStructure, step: str) -> dict[str, Any]:
    node = next(node for node in known.structure.nodes if node.name == step)
    return {f"after_{word(need)}": dg.DependencyDefinition(op_name(known.project, need)) for need in node.needs}


def _step_op(known: KnownStructure, node: Node) -> dg.OpDefinition:
    project = known.project

    @dg.op(
        name=f"{op_name(project, node.name)}__{known.structure.hash[:10]}",
        ins={f"after_{word(need)}": dg.In(dg.Nothing) for need in node.needs},
        out=dg.Out(dg.Nothing),
        description=node.type,
    )
    def step_op(context: dg.OpExecutionContext, penstock: dg.ResourceParam[PenstockRun]) -> Any:
        result = penstock.step(project, node.name)
        _show_output(context, penstock, node)
        yield from _as_records(context, asset_key(project, node.name), node, result)
        raise_unless_done(result)
        yield dg.Output(None)

    return step_op


def _as_records(
    context: dg.OpExecutionContext, key: dg.AssetKey, node: Node, result: StepResult
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """What an asset would yield, for an op: events about the same asset and check."""
    if _exists(node, result):
        yield dg.AssetMaterialization(key, partition=context.partition_key, metadata=metadata_of(result))
    if check := _check_result(key.path[0], node, result):
        yield dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=check.check_name or "",
            passed=check.passed,
            severity=check.severity,
            metadata=check.metadata,
        )
