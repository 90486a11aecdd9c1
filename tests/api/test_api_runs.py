"""/runs: started, listed page by page, shown whole; what cannot be is refused in one line."""

from datetime import UTC, datetime, timedelta

import attrs
import httpx
import pytest
import sqlalchemy as sa
from api_calls import API, MAIN, graph, problem_of
from git_builder import GitRepository

from penstock.pipeline import records
from penstock.state.tables import audit, inbox, runs
from penstock.steps.context import Artifact, RunInfo, StepResult

DIGEST = "0123456789abcdef" * 4


def test_run_is_shown_with_steps_outputs_and_artifacts(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """While it runs and when it has ended."""
    shown = api.get(f"{API}/runs/run-1").json()
    assert (shown["state"], [step["state"] for step in shown["steps"]]) == ("running", ["running"])
    made = Artifact("dist", "dist/app", "file", DIGEST, 7)
    result = StepResult("failed", reason="exit code 1", exit_code=1, artifacts=(made,), outputs={"version": "1.2"})
    records.finish_step(database, run, "hello", result)
    records.finish_run(database, run.id)
    shown = api.get(f"{API}/runs/run-1").json()
    assert (shown["state"], shown["reason"]) == ("failed", "hello: exit code 1")
    (step,) = shown["steps"]
    assert (step["exit_code"], step["seconds"] >= 0, step["outputs"]) == (1, True, {"version": "1.2"})
    (artifact,) = shown["artifacts"]
    assert (artifact["key"], artifact["digest"], artifact["run_id"], artifact["step"]) == (
        "dist",
        DIGEST,
        "run-1",
        "hello",
    )


@pytest.fixture
def history(database: sa.Engine, run: RunInfo) -> list[str]:
    """Five runs, oldest first, an hour apart; the first two were queued at the same moment. The newest is at work."""
    made = graph()
    names = [f"old-{number}" for number in range(4)]
    for number, name in enumerate(names):
        info = attrs.evolve(run, id=name, project="shop" if number else "web", ref="refs/heads/dev", commit="b" * 40)
        records.create_run(database, info, made)
        records.finish_run(database, name, cancelled="stopped" if number % 2 else None)
        queued = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=max(1, number))
        with database.begin() as connection:
            connection.execute(sa.update(runs).where(runs.c.id == name).values(queued_at=queued))
    return [*names, run.id]


FILTERS = {
    "": ["run-1", "old-3", "old-2", "old-1", "old-0"],
    "project=web": ["old-0"],
    "project=shop&ref=refs/heads/dev": ["old-3", "old-2", "old-1"],
    "commit=bbbb": ["old-3", "old-2", "old-1", "old-0"],
    "commit=0000": [],
    "state=cancelled": ["old-3", "old-1"],
    "state=running&state=cancelled": ["run-1", "old-3", "old-1"],
    "since=2026-01-01T02:00:00Z": ["run-1", "old-3", "old-2"],
    "since=2026-01-01T03:00:00%2B01:00": ["run-1", "old-3", "old-2"],
    "project=nothing": [],
}


def test_runs_are_listed_by_what_is_asked_for(api: httpx.Client, history: list[str]) -> None:
    """Newest first; every filter holds; without their steps."""
    for query, found in FILTERS.items():
        answer = api.get(f"{API}/runs?{query}")
        assert [run["id"] for run in answer.json()] == found, query
        assert "link" not in answer.headers
        assert all(run["steps"] is None for run in answer.json())


def test_pages_hold_every_run_once(api: httpx.Client, history: list[str]) -> None:
    """By the address in the Link header, filters and all; also where two were queued at one moment."""
    found, address = [], f"{API}/runs?limit=1&commit=bbbb"
    while address:
        answer = api.get(address)
        found += [run["id"] for run in answer.json()]
        address = answer.links.get("next", {}).get("url")
    assert found == ["old-3", "old-2", "old-1", "old-0"]


BAD_QUERIES = (
    *("limit=0", "limit=1001", "limit=x", "commit=HEAD", "commit=%27", "state=done", "project=%00", "ref=%00"),
    *("since=yesterday", "since=2026-01-01T00:00:00", "cursor=x", "cursor=%00", "cursor=AAAA", "cursor=%C3%A9"),
    *("cursor=MjAyNi0wMS0wMVQwMDowMDowMCswMDowMCAA", "stat=failed", "Limit=1"),  # the first: a time and a NUL
)


def test_bad_queries_are_refused(api: httpx.Client) -> None:
    """With the parameter's name."""
    for query in BAD_QUERIES:
        assert query.partition("=")[0] in problem_of(api.get(f"{API}/runs?{query}"), 422), query


PLACES = (("GET", ""), ("POST", "/cancel"), ("POST", "/rerun"), ("GET", "/steps/hello/logs"))


def test_odd_ids_are_not_found(api: httpx.Client) -> None:
    """In every place where a run may be named."""
    for run_id in ("nothing", "%2e%2e%2fetc", "x" * 400, "%F0%9F%A6%86", "-1", "' OR 1=1", "%FF"):
        for method, path in PLACES:
            problem_of(api.request(method, f"{API}/runs/{run_id}{path}"), 404)


def test_ids_that_no_run_can_have_are_refused(api: httpx.Client) -> None:
    """Before the database is asked, which could not say them either."""
    for run_id in ("%00", "a%00b", "x" * 501):
        for method, path in PLACES:
            problem_of(api.request(method, f"{API}/runs/{run_id}{path}"), 422)


def test_run_is_asked_for_by_branch_tag_and_commit(api: httpx.Client, shop: GitRepository, database: sa.Engine) -> None:
    """202 with the event that is stored; each request is a run of its own, and the event can be looked at."""
    first = shop.git("rev-parse", "HEAD")
    shop.git("tag", "-a", "v1", "-m", "One")
    shop.git("branch", "dev")
    second = shop.commit({"more": "x"})
    asked = [
        ({}, MAIN, second),
        ({"ref": "main"}, MAIN, second),
        ({"ref": MAIN}, MAIN, second),
        ({"ref": "dev"}, "refs/heads/dev", first),
        ({"ref": "v1"}, "refs/tags/v1", first),
        ({"commit": first}, MAIN, first),
        ({"commit": first, "ref": "dev"}, "refs/heads/dev", first),
    ]
    for body, ref, commit in asked:
        answer = api.post(f"{API}/runs", json={"project": "shop", **body})
        event = answer.json()
        assert (answer.status_code, event["kind"], event["ref"], event["commit"]) == (202, "manual", ref, commit), body
        shown = api.get(answer.headers["location"]).json()
        assert {name: shown[name] for name in ("id", "key", "commit")} == {
            name: event[name] for name in ("id", "key", "commit")
        }
    with database.connect() as connection:
        stored = connection.execute(sa.select(inbox.c.author, inbox.c.key)).all()
    assert len({row.key for row in stored}) == len(asked)
    assert {row.author for row in stored} == {"local"}


CANNOT_START = (
    ({"project": "shopp"}, 404, '"shop"'),
    ({"project": "shop", "ref": "mian"}, 404, 'no branch or tag "mian"'),
    ({"project": "shop", "ref": "--upload-pack=id"}, 404, "no branch or tag"),
    ({"project": "shop", "commit": "a" * 40}, 404, "holds commit aaaaaaaaaaaa"),
    ({"project": "shop", "commit": "HEAD"}, 422, "body.commit"),
    ({"project": "shop", "ref": "a\0b"}, 422, "body.ref"),
    ({"project": "shop", "ref": "x" * 600}, 422, "body.ref"),
    ({"project": "shop", "force": True}, 422, "body.force"),
    ({}, 422, "body.project"),
    ([], 422, "body"),
)


def test_run_that_cannot_be_started_says_why(api: httpx.Client, shop: GitRepository) -> None:
    """And nothing is stored."""
    for body, status, told in CANNOT_START:
        assert told in problem_of(api.post(f"{API}/runs", json=body), status), body
    assert api.get(f"{API}/events").json() == []


def test_event_that_is_none_is_not_shown(api: httpx.Client) -> None:
    """404, or 422 for what can be no number of an event."""
    for number, status in (("1", 404), ("0", 422), ("-1", 422), ("x", 422), ("9" * 30, 422)):
        problem_of(api.get(f"{API}/events/{number}"), status)


def test_cancel_and_rerun_look_at_how_the_run_ended(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """An ended run cannot be stopped, one at work or without a failure not run again: 409, and nobody is asked."""
    assert "not over" in problem_of(api.post(f"{API}/runs/run-1/rerun"), 409)
    records.finish_step(database, run, "hello", StepResult("succeeded", exit_code=0))
    records.finish_run(database, run.id)
    assert "has ended: succeeded" in problem_of(api.post(f"{API}/runs/run-1/cancel"), 409)
    assert "nothing of the run failed" in problem_of(api.post(f"{API}/runs/run-1/rerun"), 409)
    with database.connect() as connection:
        actions = connection.execute(sa.select(audit.c.action)).scalars().all()
    assert actions == ["project.add"]


def test_cancel_and_rerun_without_dagster_say_so(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """503, and the run is what it was."""
    assert "Dagster does not answer" in problem_of(api.post(f"{API}/runs/run-1/cancel"), 503)
    assert api.get(f"{API}/runs/run-1").json()["state"] == "running"
    records.finish_run(database, run.id, broken="cut off")
    assert "Dagster does not answer" in problem_of(api.post(f"{API}/runs/run-1/rerun"), 503)
