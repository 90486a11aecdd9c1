"""The first tables."""

from alembic import op

from penstock.state.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table; later revisions alter them one by one."""
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop every table."""
    metadata.drop_all(op.get_bind())
