"""SQL that somebody typed: what it may ask, and what it cannot reach."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from lake_rows import findings, run, scan

from penstock.errors import AccessError, InputError, PenstockError, StepTimeout
from penstock.warehouse import Location, Warehouse, connect, flush
from penstock.warehouse.sql import Answer, answer, ask, lock_down

ALLOWED = [
    "SELECT count(*) FROM findings",
    "FROM findings",
    "FROM lake.main.findings SELECT severity",
    "FROM main.runs",
    "WITH x AS (SELECT * FROM runs) SELECT * FROM x JOIN findings USING (run_id)",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) FROM n",
    "SELECT severity, count(*) FROM findings GROUP BY ALL UNION ALL SELECT 'x', 1",
    "FROM finding_history SEMI JOIN findings USING (fingerprint)",
    "SELECT unnest(cwe) FROM findings",
    "FROM range(3)",
    "VALUES (1)",
    "DESCRIBE findings",
    "SUMMARIZE runs",
    "SHOW TABLES",
    "FROM information_schema.columns",
    "SELECT [x + 1 FOR x IN range(3)]",
    "SELECT ';' AS semicolon -- a comment; with one",
]

REFUSED = [
    # the catalog's server: any table, and for a superuser any file and program
    "FROM postgres_query('__ducklake_metadata_lake', 'SELECT pg_read_file(''/etc/passwd'')')",
    "FROM postgres_scan('host=/tmp', 'pg_catalog', 'pg_authid')",
    "CALL postgres_execute('__ducklake_metadata_lake', 'DROP SCHEMA penstock')",
    "FROM __ducklake_metadata_lake.pg_catalog.pg_authid",
    "FROM __ducklake_metadata_lake.ducklake_snapshot",
    "SELECT (SELECT max(rolname) FROM __ducklake_metadata_lake.pg_catalog.pg_authid)",
    "SELECT * FROM findings WHERE rule_id IN (SELECT a FROM postgres_query('x', 'SELECT 1') AS t (a))",
    "SELECT * FROM findings ORDER BY (SELECT count(*) FROM postgres_query('x', 'SELECT 1'))",
    "SELECT * FROM findings LIMIT (SELECT count(*) FROM postgres_query('x', 'SELECT 1'))",
    "SELECT * FROM findings, LATERAL (SELECT * FROM duckdb_secrets()) AS t",
    "WITH a AS (FROM postgres_query('x', 'SELECT 1')) FROM a",
    "FROM findings SELECT * REPLACE ((SELECT 'x' FROM duckdb_secrets()) AS path)",
    "DESCRIBE (FROM postgres_query('x', 'SELECT 1'))",
    # files and the network
    "FROM read_text('/etc/passwd')",
    "FROM read_csv('/etc/passwd')",
    "FROM '/etc/passwd'",
    'FROM "/etc/passwd"',
    "FROM 'https://example.org/x.csv'",
    "FROM glob('/*')",
    "FROM sniff_csv('/etc/passwd')",
    "FROM parquet_metadata('/etc/passwd')",
    "FROM query('FROM read_text(''/etc/passwd'')')",
    "FROM query_table('/etc/passwd')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT json_serialize_plan('FROM read_text(''/etc/passwd'')')",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "COPY runs FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/x.db'",
    "LOAD httpfs",
    "INSTALL httpfs",
    # settings, secrets, and what DuckDB knows about itself
    "SELECT current_setting('s3_secret_access_key')",
    "FROM duckdb_secrets()",
    "FROM duckdb_databases",
    "FROM duckdb_databases()",
    "FROM duckdb_settings()",
    "FROM pg_catalog.pg_tables",
    "FROM sqlite_master",
    "SHOW DATABASES",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "USE memory",
    "DETACH lake",
    "CREATE SECRET (TYPE s3)",
    # a name from WITH reaches only its own query; outside of it, it would be DuckDB's own view
    "SELECT (WITH duckdb_databases AS (SELECT 1) SELECT 1), * FROM duckdb_databases",
    "SELECT (WITH sqlite_master AS (SELECT 1) SELECT 1), * FROM sqlite_master",
    # changes
    "DELETE FROM findings",
    "INSERT INTO runs SELECT * FROM runs",
    "UPDATE runs SET state = 'x'",
    "MERGE INTO runs USING steps ON true WHEN MATCHED THEN DELETE",
    "DROP TABLE runs",
    "CREATE TABLE memory.t (i INT)",
    "CALL ducklake_expire_snapshots('lake')",
    "FROM ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "FROM lake.snapshots()",
    "CHECKPOINT",
    "BEGIN",
    "SELECT 1; DROP TABLE runs",
    "PREPARE x AS SELECT 1",
    # what would only keep the machine busy
    "SELECT pg_sleep(100)",
    "SELECT sleep_ms(100000)",
]

MISTAKES = [
    ("", "there is no query"),
    ("-- nothing", "there is no query"),
    ("SELEC 1", 'syntax error at or near "SELEC"'),
    ("SELECT *\nFROM runs\nWHER x = 1", "SQL line 3: syntax error"),
    ("SELECT 1; SELECT 2", "these are 2 queries; write one"),
    ("FROM findngs", 'no table is called "findngs"; did you mean "findings"?'),
    ("FROM nothing_like_it", "there are approvals, artifacts, commits"),
    ("SELECT severty FROM findings", "severity"),
    ("SELECT frobnicate(1)", "frobnicate"),
    ("SELECT 'x'::INT", "Could not convert string 'x' to INT32"),
    ("SELECT error('one\ntwo')", "one"),
    ("SELECT 1/0 FROM", "syntax error"),
]


@pytest.fixture(scope="module")
def filled(catalog_url: str, tmp_path_factory: pytest.TempPathFactory) -> Location:
    """A warehouse with a run and findings, some in files and some inlined; the tests only read it."""
    data = tmp_path_factory.mktemp("filled") / "lake"
    location = Location(catalog_url=catalog_url, catalog_schema="lake_filled", data_path=str(data))
    with Warehouse(location) as warehouse:
        warehouse.record_run(run(1))
        warehouse.record_scan(scan(1), findings(map(str, range(300))))
        flush(warehouse)
        warehouse.record_scan(scan(2), findings(map(str, range(5))))
    return location


@pytest.fixture(scope="module")
def locked(filled: Location) -> Iterator[duckdb.DuckDBPyConnection]:
    """A reader behind the second wall."""
    connection = connect(filled, read_only=True)
    lock_down(connection, filled)
    yield connection
    connection.close()


@pytest.mark.parametrize("query", ALLOWED)
def test_reading_the_tables_is_allowed(locked, filled: Location, query):
    """Whatever DuckDB can ask of the lake's tables may be asked."""
    assert answer(locked, filled, query).columns


@pytest.mark.parametrize("query", REFUSED)
def test_anything_else_is_refused(locked, filled: Location, query):
    """One line, an exit code for what somebody wrote, and no effect."""
    with pytest.raises((AccessError, InputError)) as raised:
        answer(locked, filled, query)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_refused_changes_changed_nothing(locked, filled: Location):
    """After all attacks the tables hold what they held, and the connection still answers."""
    for query in REFUSED:
        with pytest.raises(PenstockError):
            answer(locked, filled, query)
    assert answer(locked, filled, "SELECT count(*) FROM findings").rows == ((305,),)
    assert answer(locked, filled, "SELECT state FROM runs").rows == (("succeeded",),)


@pytest.mark.parametrize(("query", "said"), MISTAKES)
def test_a_mistake_is_one_line_with_a_remedy(locked, filled: Location, query, said):
    """DuckDB's message without its picture of the query."""
    with pytest.raises(InputError) as raised:
        answer(locked, filled, query)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "LINE 1" not in str(raised.value)


def test_the_second_wall_stands_alone(locked, filled: Location):
    """Also without the check of the query no file outside of the lake is read and no setting comes back."""
    attacks = [
        "FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        f"FROM read_text('{Path(__file__).resolve()}')",
        f"FROM read_text('{filled.data_path}/../../x')",
        "ATTACH '/tmp/x.db'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "LOAD '/tmp/x.duckdb_extension'",
    ]
    for query in attacks:
        with pytest.raises(duckdb.Error):
            locked.execute(query).fetchall()
    assert locked.execute("SELECT count(*) FROM findings").fetchall() == [(305,)]


def test_more_rows_than_asked_for_are_cut_and_said_so(filled: Location):
    """A limit is for printing; the answer says that there is more."""
    cut = ask(filled, "FROM findings", limit=7)
    assert (len(cut.rows), cut.is_cut) == (7, True)
    whole = ask(filled, "FROM findings", limit=305)
    assert (len(whole.rows), whole.is_cut) == (305, False)
    assert len(ask(filled, "FROM findings", limit=None).rows) == 305


def test_a_query_that_takes_too_long_is_stopped(filled: Location):
    """It is interrupted, not waited for."""
    with pytest.raises(StepTimeout, match=r"longer than 0\.2 s"):
        ask(filled, "SELECT count(*) FROM range(1000000) a, range(1000000) b", time_limit=timedelta(seconds=0.2))


def test_an_answer_has_the_names_of_its_columns(filled: Location):
    """As the query named them."""
    assert ask(filled, "SELECT 1 AS one, 'two' AS \"t w o\"") == Answer(("one", "t w o"), ((1, "two"),), is_cut=False)
