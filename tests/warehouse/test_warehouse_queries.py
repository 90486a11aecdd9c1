"""The questions of the dashboards, on a small history that is told in the fixture."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from lake_rows import at, commit, finding, findings, outcome, release, run, scan, step

from penstock.warehouse import Location, ScanReport, Warehouse, connect, queries

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def lake(catalog_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """
    Three commits on main: the first has a high and a low finding, the second adds a critical one and fails its tests,
    the third fixes the low one and suppresses the high one. The first is live. A topic branch adds one.
    """
    data = tmp_path_factory.mktemp("history") / "lake"
    location = Location(catalog_url=catalog_url, catalog_schema="lake_history", data_path=str(data))
    high, low = finding("high"), finding("low", severity="low", line=9)
    critical = finding("critical", severity="critical")
    with Warehouse(location) as warehouse:
        warehouse.record(
            *(commit(number) for number in (1, 2, 3)),
            run(1),
            run(2, state="failed", reason="test: 1 of 2 failed"),
            run(3),
            *(step(number, "scan") for number in (1, 2, 3)),
            step(2, "test", state="failed", exit_code=1, finished_at=at(2.5)),
            step(2, "deploy", state="skipped", queued_at=None, started_at=None, finished_at=None),
            outcome(2, "test_a", state="failed"),
            release(1),
            release(2, commit="c2", state="failed", live_at=None),
            release(1, environment="staging", commit="c9"),
        )
        warehouse.record_scan(scan(1), [high, low])
        warehouse.record_scan(scan(2), [high, low, critical])
        warehouse.record_scan(scan(3), [finding("high", suppressed=True), critical])
        warehouse.record_scan(scan(4, branch="topic"), [critical, finding("topical")], base_branch="main")
        warehouse.record_scan(scan(5, tool="semgrep", state="failed", reason="no rules"))
        warehouse.record(*_aged(location))
    connection = connect(location, read_only=True)
    yield connection
    connection.close()


def _aged(location: Location) -> list[ScanReport]:
    """A project with something found five days ago, more three days ago, and half of it gone yesterday."""
    days = {5: ["a"], 3: ["a", "b"], 1: ["b"]}
    return [
        ScanReport(
            scan=scan(10 - day, project="aged", committed_at=TODAY - timedelta(days=day, hours=-1)),
            findings=findings(found),
        )
        for day, found in days.items()
    ]


def test_runs_are_listed_newest_first_with_what_failed(lake):
    """A failed run names its step; a run without a commit's row is there too."""
    frame = queries.runs(lake, project="shop")
    assert frame[["run_id", "title"]].values.tolist() == [["r3", "Change 3"], ["r2", "Change 2"], ["r1", "Change 1"]]
    assert frame["failed_step"].tolist()[1] == "test"
    assert frame["failed_step"].isna().tolist() == [True, False, True]
    assert frame["steps"].tolist() == [1, 3, 1]


def test_runs_can_be_narrowed(lake):
    """By state, by project and by number."""
    assert queries.runs(lake, state="failed")["run_id"].tolist() == ["r2"]
    assert queries.runs(lake, project="nothing").empty
    assert len(queries.runs(lake, limit=2)) == 2


def test_steps_of_a_run_come_in_the_order_of_starting(lake):
    """What never started comes last; the time in the queue is seconds."""
    frame = queries.steps_of_run(lake, "r2")
    assert frame["step"].tolist() == ["scan", "test", "deploy"]
    assert frame["queue_s"].tolist()[:2] == [12.0, 12.0]


def test_open_findings_are_what_is_neither_fixed_nor_suppressed(lake):
    """Per branch, worst first, with who introduced them."""
    frame = queries.open_findings(lake, project="shop", branch="main")
    assert frame["fingerprint"].tolist() == ["critical"]
    assert frame["introduced_commit"].tolist() == ["c2"]
    assert frame["introduced_by"].tolist() == ["author2"]
    assert frame["message"].tolist() == ["shell=True"]


def test_open_findings_of_all_branches_keep_them_apart(lake):
    """A finding on two branches is two rows."""
    frame = queries.open_findings(lake, project="shop")
    pairs = frame[["fingerprint", "branch"]].values.tolist()
    assert sorted(pairs) == [["critical", "main"], ["critical", "topic"], ["topical", "topic"]]
    assert queries.open_findings(lake, severity="low").empty


def test_a_commit_shows_what_it_introduced_and_fixed(lake):
    """The baseline is marked; the text is there also for what is gone."""
    assert queries.introduced_by_commit(lake, project="shop", commit="c1")["baseline"].tolist() == [True, True]
    brought = queries.introduced_by_commit(lake, project="shop", commit="c2")
    assert set(brought["fingerprint"]) == {"critical"}
    assert set(brought["branch"]) == {"main", "topic"}
    fixed = queries.fixed_by_commit(lake, project="shop", commit="c3")
    assert fixed[["fingerprint", "message", "line"]].values.tolist() == [["low", "shell=True", 9]]


def test_live_releases_say_how_vulnerable_they_are(lake):
    """What runs in production, who wrote it, and what its commit's scans found."""
    frame = queries.live_releases(lake, environment="production")
    assert frame[["service", "number", "commit", "author"]].values.tolist() == [["web", 1, "c1", "author1"]]
    assert frame[["critical", "high", "medium", "low", "info"]].values.tolist() == [[0, 1, 0, 1, 0]]
    assert frame["scanned"].tolist() == [True]


def test_a_live_release_that_nobody_scanned_is_not_clean(lake):
    """No findings because nothing looked is told apart from no findings."""
    assert queries.live_releases(lake, environment="staging")["scanned"].tolist() == [False]


def test_findings_over_time_count_at_the_end_of_each_day(lake):
    """Every day and severity is there, also those on which nothing happened."""
    frame = queries.findings_over_time(lake, project="aged", days=7)
    assert len(frame) == 35
    high = frame[frame["severity"] == "high"]
    assert high["open"].tolist() == [0, 1, 1, 2, 2, 1, 1]
    assert high["introduced"].tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert high["fixed"].tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_findings_before_the_window_still_count(lake):
    """A window of two days begins with what was open before it."""
    frame = queries.findings_over_time(lake, project="aged", days=2)
    assert frame[frame["severity"] == "high"]["open"].tolist() == [1, 1]


def test_findings_by_severity_count_what_is_open(lake):
    """One row per project, branch and tool."""
    frame = queries.findings_by_severity(lake, project="shop", branch="topic")
    assert frame[["tool", "critical", "high", "low"]].values.tolist() == [["bandit", 1, 1, 0]]


def test_scanner_health_puts_failures_first(lake):
    """A scanner that never succeeded has no age; its reason is there."""
    frame = queries.scanner_health(lake, project="shop")
    assert frame["tool"].tolist() == ["semgrep", "bandit"]
    assert frame["last_reason"].tolist()[0] == "no rules"
    assert frame["failures"].tolist() == [1, 0]
    assert frame["stale_days"].isna().tolist() == [True, False]


def test_every_question_has_an_answer_before_the_first_run(reader):
    """An empty warehouse gives empty frames with all columns, and days of zeros."""
    assert queries.runs(reader).empty
    assert queries.steps_of_run(reader, "r").empty
    assert queries.open_findings(reader).empty
    assert queries.introduced_by_commit(reader, project="p", commit="c").empty
    assert queries.fixed_by_commit(reader, project="p", commit="c").empty
    assert queries.live_releases(reader).empty
    assert queries.findings_by_severity(reader).empty
    assert queries.scanner_health(reader).empty
    assert queries.findings_over_time(reader, days=3)["open"].tolist() == [0] * 15
    assert "introduced_commit" in queries.open_findings(reader).columns


def test_parameters_are_values_not_sql(reader):
    """A project with a quote in its name is a project that is not there."""
    assert queries.open_findings(reader, project="x' OR '1'='1").empty
