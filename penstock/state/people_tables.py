"""The tables of people: users, groups, and what they were asked, answered and sent."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstock.state.columns import at, metadata, now

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("mail", sa.Text),
    sa.Column("git_names", JSONB, nullable=False, server_default="[]"),
    sa.Column("git_mails", JSONB, nullable=False, server_default="[]"),
    sa.Column("is_local", sa.Boolean, nullable=False, server_default=sa.false()),
    now("created_at"),
    sa.Index("users_local", "is_local", unique=True, postgresql_where=sa.text("is_local")),
    comment="One row per person; `git_names` and `git_mails` are what commits and forges call them.",
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    now("created_at"),
    comment="One row per group of people.",
)

group_members = sa.Table(
    "group_members",
    metadata,
    sa.Column("group", sa.Text, sa.ForeignKey("penstock.groups.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("user", sa.Text, sa.ForeignKey("penstock.users.name", ondelete="CASCADE"), primary_key=True),
    now("added_at"),
    comment="One row per person in a group.",
)

approval_requests = sa.Table(
    "approval_requests",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, sa.ForeignKey("penstock.runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("rule", JSONB, nullable=False),
    sa.Column("author", sa.Text),
    sa.Column("actor", sa.Text),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("reason", sa.Text),
    now("asked_at"),
    at("expires_at", nullable=False),
    at("decided_at"),
    at("used_at"),
    sa.Column("went_on_in", sa.Text),
    at("claimed_until"),
    sa.Index(
        "approval_requests_open",
        *("project", "commit", "graph_hash", "step", "digest"),
        unique=True,
        postgresql_where=sa.text("state IN ('waiting', 'approved')"),
    ),
    sa.Index("approval_requests_by_state", "state", "id"),
    sa.Index("approval_requests_by_run", "run_id", "step"),
    comment="One row per time that people were asked to let a commit, graph and digest pass a step.",
)

approval_answers = sa.Table(
    "approval_answers",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column(
        "request_id",
        sa.BigInteger,
        sa.ForeignKey("penstock.approval_requests.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("how", sa.Text, nullable=False),
    now("at"),
    sa.Index("approval_answers_by_request", "request_id", "id"),
    comment="One row per answer: approved, rejected, withdrawn (an approval), cancelled (the request) or expired.",
)

approval_mails = sa.Table(
    "approval_mails",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column(
        "request_id",
        sa.BigInteger,
        sa.ForeignKey("penstock.approval_requests.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("reason", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    now("again_at"),
    at("claimed_until"),
    at("sent_at"),
    sa.UniqueConstraint("request_id", "person"),
    sa.Index("approval_mails_waiting", "again_at", postgresql_where=sa.text("state = 'waiting'")),
    comment="One row per person who is to be told by mail of a request: waiting, sent, failed or dropped.",
)

approval_links = sa.Table(
    "approval_links",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column(
        "request_id",
        sa.BigInteger,
        sa.ForeignKey("penstock.approval_requests.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    now("made_at"),
    at("used_at"),
    sa.Index("approval_links_by_request", "request_id", "person"),
    comment="One row per link in a mail; only the SHA-256 of its token is kept.",
)
