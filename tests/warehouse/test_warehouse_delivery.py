"""DORA's four keys, gates held against the past, tests and scanners: hand-made rows with answers worked out by hand."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from penstock.errors import InputError
from penstock.warehouse import delivery, health, queries, views
from penstock.warehouse.schema import schema_sql

NOW = datetime.now(UTC).replace(microsecond=0)
_numbers = itertools.count(1)


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables, empty, in a DuckDB in memory."""
    connection = duckdb.connect(config={"python_enable_replacements": False})
    connection.execute(schema_sql())
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


def insert(lake: duckdb.DuckDBPyConnection, table: str, **row: object) -> None:
    names = ", ".join(row)
    lake.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def a_commit(lake: duckdb.DuckDBPyConnection, commit: str, hours: float, project: str = "shop") -> None:
    row = {"project": project, "commit": commit, "ref": "refs/heads/main", "author": "Ada", "message": f"Do {commit}"}
    insert(lake, "commits", **row, committed_at=ago(hours))


def a_release(
    lake: duckdb.DuckDBPyConnection,
    number: int,
    commit: str,
    hours: float,
    *,
    fails: bool = False,
    project: str = "shop",
) -> None:
    insert(
        lake,
        "releases",
        project=project,
        environment="production",
        service="web",
        number=number,
        commit=commit,
        state="failed" if fails else "superseded",
        created_at=ago(hours),
        live_at=None if fails else ago(hours),
    )


def test_the_four_keys_of_a_worked_example(lake: duckdb.DuckDBPyConnection):
    """
    c1 live after 2 h; c2 fails at its health check and c3 gets through 3 h later; c4 is taken back after 1 h by going
    back to c3; c5 follows. Five changes, two failures, restored after 3 and 1 hours; the rollback is no change.
    """
    for commit, hours in (("c1", 100), ("c2", 90), ("c3", 85), ("c4", 60), ("c5", 50)):
        a_commit(lake, commit, hours)
    a_release(lake, 1, "c1", 98)
    a_release(lake, 2, "c2", 86, fails=True)
    a_release(lake, 3, "c3", 83)
    a_release(lake, 4, "c4", 58)
    a_release(lake, 5, "c3", 57)
    a_release(lake, 6, "c5", 46)
    found = delivery.deployments(lake)
    assert found["is_rollback"].tolist() == [False, False, False, False, True, False]
    assert found["failure"].fillna("").tolist() == ["", "never got traffic", "", "taken back", "", ""]
    assert found["restore_s"].dropna().tolist() == [3 * 3600, 1 * 3600]
    whole = delivery.delivery(lake, days=70).iloc[0]
    assert (whole["deployments"], whole["failures"], whole["unrestored"]) == (5, 2, 0)
    assert whole["failure_rate"] == pytest.approx(0.4)
    assert whole["per_week"] == pytest.approx(0.5)
    assert whole["restore_median_s"] == 2 * 3600
    # c1 2 h, c2 with c3 7 h, c3 2 h, c4 2 h, c5 4 h
    assert delivery.lead_times(lake).set_index("commit")["lead_s"].to_dict() == {
        "c1": 2 * 3600,
        "c2": 7 * 3600,
        "c3": 2 * 3600,
        "c4": 2 * 3600,
        "c5": 4 * 3600,
    }
    assert whole["lead_median_s"] == 2 * 3600


def test_projects_are_counted_apart_and_together(lake: duckdb.DuckDBPyConnection):
    """The first row is of all; then one for each, by name."""
    for project, count in (("shop", 1), ("billing", 3)):
        for number in range(1, count + 1):
            a_release(lake, number, f"{project}{number}", number, project=project)
    found = delivery.delivery(lake)
    assert found["project"].isna().tolist() == [True, False, False]
    assert found["project"].tolist()[1:] == ["billing", "shop"]
    assert found["deployments"].tolist() == [4, 3, 1]


def test_a_failure_that_nothing_followed_is_not_restored(lake: duckdb.DuckDBPyConnection):
    """It has no time to restore, and is counted."""
    a_release(lake, 1, "c1", 5)
    a_release(lake, 2, "c2", 4, fails=True)
    whole = delivery.delivery(lake).iloc[0]
    assert (whole["failures"], whole["unrestored"]) == (1, 1)
    assert whole[["restore_median_s"]].isna().all()


def test_the_same_commit_deployed_again_is_no_rollback(lake: duckdb.DuckDBPyConnection):
    """Nothing was taken back."""
    a_release(lake, 1, "c1", 5)
    a_release(lake, 2, "c1", 4)
    found = delivery.deployments(lake)
    assert found["failure"].isna().all()
    assert not found["is_rollback"].any()


def test_other_environments_and_older_times_do_not_count(lake: duckdb.DuckDBPyConnection):
    """Nothing is no row, not a zero."""
    a_release(lake, 1, "c1", 24 * 100)
    assert delivery.delivery(lake, days=90).empty
    assert delivery.delivery(lake, environment="staging", days=365).empty
    assert len(delivery.delivery(lake, days=365)) == 2


def a_scan(
    lake: duckdb.DuckDBPyConnection, commit: str, hours: float, state: str = "succeeded", **more: object
) -> None:
    row = {"project": "shop", "commit": commit, "branch": "main", "run_id": f"r-{commit}", "step": "sast"}
    row |= {"tool": "bandit", "category": "sast", "state": state, "results": 0, "findings": 0, "not_findings": 0}
    row |= {"quarantined": 0, "report_sha256": f"{next(_numbers)}", "author": "Ada", "committed_at": ago(hours)}
    insert(lake, "scans", **(row | {"scanned_at": ago(hours)} | more))


def a_finding(
    lake: duckdb.DuckDBPyConnection, commit: str, hours: float, fingerprint: str, severity: str, **more: object
) -> None:
    row = {"project": "shop", "commit": commit, "run_id": f"r-{commit}", "step": "sast", "tool": "bandit"}
    row |= {"category": "sast", "severity": severity, "fingerprint": fingerprint, "scanned_at": ago(hours)}
    insert(lake, "findings", **(row | {"suppressed": False} | more))


def an_event(
    lake: duckdb.DuckDBPyConnection, commit: str, hours: float, fingerprint: str, event: str, **more: object
) -> None:
    row = {"project": "shop", "branch": "main", "fingerprint": fingerprint, "tool": "bandit", "category": "sast"}
    row |= {"seq": next(_numbers), "event": event, "state": "fixed" if event == "fixed" else "open", "commit": commit}
    row |= {"committed_at": ago(hours), "baseline": False, "run_id": f"r-{commit}", "severity": "high"}
    insert(lake, "finding_events", **(row | {"rule_id": "B1", "path": "a.py", "author": "Ada"} | more))


@pytest.fixture
def gated(lake: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """c1 has an old high and a suppressed critical; c2 brings a medium; c3 brings a critical and goes live."""
    for commit, hours in (("c1", 30), ("c2", 20), ("c3", 10)):
        a_scan(lake, commit, hours)
        a_finding(lake, commit, hours, "f1", "high")
        a_finding(lake, commit, hours, "f0", "critical", suppressed=True)
    an_event(lake, "c1", 30, "f1", "introduced", baseline=True)
    an_event(lake, "c1", 30, "f0", "introduced", state="suppressed", severity="critical", baseline=True)
    for commit, hours in (("c2", 20), ("c3", 10)):
        a_finding(lake, commit, hours, "f2", "medium")
    an_event(lake, "c2", 20, "f2", "introduced", severity="medium")
    a_finding(lake, "c3", 10, "f3", "critical")
    an_event(lake, "c3", 10, "f3", "introduced", severity="critical")
    a_release(lake, 1, "c3", 9)
    return lake


@pytest.mark.parametrize(
    ("severity", "new_only", "stopped"),
    [
        ("critical", True, ["c3"]),
        ("high", True, ["c3"]),
        ("medium", True, ["c3", "c2"]),
        ("critical", False, ["c3"]),
        ("high", False, ["c3", "c2", "c1"]),
    ],
)
def test_a_policy_stops_what_a_gate_would_have_stopped(
    gated: duckdb.DuckDBPyConnection, severity: str, new_only: bool, stopped: list[str]
):
    """Suppressed findings never stop; with `new_only`, neither does what was there at the first scan."""
    history = queries.gate_history(gated, branches=["main"])
    assert history["commit"].tolist() == ["c3", "c2", "c1"]
    assert history["is_released"].tolist() == [True, False, False]
    found = history[queries.blocked(history, severity=severity, new_only=new_only)]
    assert found["commit"].tolist() == stopped


def test_commits_that_no_scanner_read_are_not_judged(gated: duckdb.DuckDBPyConnection):
    """A scan that failed says nothing; a branch that was not asked for neither."""
    a_scan(gated, "c4", 5, "failed")
    assert "c4" not in queries.gate_history(gated)["commit"].tolist()
    assert queries.gate_history(gated, branches=["release"]).empty


def test_a_severity_that_does_not_exist_is_refused(gated: duckdb.DuckDBPyConnection):
    """With the names that do."""
    with pytest.raises(InputError, match=r'"urgent".*critical, high'):
        queries.blocked(queries.gate_history(gated), severity="urgent", new_only=True)


def test_overdue_is_by_severity(lake: duckdb.DuckDBPyConnection):
    """A critical of eight days is late, a high of eight days is not, info never is."""
    for name in ("critical", "high", "info"):
        an_event(lake, "c1", 24 * 8, name, "introduced", severity=name)
    found = views.open_by_age(lake).set_index("severity")
    assert found["overdue"].to_dict() == {"critical": 1, "high": 0, "info": 0}
    assert set(found["age"]) == {"up to a month"}


def test_time_to_fix_leaves_out_the_first_scan(lake: duckdb.DuckDBPyConnection):
    """Two and four days are three on average; what was always there has no beginning."""
    for name, days, baseline in (("f1", 2, False), ("f2", 4, False), ("f3", 50, True)):
        an_event(lake, "c1", 24 * (days + 1), name, "introduced", baseline=baseline)
        an_event(lake, "c2", 24, name, "fixed")
    (row,) = views.time_to_fix(lake).itertuples()
    assert (row.severity, row.fixed, row.mean_days, row.median_days) == ("high", 2, 3.0, 3.0)


def test_a_branch_brings_fixes_and_lacks(lake: duckdb.DuckDBPyConnection):
    """What is open there alone is brought; what went there is fixed; what it never had is absent."""
    for name in ("both", "fixed", "absent"):
        an_event(lake, "c1", 50, name, "introduced")
    an_event(lake, "c9", 1, "newer", "introduced")
    for name in ("both", "fixed", "brought"):
        an_event(lake, "b1", 20, name, "introduced", branch="feature")
    an_event(lake, "b2", 10, "fixed", "fixed", branch="feature")
    a_scan(lake, "b1", 20, branch="feature")
    found = views.branch_difference(lake, project="shop", branch="feature")
    assert found.set_index("fingerprint")["change"].to_dict() == {
        "brought": "brought",
        "fixed": "fixed",
        "absent": "absent",
    }


def a_result(lake: duckdb.DuckDBPyConnection, name: str, commit: str, state: str, run_id: str) -> None:
    row = {"project": "shop", "suite": "s", "step": "test", "seconds": 1.0, "finished_at": ago(1)}
    insert(lake, "test_results", **row, name=name, commit=commit, state=state, run_id=run_id)


def test_flaky_tests_are_those_that_did_both_on_one_commit(lake: duckdb.DuckDBPyConnection):
    """With the commits on which they did, out of those on which they ran."""
    for commit, states in (("c1", ("failed", "passed")), ("c2", ("passed",)), ("c3", ("error", "passed"))):
        for at, state in enumerate(states):
            a_result(lake, "flaky", commit, state, f"{commit}-{at}")
            a_result(lake, "broken", commit, "failed", f"{commit}-{at}")
    (row,) = health.flaky_tests(lake).itertuples()
    assert (row.name, row.commits, row.flaky_commits, row.failures) == ("flaky", 3, 2, 2)
    weeks = health.failures_by_week(lake).groupby("kind")["failures"].sum()
    assert weeks.to_dict() == {"broken": 5, "flaky": 2}


def test_coverage_counts_commits_that_ran(lake: duckdb.DuckDBPyConnection):
    """A failed scan covers nothing, and a kind of scanner that only others have is zero here."""
    for project, commit in (("shop", "c1"), ("shop", "c2"), ("billing", "d1")):
        insert(lake, "runs", run_id=commit, project=project, commit=commit, state="succeeded", queued_at=ago(1))
    a_scan(lake, "c1", 1)
    a_scan(lake, "c2", 1, "failed", reason="no database")
    found = health.scan_coverage(lake).set_index("project")
    assert found["share"].to_dict() == {"billing": 0.0, "shop": 0.5}
    assert health.failed_scans(lake)["reason"].tolist() == ["no database"]


def test_rules_that_are_suppressed_most_are_the_noisiest(lake: duckdb.DuckDBPyConnection):
    """With their share; a rule that nobody suppressed is not among them."""
    for number in range(4):
        state = "suppressed" if number else "open"
        an_event(lake, "c1", 5, f"n{number}", "introduced", rule_id="noisy", state=state)
    an_event(lake, "c1", 5, "quiet", "introduced", rule_id="quiet")
    (row,) = health.noisy_rules(lake).itertuples()
    assert (row.rule_id, row.findings, row.suppressed, row.suppressed_share) == ("noisy", 4, 3, 0.75)
