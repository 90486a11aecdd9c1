"""
Plugins that tell as fast as they can, and one that asks over all of it.

    python bench/plugin_data.py [--writers 8] [--seconds 10] [--rate 10000] [--rows 10000000] [--kill]

One API process (uvicorn) with a real PostgreSQL, both made here; each writer is a process with a step's token of its
own, and posts metrics in batches, over loopback. With --kill the API is killed with -9 in their midst, three times, and
what was not answered is sent again, under the same Idempotency-Key. Then so many rows more are laid into the warehouse,
in the project of the writers and in another, and SQL across plugins is asked through the API.

Prints `lost=… doubled=… rate=… query_ms=…`; exit code 1 when a line is lost or there twice, the rate is below the one
asked for, or the median of a query is 1000 ms or more.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx

from penstock.plugins.data import PluginData, Scope
from penstock.plugins.data.chunks import Kind
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.warehouse import Warehouse, warehouse_location

API, BATCH, UP_LIMIT_S, PATIENCE_S = "/api/v1", 500, 60.0, 60.0
QUERY_LIMIT_MS, ASKED = 1000.0, 7
QUERIES = {
    "sums by plugin and name": "SELECT plugin, name, count(*), avg(value), max(value) FROM plugin_metrics GROUP BY ALL",
    "findings per thousand lines": """
        WITH found AS (
            SELECT commit, sum(value) AS findings FROM plugin_metrics WHERE name = 'findings' GROUP BY commit
        ), sized AS (
            SELECT commit, max(value) AS lines FROM plugin_metrics WHERE name = 'lines' GROUP BY commit
        )
        SELECT commit, 1000 * findings / lines AS per_thousand
        FROM found JOIN sized USING (commit) ORDER BY 2 DESC LIMIT 20
        """,
    "one commit": "SELECT plugin, sum(value) FROM plugin_metrics WHERE commit = 'c00042' GROUP BY ALL",
}


def scope(writer: int) -> Scope:
    """Of one step of one run."""
    return Scope("default", "shop", "run-1", f"step-{writer}", "c" * 40, f"writer-{writer}@1.0.0")


def tell(writer: int, url: str, token: str, lines: int, rate: float) -> float:
    """Post `lines` metrics, not faster than `rate` a second, 0 as fast as it goes. Returns: seconds."""
    begun = time.perf_counter()
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as client:
        for first in range(0, lines, BATCH):
            said = {
                "name": "lines",
                "unit": "lines",
                "kind": "gauge",
                "labels": {"language": "python", "w": str(writer)},
            }
            body = "".join(json.dumps({**said, "value": n}) + "\n" for n in range(first, min(first + BATCH, lines)))
            post(client, f"{url}{API}/plugin-data/metrics", body.encode(), f"from-{first}")
            if rate:
                time.sleep(max(0.0, begun + (first + BATCH) / rate - time.perf_counter()))
    return time.perf_counter() - begun


def post(client: httpx.Client, url: str, body: bytes, key: str) -> None:
    """Until it is answered: again when the API is away, later when it says so."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            answer = client.post(url, content=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return
        if answer.status_code not in (429, 503):
            raise SystemExit(f"{answer.status_code}: {answer.text}")
        time.sleep(float(answer.headers.get("Retry-After", "0.2")))
    raise SystemExit("the API stayed away")


def start(home: Path, port: int) -> "subprocess.Popen[bytes]":
    """The API, when it answers."""
    env = {**os.environ, "PENSTOCK_HOME": str(home), "PENSTOCK_API_PORT": str(port)}
    with (home / "logs" / "api.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "penstock.api"], env=env, stdout=log, stderr=log)
    until = time.monotonic() + UP_LIMIT_S
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}{API}/health", trust_env=False).status_code == 200:
                return process
        time.sleep(0.05)
    raise SystemExit(f"the API does not start: {(home / 'logs' / 'api.log').read_text()[-2000:]}")


@contextlib.contextmanager
def api(home: Path, port: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The API; the list holds the one that runs now."""
    running = [start(home, port)]
    try:
        yield running
    finally:
        running[0].terminate()
        running[0].wait(30)


def storm(options: argparse.Namespace, url: str, store: PluginData, home: Path, running: list) -> float:
    """All writers at once. Returns: lines a second, over all of them."""
    each = int(options.rate * options.seconds / options.writers)
    jobs = [(n, url, store.mint(scope(n), timedelta(minutes=10)), each, 0.0) for n in range(options.writers)]
    port = int(url.rpartition(":")[2])
    with multiprocessing.get_context("spawn").Pool(options.writers) as pool:
        pool.map(time.sleep, [0.0] * options.writers, chunksize=1)
        begun = time.perf_counter()
        going = pool.starmap_async(tell, jobs, chunksize=1)
        for _ in range(3 if options.kill else 0):
            time.sleep(options.seconds / 8)
            running[0].send_signal(signal.SIGKILL)
            running[0].wait()
            running[0] = start(home, port)
        going.get(timeout=600)
        return each * options.writers / (time.perf_counter() - begun)


def fill(warehouse: Warehouse, rows: int) -> None:
    """`rows` metrics of twenty plugins and a thousand commits, and a tenth as many of another project."""
    made = """
        INSERT INTO plugin_metrics BY NAME
        SELECT 'default' AS tenant, '{project}' AS project, format('c{{:05d}}', i // 1000 % 1000) AS commit,
            format('run-{{}}', i // 1000) AS run_id, 'scan' AS step, format('plugin-{{}}@1.0.0', i % 20) AS plugin,
            CASE WHEN i % 20 = 0 THEN 'lines' WHEN i % 20 < 5 THEN 'findings' ELSE format('metric-{{}}', i % 20) END
                AS name,
            1 + hash(i) % 1000 AS value, '1' AS unit, 'gauge' AS kind,
            format('{{{{"file":"f{{}}"}}}}', i % 50) AS labels,
            TIMESTAMPTZ '2026-01-01' + to_seconds(i) AS measured_at, measured_at AS received_at, i AS seq
        FROM range({first}, {last}) AS rows(i)
    """
    step = 1_000_000
    for first in range(0, rows, step):
        sql = made.format(project="shop", first=first, last=min(first + step, rows))
        warehouse.write(lambda lake, sql=sql: lake.execute(sql))
    sql = made.format(project="secret", first=0, last=rows // 10)
    warehouse.write(lambda lake: lake.execute(sql))


def ask(client: httpx.Client, url: str, sql: str) -> tuple[float, dict]:
    """Milliseconds, and the answer."""
    begun = time.perf_counter()
    while (answer := client.post(f"{url}{API}/plugin-data/query", json={"sql": sql})).status_code == 429:
        time.sleep(float(answer.headers["Retry-After"]))
        begun = time.perf_counter()
    if answer.status_code != 200:
        raise SystemExit(answer.text)
    return (time.perf_counter() - begun) * 1000, answer.json()


def main() -> int:
    """Returns: the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pb") as folder:
        home = Path(folder)
        home.chmod(0o711)
        return measure(options, home)


def measure(options: argparse.Namespace, home: Path) -> int:
    """Returns: the exit code."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = load_settings({**os.environ, "PENSTOCK_HOME": str(home), "PENSTOCK_API_PORT": str(port)})
    with hosted_database(settings) as database, api(home, port) as running:
        store, url = PluginData(database, settings), settings.api_url
        rate = storm(options, url, store, home, running)
        sent = int(options.rate * options.seconds / options.writers) * options.writers
        token = store.mint(scope(0), timedelta(minutes=30))
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as client:
            counted = f"SELECT count(*), count(DISTINCT (step, value)) FROM {Kind.METRICS.table} WHERE run_id = 'run-1'"
            _, answer = ask(client, url, counted)
            there, different = answer["rows"][0]
            print(f"sent={sent} there={there} different={different}")
            slowest = query(options, client, url, settings) if options.rows else 0.0
    # A killed API takes nothing until it is up again, so the rate counts only without --kill.
    print(f"lost={sent - different} doubled={there - different} rate={rate:.0f} query_ms={slowest:.0f}")
    is_fast = (rate >= options.rate or options.kill) and slowest < QUERY_LIMIT_MS
    return 0 if sent == different == there and is_fast else 1


def query(options: argparse.Namespace, client: httpx.Client, url: str, settings: object) -> float:
    """Returns: the slowest query's median in ms."""
    with Warehouse(warehouse_location(settings)) as warehouse:
        fill(warehouse, options.rows)
    slowest = 0.0
    for name, sql in QUERIES.items():
        times = [ask(client, url, sql)[0] for _ in range(ASKED)]
        print(f"{name}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms")
        slowest = max(slowest, statistics.median(times))
    _, answer = ask(client, url, "SELECT count(*), count(*) FILTER (project <> 'shop') FROM plugin_metrics")
    print(f"rows={answer['rows'][0][0]} foreign={answer['rows'][0][1]}")
    return slowest


if __name__ == "__main__":
    sys.exit(main())
