"""Runs a whole graph in this process: every step that is ready, at once, up to a limit."""

from collections.abc import Callable, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import attrs
import sqlalchemy as sa

from penstock.errors import InputError
from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken, token_in_use
from penstock.pipeline.plan import Graph
from penstock.pipeline.session import RunSession
from penstock.steps.context import RunInfo, StepResult

OnStep = Callable[[str, StepResult | None], None]


@attrs.define
class _Progress:
    """Which steps wait for what, and what came of the others."""

    needs: dict[str, set[str]]
    results: dict[str, StepResult] = attrs.field(factory=dict)

    def take_ready(self) -> list[str]:
        ready = [step for step, needs in self.needs.items() if not needs]
        for step in ready:
            del self.needs[step]
        return ready

    def settle(self, step: str, result: StepResult) -> None:
        self.results[step] = result
        if result.lets_go_on:
            for needs in self.needs.values():
                needs.discard(step)


def run_graph(
    session: RunSession,
    token: CancelToken,
    *,
    on_step: OnStep,
    max_parallel: int = 4,
    only: Set[str] | None = None,
) -> dict[str, StepResult]:
    """
    Run every step whose needs succeed.

    only: run no more than these steps; what they need besides must have passed in an earlier run.
    on_step: called with (step, None) when one starts and (step, result) when it ended, from several threads.
    Returns: results of the steps that began. The session is not closed.
    """
    if only is not None:
        check_chosen(session.services.database, session.info, session.graph, only)
    progress = _Progress(_needs(session.graph, only))
    with ThreadPoolExecutor(max_parallel, thread_name_prefix="step") as pool:
        running: dict[Future[StepResult], str] = {}
        while not token.cancelled:
            for step in progress.take_ready():
                running[pool.submit(_one, session, step, token, on_step)] = step
            if not running:
                break
            # A short wait, so that the main thread takes signals.
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                progress.settle(running.pop(future), future.result())
        for future, step in running.items():
            progress.settle(step, future.result())
    return progress.results


def check_chosen(database: sa.Engine, info: RunInfo, graph: Graph, only: Set[str]) -> None:
    """
    See that what the chosen steps need has passed before, or is chosen too; best asked before a run is recorded.

    Raises: InputError when it has not.
    """
    passed = records.passed_steps(database, info)
    for step in sorted(only):
        if missing := set(graph.upstream(step)) - only - set(passed):
            raise InputError(
                f'"{step}" needs {", ".join(sorted(missing))}', remedy="run them first, or the whole pipeline"
            )


def _needs(graph: Graph, only: Set[str] | None) -> dict[str, set[str]]:
    chosen = [step for step in graph.steps if only is None or step.name in only]
    return {step.name: set(step.needs) & {other.name for other in chosen} for step in chosen}


def _one(session: RunSession, step: str, token: CancelToken, on_step: OnStep) -> StepResult:
    with token_in_use(token):
        on_step(step, None)
        result = session.step(step, token)
        on_step(step, result)
        return result
