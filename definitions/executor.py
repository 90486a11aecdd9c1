"""
Ready steps at once, in threads of the run's process; an interrupt cancels them.

Steps of a pipeline wait for containers and processes, so they need no process each. Dagster's
`ActiveExecution` decides what is ready, skipped, retried or abandoned; this file starts the steps and
carries the news back. `dagster-async-executor` 0.0.4 does the same without a working cancel: after an
interrupt its running steps go on to their end and a further step still starts before the run says
CANCELED. Hence this one.

Cancel: SIGINT or SIGTERM sets the run's `CancelToken`, no further step starts, and the running ones have
`STOP_LIMIT_S` to obey. How the run ends then is Dagster's rule: CANCELED when somebody asked for it (the
launcher's `terminate`), FAILURE ("interrupted unexpectedly") when nobody did.

A step logs by `context.log`: what goes through `get_dagster_logger()` is recorded at every step that runs
at the time, because Dagster attaches that logger to each of them.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor
from dagster._utils.error import SerializableErrorInfo

from definitions.crew import Attempt, Crew
from penstock.pipeline.cancel import CancelToken

STOP_LIMIT_S = 8.0
TICK_S = 0.1


class ConcurrentExecutor(Executor):
    """At most `max_concurrent` steps of a run at a time."""

    def __init__(self, retries: RetryMode, max_concurrent: int) -> None:
        self._retries = retries
        self._max_concurrent = max_concurrent

    @property
    def retries(self) -> RetryMode:
        """Whether steps that ask for it are tried again."""
        return self._retries

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run the plan, yielding its events; each is stored already. Interrupts raise, as Dagster expects."""
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in threads of process {os.getpid()}",
            EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
        )
        manager = PlanExecutionContextManager(
            job=plan_context.job,
            retry_mode=plan_context.retry_mode,
            execution_plan=plan_context.execution_plan,
            run_config=plan_context.run_config,
            dagster_run=plan_context.dagster_run,
            instance=plan_context.instance,
            raise_on_error=plan_context.raise_on_error,
            output_capture=plan_context.output_capture,
        )
        steps = partial(run_steps, max_concurrent=self._max_concurrent)
        try:
            yield from ExecuteRunWithPlanIterable(plan_context.execution_plan, steps, manager)
        except DagsterExecutionInterruptedError:
            _confirm_request(plan_context)
            raise


@dg.executor(
    name="concurrent",
    config_schema={
        "max_concurrent": dg.Field(int, default_value=8, description="Steps of a run at a time."),
        "retries": get_retries_config(),
    },
)
def concurrent_executor(init_context: dg.InitExecutorContext) -> ConcurrentExecutor:
    """Ready steps at once in threads of the run's process; cancel reaches them within seconds."""
    config = init_context.executor_config
    return ConcurrentExecutor(RetryMode.from_config(config["retries"]), config["max_concurrent"])


def run_steps(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan, max_concurrent: int
) -> Iterator[DagsterEvent]:
    """Capture the process's output as one log, and run what is ready until nothing is left."""
    crew: Crew[DagsterEvent] = Crew(CancelToken())
    with (
        InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as slots,
        ActiveExecution(
            execution_plan,
            retry_mode=job_context.retry_mode,
            max_concurrent=max_concurrent,
            instance_concurrency_context=slots,
        ) as active,
        ExitStack() as capture,
    ):
        yield from _capture_output(job_context, execution_plan, capture)
        try:
            yield from _run_ready(job_context, active, crew)
        finally:
            for _ in crew.stop("the run ended", STOP_LIMIT_S) if crew.running else ():
                pass  # nobody listens any more, and the events are stored
        try:
            capture.close()
        except Exception:  # noqa: BLE001 - a lost log is told, not a failed run
            yield from _handle_compute_log_teardown_error(job_context, sys.exc_info())


def _capture_output(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan, capture: ExitStack
) -> Iterator[DagsterEvent]:
    logs = job_context.instance.compute_log_manager
    keys = [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]
    log_key = logs.build_log_key_for_run(job_context.run_id, create_compute_log_file_key())
    try:
        log_context = capture.enter_context(logs.capture_logs(log_key))
        yield DagsterEvent.capture_logs(job_context, keys, log_key, log_context)
    except Exception:  # noqa: BLE001 - a lost log is told, not a failed run
        yield from _handle_compute_log_setup_error(job_context, sys.exc_info())


def _run_ready(
    job_context: PlanExecutionContext, active: ActiveExecution, crew: Crew[DagsterEvent]
) -> Iterator[DagsterEvent]:
    contexts: dict[str, StepExecutionContext] = {}
    while not active.is_complete:
        if active.check_for_interrupts():
            yield from _cancel(job_context, contexts, crew)
        for step in active.get_steps_to_execute():
            contexts[step.key] = job_context.for_step(step, active.get_known_state())
            crew.start(step.key, partial(_step_events, contexts[step.key]))
        yield from active.concurrency_event_iterator(job_context)
        for attempt in crew.over(TICK_S if crew.running else min(active.sleep_interval(), TICK_S)):
            yield from _settle(job_context, active, attempt)
        # Here and not before the steps start: it is also what makes the steps of a dynamic output known.
        yield from active.plan_events_iterator(job_context)


def _settle(
    job_context: PlanExecutionContext, active: ActiveExecution, attempt: Attempt[DagsterEvent]
) -> Iterator[DagsterEvent]:
    for event in attempt.events:
        yield event
        active.handle_event(event)
    active.verify_complete(job_context, attempt.step_key)
    if attempt.error:
        raise attempt.error


def _step_events(context: StepExecutionContext) -> Iterator[DagsterEvent]:
    # Dagster would lend every step the run's event loop, which serves one thread at a time.
    with closing(asyncio.new_event_loop()) as context._event_loop:
        events = []
        for event in dagster_event_sequence_for_step(context):
            events.append(event)
            yield event
        yield from _trigger_hook(context, events)


def _cancel(
    job_context: PlanExecutionContext, contexts: dict[str, StepExecutionContext], crew: Crew[DagsterEvent]
) -> Iterator[DagsterEvent]:
    """Stop what runs; every step that was running has its failure event. Raises the interrupt."""
    stopping = sorted(crew.running)
    yield DagsterEvent.engine_event(
        job_context, "Cancelling: running steps were told to stop", EngineEventData.interrupted(stopping)
    )
    unfailed = set(stopping)
    for attempt in crew.stop("the run was cancelled", STOP_LIMIT_S):
        yield from attempt.events
        if any(event.is_step_failure or event.is_step_success for event in attempt.events):
            unfailed.discard(attempt.step_key)
    for key in sorted(unfailed):
        late = f"did not stop within {STOP_LIMIT_S:.0f} s" if key in crew.running else "was stopped"
        yield _stopped_event(contexts[key], f"The run was cancelled and the step {late}")
    crew.running.clear()
    raise DagsterExecutionInterruptedError("The run was cancelled")


def _stopped_event(context: StepExecutionContext, message: str) -> DagsterEvent:
    error = SerializableErrorInfo(message, [], DagsterExecutionInterruptedError.__name__)
    return DagsterEvent.step_failure_event(context, StepFailureData(error, None, ErrorSource.INTERRUPT))


def cancel_was_asked(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether somebody asked for the run's end, also if STARTED overwrote CANCELING since."""
    asked = run.status == DagsterRunStatus.CANCELING
    return asked or bool(
        instance.get_records_for_run(run.run_id, of_type=DagsterEventType.RUN_CANCELING, limit=1).records
    )


def _confirm_request(job_context: PlanOrchestrationContext) -> None:
    """Dagster ends a run CANCELED by its status alone: say CANCELING again if it was overwritten."""
    run = job_context.instance.get_run_by_id(job_context.run_id)
    if run and run.status == DagsterRunStatus.STARTED and cancel_was_asked(job_context.instance, run):
        job_context.instance.report_run_canceling(run)
