"""The first tables."""

from alembic import op

from penstock.state.tables import projects

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table; later revisions alter them one by one."""
    projects.metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop every table."""
    projects.metadata.drop_all(op.get_bind())
