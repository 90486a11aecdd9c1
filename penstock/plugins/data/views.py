"""
A view for each metric that a plugin declares: `plugin_<plugin>_<metric>`, its values and labels in typed columns.

They lie in the warehouse, so that `penstock sql`, notebooks and dashboards find them by name; each comment says unit
and kind. A plugin's own SQL finds them too, when `Queries.ask` is given `view_sql` of them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs
import duckdb

from penstock.errors import InputError
from penstock.warehouse import Warehouse
from penstock.warehouse.connect import LAKE, quoted, quoted_name

_LONGEST = 120


@attrs.frozen(kw_only=True)
class DeclaredMetric:
    """
    A metric as a manifest declares it, in plain values.

    plugin: its name, without version. name: of the metric, as it stands in its lines. labels: those that get a column.
    type: "integer" gives a BIGINT column. Raises: InputError when its view would have no name of its own.
    """

    plugin: str
    name: str
    unit: str | None = None
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    type: Literal["integer", "number"] = "number"
    labels: tuple[str, ...] = ()
    description: str = ""

    def __attrs_post_init__(self) -> None:
        if not _plain(self.plugin) or not _plain(self.name) or len(self.view) > _LONGEST:
            raise InputError(
                f'"{self.plugin[:40]}" and "{self.name[:40]}" make no name of a view',
                where="metrics",
                remedy="use letters and digits, together at most 100",
            )

    @property
    def view(self) -> str:
        """The view's name: what is no letter or digit is an underscore."""
        return f"plugin_{_plain(self.plugin)}_{_plain(self.name)}"

    @property
    def comment(self) -> str:
        """Its grain, unit and kind in a sentence."""
        unit = f" in {self.unit}" if self.unit else ""
        about = f" {self.description}" if self.description else ""
        return f"One row per measurement of {self.name} by the plugin {self.plugin}: a {self.kind}{unit}.{about}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def view_sql(metric: DeclaredMetric) -> str:
    """The SELECT as a view; it reads nothing but `plugin_metrics`."""
    value = "round(value)::BIGINT" if metric.type == "integer" else "value"
    columns = [
        *("tenant", "project", "commit", "run_id", "step", "environment"),
        "nullif(split_part(plugin, '@', 2), '') AS version",
        *("measured_at", f"{value} AS value", f"{_literal(metric.unit)} AS unit", f"{quoted(metric.kind)} AS kind"),
        *(
            f"labels ->> {quoted('$.' + quoted_name(label))} AS {quoted_name(f'label_{label}')}"
            for label in metric.labels
        ),
    ]
    return (
        f"CREATE OR REPLACE VIEW {metric.view} AS SELECT {', '.join(columns)} FROM plugin_metrics "
        f"WHERE split_part(plugin, '@', 1) = {quoted(metric.plugin)} AND name = {quoted(metric.name)}"
    )


def _literal(text: str | None) -> str:
    return "NULL::VARCHAR" if text is None else quoted(text)


def define_views(warehouse: Warehouse, metrics: Sequence[DeclaredMetric]) -> tuple[str, ...]:
    """
    Make the views of these metrics, or make them anew, in one transaction. Returns: their names.

    Raises: InputError when two metrics would have one view; nothing is made then.
    """
    _check_names(metrics)

    def define(lake: duckdb.DuckDBPyConnection) -> None:
        for metric in metrics:
            lake.execute(view_sql(metric))
            lake.execute(f"COMMENT ON VIEW {metric.view} IS {quoted(metric.comment)}")

    if metrics:
        warehouse.write(define)
    return tuple(metric.view for metric in metrics)


def _check_names(metrics: Iterable[DeclaredMetric]) -> None:
    seen: dict[str, DeclaredMetric] = {}
    for metric in metrics:
        other = seen.setdefault(metric.view, metric)
        if (other.plugin, other.name) != (metric.plugin, metric.name):
            both = f"{other.plugin} {other.name} and {metric.plugin} {metric.name}"
            raise InputError(f"{both} would have one view, {metric.view}", where="metrics", remedy="rename one")


def drop_views(warehouse: Warehouse, metrics: Sequence[DeclaredMetric]) -> None:
    """Of a plugin that is gone; what it told stays in `plugin_metrics`."""

    def drop(lake: duckdb.DuckDBPyConnection) -> None:
        for metric in metrics:
            lake.execute(f"DROP VIEW IF EXISTS {LAKE}.{metric.view}")

    if metrics:
        warehouse.write(drop)
