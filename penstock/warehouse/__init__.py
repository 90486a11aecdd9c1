"""
The warehouse: every output of CI/CD as a table, for anyone with SQL.

    from penstock.warehouse import connect
    connect().sql("SELECT severity, count(*) FROM findings GROUP BY ALL").df()
"""

from penstock.warehouse.connect import Location, ObjectStore, connect
from penstock.warehouse.home import open_home, warehouse_location
from penstock.warehouse.maintain import Compaction, compact, flush, retain
from penstock.warehouse.rows import (
    EMPTY_SHA256,
    Approval,
    Artifact,
    Commit,
    Coverage,
    Image,
    IngestError,
    ListedComponent,
    PluginDatum,
    PluginMetric,
    Release,
    Rollout,
    Run,
    Sbom,
    Scan,
    Step,
    Suppression,
    TestResult,
)
from penstock.warehouse.write import ComponentList, ScanReport, Warehouse

__all__ = [
    "EMPTY_SHA256",
    "Approval",
    "Artifact",
    "Commit",
    "Compaction",
    "ComponentList",
    "Coverage",
    "Image",
    "IngestError",
    "ListedComponent",
    "Location",
    "ObjectStore",
    "PluginDatum",
    "PluginMetric",
    "Release",
    "Rollout",
    "Run",
    "Sbom",
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
