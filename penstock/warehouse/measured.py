"""What plugins measured, as questions; each is a function from a connection of `connect` to a DataFrame."""

from typing import TYPE_CHECKING

import duckdb

from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd


def metrics_of_plugin(connection: duckdb.DuckDBPyConnection, *, plugin: str, days: int = 90) -> "pd.DataFrame":
    """
    One row per project, commit and metric of a plugin in the last `days` days: `project`, `commit`, `name`, `unit`,
    `kind`, `measured_at` (UTC), and `value`, the last of each run summed over its labels. Histograms are left out.
    """
    return _frame(
        connection,
        """
        WITH last AS (
            SELECT project, commit, run_id, name, labels, arg_max(value, measured_at) AS value,
                any_value(unit) AS unit, any_value(kind) AS kind, max(measured_at) AS measured_at
            FROM plugin_metrics
            WHERE plugin = $plugin AND measured_at >= now() - to_days($days::INT)
                AND coalesce(kind, 'gauge') <> 'histogram'
            GROUP BY ALL
        )
        SELECT project, commit, name, any_value(unit) AS unit, any_value(kind) AS kind,
            max(measured_at) AS measured_at, sum(value) AS value
        FROM last GROUP BY project, commit, run_id, name ORDER BY measured_at
        """,
        plugin=plugin,
        days=days,
    )
