"""
The warehouse: every output of CI/CD as a table, for anyone with SQL.

    from penstock.warehouse import open_home
    with open_home(".penstock") as lake:
        lake.sql("SELECT severity, count(*) FROM findings GROUP BY ALL").df()
"""

from penstock.warehouse.connect import Location, ObjectStore, connect
from penstock.warehouse.home import open_home, warehouse_location
from penstock.warehouse.maintain import Compaction, compact, flush, retain
from penstock.warehouse.rows import (
    EMPTY_SHA256,
    Artifact,
    Commit,
    IngestError,
    PluginMetric,
    Release,
    Run,
    Scan,
    Step,
    Suppression,
    TestResult,
)
from penstock.warehouse.write import ScanReport, Warehouse

__all__ = [
    "EMPTY_SHA256",
    "Artifact",
    "Commit",
    "Compaction",
    "IngestError",
    "Location",
    "ObjectStore",
    "PluginMetric",
    "Release",
    "Run",
    "Scan",
    "ScanReport",
    "Step",
    "Suppression",
    "TestResult",
    "Warehouse",
    "compact",
    "connect",
    "flush",
    "open_home",
    "retain",
    "warehouse_location",
]
