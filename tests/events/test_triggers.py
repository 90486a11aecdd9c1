"""Which events start a run: the pipeline's triggers, concurrency groups, the clock."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.events import inbox
from penstock.events.dispatch import Launch, prepare
from penstock.events.inbox import EventRecord, Push, ask_for_run
from penstock.events.poll import poll
from penstock.events.schedule import ask_when_due, last_time
from penstock.pipeline import records
from penstock.settings import Settings
from penstock.sources.projects import add_project, get_project

STEP = {"name": "a", "type": "step.shell_exec", "commands": ["true"]}
Pushed = Callable[..., "tuple[EventRecord, Launch | None]"]


@pytest.fixture
def tree(make_repository: Callable[..., GitRepository], database: sa.Engine) -> GitRepository:
    """A connected repository."""
    made = make_repository("shop")
    made.commit({"README": "x"})
    add_project(database, "shop", str(made.root))
    return made


@pytest.fixture
def pushed(tree: GitRepository, database: sa.Engine, settings: Settings) -> Pushed:
    """pushed(on, ref, files…) → the event of a commit with these triggers, and what is to run."""

    def push(
        on: object = None,
        ref: str = "refs/heads/main",
        message: str = "Change",
        before: str | None = None,
        **more: object,
    ) -> tuple[EventRecord, Launch | None]:
        files = dict(more.pop("files", {}))  # type: ignore[call-overload]
        pipeline = {"version": 1, "steps": [STEP], **({"on": on} if on is not None else {}), **more}
        commit = tree.commit({"penstock.yaml": json.dumps(pipeline), **files}, message)
        tree.git("update-ref", ref, commit)
        event = inbox.accept(database, Push("shop", ref, commit, before))
        assert event is not None
        (claimed,) = [one for one in inbox.claim(database) if one.id == event.id]
        launch = prepare(database, settings, claimed)
        found = inbox.find(database, event.key)
        assert found is not None
        return found, launch

    return push


@pytest.mark.parametrize(
    ("on", "ref", "runs"),
    [
        (None, "refs/heads/main", True),
        (None, "refs/heads/dev", True),
        (None, "refs/tags/v1", False),
        (["tag"], "refs/tags/v1", True),
        (["tag"], "refs/heads/main", False),
        ({"push": {"branches": ["release/**"]}}, "refs/heads/release/1/2", True),
        ({"push": {"branches": ["release/*"]}}, "refs/heads/main", False),
        ({"push": {"branches": ["!main"]}}, "refs/heads/main", False),
        ({"tag": {"tags": "v*"}}, "refs/tags/v1.2", True),
        ({"tag": {"tags": "v*"}}, "refs/tags/1.2", False),
        ({"push": {"paths": ["src/**"]}}, "refs/heads/main", True),
    ],
)
def test_triggers_decide(pushed: Pushed, on: object, ref: str, runs: bool):
    """By kind, branch and tag; where the commit before is not known every path fits."""
    event, launch = pushed(on, ref)
    assert (launch is not None) is runs
    assert (event.state == "ignored", event.by_rule) == (not runs, not runs)
    assert runs or event.reason


def test_changed_paths_decide(pushed: Pushed, tree: GitRepository):
    """What a push changed since the commit before."""
    before = tree.git("rev-parse", "HEAD")
    on = {"push": {"paths": ["src/**", "!src/docs/**"]}}
    event, launch = pushed(on, before=before, files={"src/docs/a": "1"})
    assert (launch, event.reason) == (None, "no changed file is among src/**, !src/docs/**")
    event, launch = pushed(on, before=event.commit, files={"src/a": "1"})
    assert launch is not None


@pytest.mark.parametrize(
    ("message", "runs"),
    [("Fix [skip ci]", False), ("Fix\n\n[CI SKIP]", False), ("Fix\n\nskip-checks: true", False), ("Skip", True)],
)
def test_author_may_ask_for_no_run(pushed: Pushed, message: str, runs: bool):
    """In the words that other systems take."""
    event, launch = pushed(message=message)
    assert (launch is not None) is runs
    assert runs or ("[skip ci]" in str(event.reason) and event.by_rule)


def test_person_may_always_start_a_run(pushed: Pushed, database: sa.Engine, settings: Settings):
    """Whatever the triggers say; each time is an event of its own."""
    event, _ = pushed(["tag"], message="x [skip ci]")
    for _ in range(2):
        asked = ask_for_run(database, "shop", event.ref, event.commit, actor="ada")
        assert asked is not None
        (claimed,) = inbox.claim(database)
        launch = prepare(database, settings, claimed)
        assert launch is not None
        assert (launch.info.trigger, launch.info.event, launch.info.about) == ("manual", "manual", {"actor": "ada"})


def test_tags_that_were_there_when_a_project_was_connected_are_no_news(
    settings: Settings, make_repository: Callable[..., GitRepository], database: sa.Engine
):
    """A tag that comes later is; annotated ones stand for their commit."""
    tree = make_repository("api")
    commit = tree.commit({"a": "1"})
    tree.git("tag", "old")
    project = add_project(database, "api", str(tree.root))
    poll(database, settings, project)
    tree.git("tag", "-a", "-m", "x", "new")
    poll(database, settings, project)
    tags = [event for event in inbox.list_events(database, project="api") if event.kind == "tag"]
    assert [(event.ref, event.commit) for event in tags] == [("refs/tags/new", commit)]


# Concurrency


def running(database: sa.Engine, launch: Launch | None, run: str) -> None:
    """Record the launch as a run under way."""
    assert launch is not None
    import attrs

    info = attrs.evolve(launch.info, id=run)
    records.create_run(database, info, launch.graph, event_key=launch.event_key, group=launch.group, begun=True)


def test_runs_of_a_group_come_one_after_the_other(pushed: Pushed, database: sa.Engine):
    """The second waits, nobody claims it meanwhile, and it is free when the first one is over."""
    group = {"group": "deploy-${{ branch }}"}
    first, launch = pushed(concurrency=group)
    assert launch is not None
    assert launch.group == "deploy-main"
    assert inbox.wait_for_group(database, first, launch.group, newest_only=False) == ()
    running(database, launch, "run-1")
    second, launch = pushed(concurrency=group)
    assert inbox.wait_for_group(database, second, "deploy-main", newest_only=False) == ("run-1",)
    assert inbox.claim(database) == ()
    records.finish_run(database, "run-1")
    (claimed,) = inbox.claim(database)
    assert (claimed.id, claimed.claimed_before) == (second.id, False)


def test_of_those_that_wait_only_the_newest_runs(pushed: Pushed, database: sa.Engine):
    """The others say that a newer one came."""
    group = {"group": "g", "mode": "latest"}
    first, launch = pushed(concurrency=group)
    inbox.wait_for_group(database, first, "g", newest_only=True)
    running(database, launch, "run-1")
    second, _ = pushed(concurrency=group)
    inbox.wait_for_group(database, second, "g", newest_only=True)
    third, _ = pushed(concurrency=group)
    assert inbox.wait_for_group(database, third, "g", newest_only=True) == ("run-1",)
    superseded = inbox.find(database, second.key)
    assert superseded is not None
    assert (superseded.state, str(superseded.reason)) == (
        "ignored",
        f"a newer push of its group came ({third.commit[:12]})",
    )


def test_groups_of_other_branches_do_not_wait(pushed: Pushed, database: sa.Engine):
    """The text is the group."""
    group = {"group": "deploy-${{ branch }}"}
    first, launch = pushed(concurrency=group)
    inbox.wait_for_group(database, first, "deploy-main", newest_only=False)
    running(database, launch, "run-1")
    second, launch = pushed(ref="refs/heads/dev", concurrency=group)
    assert launch is not None
    assert launch.group == "deploy-dev"
    assert inbox.wait_for_group(database, second, launch.group, newest_only=False) == ()


# The clock


def test_schedule_asks_once_for_each_time(pushed: Pushed, database: sa.Engine, settings: Settings):
    """Of the newest commit of the default branch; however often the clock is looked at."""
    event, _ = pushed({"schedule": {"cron": "*/10 * * * *"}})
    at = datetime(2026, 3, 1, 12, 11, tzinfo=UTC)
    assert [ask_when_due(database, settings, at + timedelta(seconds=s)) for s in (0, 20, 40)] == [1, 0, 0]
    assert ask_when_due(database, settings, at + timedelta(minutes=9)) == 1
    (claimed, other) = inbox.claim(database)
    assert (claimed.kind, claimed.commit, other.kind) == ("schedule", event.commit, "schedule")
    launch = prepare(database, settings, claimed)
    assert launch is not None
    assert launch.info.event == "schedule"


def test_time_that_passed_long_ago_is_let_go(pushed: Pushed, database: sa.Engine, settings: Settings):
    """Penstock that comes back after a night does not start the night's runs."""
    pushed({"schedule": {"cron": "0 3 * * *"}})
    assert ask_when_due(database, settings, datetime(2026, 3, 1, 9, 0, tzinfo=UTC)) == 0
    assert ask_when_due(database, settings, datetime(2026, 3, 1, 3, 5, tzinfo=UTC)) == 1


def test_times_are_utc():
    """Whatever zone the clock shows."""
    zone = datetime.fromisoformat("2026-03-01T05:30:00+02:00")
    assert last_time("0 3 * * *", zone) == datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
    assert last_time("30 3 * * *", zone) == datetime(2026, 3, 1, 3, 30, tzinfo=UTC)


def test_project_of_a_removed_branch_is_no_trouble(pushed: Pushed, database: sa.Engine, settings: Settings):
    """A schedule of a branch that is not there asks for nothing."""
    pushed({"schedule": {"cron": "* * * * *", "branch": "gone"}})
    assert ask_when_due(database, settings, datetime.now(UTC)) == 0
    assert get_project(database, "shop").default_branch == "main"
