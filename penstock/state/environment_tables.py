"""The tables of environments: what may be deployed where, and under which rules."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstock.state.columns import at, metadata, now

PRODUCTION, OTHER = "production", "non-production"


def _of_rules(name: str, what: str) -> sa.Column[str]:
    """A column that PostgreSQL keeps in line with the rules by itself."""
    return sa.Column(name, sa.Text, sa.Computed(what, persisted=True))


environments = sa.Table(
    "environments",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("rules", JSONB, nullable=False),
    _of_rules("type", f"CASE WHEN (rules->>'production')::boolean THEN '{PRODUCTION}' ELSE '{OTHER}' END"),
    _of_rules("group", "rules->>'group'"),
    _of_rules("target", "rules->'target'->>'name'"),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("held_by", sa.Text),
    sa.Column("held_why", sa.Text, nullable=False, server_default=""),
    at("held_at"),
    sa.Column("created_by", sa.Text, nullable=False),
    now("created_at"),
    sa.Column("changed_by", sa.Text, nullable=False),
    now("changed_at"),
    comment="One row per environment: its rules, and who holds it; `version` counts up with every change.",
)

freeze_overrides = sa.Table(
    "freeze_overrides",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("environment", sa.Text, sa.ForeignKey("penstock.environments.name", ondelete="CASCADE"), nullable=False),
    sa.Column("freeze", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    now("at"),
    at("until", nullable=False),
    sa.Index("freeze_overrides_by_environment", "environment", "until"),
    comment="One row per time that somebody lifted a freeze of an environment; it holds until `until`.",
)

deployment_waits = sa.Table(
    "deployment_waits",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("penstock.runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    now("since"),
    at("look_at"),
    sa.Column("went_on_in", sa.Text),
    sa.Index("deployment_waits_open", "environment", "look_at", postgresql_where=sa.text("went_on_in IS NULL")),
    comment="One row per deployment that waits for a time or for an environment to be let go; `look_at`: when the "
    "rules are asked again, never by itself where it is empty; `went_on_in`: the run that went on.",
)
