"""What somebody sees before approving: checks, what was built, and what it changes against what is live."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from gates import GRACE, Gate
from git_builder import GitRepository

from penstock import warehouse
from penstock.findings import Finding
from penstock.notify.approval_mail import approval_mail
from penstock.pipeline.approval_evidence import Against, Made, evidence_of, in_words
from penstock.pipeline.approvals import answer, withdraw
from penstock.pipeline.ingest import Ingest
from penstock.pipeline.log import utc_now
from penstock.settings import Settings
from penstock.sources.git import mirror
from penstock.sources.projects import add_project, get_project
from penstock.state.tables import releases
from penstock.steps.context import Artifact, StepResult, Verdict
from penstock.warehouse.home import warehouse_location

PIPELINE = """
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: ["true"], artifacts_out: [{key: app, path: app}]}
  - {name: release, type: step.gate, needs: [build], approval: {}}
  - {name: ship, type: step.deploy, needs: [release], artifact: app, command: ./app, environment: staging}
"""
BUILT = StepResult(
    "succeeded",
    artifacts=(Artifact("app", "app", "file", "d" * 64, 3),),
    outputs={"image": "shop/app:1", "digest": "sha256:" + "e" * 64},
    verdict=Verdict("findings", passed=True, summary="2 findings", evidence={"critical": 0, "high": 1, "low": 1}),
)


@pytest.fixture
def gate(settings: Settings, database: sa.Engine, make_repository: Callable[..., GitRepository]) -> Gate:
    """Two commits after the one that is live; the scanner has read both ends."""
    tree = make_repository("shop", {"a": "1"})
    add_project(database, "shop", str(tree.root))
    live = tree.git("rev-parse", "HEAD")
    tree.commit({"a": "2"}, "Sell more")
    here = tree.commit({"a": "3"}, "Sell\u202e <b>even</b> more")
    mirror(str(tree.root), get_project(database, "shop").mirror_folder(settings))
    row = {
        **{"id": "r7", "project": "shop", "environment": "staging", "service": "shop", "number": 7, "commit": live},
        **{"digest": "d", "graph_hash": "g", "run_id": "x", "configuration": {}, "state": "live", "live_at": utc_now()},
    }
    with database.begin() as connection:
        connection.execute(sa.insert(releases).values(row))
    with warehouse.Warehouse(warehouse_location(settings)) as lake:
        lake.create()
        lake.record(scan(live, 2, "stays", "goes"), scan(here, 1, "stays", "comes"))
    return Gate(database, here, pipeline=PIPELINE, built=BUILT)


def scan(commit: str, days: int, *fingerprints: str) -> warehouse.ScanReport:
    """What a scanner found at a commit, some days ago."""
    at = utc_now() - timedelta(days=days)
    made = warehouse.Scan(
        **{"project": "shop", "commit": commit, "run_id": f"run-{days}", "step": "sast", "branch": "refs/heads/main"},
        **{"tool": "bandit", "category": "sast", "state": "succeeded", "committed_at": at, "scanned_at": at},
    )
    found = tuple(
        Finding(
            **{"tool": "bandit", "category": "sast", "tool_version": "1", "rule_id": "B1", "message": "weak"},
            **{"severity": "high" if each == "comes" else "low", "severity_source": "level", "path": "a", "line": 1},
            fingerprint=each,
        )
        for each in fingerprints
    )
    return warehouse.ScanReport(scan=made, findings=found)


def test_evidence_names_checks_digests_and_the_difference_to_what_is_live(gate: Gate, settings: Settings) -> None:
    """Of the environments that are deployed to after the gate, and no others."""
    found = evidence_of(gate.database, settings, gate.waits())
    (check,) = found.checks
    assert (check.step, check.passed, check.summary, in_words(check.findings)) == (
        "build",
        True,
        "2 findings",
        "1 high, 1 low",
    )
    assert found.made == (Made("build", "app", "d" * 64), Made("build", "shop/app:1", "sha256:" + "e" * 64))
    (against,) = found.against
    assert (against.environment, against.number, against.count) == ("staging", 7, 2)
    assert [line.partition(" ")[2] for line in against.changes] == ["Sell\u202e <b>even</b> more", "Sell more"]
    assert (against.introduced, against.fixed) == ({"high": 1}, {"low": 1})


def test_what_is_not_known_is_said_and_not_made_up(gate: Gate, settings: Settings, database: sa.Engine) -> None:
    """A commit that the repository no longer has, which no scanner read, and an environment where nothing is live."""
    request = gate.waits()
    with database.begin() as connection:
        connection.execute(sa.update(releases).values(commit="0" * 40))
    (against,) = evidence_of(database, settings, request).against
    assert (against.count, against.changes, against.introduced, against.fixed) == (None, (), None, None)
    with database.begin() as connection:
        connection.execute(sa.delete(releases))
    assert evidence_of(database, settings, request).against == (Against("staging"),)


def test_mail_tells_the_evidence_and_takes_no_orders_from_a_commit(gate: Gate, settings: Settings) -> None:
    """Texts of a commit are one line each, without marks that turn the direction of writing."""
    request = gate.waits(author="Eve\r\nBcc: all@example.org <eve@example.org>")
    mail = approval_mail(
        request,
        evidence_of(gate.database, settings, request),
        to=str(GRACE.mail),
        sender="ci@example.org",
        links=("https://a", "https://r"),
        page="https://p",
        message_id="m",
    )
    assert mail["Bcc"] is None
    text = mail.get_content()
    assert "staging: release 7" in text
    assert "findings introduced: 1 high; fixed: 1 low" in text
    assert "passed  build: 2 findings; findings: 1 high, 1 low" in text
    assert "Sell  <b>even</b> more" in text
    assert "\nBcc" not in text


def test_every_answer_is_in_the_warehouse(gate: Gate, settings: Settings) -> None:
    """Who, when, what, why and how, also of what was said later; bringing it in again adds nothing."""
    request = gate.waits()
    ingest = Ingest(settings, gate.database)
    assert ingest.left_behind() == 1
    answer(gate.database, request.id, "grace", approved=True, how="page", why="looks good")
    withdraw(gate.database, request.id, "grace", how="cli")
    answer(gate.database, request.id, "ada", approved=False, how="mail", why="no")
    assert ingest.left_behind() == 1
    ingest.run(request.run_id)
    lake = warehouse.connect(warehouse_location(settings), read_only=True)
    rows = lake.execute("SELECT person, decision, why, how, digest, step FROM approvals ORDER BY number").fetchall()
    runs = lake.execute("SELECT state FROM runs").fetchall()
    lake.close()
    assert rows == [
        ("grace", "approved", "looks good", "page", "d1", "release"),
        ("grace", "withdrawn", "", "cli", "d1", "release"),
        ("ada", "rejected", "no", "mail", "d1", "release"),
    ]
    assert runs == [("failed",)]
