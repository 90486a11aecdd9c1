"""
A plugin reads the rows of its tenant and project; an attacker finds no others.

Attacks are made through the door, where a query is looked at, and past it, on the very connection that runs queries.
Past the door nothing of others may be found either. What is others' holds the word HIDDEN.
"""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import duckdb
import pytest
import sqlalchemy as sa
from told_lines import scope

from penstock.errors import AccessError, ForbiddenError, InputError, PenstockError
from penstock.plugins.data import Scope
from penstock.plugins.data.chunks import Kind
from penstock.plugins.data.messages import Question, Source
from penstock.plugins.data.permitted import permitted
from penstock.plugins.data.queries import Queries, Wanted
from penstock.plugins.data.room import check_door, furnished
from penstock.state.tables import audit
from penstock.warehouse import warehouse_location

SHOP = scope()
FILE = "{other}"
"""Stands for a Parquet file of another project."""

REFUSED = [
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
    "SET threads = 1",
    "SET allowed_directories = ['/']",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "ATTACH '/tmp/other.db'",
    "ATTACH 'postgres:' AS catalog (TYPE postgres)",
    "DETACH lake",
    "USE memory",
    "COPY plugin_metrics TO '/tmp/stolen.csv'",
    "COPY (SELECT 1) TO '" + FILE + "'",
    "EXPORT DATABASE '/tmp/stolen'",
    "INSTALL httpfs",
    "LOAD postgres_scanner",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW plugin_metrics AS SELECT 1",
    "DROP VIEW plugin_metrics",
    "DELETE FROM plugin_metrics",
    "INSERT INTO plugin_metrics SELECT * FROM plugin_metrics",
    "PREPARE attack AS SELECT 1",
    "EXECUTE attack",
    "CALL pragma_version()",
    "EXPLAIN ANALYZE SELECT * FROM plugin_metrics",
    "BEGIN",
    "CHECKPOINT",
    "CREATE SECRET s (TYPE s3)",
    "CREATE MACRO attack() AS TABLE SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_parquet('" + FILE + "')",
    "SELECT * FROM parquet_metadata('" + FILE + "')",
    "SELECT * FROM '" + FILE + "'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_blob('/proc/self/fd/0')",
    "SELECT * FROM read_json('/etc/hostname')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_csv('http://169.254.169.254/latest/meta-data')",
    "SELECT * FROM postgres_scan('', 'penstock', 'plugin_intake')",
    "SELECT * FROM postgres_query('lake', 'SELECT 1')",
    "SELECT * FROM ducklake_list_files('lake', 'plugin_metrics')",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('plugin_metrics')",
    "SELECT * FROM information_schema.tables",
    "SELECT view_definition FROM information_schema.views",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM penstock.plugin_intake",
    "SELECT * FROM memory.main.plugin_metrics",
    "SELECT current_setting('allowed_paths')",
    "SELECT getvariable('x')",
    "SELECT pg_sleep(1)",
    "SELECT sleep_ms(1)",
    "SELECT (SELECT max(content) FROM read_text('/etc/passwd'))",
    "WITH a AS (SELECT * FROM glob('/*')) SELECT * FROM a",
    "SELECT 1 UNION ALL SELECT file FROM glob('/*')",
    "SELECT * FROM plugin_metrics WHERE EXISTS (SELECT 1 FROM duckdb_settings())",
    "SELECT list_transform([1], lambda x: (SELECT count(*) FROM glob('/*')))",
    "FROM plugin_metrics SELECT (FROM read_text('/etc/passwd') SELECT content)",
]

HARMLESS = [
    "SELECT dblink('', '')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT set_config('a', 'b', false)",
    "/* ; */ SELECT 1; --",
    "SELECT * FROM plugin_metrics UNION ALL SELECT * FROM plugin_metrics WHERE project = 'secret'",
    "SELECT * FROM plugin_metrics WHERE project <> 'shop' OR 1 = 1",
    "SELECT * FROM plugin_metrics WHERE tenant = 'rival' --' AND tenant = 'default'",
    "SELECT (SELECT max(name) FROM plugin_metrics WHERE tenant = 'rival') FROM plugin_data",
    "WITH plugin_metrics AS (SELECT * FROM plugin_metrics) SELECT * FROM plugin_metrics",
    "WITH plugin_data AS (SELECT 'HID' AS value) SELECT * FROM plugin_metrics",
    "SELECT * FROM lake.main.plugin_metrics",
    'SELECT * FROM "plugin_metrics" AS a, LATERAL (SELECT * FROM plugin_data) AS b',
    "SELECT * FROM plugin_metrics FULL JOIN plugin_data USING (project)",
    "SHOW TABLES",
    "DESCRIBE plugin_metrics",
    "SUMMARIZE plugin_metrics",
    "SELECT name::INT FROM plugin_metrics",
    "SELECT value::INT FROM plugin_data",
    "SELECT error(name) FROM plugin_metrics",
    "SELECT DISTINCT tenant, project FROM plugin_metrics",
    "SELECT count(*) FROM plugin_metrics GROUP BY tenant, project",
]


def everything(queries: Queries, sql: str, who: Scope = SHOP) -> str:
    """All that a plugin learns: rows, or the error's words."""
    try:
        return str(queries.ask(who, sql))
    except PenstockError as error:
        return f"refused: {error}"


def reaches(database: sa.Engine) -> list[dict[str, Any]]:
    """What was audited."""
    wanted = sa.select(audit).where(audit.c.action == "plugin_data.reach").order_by(audit.c.id)
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def other_file(town: Any) -> str:
    """A file of another project."""
    rows = permitted(town.database, warehouse_location(town.settings), "default", "secret")
    return rows.files[Kind.METRICS][0].path


@pytest.mark.parametrize("sql", HARMLESS)
def test_whatever_may_be_asked_finds_its_own_rows(town: Any, sql: str) -> None:
    """Neither rows nor errors tell about others."""
    told = everything(town.queries, sql)
    assert "HIDDEN" not in told
    assert "secret" not in told.replace("project secret", "")
    assert str(town.settings.home) not in told


def test_there_is_something_to_find(town: Any) -> None:
    """Others find what is theirs: the attacks above look for what is there."""
    names = "SELECT DISTINCT name FROM plugin_metrics"
    for who in (scope("secret"), scope(tenant="rival")):
        assert town.queries.ask(who, names).rows == (("HIDDEN.findings",),)
    count = "SELECT count(*), count(DISTINCT seq), sum(value), count(DISTINCT run_id) FROM plugin_metrics"
    assert town.queries.ask(SHOP, count).rows == ((8, 8, 15.0, 3),)
    assert town.queries.ask(SHOP, "SELECT count(*) FROM plugin_data WHERE value LIKE '%ours%'").rows == ((3,),)


def test_plugins_read_each_other(town: Any) -> None:
    """Within their project that is what it is for."""
    asked = "SELECT plugin, count(*) FROM plugin_metrics GROUP BY plugin ORDER BY plugin"
    assert town.queries.ask(scope(plugin="third"), asked).rows == (("cover", 3), ("lint", 5))


@attrs.frozen
class Room:
    """What opens a room of the shop in this process."""

    question: Question
    tails: dict[str, str]

    def opened(self) -> duckdb.DuckDBPyConnection:
        """The connection that runs queries."""
        return furnished(self.question, self.tails)


@pytest.fixture(scope="module")
def room(town: Any) -> Iterator[Room]:
    """With the rows that the shop may read."""
    rows = permitted(town.database, warehouse_location(town.settings), SHOP.tenant, SHOP.project)
    fds = {kind: os.memfd_create("tail") for kind in Kind}
    for kind, fd in fds.items():
        os.write(fd, rows.tails[kind])
    question = Question(
        tenant=SHOP.tenant,
        project=SHOP.project,
        sources={kind.table: Source(tuple((one.path, one.deleted) for one in rows.files[kind]), True) for kind in Kind},
        sql="",
        views=(),
        is_own=False,
        parameters={},
        rows=1000,
        bytes=10**6,
        time_s=5,
        memory_bytes=2**28,
    )
    yield Room(question, {kind.table: f"/proc/self/fd/{fd}" for kind, fd in fds.items()})
    for fd in fds.values():
        os.close(fd)


@pytest.fixture(scope="module")
def lake(room: Room) -> Iterator[duckdb.DuckDBPyConnection]:
    """A room in which nothing is executed."""
    opened = room.opened()
    yield opened
    opened.close()


@pytest.mark.parametrize("sql", REFUSED)
def test_whatever_is_no_reading_of_its_tables_is_refused(town: Any, lake: duckdb.DuckDBPyConnection, sql: str) -> None:
    """At the door, by DuckDB's own parser."""
    with pytest.raises((AccessError, InputError, duckdb.Error)):
        check_door(lake, sql.replace(FILE, other_file(town)))


@pytest.mark.parametrize("sql", [*REFUSED, *HARMLESS])
def test_past_the_door_there_is_nothing_of_others(
    town: Any, room: Room, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room holds the files of one project; no setting, file, network or other database can be had in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    other = Path(other_file(town))
    before = other.read_bytes()
    opened = room.opened()
    try:
        result = opened.execute(sql.replace(FILE, str(other)))
        told = str(result.fetchall()) if result is not None else ""
    except duckdb.Error as error:
        told = str(error)
    finally:
        opened.close()
    assert "HIDDEN" not in told
    assert "root:x" not in told
    assert other.read_bytes() == before
    assert not list(tmp_path.rglob("*"))
    assert not any(Path(path).exists() for path in ("/tmp/stolen.csv", "/tmp/stolen", "/tmp/other.db"))


def test_naming_another_project_finds_nothing_and_is_audited(town: Any) -> None:
    """Whoever reaches for it is on record, with the query."""
    sql = "SELECT * FROM plugin_metrics WHERE (project = 'secret' OR tenant IN ('rival', 'default')) AND name LIKE '%'"
    answer = town.queries.ask(SHOP, f"{sql} AND project <> 'shop'")
    assert answer.rows == ()
    newest = reaches(town.database)[-1]
    assert (newest["actor"], newest["subject"]) == ("plugin lint", "shop")
    assert newest["detail"]["named"] == ["project secret", "tenant rival"]
    assert newest["detail"]["run"] == "run-1"
    assert sql in newest["detail"]["query"]


def test_naming_its_own_is_not_audited(town: Any) -> None:
    """It is no offence, and so are words that are no names."""
    before = len(reaches(town.database))
    town.queries.ask(SHOP, "SELECT 'secret' FROM plugin_metrics WHERE project = 'shop' AND name = 'secret'")
    town.queries.listed(SHOP, Kind.METRICS, Wanted(limit=5, project="shop", tenant="default"))
    assert len(reaches(town.database)) == before


def test_a_refused_query_is_audited(town: Any) -> None:
    """With what it reached for."""
    with pytest.raises(ForbiddenError):
        town.queries.ask(SHOP, "SELECT * FROM read_text('/etc/passwd')")
    assert "read_text" in reaches(town.database)[-1]["detail"]["refused"]


def test_listing_another_project_finds_nothing_and_is_audited(town: Any) -> None:
    """A filter is no key."""
    for wanted in (Wanted(limit=5, project="secret"), Wanted(limit=5, tenant="rival")):
        before = len(reaches(town.database))
        assert town.queries.listed(SHOP, Kind.DATA, wanted).rows == ()
        assert len(reaches(town.database)) == before + 1


@pytest.fixture(scope="module")
def hasty(town: Any) -> Iterator[Queries]:
    """Waits for half a second only."""
    limits = attrs.evolve(town.queries.limits, answer_time=timedelta(seconds=0.5))
    made = Queries(town.database, warehouse_location(town.settings), limits)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT count(*) FROM range(1000000000000)", "took longer than|was ended"),
        (
            "WITH RECURSIVE a AS (SELECT 1 x UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a",
            "took longer than|was ended",
        ),
        (
            "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c WHERE random() > 2",
            "took longer than",
        ),
        ("SELECT repeat('x', 3000000000)", "too much memory|was ended"),
        ("SELECT list(i) FROM range(1000000000) t(i)", "too much memory|took longer|was ended"),
        ("SELECT string_agg(repeat('x', 100000), '') FROM range(100000)", "too much memory|took longer|was ended"),
        ("SELECT " + "1+" * 9000 + "1", "nested too deeply|depth|memory"),
        ("SELECT '" + "x" * 30_000 + "'", "longer than 20000 characters"),
    ],
)
def test_a_bomb_goes_off_in_its_room(town: Any, hasty: Queries, sql: str, why: str) -> None:
    """Time and memory are bounded, and the next question is answered."""
    with pytest.raises(InputError, match=why):
        hasty.ask(SHOP, sql)
    assert town.queries.ask(SHOP, "SELECT 1").rows == ((1,),)


def test_answers_are_bounded(town: Any) -> None:
    """By rows and by bytes; what fits is told."""
    many = town.queries.ask(SHOP, "SELECT * FROM range(1000000000000)")
    assert (len(many.rows), many.is_cut) == (town.queries.limits.answer_rows, True)
    large = Queries(
        town.database, warehouse_location(town.settings), attrs.evolve(town.queries.limits, answer_bytes=5000)
    )
    try:
        answer = large.ask(SHOP, "SELECT repeat('x', 1000) FROM range(100)")
    finally:
        large.close()
    assert (len(answer.rows), answer.is_cut) == (4, True)


def test_questions_at_once_are_answered_each_with_its_own(town: Any) -> None:
    """Rooms are not shared."""
    answers: dict[int, object] = {}

    def ask(number: int) -> None:
        who = SHOP if number % 2 else scope(tenant="rival")
        answers[number] = town.queries.ask(who, "SELECT DISTINCT name FROM plugin_metrics").rows

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: (("ours.findings",),) if n % 2 else (("HIDDEN.findings",),) for n in range(8)}


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT 'NaN'::DOUBLE", "nan"),
        ("SELECT '-Infinity'::DOUBLE", "-inf"),
        ("SELECT 9007199254740993", "9007199254740993"),
        ("SELECT 1.10::DECIMAL(5, 2)", "1.10"),
        ("SELECT TIMESTAMPTZ '2026-01-01 00:00:00+02'", "2025-12-31T22:00:00+00:00"),
        ("SELECT '\\xFF'::BLOB", "ff"),
        ("SELECT {'a': [1, 2]}", {"a": [1, 2]}),
        ("SELECT MAP {1: 'x'}", {"1": "x"}),
        ("SELECT INTERVAL 1 DAY", "1 day, 0:00:00"),
        ("SELECT NULL", None),
        ("SELECT true", True),
    ],
)
def test_values_are_told_as_json(town: Any, sql: str, value: object) -> None:
    """What JSON has no word for is text."""
    assert town.queries.ask(SHOP, sql).rows == ((value,),)


def test_pages_follow_each_other(town: Any) -> None:
    """Newest first, none twice, whatever is filtered."""
    seen: list[Any] = []
    before = None
    while rows := town.queries.listed(SHOP, Kind.METRICS, Wanted(limit=3, before=before, what="ours.findings")).rows[
        :3
    ]:
        seen += [row[0] for row in rows]
        before = seen[-1]
    assert len(seen) == 8
    assert seen == sorted(set(seen), reverse=True)
    assert len(town.queries.listed(SHOP, Kind.METRICS, Wanted(limit=50, run_id="run-3")).rows) == 3
    assert town.queries.listed(SHOP, Kind.METRICS, Wanted(limit=50, plugin="' OR 1=1 --")).rows == ()
