"""Eight writers at once, readers beside them, one writer killed: what was acknowledged is there, whole and once."""

import collections
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb

from penstock.warehouse import Location, Warehouse, connect

SCRIPT = Path(__file__).with_name("ingesting.py")
WRITERS, EACH, FINDINGS = 8, 3, 10
DEADLINE_S = 600
QUESTIONS = (
    "SELECT count(*) FROM findings",
    "SELECT state, count(*) FROM finding_history GROUP BY ALL",
    "SELECT project, max(scanned_at) FROM scans GROUP BY ALL",
)


class Readers:
    """Threads that ask one question after the other, each on a connection of its own, until they are stopped."""

    def __init__(self, location: Location, count: int) -> None:
        self.answers, self.errors = 0, collections.Counter[str]()
        self._location, self._stop = location, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        lake = connect(self._location, read_only=True)
        while not self._stop.is_set():
            for question in QUESTIONS:
                try:
                    lake.execute(question).fetchall()
                    self.answers += 1
                except duckdb.Error as error:
                    self.errors[str(error)] += 1
        lake.close()


def _writers(location: Location) -> list["subprocess.Popen[str]"]:
    words = [sys.executable, str(SCRIPT), location.catalog_url, location.catalog_schema, location.data_path]
    return [
        subprocess.Popen(
            [*words, f"project{number}", str(EACH)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(WRITERS)
    ]


def test_nothing_is_lost_and_no_reader_fails(warehouse: Warehouse, reader):
    """
    Seven writers end well, the eighth is killed at its first acknowledgement: every acknowledged ingest is there with
    all its findings, what was not is whole or absent, and no reader saw an error.
    """
    began = time.monotonic()
    with Readers(warehouse.location, 2) as readers:
        writers = _writers(warehouse.location)
        assert writers[-1].stdout is not None
        acknowledged = [writers[-1].stdout.readline().strip()]
        writers[-1].kill()
        for writer in writers:
            out, err = writer.communicate(timeout=DEADLINE_S)
            assert writer is writers[-1] or writer.returncode == 0, err
            acknowledged += out.split()
    took_s = time.monotonic() - began
    print(f"{len(acknowledged)} ingests in {took_s:.1f} s by {WRITERS} writers, {readers.answers} answers meanwhile")
    assert readers.errors == {}
    assert readers.answers > 0
    assert len(acknowledged) >= (WRITERS - 1) * EACH + 1
    found = dict(reader.sql("SELECT run_id, count(*) FROM findings GROUP BY ALL").fetchall())
    assert set(acknowledged) <= set(found)
    assert set(found.values()) == {FINDINGS}
    for table in ("runs", "scans"):
        assert {name for (name,) in reader.sql(f"SELECT run_id FROM {table}").fetchall()} == set(found)
        assert reader.sql(f"SELECT count(*) FROM {table}").fetchone() == (len(found),)
    introduced = "SELECT count(*) FROM finding_events WHERE event = 'introduced'"
    assert reader.sql(introduced).fetchone() == (len(found) * FINDINGS,)
