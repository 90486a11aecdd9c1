"""
How long does each question of the dashboards take over ten million findings?

    python bench/dashboards.py [--home DIR] [--findings 520] [--rounds 5]

Makes history up (`penstock demo-data --projects 20 --days 180 --findings N`; 520 are ten million rows) in a folder of
its own, which it removes; --home takes one that is there and leaves it alone. Every question that a page asks is asked
--rounds times after a first one, through the connection that the pages share, with the parameters that the page has
when it is opened, and with those of a filter. Prints the median, the slowest, and the processor's time of a round (of
all cores together, which a busy machine does not change), in seconds. The last line is the slowest median. Exit code 1
when one is 1 s or more.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from penstock.demo import Scale, write_demo
from penstock.settings import Settings, load_settings
from penstock.state.database import hosted_database
from penstock.warehouse import connect, delivery, health, inventory, queries, views, warehouse_location
from penstock.warehouse.views import Reader

GOAL_S = 1.0
PROJECT = "demo-shop"
MAIN = ("main",)


@attrs.frozen
class Asked:
    """A question as a page asks it."""

    question: Callable[..., Any]
    parameters: dict[str, Any] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """The question and its parameters, in words."""
        shown = ", ".join(f"{name}={value}"[:60] for name, value in self.parameters.items())
        return f"{self.question.__name__}({shown})"


def questions(settings: Settings) -> Iterator[Asked]:
    """Every question of every page: as the page opens, and filtered."""
    known = _examples(settings)
    of = {"project": PROJECT}
    for findings in ({}, {"branches": MAIN}, of, {"severity": "critical"}, {"environment": "production"}):
        yield Asked(queries.open_findings, findings)
    for filtered in ({}, of):
        yield Asked(queries.live_releases, filtered)
        yield Asked(queries.findings_by_severity, filtered)
        yield Asked(queries.findings_over_time, filtered)
        yield Asked(queries.scanner_health, filtered)
        yield Asked(queries.gate_history, {**filtered, "branches": MAIN, "days": 365})
        yield Asked(queries.runs, filtered)
        yield Asked(views.releases, filtered)
        yield Asked(views.durations_of_tests, {**filtered, "days": 365})
        yield Asked(views.introduced_and_fixed, {**filtered, "branch": "main"})
        yield Asked(views.open_by_age, {**filtered, "branches": MAIN})
        yield Asked(views.time_to_fix, {**filtered, "branches": MAIN})
        yield Asked(health.flaky_tests, {**filtered, "days": 365})
        yield Asked(health.failures_by_week, {**filtered, "weeks": 26})
        yield Asked(health.noisy_rules, {**filtered, "branches": MAIN})
        yield Asked(health.scan_coverage, filtered)
        yield Asked(health.failed_scans, filtered)
        yield Asked(delivery.delivery, {**filtered, "environment": "production"})
        yield Asked(inventory.coverage_of_runs, {**filtered, "days": 365})
    yield Asked(queries.introduced_by_commit, {**of, "commit": known["commit"]})
    yield Asked(queries.fixed_by_commit, {**of, "commit": known["commit"]})
    yield Asked(queries.steps_of_run, {"run_id": known["run_id"]})
    yield Asked(views.tests_of_run, {"run_id": known["run_id"]})
    yield Asked(views.scanned_commits, of)
    yield Asked(views.branch_difference, {**of, "branch": known["branch"]})
    yield Asked(views.finding_lives, {**of, "fingerprint": known["fingerprint"]})
    yield Asked(views.finding_life, {**of, "branch": "main", "fingerprint": known["fingerprint"]})
    yield Asked(views.table_columns)
    yield Asked(inventory.component_names)
    yield Asked(inventory.component_names, {"words": "log4j"})
    for asked in ("log4j-core < 2.17.1", "openssl", "libc6 < 2.36-9+deb12u7"):
        yield Asked(inventory.component_versions, {"asked": asked})
        yield Asked(inventory.component_releases, {"asked": asked})
        yield Asked(inventory.component_releases, {"asked": asked, "live_only": False})
        yield Asked(inventory.component_branches, {"asked": asked, "branches": MAIN})


def _examples(settings: Settings) -> dict[str, str]:
    with connect(warehouse_location(settings), read_only=True) as lake:
        row = lake.execute(
            """
            SELECT arg_max(commit, committed_at) FILTER (branch = 'main'), arg_max(run_id, committed_at),
                arg_max(branch, committed_at) FILTER (branch <> 'main') FROM scans WHERE project = ?
            """,
            [PROJECT],
        ).fetchone()
        found = lake.execute(
            "SELECT max(fingerprint) FROM finding_events WHERE project = ? AND branch = 'main'", [PROJECT]
        ).fetchone()
    if row is None or row[0] is None or found is None:
        sys.exit(f"there is no project {PROJECT} in {settings.home}; let `penstock demo-data` make one")
    return {"commit": row[0], "run_id": row[1], "branch": row[2], "fingerprint": found[0]}


@attrs.frozen
class Taken:
    """How long each round took, and the processor's time of one of them; rows: of the answer."""

    rows: int
    wall_s: tuple[float, ...]
    cpu_s: float


def measure(reader: Reader, asked: Asked, rounds: int) -> Taken:
    """Ask `rounds` times after a first."""
    answer = reader.ask(asked.question, **asked.parameters)
    wall, cpu = [], time.process_time()
    for _ in range(rounds):
        began = time.perf_counter()
        answer = reader.ask(asked.question, **asked.parameters)
        wall.append(time.perf_counter() - began)
    return Taken(len(answer), tuple(wall), (time.process_time() - cpu) / rounds)


@contextmanager
def history(home: Path | None, findings: int) -> Iterator[Settings]:
    """Settings of a home with history and its database up; a home of this script's own is removed."""
    folder = home or Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))
    folder.chmod(0o711)  # as root, the database runs as a user of its own
    try:
        settings = load_settings({"PENSTOCK_HOME": str(folder)})
        with hosted_database(settings) as database:
            if home is None:
                print("making history up …", file=sys.stderr)
                write_demo(settings, database, Scale(projects=20, days=180, seed=1, findings=findings))
            yield settings
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--home", type=Path, help="a PENSTOCK_HOME with made-up history")
    parser.add_argument("--findings", type=int, default=520, help="open findings of an average project")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only questions with this in their name")
    words = parser.parse_args()
    slowest = (0.0, "")
    with history(words.home, words.findings) as settings:
        with connect(warehouse_location(settings), read_only=True) as lake:
            for table in ("findings", "finding_events", "scans", "components", "test_results", "coverage"):
                print(f"{lake.sql(f'SELECT count(*) FROM {table}').fetchall()[0][0]:>12,} rows in {table}")
        reader = Reader(warehouse_location(settings))
        print(f"{'median':>8} {'slowest':>8} {'cpu':>8} {'rows':>8}  question")
        for asked in questions(settings):
            if words.only not in asked.name:
                continue
            taken = measure(reader, asked, words.rounds)
            median = statistics.median(taken.wall_s)
            slowest = max(slowest, (median, asked.name))
            figures = f"{median:>8.3f} {max(taken.wall_s):>8.3f} {taken.cpu_s:>8.3f} {taken.rows:>8}"
            print(f"{figures}  {asked.name}", flush=True)
        reader.close()
    print(f"slowest_median_s={slowest[0]:.3f} goal_s={GOAL_S} question={slowest[1]}")
    return 0 if slowest[0] < GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
