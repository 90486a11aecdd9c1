"""The concurrent executor does what the in-process one does, at once, and can be cancelled."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from attrs import frozen
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState

from definitions.executor import concurrent_executor
from penstock.pipeline.cancel import current_token

JobMaker = Callable[[dg.ExecutorDefinition], dg.JobDefinition]

STEP_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.HOOK_COMPLETED,
    dg.DagsterEventType.HOOK_SKIPPED,
    dg.DagsterEventType.HOOK_ERRORED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}


@frozen
class Outcome:
    """What a run left in the event log, so that two runs can be compared."""

    status: dg.DagsterRunStatus
    steps: dict[str, list[str]]
    logged: dict[str, list[str]]


def outcome(instance: dg.DagsterInstance, run_id: str) -> Outcome:
    steps: dict[str, list[str]] = {}
    logged: dict[str, list[str]] = {}
    for entry in instance.all_logs(run_id):
        if entry.is_dagster_event and entry.get_dagster_event().event_type in STEP_ENDS:
            event = entry.get_dagster_event()
            steps.setdefault(str(event.step_key), []).append(event.event_type_value)
        elif not entry.is_dagster_event and "says" in entry.user_message:
            logged.setdefault(str(entry.step_key), []).append(entry.user_message)
    run = instance.get_run_by_id(run_id)
    assert run
    return Outcome(run.status, steps, logged)


def execute(instance: dg.DagsterInstance, job: dg.JobDefinition, **run_args: object) -> str:
    run = instance.create_run_for_job(job, **run_args)
    for _ in execute_run_iterator(InMemoryJob(job), run, instance):
        pass
    return run.run_id


def linked(name: str, ups: dict[str, list[str]], body: Callable[[dg.OpExecutionContext, str], None]) -> JobMaker:
    """A job of ops named by the keys of `ups`, each after those it names."""

    def make(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
        def op_named(key: str) -> dg.OpDefinition:
            @dg.op(name=key, ins={up: dg.In(dg.Nothing) for up in ups[key]}, out=dg.Out(dg.Nothing))
            def run_it(context: dg.OpExecutionContext) -> None:
                body(context, key)

            return run_it

        nodes = [op_named(key) for key in ups]
        deps = {key: {up: dg.DependencyDefinition(up) for up in ups[key]} for key in ups}
        return dg.GraphDefinition(name=name, node_defs=nodes, dependencies=deps).to_job(executor_def=executor)

    return make


def diamond_body(context: dg.OpExecutionContext, key: str) -> None:
    context.log.info(f"{key} says hello")
    if key == "m4":
        raise dg.Failure("the middle failed")


DIAMOND = {"top": []} | {f"m{n}": ["top"] for n in range(9)} | {"bottom": [f"m{n}" for n in range(9)]}


def retrying(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.01))
    def by_policy(context: dg.OpExecutionContext) -> int:
        if context.retry_number < 2:
            raise ValueError("not yet")
        return context.retry_number

    @dg.op
    def by_request(context: dg.OpExecutionContext, _before: int) -> int:
        if context.retry_number < 1:
            raise dg.RetryRequested(max_retries=1)
        return 1

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def in_vain(_before: int) -> None:
        raise ValueError("never")

    @dg.job(executor_def=executor)
    def retries() -> None:
        in_vain(by_request(by_policy()))

    return retries


def skipping(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.op(out={"left": dg.Out(is_required=False), "right": dg.Out(is_required=False)})
    def branch() -> Iterator[dg.Output[int]]:
        yield dg.Output(1, "left")

    @dg.op
    def follow(value: int) -> int:
        return value

    @dg.op
    def join(values: list[int]) -> int:
        return sum(values)

    @dg.job(executor_def=executor)
    def skips() -> None:
        left, right = branch()
        join([follow.alias("on_left")(left), follow.alias("after")(follow.alias("on_right")(right))])

    return skips


def dynamic(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.op(out=dg.DynamicOut(int))
    def spread() -> Iterator[dg.DynamicOutput[int]]:
        for n in range(5):
            yield dg.DynamicOutput(n, mapping_key=f"n{n}")

    @dg.op
    def double(context: dg.OpExecutionContext, n: int) -> int:
        context.log.info(f"{n} says hello")
        return 2 * n

    @dg.op
    def total(doubles: list[int]) -> None:
        assert sum(doubles) == 20

    @dg.job(executor_def=executor)
    def dynamics() -> None:
        total(spread().map(double).collect())

    return dynamics


def hooked(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.success_hook
    def cheer(context: dg.HookContext) -> None:
        context.log.info("the hook says done")

    @dg.failure_hook
    def mourn(context: dg.HookContext) -> None:
        raise RuntimeError("the hook itself breaks")

    @dg.op
    def fine() -> int:
        return 1

    @dg.op
    def broken(_before: int) -> None:
        raise ValueError("broken")

    @dg.op
    def skipped_hook(_before: int) -> None: ...

    @dg.job(executor_def=executor)
    def hooks() -> None:
        before = fine.with_hooks({cheer})()
        broken.with_hooks({mourn})(before)
        skipped_hook.with_hooks({mourn})(before)

    return hooks


def asynchronous(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.op
    async def one() -> int:
        return 1

    @dg.job(executor_def=executor)
    def coroutines() -> None:
        for n in range(6):
            one.alias(f"one_{n}")()

    return coroutines


def gated(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    @dg.asset(check_specs=[dg.AssetCheckSpec("gate", asset="report", blocking=True)])
    def report() -> Iterator[object]:
        yield dg.MaterializeResult(metadata={"findings": 3})
        yield dg.AssetCheckResult(passed=False, check_name="gate", metadata={"rule": "no high findings"})

    @dg.asset(deps=[report])
    def deployment() -> None: ...

    @dg.asset(check_specs=[dg.AssetCheckSpec("open_gate", asset="build", blocking=True)])
    def build() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True, check_name="open_gate")])

    @dg.asset(deps=[build])
    def image() -> None: ...

    job = dg.define_asset_job("gates", executor_def=executor)
    return dg.Definitions(assets=[report, deployment, build, image], jobs=[job]).resolve_job_def("gates")


JOBS: list[JobMaker] = [
    linked("diamond", DIAMOND, diamond_body),
    retrying,
    skipping,
    dynamic,
    hooked,
    asynchronous,
    gated,
]


@pytest.mark.parametrize("make", JOBS, ids=lambda make: make.__name__)
def test_outcome_is_that_of_the_in_process_executor(instance: dg.DagsterInstance, make: JobMaker) -> None:
    """Each step ends, retries, skips, logs, checks and hooks as it does in Dagster's own executor."""
    theirs = outcome(instance, execute(instance, make(dg.in_process_executor)))
    ours = outcome(instance, execute(instance, make(concurrent_executor)))
    assert theirs.steps
    assert ours == theirs


def test_failed_gate_blocks_what_follows(instance: dg.DagsterInstance) -> None:
    """A failed blocking check keeps the next asset from being made; other branches go on."""
    result = outcome(instance, execute(instance, gated(concurrent_executor)))
    assert result.status == dg.DagsterRunStatus.FAILURE
    assert "deployment" not in result.steps
    assert "ASSET_MATERIALIZATION" in result.steps["image"]


def test_independent_steps_run_at_the_same_time(instance: dg.DagsterInstance) -> None:
    """Three steps that wait for one another all succeed."""
    together = threading.Barrier(3, timeout=60)
    make = linked("trio", {"a": [], "b": [], "c": []}, lambda _context, _key: together.wait() and None)
    assert outcome(instance, execute(instance, make(concurrent_executor))).status == dg.DagsterRunStatus.SUCCESS


def test_limit_holds_with_two_hundred_ready_steps(instance: dg.DagsterInstance) -> None:
    """200 ready steps, 8 at a time: all end, the ninth never starts early."""
    now, most, lock = [0], [0], threading.Lock()
    eight = threading.Barrier(8, timeout=60)

    def count(_context: dg.OpExecutionContext, _key: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        eight.wait()
        with lock:
            now[0] -= 1

    make = linked("wide", {f"s{n:03}": [] for n in range(200)}, count)
    result = outcome(instance, execute(instance, make(concurrent_executor)))
    assert result.status == dg.DagsterRunStatus.SUCCESS
    assert len(result.steps) == 200
    assert most[0] == 8


def test_limit_is_configurable(instance: dg.DagsterInstance) -> None:
    """`max_concurrent: 1` runs one step at a time; retries can be switched off."""
    config = {"execution": {"config": {"max_concurrent": 1, "retries": {"disabled": {}}}}}
    result = outcome(instance, execute(instance, retrying(concurrent_executor), run_config=config))
    assert result.steps == {"by_policy": ["STEP_FAILURE"]}


def test_reexecution_from_failure_runs_only_what_is_missing(instance: dg.DagsterInstance) -> None:
    """What succeeded in the parent run is reused, what failed and what follows is run again."""
    broken = [True]

    def body(_context: dg.OpExecutionContext, key: str) -> None:
        if key == "m4" and broken[0]:
            raise dg.Failure("once")

    job = linked("again", DIAMOND, body)(concurrent_executor)
    parent = instance.get_run_by_id(execute(instance, job))
    assert parent
    broken[0] = False
    steps, known = KnownExecutionState.build_resume_retry_reexecution(instance, parent)
    run = instance.create_run_for_job(
        job,
        execution_plan=create_execution_plan(job, step_keys_to_execute=list(steps), known_state=known),
        parent_run_id=parent.run_id,
        root_run_id=parent.run_id,
    )
    for _ in execute_run_iterator(InMemoryJob(job), run, instance):
        pass
    again = outcome(instance, run.run_id)
    assert again.status == dg.DagsterRunStatus.SUCCESS
    assert again.steps.keys() == {"m4", "bottom"}


@contextmanager
def interrupted_when(ready: threading.Event, before: Callable[[], None]) -> Iterator[None]:
    """While the block runs: once `ready` is set, call `before` and interrupt the main thread."""

    def interrupt() -> None:
        assert ready.wait(60)
        before()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join()


def blocked(started: threading.Event, obey: bool, release: threading.Event) -> JobMaker:
    lock, count = threading.Lock(), [0]

    def body(_context: dg.OpExecutionContext, key: str) -> None:
        if key == "after":
            return
        with lock:
            count[0] += 1
        if count[0] == 3:
            started.set()
        if obey:
            current_token().wait(60)
            current_token().raise_if_cancelled()
        else:
            release.wait(60)

    return linked("long", {"a": [], "b": [], "c": [], "after": ["a"], "last": ["a", "b", "c"]}, body)


def cancelled_outcome(instance: dg.DagsterInstance, make: JobMaker, started: threading.Event, asked: bool) -> Outcome:
    job = make(concurrent_executor)
    run = instance.create_run_for_job(job)
    ask = (lambda: instance.report_run_canceling(run)) if asked else (lambda: None)
    with interrupted_when(started, ask):
        for _ in execute_run_iterator(InMemoryJob(job), run, instance):
            pass
    return outcome(instance, run.run_id)


def test_cancel_ends_the_running_steps(instance: dg.DagsterInstance) -> None:
    """Running steps fail by the token, no step starts after, the run is CANCELED."""
    started = threading.Event()
    result = cancelled_outcome(instance, blocked(started, True, threading.Event()), started, asked=True)
    assert result.status == dg.DagsterRunStatus.CANCELED
    assert result.steps == {key: ["STEP_FAILURE"] for key in "abc"}


def test_interrupt_that_nobody_asked_for_is_a_failure(instance: dg.DagsterInstance) -> None:
    """A signal without a request for termination stops the steps too, and the run says FAILURE."""
    started = threading.Event()
    result = cancelled_outcome(instance, blocked(started, True, threading.Event()), started, asked=False)
    assert result.status == dg.DagsterRunStatus.FAILURE
    assert result.steps == {key: ["STEP_FAILURE"] for key in "abc"}


def test_step_that_ignores_the_cancel_is_left_behind(instance: dg.DagsterInstance) -> None:
    """After the limit the run ends CANCELED with a failure for the step that went on."""
    started, release = threading.Event(), threading.Event()
    result = cancelled_outcome(instance, blocked(started, False, release), started, asked=True)
    release.set()
    for thread in threading.enumerate():  # the next run of this process would share logging's locks with them
        if thread.name in {"a", "b", "c"}:
            thread.join(60)
    assert result.status == dg.DagsterRunStatus.CANCELED
    assert {key: events[0] for key, events in result.steps.items()} == dict.fromkeys("abc", "STEP_FAILURE")


def test_cancel_before_the_first_step_is_not_lost(instance: dg.DagsterInstance) -> None:
    """A request that STARTED overwrote still ends in CANCELED, with no step run."""
    job = linked("early", {"a": []}, lambda _context, _key: None)(concurrent_executor)
    run = instance.create_run_for_job(job)
    for event in execute_run_iterator(InMemoryJob(job), run, instance):
        if event.event_type == dg.DagsterEventType.RUN_START:
            instance.report_run_canceling(run)
            instance.report_dagster_event(event, run.run_id)
            os.kill(os.getpid(), signal.SIGTERM)
    result = outcome(instance, run.run_id)
    assert result.status == dg.DagsterRunStatus.CANCELED
    assert result.steps == {}


def test_cancelled_step_with_retries_left_is_not_tried_again(instance: dg.DagsterInstance) -> None:
    """A retry policy does not bring a cancelled step back, and its last word is a failure."""
    started = threading.Event()

    def make(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
        @dg.op(retry_policy=dg.RetryPolicy(max_retries=5))
        def stubborn() -> None:
            started.set()
            current_token().wait(60)
            current_token().raise_if_cancelled()

        @dg.job(executor_def=executor)
        def retried() -> None:
            stubborn()

        return retried

    result = cancelled_outcome(instance, make, started, asked=True)
    assert result.status == dg.DagsterRunStatus.CANCELED
    assert result.steps == {"stubborn": ["STEP_UP_FOR_RETRY", "STEP_FAILURE"]}
