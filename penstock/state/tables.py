"""
The tables of Penstock's state, schema `penstock`.

Each has its grain as comment. Times are UTC with time zone. The warehouse holds the history for
questions; these tables hold what the platform must know to go on after `kill -9`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstock.state.columns import at, metadata, now

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("default_branch", sa.Text, nullable=False),
    sa.Column("polled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("connection", JSONB, nullable=False, server_default="{}"),
    now("created_at"),
    comment="One row per connected repository; `connection` names its forge, and its secrets in the vault.",
)

graphs = sa.Table(
    "graphs",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("structure_hash", sa.Text, primary_key=True),
    sa.Column("structure", JSONB, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    now("created_at"),
    comment="One row per structure (steps, kinds, needs) that a project's commits have had.",
)

heads = sa.Table(
    "heads",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("ref", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, nullable=False),
    now("seen_at"),
    comment="One row per ref: the commit that Penstock last accepted for it.",
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("author", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("about", JSONB, nullable=False, server_default="{}"),
    sa.Column("concurrency_group", sa.Text),
    sa.Column("state", sa.Text, nullable=False, server_default="received"),
    sa.Column("reason", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    now("received_at"),
    at("claimed_at"),
    sa.Column("told", sa.Text),
    sa.Column("by_rule", sa.Boolean, nullable=False, server_default="false"),
    sa.Index("inbox_open", "state", "received_at"),
    sa.Index("inbox_untold", "id", postgresql_where=sa.text("state = 'ignored' AND told IS DISTINCT FROM state")),
    comment="One row per event that was accepted: received, started (run_id), or ignored (reason; by_rule: as wanted).",
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("event_key", sa.Text),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False, server_default="manual"),
    sa.Column("before", sa.Text),
    sa.Column("about", JSONB, nullable=False, server_default="{}"),
    sa.Column("concurrency_group", sa.Text),
    sa.Column("author", sa.Text),
    sa.Column("title", sa.Text),
    at("committed_at"),
    sa.Column("graph", JSONB, nullable=False),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("structure_hash", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    now("queued_at"),
    at("started_at"),
    at("finished_at"),
    at("ingested_at"),
    sa.Column("told", sa.Text),
    sa.Index("runs_by_commit", "project", "commit"),
    sa.Index("runs_untold", "queued_at", postgresql_where=sa.text("told IS DISTINCT FROM state")),
    sa.Index("runs_by_time", "queued_at"),
    sa.Index("runs_by_group", "project", "concurrency_group", "state"),
    comment="One row per run: a graph at a commit, and how it ended.",
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("penstock.runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("allowed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("exit_code", sa.Integer),
    sa.Column("produced", JSONB, nullable=False, server_default="{}"),
    sa.Column("reused_from", sa.Text),
    at("queued_at"),
    at("started_at"),
    at("finished_at"),
    sa.Column("cpu_s", sa.Float),
    sa.Column("memory_peak_bytes", sa.BigInteger),
    sa.Column("told", sa.Text),
    sa.Index("steps_untold", "run_id", postgresql_where=sa.text("state <> 'queued' AND told IS DISTINCT FROM state")),
    comment="One row per step per run: its newest attempt.",
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("graph_hash", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("evidence", JSONB, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    now("decided_at"),
    comment="One row per step per commit and graph: what a deployment reads before it starts.",
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("published", sa.Boolean, nullable=False, server_default=sa.false()),
    now("created_at"),
    sa.UniqueConstraint("run_id", "step", "key"),
    sa.Index("artifacts_by_key", "project", "key", "created_at"),
    comment="One row per artifact that a step of a run put out.",
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("penstock.runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    now("created_at"),
    comment="One row per step result that is known by what it was made of: image, commands, inputs, platform.",
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("configuration", JSONB, nullable=False),
    sa.Column("previous", sa.Text),
    sa.Column("rollback_of", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    now("created_at"),
    at("live_at"),
    at("ended_at"),
    sa.UniqueConstraint("environment", "project", "service", "number"),
    comment="One row per release; all but state, reason and times never change.",
)

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("release_id", sa.Text, sa.ForeignKey("penstock.releases.id", ondelete="CASCADE"), nullable=False),
    sa.Column("desired", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer),
    sa.Column("port", sa.Integer),
    sa.Column("restarts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text),
    sa.Column("ready", sa.Boolean, nullable=False, server_default=sa.true()),
    now("created_at"),
    at("started_at"),
    comment="One row per instance of a release: what is wanted of it and what it is.",
)

routes = sa.Table(
    "routes",
    metadata,
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("port", sa.Integer, nullable=False, unique=True),
    sa.Column("release_id", sa.Text),
    comment="One row per service: the port on which it answers and the release that traffic goes to.",
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("subject", sa.Text, nullable=False),
    now("created_at"),
    at("expires_at"),
    sa.Column("scopes", JSONB, nullable=False, server_default="[]"),
    sa.Column("label", sa.Text, nullable=False, server_default=""),
    at("used_at"),
    comment="One row per API token, of the user who is its subject; only its SHA-256 is kept.",
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    now("at"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("detail", JSONB, nullable=False, server_default="{}"),
    comment="One row per change that somebody made to the platform.",
)

caches = sa.Table(
    "caches",
    metadata,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    now("created_at"),
    now("used_at"),
    sa.Index("caches_by_use", "project", "used_at"),
    comment="One row per cache of a scope (a ref, or shared) and key; it never changes, only goes.",
)

hooks = sa.Table(
    "hooks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), nullable=False),
    sa.Column("forge", sa.Text, nullable=False),
    sa.Column("repository", sa.Text),
    sa.Column("pins", JSONB, nullable=False, server_default="{}"),
    sa.Column("secrets", JSONB, nullable=False, server_default="[]"),
    sa.Column("refused", sa.BigInteger, nullable=False, server_default="0"),
    at("refused_at"),
    sa.Column("refused_reason", sa.Text),
    now("created_at"),
    comment="One row per address at which a forge tells of a project; its secrets are in the vault, here by name.",
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("hook", sa.Text, sa.ForeignKey("penstock.hooks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("delivery_id", sa.Text),
    sa.Column("body_hash", sa.LargeBinary),
    sa.Column("headers", JSONB, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="received"),
    sa.Column("reason", sa.Text),
    sa.Column("events", JSONB, nullable=False, server_default="[]"),
    sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),
    sa.Column("replays", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    now("received_at"),
    at("again_at"),
    at("finished_at"),
    sa.Index("deliveries_by_id", "hook", "delivery_id", unique=True),
    sa.Index("deliveries_by_body", "hook", "body_hash", unique=True),
    sa.Index("deliveries_open", "id", postgresql_where=sa.text("state = 'received'")),
    sa.Index("deliveries_by_time", "received_at"),
    comment="One row per delivery that was believed: received, done (its events), ignored or rejected (the reason).",
)

polls = sa.Table(
    "polls",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text),
    now("polled_at"),
    at("next_at"),
    comment="One row per project that is polled: when, how often in a row it failed, and when it is asked again.",
)

connections = sa.Table(
    "connections",
    metadata,
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.projects.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("forge", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("options", JSONB, nullable=False, server_default="{}"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text),
    at("again_at"),
    now("created_at"),
    comment="One row per project whose forge is told how its runs stand; the token is in the vault, here by name.",
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project", sa.Text, sa.ForeignKey("penstock.connections.project", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("wanted", JSONB, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("reason", sa.Text),
    sa.Column("remote_id", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    at("asked_at", nullable=False),
    at("changed_at", nullable=False),
    at("again_at", nullable=False),
    at("claimed_until"),
    at("sent_at"),
    sa.UniqueConstraint("project", "kind", "target", "context"),
    sa.Index("outbox_waiting", "again_at", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index("outbox_by_change", "changed_at"),
    comment="One row per thing that a forge shows: what it shall show now, and whether it does: waiting, sent, failed.",
)
