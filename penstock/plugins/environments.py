"""The type of an environment, as the platform has it."""

import sqlalchemy as sa

from penstock.state import environment_tables  # noqa: F401 - its tables are told to `metadata` by its import
from penstock.state.columns import metadata


def type_of(database: sa.Engine, name: str) -> str | None:
    """None for an environment that the platform does not know."""
    table = metadata.tables.get("penstock.environments")
    if table is None or "type" not in table.c:
        return None
    with database.connect() as connection:
        found = connection.execute(sa.select(table.c.type).where(table.c.name == name)).scalar()
    return None if found is None else str(found)
