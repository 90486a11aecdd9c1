"""Stopping and running again, with a real Dagster behind the API."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import httpx
import pytest
import sqlalchemy as sa
from api_calls import API, graph, problem_of
from real_parts import short_folder

from penstock.environments import store
from penstock.environments.facts import Deploying
from penstock.environments.rules import Admission
from penstock.environments.waiting import begin_waiting, look
from penstock.pipeline import records
from penstock.pipeline.log import utc_now
from penstock.platform.dagster import DagsterClient
from penstock.processes import wait_until
from penstock.settings import Settings
from penstock.state.database import create_engine
from penstock.state.environment_tables import deployment_waits
from penstock.state.tables import audit, runs
from penstock.steps.context import RunInfo, StepResult

WORKSPACE = """\
load_from:
  - python_file: {{relative_path: {file}, location_name: penstock}}
"""
# Runs start at once: without a daemon nobody would take them from a queue.
INSTANCE = """\
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
"""
LIMIT_S = 150


@pytest.fixture(scope="module")
def dagster_port() -> Iterator[int]:
    """The port of a Dagster webserver with two jobs; its runs are processes of their own, as by default."""
    home = short_folder()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    location = Path(__file__).with_name("dagster_location.py")
    (home / "workspace.yaml").write_text(WORKSPACE.format(file=location))
    (home / "dagster.yaml").write_text(INSTANCE)
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-w", str(home / "workspace.yaml")]
    env = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            env=env,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert wait_until(DagsterClient.at(f"http://127.0.0.1:{port}").answers, limit_s=LIMIT_S), (
            home / "log"
        ).read_text()
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def settings(settings: Settings, dagster_port: int) -> Settings:
    """Those of a test, with this Dagster."""
    return attrs.evolve(settings, ports={**settings.ports, "dagster": dagster_port})


@pytest.fixture
def dagster(dagster_port: int) -> DagsterClient:
    """The Dagster itself."""
    return DagsterClient.at(f"http://127.0.0.1:{dagster_port}")


def status_of(dagster: DagsterClient, key: str, run_id: str) -> str:
    return dagster.runs_with_tag("test", key).get(run_id, "none")


def launch(dagster: DagsterClient, job: str, key: str, awaited: str) -> str:
    """Start a job; wait for its run to be there. Returns: the run's id."""
    run_id = dagster.launch(job, "none", "none", {"test": key})
    assert wait_until(lambda: status_of(dagster, key, run_id) == awaited, limit_s=LIMIT_S)
    return run_id


@pytest.mark.timeout(600)
def test_rerun_is_a_new_run_of_what_failed(
    api: httpx.Client, run: RunInfo, database: sa.Engine, dagster: DagsterClient
) -> None:
    """202 with the new run, which can be looked at at once and which Dagster knows as the child of the first."""
    run_id = launch(dagster, "breaks", "rerun", "FAILURE")
    records.create_run(database, attrs.evolve(run, id=run_id), graph())
    records.finish_step(database, attrs.evolve(run, id=run_id), "hello", StepResult("failed", reason="x"))
    records.finish_run(database, run_id)
    answer = api.post(f"{API}/runs/{run_id}/rerun")
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert (answer.status_code, again["trigger"], again["state"], again["commit"]) == (
        202,
        "rerun",
        "queued",
        run.commit,
    )
    assert again["id"] != run_id
    assert api.get(answer.headers["location"]).json()["id"] == again["id"]
    assert again["id"] in dagster.runs_with_tag("dagster/parent_run_id", run_id)
    with database.connect() as connection:
        row = connection.execute(sa.select(audit).where(audit.c.action == "run.rerun")).mappings().one()
    assert (row["subject"], row["detail"]["run"], row["actor"]) == (run_id, again["id"], "local")


@pytest.mark.timeout(600)
def test_deployment_that_need_not_wait_any_more_goes_on_in_a_new_run(
    run: RunInfo, settings: Settings, database: sa.Engine, dagster: DagsterClient
) -> None:
    """Once, whoever looks how often, after a `kill -9` in between too; the run that waited names the newer one."""
    run_id = launch(dagster, "breaks", "wait", "FAILURE")
    mine = attrs.evolve(run, id=run_id)
    records.create_run(database, mine, graph())
    with database.begin() as connection:
        store.ensure(connection, "production")
    now = utc_now()
    soon = Admission("later", ("production is frozen",), now + timedelta(hours=1))
    begin_waiting(database, Deploying(mine, "production", "shop", "process"), "hello", soon)
    records.finish_step(database, mine, "hello", StepResult("waiting", reason="waits"))
    assert look(database, dagster, now + timedelta(hours=2)) == 0, "its run is not over"
    records.finish_run(database, run_id)
    assert look(database, dagster, now) == 0, "it is not time yet"
    restarted = create_engine(settings)
    assert look(restarted, dagster, now + timedelta(hours=2)) == 1
    assert look(restarted, dagster, now + timedelta(hours=2)) == 0
    (again,) = dagster.runs_with_tag("dagster/parent_run_id", run_id)
    assert records.load_run(database, run_id).reason == f"goes on in run {again[:8]}"
    with restarted.begin() as connection:  # as it was when somebody died between the new run and its record
        connection.execute(sa.update(deployment_waits).values(went_on_in=None, look_at=soon.at))
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(state="waiting"))
    assert look(restarted, dagster, now + timedelta(hours=2)) == 1
    assert list(dagster.runs_with_tag("dagster/parent_run_id", run_id)) == [again], "no second run was begun"
    restarted.dispose()


@pytest.mark.timeout(600)
def test_cancel_stops_the_run_in_dagster(
    api: httpx.Client, run: RunInfo, database: sa.Engine, dagster: DagsterClient
) -> None:
    """202 and the run; Dagster ends it as cancelled, and the audit says who asked."""
    run_id = launch(dagster, "waits", "cancel", "STARTED")
    records.create_run(database, attrs.evolve(run, id=run_id), graph(), begun=True)
    assert api.post(f"{API}/runs/{run_id}/cancel").status_code == 202
    assert wait_until(lambda: status_of(dagster, "cancel", run_id) == "CANCELED", limit_s=LIMIT_S)
    with database.connect() as connection:
        assert connection.execute(sa.select(audit.c.subject).where(audit.c.action == "run.cancel")).all() == [(run_id,)]


def test_run_of_somebodys_machine_is_not_the_platforms(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """A run that `penstock run` recorded can be looked at, but neither stopped nor run again from here: 409."""
    assert "no run of this platform" in problem_of(api.post(f"{API}/runs/run-1/cancel"), 409)
    records.finish_run(database, run.id, broken="cut off")
    assert "no run of this platform" in problem_of(api.post(f"{API}/runs/run-1/rerun"), 409)
    with database.connect() as connection:
        assert connection.execute(sa.select(audit.c.action)).scalars().all() == ["project.add"]
