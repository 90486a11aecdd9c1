"""What every file of tables begins with: their common metadata, and columns of time."""

import sqlalchemy as sa

metadata = sa.MetaData(schema="penstock")


def at(name: str, **options: object) -> sa.Column[object]:
    """A moment, UTC with time zone."""
    return sa.Column(name, sa.DateTime(timezone=True), **options)  # type: ignore[arg-type]


def now(name: str) -> sa.Column[object]:
    """The moment at which the row was made."""
    return at(name, nullable=False, server_default=sa.func.now())
