"""Definitions for the tests of the run server; `$LOADER_STATE` is a folder that steers them."""

import os
import time
from pathlib import Path

import dagster as dg

from definitions.executor import concurrent_executor
from penstock.pipeline.cancel import current_token


def _state() -> Path:
    return Path(os.environ["LOADER_STATE"])


@dg.op(out=dg.Out(dg.Nothing))
def start(context: dg.OpExecutionContext) -> None:
    context.log.info(f"executed by {os.getpid()} of {os.getppid()}")


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def no_op() -> None: ...


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def wait_for_cancel() -> None:
    current_token().wait(120)
    current_token().raise_if_cancelled()


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def ignore_cancel() -> None:
    time.sleep(120)


@dg.op(config_schema={"code": int})
def vanish(context: dg.OpExecutionContext) -> None:
    os._exit(context.op_config["code"])


@dg.op
def flaky() -> None:
    if (_state() / "broken").exists():
        raise dg.Failure("broken")


@dg.job(executor_def=concurrent_executor)
def ten() -> None:
    """Ten steps in a row that do nothing."""
    before = start()
    for n in range(9):
        before = no_op.alias(f"step_{n}")(before=before)


@dg.job(executor_def=concurrent_executor)
def long() -> None:
    """Ends by its cancel only."""
    no_op.alias("after")(before=wait_for_cancel(before=start()))


@dg.job(executor_def=concurrent_executor)
def deaf() -> None:
    """Goes on whatever it is told."""
    no_op.alias("after_deaf")(before=ignore_cancel(before=start()))


@dg.job(executor_def=concurrent_executor)
def dying() -> None:
    """Its process ends without a word."""
    vanish()


@dg.job(executor_def=concurrent_executor)
def retried() -> None:
    """Fails while the folder has a file `broken`."""
    no_op.alias("then")(before=start())
    flaky()


commits = dg.DynamicPartitionsDefinition(name="commits")


@dg.asset(partitions_def=commits)
def build(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"commit": context.partition_key})


@dg.asset(partitions_def=commits, deps=[build], check_specs=[dg.AssetCheckSpec("gate", asset="report")])
def report() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True, check_name="gate")])


@dg.asset(partitions_def=commits, deps=[report])
def deployment() -> None: ...


def current_version() -> str:
    """The name of the last job, which the tests change."""
    named = _state() / "job_name"
    return named.read_text() if named.exists() else "first"


def load() -> tuple[str, dg.RepositoryDefinition]:
    """All of the above, and one job whose name is the version."""
    version = current_version()
    if version == "unloadable":
        raise ValueError("these definitions are broken")

    @dg.job(name=version, executor_def=concurrent_executor)
    def named() -> None:
        start()

    pipeline = dg.define_asset_job("pipeline", executor_def=concurrent_executor)
    assets = dg.Definitions(assets=[build, report, deployment], jobs=[ten, long, deaf, dying, retried, named, pipeline])
    return version, assets.get_repository_def()


def defs() -> dg.Definitions:
    """The same for a code server."""
    pipeline = dg.define_asset_job("pipeline", executor_def=concurrent_executor)
    return dg.Definitions(assets=[build, report, deployment], jobs=[ten, long, deaf, dying, retried, pipeline])


def run_ended(run_id: str, state: str, reason: str) -> None:
    """Keeps what it is told in a file per run; refuses while there is a file `closed`."""
    if (_state() / "closed").exists():
        raise OSError("the tables are away")
    (_state() / run_id).write_text(f"{state} {reason}")
