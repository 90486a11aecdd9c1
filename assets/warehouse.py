"""The warehouse's tables as assets, and their upkeep on a schedule."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from penstock.settings import load_settings
from penstock.warehouse import Warehouse, compact, connect, retain
from penstock.warehouse.home import keep_days, warehouse_location
from penstock.warehouse.rows import ROW_TYPES
from penstock.warehouse.suppressions import expire


@dg.asset(
    key=["warehouse", "tables"],
    group_name="warehouse",
    kinds={"duckdb"},
    description="The warehouse's tables, small files merged, old snapshots dropped. schema.sql says each one's grain.",
)
def warehouse_tables() -> dg.MaterializeResult[Any]:
    """Open what was suppressed until now, remove old rows, merge small files; the row counts are metadata."""
    location, days = warehouse_location(load_settings()), keep_days()
    with Warehouse(location) as writer:
        writer.create()
        expired = expire(writer, datetime.now(UTC))
        removed = retain(writer, timedelta(days=days)) if days else 0
        done = compact(writer)
    with connect(location, read_only=True) as lake:
        names = sorted({row_type.TABLE for row_type in ROW_TYPES} | {"findings", "finding_history"})
        counts = {f"rows/{name}": lake.table(name).count("*").fetchone() for name in names}
    upkeep = {"suppressions_expired": expired, "rows_removed": removed}
    rows = {name: int(found[0]) for name, found in counts.items() if found}
    return dg.MaterializeResult(metadata={**rows, **upkeep, "compaction": str(done)})


warehouse_assets = [warehouse_tables]

warehouse_schedule = dg.ScheduleDefinition(
    name="warehouse_upkeep",
    target=dg.AssetSelection.assets(warehouse_tables),
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
