"""Environments, people, rollouts and plugins: tables of their own, and columns that older tables got for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateColumn

from penstock.state import environment_tables, people_tables, plugin_tables, rollout_tables
from penstock.state.columns import metadata
from penstock.state.tables import inbox, instances, releases, tokens

revision = "0002"
down_revision = "0001"

ROOMS = (environment_tables, people_tables, plugin_tables, rollout_tables)
COLUMNS: tuple[sa.Column[object], ...] = (
    releases.c.rollback_of,
    instances.c.ready,
    tokens.c.scopes,
    tokens.c.label,
    tokens.c.used_at,
    inbox.c.by_rule,
)


def upgrade() -> None:
    """Make what is not there yet: a new database had its newest tables made whole by the first revision."""
    bind = op.get_bind()
    metadata.create_all(bind)
    for column in COLUMNS:
        described = CreateColumn(column).compile(dialect=bind.dialect)
        op.execute(f"ALTER TABLE {column.table.fullname} ADD COLUMN IF NOT EXISTS {described}")
    # Its answers are bound to no digest and open nothing any more; who gave them is in the audit.
    op.execute("DROP TABLE IF EXISTS penstock.approvals")


def downgrade() -> None:
    """Drop the columns and the rooms' tables."""
    for column in COLUMNS:
        op.execute(f"ALTER TABLE {column.table.fullname} DROP COLUMN IF EXISTS {column.name}")
    mine = {id(value) for room in ROOMS for value in vars(room).values() if isinstance(value, sa.Table)}
    for table in reversed(metadata.sorted_tables):
        if id(table) in mine:
            table.drop(op.get_bind(), checkfirst=True)
