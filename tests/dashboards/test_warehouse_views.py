"""The questions of the dashboards and the connection that they share."""

from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from dashboard_history import AUTHORS, write_history
from dashboard_site import Site, configure

from penstock.errors import NotFoundError, PlatformError
from penstock.state.database import hosted_database
from penstock.warehouse import TestResult, Warehouse, queries, views
from penstock.warehouse.home import warehouse_location


def test_reader_sees_what_is_written_after_it_opened_and_survives_a_restart():
    """No warehouse yet, then rows, then a database that was stopped and started: one reader for all of it."""
    with ExitStack() as stack:
        settings = configure(stack)
        reader = views.Reader(warehouse_location(settings))
        stack.callback(reader.close)
        with hosted_database(settings) as database:
            with pytest.raises(NotFoundError, match="no warehouse yet"):
                reader.ask(queries.runs)
            with Warehouse(warehouse_location(settings)) as warehouse:
                warehouse.create()
                assert reader.ask(queries.runs).empty
            write_history(settings, database, commits=3)
            assert len(reader.ask(queries.runs)) == 5  # one of the six is running
        with pytest.raises(PlatformError, match="does not answer"):
            reader.ask(queries.runs)
        with hosted_database(settings):
            assert len(reader.ask(queries.runs)) == 5


def test_a_question_that_fails_is_one_line(filled: Site):
    """What DuckDB says, without a traceback and without the rest of its message."""
    reader = views.Reader(warehouse_location(filled.settings))
    with pytest.raises(PlatformError, match="did not answer") as caught:
        reader.ask(lambda lake: lake.sql("FROM no_such_table").df())
    assert "\n" not in str(caught.value)
    assert len(reader.ask(queries.runs, limit=1)) == 1
    reader.close()


@pytest.fixture
def ask(filled: Site):
    """ask(question, **parameters) → a DataFrame."""
    reader = views.Reader(warehouse_location(filled.settings))
    yield reader.ask
    reader.close()


def test_a_finding_has_its_text_and_its_life(ask, filled: Site):
    """One row per branch with what was last seen there, and one per change with the commit's title."""
    assert filled.known
    of = {"project": "shop", "fingerprint": filled.known.introduced_fingerprint}
    (life,) = ask(views.finding_lives, **of).itertuples()
    assert (life.branch, life.state, life.severity, life.cwe.tolist()) == ("main", "open", "critical", ["CWE-502"])
    assert life.message.startswith("Pickle of data")
    (event,) = ask(views.finding_life, branch="main", **of).itertuples()
    assert event.event == "introduced"
    assert event.title == "Keep the basket for a week"
    assert event.author in AUTHORS


def test_a_finding_of_another_project_is_not_found(ask, filled: Site):
    """Fingerprints count within their project only."""
    assert filled.known
    assert ask(views.finding_lives, project="billing", fingerprint=filled.known.introduced_fingerprint).empty


def test_releases_come_with_their_commit_and_time_alive(ask, filled: Site):
    """Newest first; the filters narrow."""
    assert filled.known
    found = ask(views.releases, project="shop", environment="production")
    assert found["number"].tolist() == list(range(filled.known.live_release, 0, -1))
    assert found["title"].notna().all()
    assert (found["live_s"] > 0).all()
    assert ask(views.releases, project="shop", environment="nowhere").empty


def test_failed_tests_of_a_run_come_first(ask, filled: Site):
    """Then the slowest."""
    assert filled.known
    found = ask(views.tests_of_run, run_id=filled.known.failed_run)
    assert found["state"].tolist() == ["failed", "passed", "passed", "passed"]
    assert found["seconds"].tolist()[1:] == sorted(found["seconds"].tolist()[1:], reverse=True)


def test_what_was_there_at_the_first_scan_was_not_introduced_in_its_week(ask):
    """Introduced and fixed by week are as many as the history says, without the baseline."""
    history = ask(lambda lake: lake.sql("FROM finding_history WHERE project = 'shop'").df())
    weeks = ask(views.introduced_and_fixed, project="shop", branch="main")
    assert weeks["introduced"].sum() == (~history["baseline"]).sum() + history["reopened"].sum()
    assert weeks["fixed"].sum() >= (history["state"] == "fixed").sum() > 0


def test_a_test_that_passed_and_failed_on_one_commit_is_flaky():
    """On two commits it is not: the code may have changed."""
    with ExitStack() as stack:
        settings = configure(stack)
        stack.enter_context(hosted_database(settings))
        warehouse = stack.enter_context(Warehouse(warehouse_location(settings)))
        now = datetime.now(UTC)
        for number, (name, commit, state) in enumerate(
            [
                ("flaky", "c1", "passed"),
                ("flaky", "c1", "failed"),
                ("broken", "c1", "passed"),
                ("broken", "c2", "failed"),
            ]
        ):
            row = {"project": "shop", "suite": "s", "step": "test", "seconds": 1.0, "finished_at": now}
            warehouse.record_tests([TestResult(**row, name=name, commit=commit, state=state, run_id=f"r{number}")])
        reader = views.Reader(warehouse_location(settings))
        stack.callback(reader.close)
        found = reader.ask(views.durations_of_tests).set_index("name")
    assert found["flaky"].to_dict() == {"flaky": True, "broken": False}
    assert found["failures"].to_dict() == {"flaky": 1, "broken": 1}
