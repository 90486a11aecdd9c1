"""The tables of rollouts: how a release takes over from another."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstock.state.columns import at, metadata, now

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("release_id", sa.Text, sa.ForeignKey("penstock.releases.id", ondelete="CASCADE"), unique=True),
    sa.Column("source_id", sa.Text),
    sa.Column("former_id", sa.Text),
    sa.Column("strategy", JSONB, nullable=False),
    sa.Column("actor", sa.Text, nullable=False, server_default=""),
    sa.Column("asked_why", sa.Text, nullable=False, server_default=""),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", JSONB, nullable=False, server_default="{}"),
    sa.Column("clock_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("weight", sa.Integer, nullable=False, server_default="0"),
    sa.Column("verified", sa.Boolean),
    sa.Column("smoked", sa.Boolean),
    sa.Column("live_s", sa.Float),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("command", sa.Text),
    sa.Column("command_why", sa.Text, nullable=False, server_default=""),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("probe", sa.Text, nullable=False, server_default=""),
    sa.Column("trouble", sa.Text),
    sa.Column("events", JSONB, nullable=False, server_default="[]"),
    now("created_at"),
    at("began_at"),
    at("seen_at"),
    at("ended_at"),
    sa.Index("rollouts_open", "created_at", postgresql_where=sa.text("state IN ('requested', 'going')")),
    sa.Index("rollouts_by_service", "environment", "project", "service", "created_at"),
    comment="One row per rollout: a release on its way to taking over from the one before, and how that went.",
)

pins = sa.Table(
    "pins",
    metadata,
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    now("created_at"),
    comment="One row per service that somebody holds at a release: no run deploys it until it is unpinned.",
)

shares = sa.Table(
    "shares",
    metadata,
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("release_id", sa.Text, sa.ForeignKey("penstock.releases.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.CheckConstraint("weight BETWEEN 0 AND 100", name="shares_weight"),
    comment="One row per release that shares a service's traffic: per cent of requests; none: the live one has all.",
)
