"""The life of a finding on a branch."""

from collections.abc import Sequence

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_rows import at, finding, findings, scan

from penstock.errors import InputError
from penstock.findings import Finding
from penstock.warehouse import Scan, ScanReport, Warehouse
from penstock.warehouse.write import insert_scan


def history(lake: duckdb.DuckDBPyConnection, fingerprint: str = "a", branch: str = "main") -> dict[str, object]:
    """The row of `finding_history`, by column."""
    result = lake.execute("FROM finding_history WHERE fingerprint = ? AND branch = ?", [fingerprint, branch])
    names = [column[0] for column in result.description or ()]
    rows = result.fetchall()
    assert len(rows) == 1
    return dict(zip(names, rows[0], strict=True))


def record(
    lake: duckdb.DuckDBPyConnection, scanned: Scan, found: Sequence[Finding] = (), base: str | None = None
) -> bool:
    return insert_scan(lake, ScanReport(scan=scanned, findings=found, base_branch=base))


def test_a_finding_is_introduced_at_the_first_commit_that_shows_it(tables):
    """The commit, its author and its time are the introduction; the first scan of all is the baseline."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2), findings(["a", "b"]))
    old, new = history(tables, "a"), history(tables, "b")
    assert (old["introduced_commit"], old["baseline"], old["last_seen_commit"]) == ("c1", True, "c2")
    assert (new["introduced_commit"], new["introduced_by"], new["introduced_at"]) == ("c2", "author2", at(2))
    assert (new["baseline"], new["state"], new["fixed_commit"]) == (False, "open", None)


def test_a_finding_that_a_successful_scan_no_longer_shows_is_fixed(tables):
    """Fixed at the commit that does not show it, last seen at the one before."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2), findings(["a"]))
    record(tables, scan(3))
    row = history(tables)
    assert (row["state"], row["last_seen_commit"], row["fixed_commit"]) == ("fixed", "c2", "c3")
    assert (row["fixed_at"], row["fixed_by"]) == (at(3), "author3")


def test_a_finding_that_comes_back_is_reopened(tables):
    """It keeps its introduction, counts the return, and is fixed by nobody."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2))
    record(tables, scan(3), findings(["a"]))
    row = history(tables)
    assert (row["state"], row["reopened"], row["introduced_commit"]) == ("open", 1, "c1")
    assert (row["fixed_commit"], row["last_seen_commit"]) == (None, "c3")


def test_a_failed_scan_fixes_nothing(tables):
    """A scan that could not look says nothing about findings."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2, state="failed", reason="no rules"))
    assert history(tables)["state"] == "open"
    assert history(tables)["last_seen_commit"] == "c1"


def test_a_failed_scan_with_findings_is_refused(tables):
    """A scan either failed or found."""
    with pytest.raises(InputError, match="failed scan brings no findings"):
        record(tables, scan(1, state="failed"), findings(["a"]))


def test_a_report_with_quarantined_results_fixes_nothing(tables):
    """The result that could not be read might be the one that seems to be gone; what is new still counts."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2, quarantined=1), findings(["b"]))
    assert history(tables, "a")["state"] == "open"
    assert history(tables, "b")["introduced_commit"] == "c2"


@pytest.mark.parametrize("other", [{"tool": "semgrep"}, {"category": "other"}, {"branch": "topic"}, {"project": "x"}])
def test_another_tool_category_branch_or_project_fixes_nothing(tables, other):
    """Only the same tool and category on the same branch of the same project can say that it is gone."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2, **other))
    assert history(tables)["state"] == "open"


def test_findings_of_another_tool_are_refused(tables):
    """A report of two tools is two scans."""
    with pytest.raises(InputError, match='tool "semgrep" in a scan of "bandit"'):
        record(tables, scan(1), findings(["a"], tool="semgrep"))


def test_suppression_comes_and_goes_with_its_reason(tables):
    """Suppressed is a state of its own, neither open nor fixed."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2), findings(["a"], suppressed=True, suppression_reason="accepted"))
    assert (history(tables)["state"], history(tables)["suppression_reason"]) == ("suppressed", "accepted")
    record(tables, scan(3), findings(["a"]))
    assert (history(tables)["state"], history(tables)["suppression_reason"]) == ("open", None)


def test_a_suppressed_finding_can_be_fixed_and_come_back_suppressed(tables):
    """Its way back is a reopening, and it is still suppressed."""
    for number, found in enumerate([["a"], [], ["a"]], 1):
        record(tables, scan(number), findings(found, suppressed=True))
    assert (history(tables)["state"], history(tables)["reopened"]) == ("suppressed", 1)


def test_a_late_scan_of_an_older_commit_changes_no_state(tables):
    """The newest commit has the last word, in whatever order the scans end."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(3), findings(["a", "b"]))
    record(tables, scan(2), findings(["c"]))
    states = tables.execute("SELECT fingerprint, state FROM finding_history ORDER BY 1").fetchall()
    assert states == [("a", "open"), ("b", "open")]


def test_a_late_scan_moves_the_introduction_back(tables):
    """A finding that an older commit shows was introduced there, not where it was seen first."""
    record(tables, scan(1), findings([]))
    record(tables, scan(3), findings(["a"]))
    record(tables, scan(2), findings(["a"]))
    row = history(tables)
    assert (row["introduced_commit"], row["introduced_by"], row["state"]) == ("c2", "author2", "open")


def test_what_the_base_branch_has_is_no_news_of_a_branch(tables):
    """A topic branch shows as its own only what it brings; the rest keeps where it came from."""
    record(tables, scan(1), findings([]))
    record(tables, scan(2), findings(["a"]))
    record(tables, scan(3, branch="topic"), findings(["a", "b"]), base="main")
    assert history(tables, "a", "topic")["introduced_commit"] == "c2"
    assert history(tables, "a", "topic")["introduced_by"] == "author2"
    assert history(tables, "b", "topic")["introduced_commit"] == "c3"


def test_what_the_first_scan_of_a_branch_shows_and_its_base_does_not_is_new(tables):
    """A branch is rarely scanned before its first commit: what its base never had is not a baseline."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2, branch="topic"), findings(["a", "b"]), base="main")
    old, new = history(tables, "a", "topic"), history(tables, "b", "topic")
    assert (old["introduced_commit"], old["introduced_by"], old["baseline"]) == ("c1", "author1", True)
    assert (new["introduced_commit"], new["introduced_by"], new["baseline"]) == ("c2", "author2", False)


@pytest.mark.parametrize(
    "of_base",
    [
        [],
        [scan(1, state="failed", reason="no rules")],
        [scan(1, tool="semgrep")],
        [scan(1, category="deps")],
        [scan(1, project="other")],
        [scan(9)],
    ],
    ids=["never", "failed", "another tool", "another category", "another project", "only later"],
)
def test_first_scan_of_a_branch_whose_base_nobody_looked_at_is_a_baseline(tables, of_base):
    """Then nobody knows whether the branch brought it."""
    for each in of_base:
        record(tables, each)
    record(tables, scan(2, branch="topic"), findings(["b"]), base="main")
    assert history(tables, "b", "topic")["baseline"] is True


def test_what_the_base_had_when_the_branch_was_scanned_is_not_the_branch_s(tables):
    """Fixed on the base only after the branch's commit: inherited from whoever introduced it there."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(5))
    record(tables, scan(3, branch="topic"), findings(["a"]), base="main")
    row = history(tables, "a", "topic")
    assert (row["introduced_commit"], row["introduced_by"]) == ("c1", "author1")


def test_what_the_base_fixed_before_may_be_older_than_the_branch_s_commit(tables):
    """The branch may have left the base before the fix, so its first scan blames nobody for it."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2))
    record(tables, scan(3, branch="topic"), findings(["a"]), base="main")
    assert history(tables, "a", "topic")["baseline"] is True


def test_what_is_fixed_on_the_base_branch_is_news_of_a_branch_that_brings_it_back(tables):
    """Only what is open on the base is inherited."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(2))
    record(tables, scan(3, branch="topic"), findings(["a"]), base="main")
    assert history(tables, "a", "topic")["introduced_commit"] == "c3"


def test_a_changed_severity_or_path_shows_in_the_history(tables):
    """The history tells what the newest scan says."""
    record(tables, scan(1), findings(["a"], severity="low"))
    record(tables, scan(2), findings(["a"], severity="critical", path="shop/moved.py"))
    row = history(tables)
    assert (row["severity"], row["path"], row["state"]) == ("critical", "shop/moved.py", "open")
    assert row["introduced_commit"] == "c1"


def test_a_commit_scanned_again_has_each_finding_once(tables):
    """One row per finding per commit: the newest successful scan of a tool and category replaces the one before."""
    record(tables, scan(1), findings(["a", "b"]))
    record(tables, scan(1, run_id="again", report_sha256="f" * 64), findings(["b", "c"]))
    found = tables.execute("SELECT fingerprint, run_id FROM findings ORDER BY 1").fetchall()
    assert found == [("b", "again"), ("c", "again")]


def test_a_failed_second_scan_of_a_commit_keeps_what_was_found(tables):
    """Failing takes nothing away."""
    record(tables, scan(1), findings(["a"]))
    record(tables, scan(1, run_id="again", state="failed"))
    assert tables.execute("SELECT count(*) FROM findings").fetchall() == [(1,)]


def test_the_same_report_of_the_same_step_counts_once(tables):
    """Recording again says that it was there, and writes nothing."""
    assert record(tables, scan(1), findings(["a"]))
    assert not record(tables, scan(1), findings(["a"]))
    assert tables.execute("SELECT count(*) FROM scans").fetchall() == [(1,)]
    assert tables.execute("SELECT count(*) FROM findings").fetchall() == [(1,)]


def test_an_unusual_finding_survives(tables):
    """Text in any script, control characters and missing places are kept."""
    strange = finding("a", message="naïve 🦑 \x1b[31m", path=None, line=None, cwe=())
    record(tables, scan(1), [strange])
    row = tables.execute("SELECT message, path, line, cwe FROM findings").fetchall()
    assert row == [("naïve 🦑 \x1b[31m", None, None, [])]


FINGERPRINTS = ["a", "b", "c", "d"]
REPORTS = st.lists(
    st.one_of(
        st.none(),
        st.dictionaries(st.sampled_from(FINGERPRINTS), st.booleans()),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports=REPORTS)
def test_history_is_what_the_reports_in_order_say(tables, reports):
    """Against a model in ten lines: None is a failed scan, a mapping says which findings are there and suppressed."""
    for table in ("scans", "findings", "finding_events"):
        tables.execute(f"DELETE FROM {table}")
    model: dict[str, tuple[str, int, str]] = {}
    for number, report in enumerate(reports, 1):
        if report is None:
            record(tables, scan(number, state="failed"))
            continue
        record(tables, scan(number), [finding(key, suppressed=value) for key, value in report.items()])
        for key in FINGERPRINTS:
            state, reopened, introduced = model.get(key, ("unknown", 0, f"c{number}"))
            if key in report:
                present = "suppressed" if report[key] else "open"
                model[key] = (present, reopened + (state == "fixed"), introduced)
            elif state != "unknown":
                model[key] = ("fixed", reopened, introduced)
    rows = tables.execute("SELECT fingerprint, state, reopened, introduced_commit FROM finding_history").fetchall()
    assert {row[0]: row[1:] for row in rows} == model


def test_the_lake_follows_the_same_rules(warehouse: Warehouse, reader):
    """Introduced, fixed, reopened, in the real warehouse and seen by a reader that was open before."""
    warehouse.record_scan(scan(1), findings(["a"]))
    assert history(reader)["state"] == "open"
    warehouse.record_scan(scan(2))
    assert history(reader)["state"] == "fixed"
    assert warehouse.record_scan(scan(3), findings(["a"]))
    assert not warehouse.record_scan(scan(3), findings(["a"]))
    assert (history(reader)["state"], history(reader)["reopened"]) == ("open", 1)
