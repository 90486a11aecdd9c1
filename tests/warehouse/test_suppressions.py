"""People's decisions about findings, on a real lake."""

from datetime import timedelta

import pytest
from lake_rows import at, finding, scan

from penstock.errors import InputError, NotFoundError
from penstock.warehouse import Suppression, Warehouse
from penstock.warehouse.listing import Wanted, list_findings
from penstock.warehouse.suppressions import expire, suppress, unsuppress, whole_fingerprint

PRINT = "3fa1b2c4" * 4
OTHER = "3fa1b2c5" * 4


def decision(**fields) -> Suppression:
    """Accepted by the security team, ten minutes after noon."""
    values = {
        "project": "shop",
        "fingerprint": PRINT,
        "reason": "only in tests",
        "created_by": "ana",
        "created_at": at(10),
    }
    return Suppression(**(values | fields))


def states(reader) -> dict[tuple[str, str], str]:
    """State by branch and first digits of the fingerprint."""
    rows = reader.sql("SELECT branch, fingerprint, state FROM finding_history").fetchall()
    return {(branch, value[:8]): state for branch, value, state in rows}


@pytest.fixture
def scanned(warehouse: Warehouse) -> Warehouse:
    """Two findings on main and on a branch."""
    found = [finding(PRINT), finding(OTHER)]
    warehouse.record_scan(scan(1), found)
    warehouse.record_scan(scan(2, branch="topic"), found, base_branch="main")
    return warehouse


def test_a_decision_holds_at_once_on_every_branch(scanned, reader):
    """Suppressed means suppressed everywhere, with who, why and until when; other findings are as they were."""
    assert suppress(scanned, decision(until=at(9999))) == 2
    assert states(reader) == {
        ("main", "3fa1b2c4"): "suppressed", ("main", "3fa1b2c5"): "open",
        ("topic", "3fa1b2c4"): "suppressed", ("topic", "3fa1b2c5"): "open",
    }  # fmt: skip
    columns, rows = list_findings(reader, Wanted(project="shop", branch="main", state="suppressed"))
    found = dict(zip(columns, rows[0], strict=True))
    assert (found["fingerprint"], found["suppression_reason"], found["suppressed_by"]) == (
        PRINT,
        "only in tests",
        "ana",
    )
    assert found["suppressed_until"] == at(9999)


def test_a_decision_outlasts_later_scans(scanned, reader):
    """A scan that still finds it does not open it again, and a branch that meets it first has it suppressed."""
    suppress(scanned, decision())
    scanned.record_scan(scan(20), [finding(PRINT), finding(OTHER)])
    scanned.record_scan(scan(21, branch="new"), [finding(PRINT)])
    assert states(reader)["main", "3fa1b2c4"] == "suppressed"
    assert states(reader)["new", "3fa1b2c4"] == "suppressed"


def test_what_is_gone_is_fixed_though_suppressed(scanned, reader):
    """Suppression hides nothing that was mended."""
    suppress(scanned, decision())
    scanned.record_scan(scan(20), [finding(OTHER)])
    assert states(reader)["main", "3fa1b2c4"] == "fixed"


def test_ended_decision_opens_it_again(scanned, reader):
    """Unsuppressed is open, in later scans too; who did it stays on record."""
    suppress(scanned, decision())
    assert unsuppress(scanned, "shop", PRINT, by="ben", at=at(11)) == 2
    scanned.record_scan(scan(20), [finding(PRINT), finding(OTHER)])
    assert set(states(reader).values()) == {"open"}
    assert reader.sql("SELECT created_by, ended_by, ended_at FROM suppressions").fetchall() == [("ana", "ben", at(11))]
    events = "SELECT event, author FROM finding_events WHERE branch = 'main' AND event <> 'introduced' ORDER BY seq"
    assert reader.sql(events).fetchall() == [("suppressed", "ana"), ("unsuppressed", "ben")]


def test_expired_decision_opens_it_again(scanned, reader):
    """Until means until: upkeep opens it, and before that a scan does."""
    suppress(scanned, decision(until=at(30)))
    assert expire(scanned, at(29)) == 0
    scanned.record_scan(scan(40, branch="topic"), [finding(PRINT), finding(OTHER)])
    assert states(reader)["topic", "3fa1b2c4"] == "open"
    assert expire(scanned, at(50)) == 1
    assert expire(scanned, at(51)) == 0
    assert set(states(reader).values()) == {"open"}


def test_new_decision_replaces_the_former(scanned, reader):
    """Suppressed twice is one decision in force, the former on record."""
    suppress(scanned, decision())
    suppress(scanned, decision(reason="accepted", created_at=at(12)))
    assert reader.sql("SELECT reason FROM suppressions WHERE ended_at IS NULL").fetchall() == [("accepted",)]
    assert reader.sql("SELECT count(*) FROM suppressions").fetchone() == (2,)


@pytest.mark.parametrize(
    "bad",
    [{"reason": "  "}, {"until": at(10)}, {"until": at(10) - timedelta(days=1)}],
    ids=["no reason", "now", "past"],
)
def test_wrong_decision_is_refused(scanned, reader, bad):
    """Without a reason, or over before it begins: nothing is recorded."""
    with pytest.raises(InputError):
        suppress(scanned, decision(**bad))
    assert reader.sql("SELECT count(*) FROM suppressions").fetchone() == (0,)


def test_nothing_to_end_is_said(scanned):
    """What nobody suppressed cannot be opened."""
    with pytest.raises(NotFoundError, match="nobody suppressed"):
        unsuppress(scanned, "shop", PRINT, by="ben", at=at(11))


@pytest.mark.parametrize(
    ("prefix", "error"),
    [("3fa1", InputError), ("zzzzzzzz", InputError), ("00000000", NotFoundError), ("' OR 1", InputError)],
)
def test_wrong_fingerprint_is_refused(scanned, reader, prefix, error):
    """Too short, no digits, of no finding: one clear error."""
    with pytest.raises(error):
        whole_fingerprint(reader, "shop", prefix)


def test_first_digits_are_enough(scanned, reader):
    """Eight digits name a finding, of its own project alone."""
    assert whole_fingerprint(reader, "shop", PRINT[:8]) == PRINT
    with pytest.raises(NotFoundError):
        whole_fingerprint(reader, "other", PRINT[:8])
