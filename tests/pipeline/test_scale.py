"""Large graphs, for real: every step is a process in its own workspace."""

import threading

import attrs
import pytest
from run_sessions import Runner, step

from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.local import run_graph

pytestmark = pytest.mark.timeout(900)


def test_thousand_steps(runner: Runner):
    """Chains beside each other; every one runs once, none is lost."""
    pipeline = "".join(
        step(f"s{chain}-{place}", "true", needs=f"s{chain}-{place - 1}" if place else "")
        for chain in range(50)
        for place in range(20)
    )
    session = runner.start(pipeline)
    run_graph(session, CancelToken(), on_step=lambda _step, _result: None, max_parallel=8)
    assert session.finish() == "succeeded"
    _, steps = runner.recorded(session)
    assert len(steps) == 1000
    assert {(found.state, found.attempt) for found in steps.values()} == {("succeeded", 1)}
    for found in steps.values():
        chain, _, place = found.step.partition("-")
        if place != "0":
            assert found.started_at >= steps[f"{chain}-{int(place) - 1}"].finished_at


def test_two_hundred_ready_steps_run_eight_at_a_time(runner: Runner):
    """And no more, at any moment."""
    session = runner.start("".join(step(f"s{number}", "echo begun; sleep 0.05; echo over") for number in range(200)))
    lock, now, most = threading.Lock(), set[str](), [0]

    def on_line(name: str, line: str) -> None:
        with lock:
            if line == "begun":
                now.add(name)
                most[0] = max(most[0], len(now))
            if line == "over":
                now.discard(name)

    run_graph(attrs.evolve(session, on_line=on_line), CancelToken(), on_step=lambda _s, _r: None, max_parallel=8)
    assert session.finish() == "succeeded"
    assert 2 <= most[0] <= 8
