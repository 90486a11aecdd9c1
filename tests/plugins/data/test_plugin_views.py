"""A declared metric is a view of its own, where SQL is asked."""

import pytest
from told_lines import scope

from penstock.errors import InputError
from penstock.plugins.data import PluginData
from penstock.plugins.data.mover import Mover
from penstock.plugins.data.queries import Queries
from penstock.plugins.data.views import DeclaredMetric, define_views, drop_views, view_sql
from penstock.warehouse import Warehouse, sql

LINES = DeclaredMetric(
    plugin="code-size",
    name="lines.of-code",
    unit="lines",
    type="integer",
    labels=("language", "it's"),
    description="Without blank ones.",
)
TOLD = [
    b'{"name": "lines.of-code", "value": 1200, "unit": "lines", "labels": {"language": "go"}}',
    b'{"name": "other", "value": 1}',
]


def test_a_view_has_values_and_labels_in_columns(store: PluginData, mover: Mover, warehouse: Warehouse) -> None:
    """`penstock sql` finds it by its name, with its unit in the comment; others' metrics of that name are not in it."""
    store.take_metrics(scope(plugin="code-size"), TOLD)
    store.take_metrics(scope(plugin="other"), TOLD)
    mover.move_all()
    assert define_views(warehouse, [LINES]) == define_views(warehouse, [LINES]) == ("plugin_code_size_lines_of_code",)
    columns = 'project, value, typeof(value), unit, kind, label_language, "label_it\'s"'
    query = f"SELECT {columns} FROM plugin_code_size_lines_of_code"
    answer = sql.ask(warehouse.location, query)
    assert answer.rows == (("shop", 1200, "BIGINT", "lines", "gauge", "go", None),)
    comments = warehouse.alone(
        lambda lake: lake.execute("SELECT comment FROM duckdb_views() WHERE NOT internal").fetchall()
    )
    said = "One row per measurement of lines.of-code by the plugin code-size: a gauge in lines. Without blank ones."
    assert (said,) in comments
    drop_views(warehouse, [LINES])
    with pytest.raises(InputError, match="no table is called"):
        sql.ask(warehouse.location, query)


def test_a_plugins_own_sql_can_use_views(store: PluginData, queries: Queries) -> None:
    """They are views of the rows that it may read."""
    store.take_metrics(scope(plugin="code-size"), TOLD)
    store.take_metrics(scope("secret", plugin="code-size"), TOLD)
    answer = queries.ask(scope(), "SELECT project, value FROM plugin_code_size_lines_of_code", [view_sql(LINES)])
    assert answer.rows == (("shop", 1200),)


def test_two_metrics_have_two_views(warehouse: Warehouse) -> None:
    """Or none is made."""
    other = DeclaredMetric(plugin="code_size", name="lines_of_code")
    with pytest.raises(InputError, match="would have one view"):
        define_views(warehouse, [LINES, other])


@pytest.mark.parametrize(("plugin", "name"), [("", "x"), ("x", "..."), ("x" * 100, "y" * 100)])
def test_a_view_has_a_name(plugin: str, name: str) -> None:
    """Of letters and digits."""
    with pytest.raises(InputError, match="make no name of a view"):
        DeclaredMetric(plugin=plugin, name=name)
