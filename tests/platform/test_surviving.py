"""kill -9 of each process in the middle of a run: nothing is lost, nothing runs twice, nothing stays behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from penstock_running import Penstock, Project, described, state_of, wait_for, words

from penstock.engines.process import RUN_MARK

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]

DAGSTER_RUNS = """
query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }"""


@pytest.fixture(scope="module")
def gate() -> Iterator[Path]:
    """A file that a sleeping step waits for; /var/tmp, since steps have a /tmp of their own."""
    path = Path("/var/tmp") / f"penstock-gate-{psutil.Process().pid}"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def sleepy(home_of_all: Penstock, gate: Path) -> Project:
    """A project whose first step waits for the gate."""
    home_of_all.up(*(["--no-example"] if home_of_all.home.exists() else []))
    wait = f"while [ ! -e {gate} ]; do sleep 0.2; done"
    steps = [
        {"name": "slow", "type": "step.shell_exec", "commands": [wait]},
        {"name": "after", "type": "step.shell_exec", "needs": ["slow"], "commands": ["echo done"]},
    ]
    return home_of_all.connect("sleepy", {"penstock.yaml": yaml.safe_dump({"version": 1, "steps": steps})})


def of_step(run_id: str) -> list[psutil.Process]:
    """Every process that a run's steps started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_MARK, "").startswith(run_id):
                found.append(process)
        except psutil.Error:
            continue
    return found


def run_process(penstock: Penstock) -> psutil.Process:
    """The fork that executes the run."""

    def found() -> psutil.Process | None:
        return next(iter(penstock.part("definitions.warm").children()), None)

    child: psutil.Process = wait_for(found, "a run's own process")
    return child


def code_server(penstock: Penstock) -> psutil.Process:
    """The process that has loaded the definitions, behind the one that the platform started."""

    def found() -> psutil.Process | None:
        return next((one for one in penstock.part("code-server").children() if "api grpc" in words(one)), None)

    child: psutil.Process = wait_for(found, "a code server")
    return child


def named(mark: str) -> Callable[[Penstock], psutil.Process]:
    return lambda penstock: penstock.part(mark)


VICTIMS: dict[str, Callable[[Penstock], psutil.Process]] = {
    "dashboards": named("streamlit"),
    "caddy": named("caddy run"),
    "keeper": named("penstock.deploy.keeper"),
    "daemon": named("dagster-daemon"),
    "webserver": named("dagster-webserver"),
    "code": named("code-server"),
    "loaded code": code_server,
    "api": named("penstock.api"),
    "postgres": named("postgres -D"),
    "run server": named("definitions.warm"),
    "run": run_process,
}
# What executes the run, or keeps its state: the run may be lost with it, with a reason. All else it must survive.
LOSE_THE_RUN = {"postgres", "run server", "run"}


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_part_is_back_and_no_push_is_lost_or_run_twice(
    penstock: Penstock, sleepy: Project, gate: Path, victim: str
) -> None:
    """The run ends by itself or failed with the reason; the push made meanwhile runs, once; no process is left over."""
    before, killed, after = push_kill_push(penstock, sleepy, gate, VICTIMS[victim])
    run = penstock.ended_run_of(before)
    if victim in LOSE_THE_RUN:
        assert run["state"] in ("succeeded", "infra_error"), run
        assert run["reason"] or run["state"] == "succeeded"
    else:
        assert run["state"] == "succeeded", run
    assert penstock.ended_run_of(after)["state"] == "succeeded"
    assert_once(penstock, before, after)
    assert described(of_step(run["id"])) == []
    assert not killed.is_running()
    wait_for(lambda: VICTIMS[victim](penstock) if victim != "run" else True, f"{victim} is back")


def push_kill_push(
    penstock: Penstock, project: Project, gate: Path, victim: Callable[[Penstock], psutil.Process]
) -> tuple[str, psutil.Process, str]:
    """A run in its first step; the victim killed; a push; the gate opened. Returns: both commits and the victim."""
    gate.unlink(missing_ok=True)
    project.commit({}, "Before")
    before = project.push()
    penstock.step_runs(penstock.run_of(before)["id"], "slow")
    killed = victim(penstock)
    killed.kill()
    project.commit({}, "Meanwhile")
    after = project.push()
    gate.touch()
    wait_for(penstock.http_answers, "the API answers")
    return before, killed, after


def assert_once(penstock: Penstock, *commits: str) -> None:
    """One run for each commit, on Penstock's record and on Dagster's."""
    for commit in commits:
        assert len(penstock.runs(commit)) == 1
        tag = [{"key": "penstock/commit", "value": commit}]
        found = penstock.graphql(DAGSTER_RUNS, filter={"tags": tag})["runsOrError"]["results"]
        assert len(found) == 1, found


def test_killed_supervisor_takes_all_with_it_and_the_next_start_goes_on(
    penstock: Penstock, sleepy: Project, gate: Path
) -> None:
    """kill -9 of `penstock up`: no process stays; after `up` the run has failed with the reason, the push is run."""
    gate.unlink(missing_ok=True)
    sleepy.commit({}, "Before")
    before = sleepy.push()
    run = penstock.run_of(before)
    penstock.step_runs(run["id"], "slow")
    penstock.kill()
    sleepy.commit({}, "Meanwhile")
    after = sleepy.push()
    wait_for(lambda: not penstock.living(), "no process is left")
    gate.touch()
    penstock.up("--no-example")
    run = penstock.ended(run["id"])
    assert (run["state"], state_of(run, "after")) in {("infra_error", "skipped"), ("cancelled", "skipped")}, run
    assert run["reason"]
    assert penstock.ended_run_of(after)["state"] == "succeeded"
    assert_once(penstock, before, after)


def test_ctrl_c_in_the_middle_of_a_run_cancels_it(penstock: Penstock, sleepy: Project, gate: Path) -> None:
    """Its processes are gone with the platform, and it says so afterwards."""
    gate.unlink(missing_ok=True)
    sleepy.commit({}, "Interrupted")
    run = penstock.run_of(sleepy.push())
    penstock.step_runs(run["id"], "slow")
    assert penstock.down() == 0
    assert described(penstock.living()) == []
    penstock.up("--no-example")
    run = penstock.ended(run["id"])
    assert (run["state"], state_of(run, "slow"), state_of(run, "after")) == ("cancelled", "cancelled", "skipped")
