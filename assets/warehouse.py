"""The warehouse's tables as assets, and their upkeep on a schedule."""

from typing import Any

import dagster as dg

from penstock.pipeline.ingest import warehouse_location
from penstock.settings import load_settings
from penstock.warehouse import Warehouse, compact, connect
from penstock.warehouse.rows import ROW_TYPES


@dg.asset(
    key=["warehouse", "tables"],
    group_name="warehouse",
    kinds={"duckdb"},
    description="The warehouse's tables, small files merged, old snapshots dropped. schema.sql says each one's grain.",
)
def warehouse_tables() -> dg.MaterializeResult[Any]:
    """Merge small files; the row counts are metadata."""
    location = warehouse_location(load_settings())
    with Warehouse(location) as writer:
        done = compact(writer)
    with connect(location, read_only=True) as lake:
        names = sorted({row_type.TABLE for row_type in ROW_TYPES} | {"findings", "finding_history"})
        counts = {f"rows/{name}": lake.table(name).count("*").fetchone() for name in names}
    rows = {name: int(found[0]) for name, found in counts.items() if found}
    return dg.MaterializeResult(metadata={**rows, "compaction": str(done)})


warehouse_assets = [warehouse_tables]

warehouse_schedule = dg.ScheduleDefinition(
    name="warehouse_upkeep",
    target=dg.AssetSelection.assets(warehouse_tables),
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
