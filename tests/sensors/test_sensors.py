"""The safety net, tick by tick: what no hook started is started once, what nobody closed is closed."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import attrs
import dagster as dg
import pytest
import sqlalchemy as sa
from git_builder import PIPELINE, GitRepository

from definitions.catalog import build
from penstock.events import inbox
from penstock.events.dispatch import prepare
from penstock.events.inbox import Push
from penstock.pipeline import records
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.state.tables import inbox as events
from sensors.git import OVERDUE, git_events
from sensors.runs import run_records

MAIN = "refs/heads/main"


@pytest.fixture(autouse=True)
def _here(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads the test's settings; Dagster's webserver is away."""
    for name, value in {**env, "PENSTOCK_DAGSTER_PORT": "1024"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's own records, in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def shop(database: sa.Engine, make_repository: Callable[..., GitRepository]) -> GitRepository:
    """A connected repository with one commit that nobody told of."""
    made = make_repository("shop", {"penstock.yaml": PIPELINE})
    add_project(database, "shop", str(made.root))
    return made


def age(database: sa.Engine, by: timedelta = OVERDUE) -> None:
    """Let what came in have come in earlier."""
    with database.begin() as connection:
        connection.execute(sa.update(events).values(received_at=events.c.received_at - by))


def tick(database: sa.Engine, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    repository = build(database).get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        answer = git_events(context)
    assert isinstance(answer, (dg.SensorResult, dg.SkipReason))
    return answer


def test_head_that_no_hook_told_of_becomes_an_event_and_then_a_run(
    database: sa.Engine, settings: Settings, shop: GitRepository, instance: dg.DagsterInstance
) -> None:
    """Found at the first tick; left to the API for a while; then asked for with the push's own key and partition."""
    assert isinstance(tick(database, instance), dg.SkipReason)
    (event,) = inbox.list_events(database)
    assert (event.source, event.state) == ("poll", "received")
    age(database)
    assert isinstance(tick(database, instance), dg.SkipReason), "its structure is not loaded yet"
    lapse(database)
    answer = tick(database, instance)
    assert isinstance(answer, dg.SensorResult)
    (request,) = answer.run_requests or []
    assert (request.run_key, request.job_name, request.partition_key) == (event.key, "shop", event.commit[:12])
    assert (request.tags["penstock/commit"], request.tags["penstock/event"]) == (event.commit, event.key)
    (partitions,) = answer.dynamic_partitions_requests or []
    assert list(partitions.partition_keys) == [event.commit[:12]]


def lapse(database: sa.Engine) -> None:
    """Let every claim be older than a claim may be."""
    with database.begin() as connection:
        long_ago = sa.func.now() - inbox.CLAIM_LAPSES_AFTER - timedelta(seconds=1)
        connection.execute(sa.update(events).values(claimed_at=long_ago))


def test_started_event_is_not_asked_for_again(
    database: sa.Engine, shop: GitRepository, instance: dg.DagsterInstance
) -> None:
    """Nor is one that is ignored."""
    tick(database, instance)
    age(database)
    (event,) = inbox.claim(database)
    inbox.close(database, event, run_id="run-1")
    lapse(database)
    assert isinstance(tick(database, instance), dg.SkipReason)


def test_repository_that_is_away_does_not_hold_up_the_others(
    database: sa.Engine,
    shop: GitRepository,
    instance: dg.DagsterInstance,
    make_repository: Callable[..., GitRepository],
) -> None:
    """The tick goes on."""
    gone = make_repository("gone", {"penstock.yaml": PIPELINE})
    add_project(database, "gone", str(gone.root))
    gone.root.rename(gone.root.with_name("elsewhere"))
    tick(database, instance)
    assert [event.project for event in inbox.list_events(database)] == ["shop"]


def test_commit_that_cannot_be_fetched_is_kept_with_the_reason(
    database: sa.Engine, shop: GitRepository, instance: dg.DagsterInstance
) -> None:
    """The repository went away between poll and start; the event is tried again later."""
    tick(database, instance)
    age(database)
    shop.root.rename(shop.root.with_name("elsewhere"))
    assert isinstance(tick(database, instance), dg.SkipReason)
    (event,) = inbox.list_events(database)
    assert (event.state, "git fetch failed" in (event.reason or "")) == ("received", True)


def test_wrong_pipeline_needs_no_run_of_dagster(
    database: sa.Engine, shop: GitRepository, instance: dg.DagsterInstance
) -> None:
    """It is a failed run on record, with the line and the remedy."""
    commit = shop.commit({"penstock.yaml": "version: 1\nsteps: []\n"})
    tick(database, instance)
    age(database)
    assert isinstance(tick(database, instance), dg.SkipReason)
    (run,) = records.list_runs(database, commit=commit)
    assert (run.state, (run.reason or "").startswith("penstock.yaml")) == ("failed", True)
    assert inbox.list_events(database)[0].state == "started"


def test_run_that_ended_without_being_closed_is_closed_and_brought_into_the_warehouse(
    database: sa.Engine, settings: Settings, shop: GitRepository, instance: dg.DagsterInstance
) -> None:
    """Its process died after Dagster's last word; a run that goes on is left alone."""
    inbox.accept(database, Push("shop", MAIN, shop.git("rev-parse", "HEAD")))
    (event,) = inbox.claim(database)
    launch = prepare(database, settings, event)
    assert launch is not None
    statuses = {"ended": dg.DagsterRunStatus.FAILURE, "going": dg.DagsterRunStatus.STARTED}
    for name, status in statuses.items():
        run = instance.add_run(dg.DagsterRun(job_name="shop", status=status))
        statuses[name] = run.run_id
        records.create_run(database, attrs.evolve(launch.info, id=run.run_id), launch.graph)
        records.start_run(database, run.run_id)
    with dg.build_sensor_context(instance=instance) as context:
        answer = run_records(context)
    assert isinstance(answer, dg.SkipReason)
    assert (answer.skip_message or "").startswith("1 runs closed")
    ended, going = (records.load_run(database, statuses[name]) for name in ("ended", "going"))
    assert (ended.state, ended.reason, ended.ingested) == (
        "infra_error",
        "the run failed in Dagster; see logs/runs.log in PENSTOCK_HOME",
        True,
    )
    assert (going.state, going.ingested) == ("running", False)
