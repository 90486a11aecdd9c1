"""Made-up history: marked, repeatable, and such as the warehouse itself would have recorded."""

from datetime import UTC, datetime

import duckdb
import pytest
import sqlalchemy as sa

from penstock.demo import PREFIX, Scale, write_demo
from penstock.demo.history import live
from penstock.demo.lives import about
from penstock.errors import ConflictError
from penstock.settings import Settings
from penstock.state import tables
from penstock.warehouse import Run, Warehouse, connect
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.lifecycle import CommitBefore, record_events
from penstock.warehouse.rows import Scan
from penstock.warehouse.schema import schema_sql

UNTIL = datetime(2026, 3, 2, tzinfo=UTC)
SMALL = Scale(projects=2, days=25, seed=7, findings=40)


@pytest.fixture
def lake(settings: Settings, database: sa.Engine):
    """A reader of a small made-up history."""
    write_demo(settings, database, SMALL, until=UNTIL)
    with connect(warehouse_location(settings), read_only=True) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple]:
    return connection.execute(query).fetchall()


def test_everything_is_there_and_marked(lake: duckdb.DuckDBPyConnection, database: sa.Engine):
    """Every table has rows, of projects called demo-… alone, and runs say that they were generated."""
    for table in ("commits", "runs", "steps", "scans", "findings", "finding_events", "test_results", "releases"):
        names = [name for (name,) in rows(lake, f"SELECT DISTINCT project FROM {table}")]
        assert len(names) == 2, table
        assert all(name.startswith(PREFIX) for name in names)
    assert rows(lake, "SELECT DISTINCT trigger FROM runs") == [("generated",)]
    with database.connect() as state:
        assert set(state.execute(sa.select(tables.projects.c.polled)).scalars()) == {False}


def test_findings_are_as_many_as_their_scans_say(lake: duckdb.DuckDBPyConnection):
    """The counts of every scan that succeeded are its rows, and a failed scan has none."""
    wrong = """
        SELECT scans.run_id, scans.findings, count(findings.fingerprint) AS there
        FROM scans LEFT JOIN findings USING (project, commit, tool, category)
        GROUP BY scans.run_id, scans.tool, scans.findings HAVING there <> scans.findings
    """
    assert rows(lake, wrong) == []
    assert rows(lake, "SELECT count(*) FROM scans WHERE state = 'failed'") > [(0,)]


def test_lives_are_what_the_warehouse_would_have_made_of_the_scans(lake: duckdb.DuckDBPyConnection):
    """Reading every scan in order through the real lifecycle ends in the same history of every default branch."""
    replayed = duckdb.connect(config={"python_enable_replacements": False})
    replayed.execute(schema_sql())
    query = "SELECT * FROM scans WHERE state = 'succeeded' AND branch = 'main' ORDER BY committed_at"
    for scan in lake.execute(query).to_arrow_table().to_pylist():
        found = lake.execute(
            "SELECT * FROM findings WHERE run_id = ? AND tool = ?", [scan["run_id"], scan["tool"]]
        ).to_arrow_table()
        before = replayed.execute(
            "SELECT commit, committed_at FROM scans WHERE project = ? AND tool = ? ORDER BY committed_at DESC LIMIT 1",
            [scan["project"], scan["tool"]],
        ).fetchone()
        record_events(replayed, Scan(**scan), found, before=CommitBefore(*before) if before else None)
        _insert(replayed, scan)
    same = "SELECT * EXCLUDE (introduced_by) FROM finding_history WHERE branch = 'main' ORDER BY project, fingerprint"
    assert len(rows(replayed, same)) > 50
    assert rows(lake, same) == rows(replayed, same)


def _insert(connection: duckdb.DuckDBPyConnection, scan: dict) -> None:
    names = ", ".join(scan)
    connection.execute(f"INSERT INTO scans ({names}) VALUES ({', '.join('?' * len(scan))})", list(scan.values()))


def test_the_same_seed_makes_the_same_history():
    """Another seed makes another."""
    first, again, other = (live("demo-shop", Scale(seed=seed, days=20), UNTIL) for seed in (3, 3, 4))
    assert first.rows == again.rows
    assert first.populations["trivy"].events == again.populations["trivy"].events
    assert first.rows != other.rows


def test_made_up_history_is_replaced(settings: Settings, database: sa.Engine):
    """Twice is once: what was made up before goes, also where there are fewer projects now."""
    write_demo(settings, database, SMALL, until=UNTIL)
    made = write_demo(settings, database, Scale(projects=1, days=10, findings=5), until=UNTIL)
    with connect(warehouse_location(settings), read_only=True) as lake:
        assert rows(lake, "SELECT count(*), count(DISTINCT project) FROM runs") == [(made.runs, 1)]
        assert rows(lake, "SELECT count(*) FROM findings") == [(made.findings,)]


def test_real_projects_are_left_alone(settings: Settings, database: sa.Engine):
    """A home with a real run is refused, and with force what is real stays as it was."""
    with Warehouse(warehouse_location(settings)) as warehouse:
        warehouse.record(Run(run_id="r1", project="shop", commit="c1", state="succeeded"))
    with pytest.raises(ConflictError, match=r"real projects \(shop\).*--force"):
        write_demo(settings, database, SMALL, until=UNTIL)
    write_demo(settings, database, Scale(projects=1, days=5, findings=5), until=UNTIL, force=True)
    with connect(warehouse_location(settings), read_only=True) as lake:
        assert rows(lake, "SELECT project FROM runs WHERE run_id = 'r1'") == [("shop",)]


def test_a_real_project_of_that_name_is_never_overwritten(settings: Settings, database: sa.Engine):
    """Not even with force."""
    with Warehouse(warehouse_location(settings)) as warehouse:
        warehouse.record(Run(run_id="r1", project="demo-shop", commit="c1", state="succeeded"))
    with pytest.raises(ConflictError, match='"demo-shop" is a real project'):
        write_demo(settings, database, SMALL, until=UNTIL, force=True)


def test_many_projects_have_names_of_their_own():
    """More than there are words for."""
    names = Scale(projects=45).names(PREFIX)
    assert len(set(names)) == 45
    assert names[20] == "demo-shop-2"


def test_numbers_of_events_are_about_their_mean():
    """Small and large means alike."""
    import random

    chance = random.Random(1)
    for mean in (0.0, 0.4, 6.0, 80.0):
        found = sum(about(chance, mean) for _ in range(400)) / 400
        assert abs(found - mean) <= 0.15 * mean + 0.05 * (mean > 0)
