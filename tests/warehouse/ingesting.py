"""
A writer in a process of its own: `python ingesting.py URL SCHEMA DATA NAME COUNT [STARTED]`.

Records COUNT scans of ten findings each for a project called NAME, each with its run, and prints a line after each that
was acknowledged. With COUNT "hang" it stops in the middle of a transaction, after touching the file STARTED.
"""

import signal
import sys
from pathlib import Path

from lake_rows import findings, run, scan

from penstock.warehouse import Location, ScanReport, Warehouse


def ingest(warehouse: Warehouse, name: str, number: int) -> None:
    """One run with one scan."""
    report = scan(number, project=name, run_id=f"{name}-{number}", findings=10)
    found = findings(f"{name}-{number}-{index}" for index in range(10))
    warehouse.record(run(number, project=name, run_id=f"{name}-{number}"), ScanReport(scan=report, findings=found))
    print(f"{name}-{number}", flush=True)


def hang(warehouse: Warehouse, name: str, started: Path) -> None:
    """Insert all of a large scan, then never commit."""

    def work(lake):
        from penstock.warehouse.write import insert_scan

        insert_scan(lake, ScanReport(scan=scan(1, project=name), findings=findings(map(str, range(500)))))
        started.touch()
        signal.pause()

    warehouse.write(work)


def main() -> None:
    url, schema, data, name, count, *rest = sys.argv[1:]
    location = Location(catalog_url=url, catalog_schema=schema, data_path=data)
    with Warehouse(location) as warehouse:
        if count == "hang":
            hang(warehouse, name, Path(rest[0]))
        for number in range(1, int(count) + 1):
            ingest(warehouse, name, number)


if __name__ == "__main__":
    main()
