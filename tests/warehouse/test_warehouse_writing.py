"""Writers: once and whole, alone or many at a time, and when they die."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
import pytest
from lake_rows import artifact, at, commit, finding, findings, outcome, release, run, scan, step

from penstock.errors import InputError, PlatformError
from penstock.warehouse import (
    IngestError,
    Location,
    PluginMetric,
    ScanReport,
    Warehouse,
    compact,
    connect,
    flush,
)
from penstock.warehouse.write import LOCK_CLASS

HERE = Path(__file__).parent
DEADLINE_S = 120


def count(lake: duckdb.DuckDBPyConnection, table: str) -> int:
    """Rows of a table."""
    row = lake.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row
    return int(row[0])


def start_writer(location: Location, name: str, *rest: object) -> subprocess.Popen[str]:
    """A writer in its own process."""
    where = (location.catalog_url, location.catalog_schema, location.data_path)
    command = [sys.executable, str(HERE / "ingesting.py"), *where, name, *map(str, rest)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_recorded_is_read(warehouse: Warehouse, reader):
    """Every kind of row comes back as it was written."""
    metric = PluginMetric(
        project="shop", commit="c1", run_id="r1", step="lint", plugin="lint", name="lines", value=12.5, unit="lines"
    )
    warehouse.record(
        commit(1), run(1), step(1, "test"), outcome(1, "test_a"), release(1), artifact(1, "dist/shop.whl"), metric
    )
    assert reader.execute("SELECT author, committed_at FROM commits").fetchall() == [("author1", at(1))]
    assert reader.execute("SELECT state, duration_s FROM runs").fetchall() == [("succeeded", 48.0)]
    assert reader.execute("SELECT step, attempt FROM steps").fetchall() == [("test", 1)]
    assert reader.execute("SELECT name, state FROM test_results").fetchall() == [("test_a", "passed")]
    assert reader.execute("SELECT number, live_at FROM releases").fetchall() == [(1, at(2))]
    assert reader.execute("SELECT name, size_bytes FROM artifacts").fetchall() == [("dist/shop.whl", 1024)]
    assert reader.execute("SELECT value, unit FROM plugin_metrics").fetchall() == [(12.5, "lines")]


def test_a_row_replaces_the_one_with_its_key(warehouse: Warehouse, reader):
    """A run that goes on is one row in its newest state; so are steps and releases."""
    warehouse.record_run(run(1, state="running", finished_at=None), [step(1, "test", state="running")])
    warehouse.record_run(run(1), [step(1, "test"), step(1, "test", attempt=2)])
    warehouse.record_release(release(1))
    warehouse.record_release(release(1, state="ended", ended_at=at(9)))
    assert reader.execute("SELECT state FROM runs").fetchall() == [("succeeded",)]
    assert reader.execute("SELECT attempt, state FROM steps ORDER BY 1").fetchall() == [
        (1, "succeeded"),
        (2, "succeeded"),
    ]
    assert reader.execute("SELECT state, ended_at FROM releases").fetchall() == [("ended", at(9))]


def test_of_two_rows_with_one_key_in_one_call_the_last_counts(warehouse: Warehouse, reader):
    """No key is ever there twice."""
    warehouse.record(run(1, state="running"), run(1, state="failed"))
    assert reader.execute("SELECT state FROM runs").fetchall() == [("failed",)]


def test_tests_of_a_step_are_replaced_as_a_whole(warehouse: Warehouse, reader):
    """A second attempt at a step leaves no test of the first, and tests with one name all stay."""
    warehouse.record_tests([outcome(1, "test_a", state="failed"), outcome(1, "test_gone")])
    warehouse.record_tests([outcome(1, "test_a"), outcome(1, "test_a")])
    warehouse.record_tests([outcome(1, "test_b", step="other")])
    rows = reader.execute("SELECT step, name, state FROM test_results ORDER BY ALL").fetchall()
    assert rows == [("other", "test_b", "passed"), ("test", "test_a", "passed"), ("test", "test_a", "passed")]


def test_many_rows_at_once_are_a_file_and_few_are_none(warehouse: Warehouse, reader):
    """Small ingests stay in the catalog, so that a thousand pushes are not a thousand files."""
    files = Path(warehouse.location.data_path)
    warehouse.record_scan(scan(1), findings(map(str, range(10))))
    assert list(files.rglob("*.parquet")) == []
    warehouse.record_scan(scan(2), findings(map(str, range(2000))))
    assert list(files.rglob("*.parquet")) != []
    assert count(reader, "findings") == 2010


def test_what_was_quarantined_is_kept(warehouse: Warehouse, reader):
    """A broken result of a report is a row, written with its scan."""
    broken = IngestError(
        project="shop", commit="c1", run_id="r1", step="sast", source="bandit", message="no ruleId", location="result 3"
    )
    warehouse.record_scan(scan(1, quarantined=1), findings(["a"]), errors=[broken, broken])
    assert reader.execute("SELECT message, location FROM ingest_errors").fetchall() == [("no ruleId", "result 3")] * 2


def test_an_ingest_is_whole_or_not_there(warehouse: Warehouse, reader):
    """When one part cannot be written, none is."""
    wrong = ScanReport(scan=scan(1), findings=findings(["a"], tool="semgrep"))
    with pytest.raises(InputError):
        warehouse.record(run(1), wrong)
    assert (count(reader, "runs"), count(reader, "scans")) == (0, 0)
    warehouse.record_run(run(1))
    assert count(reader, "runs") == 1


def test_half_a_surrogate_pair_does_not_stop_an_ingest(warehouse: Warehouse, reader):
    """A commit message that was cut in the middle of an emoji is stored with a question mark."""
    warehouse.record_commit(commit(1, message="cut \ud83d"))
    assert reader.execute("SELECT message FROM commits").fetchall() == [("cut ?",)]


def test_a_finding_with_strange_text_is_stored(warehouse: Warehouse, reader):
    """NUL bytes, quotes and back-slashes come back as they were, inlined or in a file."""
    text = "it's \\ \"x\" \x00 {'a': [1, NULL]}\n\t"
    warehouse.record_scan(scan(1), [finding("a", message=text)])
    warehouse.record_scan(scan(2), [finding(str(index), message=text) for index in range(200)])
    assert reader.execute("SELECT DISTINCT message FROM findings").fetchall() == [(text,)]


def test_a_time_without_a_zone_is_refused():
    """Nobody has to guess what a time means."""
    with pytest.raises(InputError, match="queued_at has no time zone"):
        run(1, queued_at=datetime(2026, 1, 1))


@pytest.mark.parametrize("state", ["passed", "", "Succeeded"])
def test_an_unknown_state_of_a_scan_is_refused(state):
    """A scan succeeded or failed."""
    with pytest.raises(ValueError, match="state"):
        scan(1, state=state)


def test_threads_share_a_writer(warehouse: Warehouse, reader):
    """Steps that end at once in one process lose nothing."""
    threads = [threading.Thread(target=warehouse.record, args=[run(number)]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert count(reader, "runs") == 8


def test_a_forked_writer_opens_its_own_connections(warehouse: Warehouse, reader):
    """After a fork, parent and child both go on writing."""
    warehouse.record_run(run(1))
    child = os.fork()
    if child == 0:
        try:
            warehouse.record_run(run(2))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    warehouse.record_run(run(3))
    assert reader.execute("SELECT run_id FROM runs ORDER BY 1").fetchall() == [("r1",), ("r2",), ("r3",)]


def test_four_writers_and_a_reader_at_once_lose_nothing(location: Location):
    """Four processes begin with no warehouse at all; a reader sees whole ingests only and meets no error."""
    writers = [start_writer(location, f"p{index}", 6) for index in range(4)]
    with Warehouse(location) as warehouse:
        warehouse.create()
    errors, seen = [], 0
    lake = connect(location, read_only=True)
    while any(writer.poll() is None for writer in writers):
        try:
            row = lake.execute("SELECT (SELECT count(*) FROM scans), (SELECT count(*) FROM findings)").fetchone()
        except duckdb.Error as error:
            errors.append(str(error))
            continue
        assert row
        assert row[1] == 10 * row[0]
        assert row[0] >= seen
        seen = row[0]
    outputs = [writer.communicate() for writer in writers]
    assert errors == []
    assert [(writer.returncode, err) for writer, (_, err) in zip(writers, outputs, strict=True)] == [(0, "")] * 4
    assert (count(lake, "runs"), count(lake, "scans"), count(lake, "findings")) == (24, 24, 240)
    lake.close()


def test_compaction_beside_writers_and_a_reader_loses_nothing(warehouse: Warehouse):
    """Flushing and merging while others write and read changes no answer and raises no error."""
    writers = [start_writer(warehouse.location, f"p{index}", 6) for index in range(2)]
    lake, seen = connect(warehouse.location, read_only=True), 0
    while any(writer.poll() is None for writer in writers):
        compact(warehouse)
        row = lake.execute("SELECT (SELECT count(*) FROM scans), (SELECT count(*) FROM findings)").fetchone()
        assert row
        assert row[1] == 10 * row[0]
        assert row[0] >= seen
        seen = row[0]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert (count(lake, "scans"), count(lake, "findings")) == (12, 120)
    for writer in writers:
        writer.communicate()
    lake.close()


def test_two_writers_of_the_same_report_record_it_once(warehouse: Warehouse, reader):
    """The same report from two processes at the same time counts once."""
    writers = [start_writer(warehouse.location, "same", 4) for _ in range(2)]
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert (count(reader, "runs"), count(reader, "scans"), count(reader, "findings")) == (4, 4, 40)


def test_a_writer_killed_in_the_middle_leaves_nothing_half_visible(warehouse: Warehouse, reader, tmp_path: Path):
    """After kill -9 before the commit nothing of it is there, others go on at once, and its files can be removed."""
    warehouse.record_run(run(1))
    started = tmp_path / "started"
    writer = start_writer(warehouse.location, "doomed", "hang", started)
    wait_until(started.exists)
    writer.kill()
    writer.communicate()
    assert (count(reader, "scans"), count(reader, "findings"), count(reader, "finding_events")) == (0, 0, 0)
    warehouse.record_scan(scan(2), findings(["a"]))
    assert (count(reader, "runs"), count(reader, "findings")) == (1, 1)
    assert list(Path(warehouse.location.data_path).rglob("*.parquet")) != []
    deleted = compact(warehouse, kept=timedelta(0), grace=timedelta(0)).files_deleted
    assert deleted > 0
    assert (count(reader, "runs"), count(reader, "findings")) == (1, 1)


def test_what_was_acknowledged_before_a_kill_is_there(warehouse: Warehouse, reader):
    """Every line that the writer printed is a run with its findings."""
    writer = start_writer(warehouse.location, "p", 50)
    assert writer.stdout
    acknowledged = [writer.stdout.readline().strip() for _ in range(3)]
    writer.kill()
    acknowledged += writer.communicate()[0].split()
    runs = {name for (name,) in reader.execute("SELECT run_id FROM runs").fetchall()}
    assert set(acknowledged) <= runs
    assert count(reader, "findings") == 10 * len(runs)


def test_a_writer_whose_connections_were_cut_goes_on(warehouse: Warehouse, reader, catalog_url: str):
    """A restart of the catalog costs nothing but time."""
    warehouse.record_run(run(1))
    with psycopg.connect(catalog_url, autocommit=True) as catalog:
        catalog.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    warehouse.record_run(run(2))
    with connect(warehouse.location, read_only=True) as lake:
        assert count(lake, "runs") == 2


def test_a_conflict_with_somebody_without_the_lock_is_retried(warehouse: Warehouse, reader):
    """A transaction that loses against a foreign one is run again from its start."""
    warehouse.record_run(run(1, state="running"))
    attempts = []

    def overtaken(lake: duckdb.DuckDBPyConnection) -> None:
        lake.execute("DELETE FROM runs WHERE run_id = 'r1'")
        if not attempts:
            with connect(warehouse.location) as foreign:
                foreign.execute("DELETE FROM runs WHERE run_id = 'r1'")
        attempts.append(1)

    warehouse.write(overtaken)
    assert len(attempts) == 2
    assert count(reader, "runs") == 0


def test_a_conflict_without_end_is_one_line(location: Location):
    """After its attempts, with ever longer pauses, the writer gives up and says why."""
    pauses: list[float] = []
    with Warehouse(location, sleep=pauses.append) as warehouse:
        warehouse.record_run(run(1))

        def overtaken(lake: duckdb.DuckDBPyConnection) -> None:
            lake.execute("UPDATE runs SET state = 'mine'")
            with connect(location) as foreign:
                foreign.execute("UPDATE runs SET state = 'theirs'")

        with pytest.raises(PlatformError, match="could not be written"):
            warehouse.write(overtaken)
    assert len(pauses) == 7
    assert max(pauses) <= 2


def test_a_mistake_is_not_retried(warehouse: Warehouse):
    """Only conflicts and lost connections are worth another attempt."""
    attempts = []

    def wrong(lake: duckdb.DuckDBPyConnection) -> None:
        attempts.append(1)
        lake.execute("INSERT INTO runs (run_id) VALUES ('r1')")

    with pytest.raises(PlatformError, match="NOT NULL"):
        warehouse.write(wrong)
    assert len(attempts) == 1


def test_the_lock_goes_with_the_transaction(warehouse: Warehouse, catalog_url: str):
    """An idle writer holds nothing."""
    warehouse.record_run(run(1))
    with psycopg.connect(catalog_url) as catalog:
        held = catalog.execute("SELECT count(*) FROM pg_locks WHERE classid = %s", [LOCK_CLASS]).fetchone()
    assert held == (0,)


def test_flushing_moves_rows_into_files(warehouse: Warehouse, reader):
    """Inlined rows become Parquet, once."""
    warehouse.record_run(run(1))
    assert flush(warehouse) > 0
    assert flush(warehouse) == 0
    assert list(Path(warehouse.location.data_path).rglob("runs/*.parquet")) != []
    assert count(reader, "runs") == 1


def test_compaction_makes_few_files_of_many(warehouse: Warehouse, reader):
    """Many small files become one, old ones go, answers stay, also after rows were replaced."""
    folder = Path(warehouse.location.data_path)
    for number in range(1, 6):
        warehouse.record_scan(scan(number), findings(map(str, range(200))))
        warehouse.record_run(run(1, state=f"state {number}"))
        flush(warehouse)
    before = len(list(folder.rglob("findings/*.parquet")))
    done = compact(warehouse, kept=timedelta(0), grace=timedelta(0))
    assert before == 5
    assert done.files_merged >= 5
    assert len(list(folder.rglob("findings/*.parquet"))) == 1
    assert reader.execute("SELECT state FROM runs").fetchall() == [("state 5",)]
    assert count(reader, "findings") == 1000


def test_young_files_are_left_for_readers(warehouse: Warehouse):
    """By default nothing is deleted that a query which is still running may read."""
    for number in (1, 2):
        warehouse.record_scan(scan(number), findings(map(str, range(200))))
    assert compact(warehouse).files_deleted == 0
