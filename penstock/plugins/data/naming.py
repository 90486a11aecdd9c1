"""What a parsed query names: other people's tenants and projects, and tables that say how the room is built."""

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.errors import AccessError


def foreign_names(tree: Mapping[str, Any], own: Mapping[str, str]) -> tuple[str, ...]:
    """
    Values other than its own that a query compares `tenant` or `project` with, as "project shop"; ascending.

    tree: of DuckDB's `json_serialize_sql`. own: column → the value of which rows are there.
    """
    found = {
        f"{column} {value[:100]}"
        for node in nodes(tree)
        for column, value in _compared(node)
        if column in own and value != own[column]
    }
    return tuple(sorted(found))


def _compared(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Columns and texts that stand in one comparison, IN, BETWEEN or LIKE."""
    sides = [node.get("left"), node.get("right"), node.get("input"), *_list(node.get("children"))]
    columns = [side["column_names"][-1].lower() for side in _of_class(sides, "COLUMN_REF") if side.get("column_names")]
    constants = [side.get("value") for side in _of_class(sides, "CONSTANT")]
    values = [constant.get("value") for constant in constants if isinstance(constant, dict)]
    for column in columns:
        for value in values:
            if isinstance(value, str):
                yield column, value


def _of_class(sides: list[Any], wanted: str) -> list[dict[str, Any]]:
    return [side for side in sides if isinstance(side, dict) and side.get("class") == wanted]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def check_names(tree: Mapping[str, Any]) -> None:
    """Raises: AccessError for a query of the schema's own tables; DESCRIBE says what a plugin may know of it."""
    for node in nodes(tree):
        if str(node.get("schema_name", "")).lower() in ("information_schema", "pg_catalog"):
            raise AccessError(
                "the schema's own tables are not readable here", where="SQL", remedy="ask DESCRIBE plugin_metrics"
            )


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; flat, since queries may be nested deeper than Python calls itself."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield here
            waiting.extend(here.values())
        elif isinstance(here, list):
            waiting.extend(here)
