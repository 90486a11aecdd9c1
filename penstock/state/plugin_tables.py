"""The tables of plugins: what is installed, and what plugins have told."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstock.state.columns import at, metadata, now

plugin_tokens = sa.Table(
    "plugin_tokens",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("plugin", sa.Text, nullable=False),
    sa.Column("environment", sa.Text),
    now("created_at"),
    at("expires_at", nullable=False),
    at("revoked_at"),
    sa.Index("plugin_tokens_by_expiry", "expires_at"),
    comment="One row per token of the data API, by its SHA-256: minted for one plugin in one step of one run.",
)

plugin_intake = sa.Table(
    "plugin_intake",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("plugin", sa.Text, nullable=False),
    sa.Column("environment", sa.Text),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    now("received_at"),
    sa.Column("batch", sa.Text),
    sa.Column("after_snapshot", sa.BigInteger),
    sa.Index("plugin_intake_by_project", "tenant", "project"),
    comment="One row per batch of rows (`kind`: metrics or data; `body`: Arrow) that is not yet in the warehouse; "
    "`batch`: the move that has it in hand; when done, a snapshot of the warehouse after `after_snapshot` names it.",
)

plugin_sent = sa.Table(
    "plugin_sent",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("accepted", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    sa.Column("reasons", sa.ARRAY(sa.Text), nullable=False),
    sa.Column("is_cut", sa.Boolean, nullable=False),
    now("told_at"),
    sa.Index("plugin_sent_by_time", "told_at"),
    comment="One row per batch of lines that was sent under a key in the last days; sending it again adds nothing.",
)

plugin_usage = sa.Table(
    "plugin_usage",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("lines", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    now("told_at"),
    sa.Index("plugin_usage_by_time", "told_at"),
    comment="One row per plugin in a step of a run that told something in the last days: how much, for its limits.",
)

installed_plugins = sa.Table(
    "installed_plugins",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("manifest", JSONB, nullable=False),
    sa.Column("readme", sa.Text, nullable=False),
    sa.Column("docs", JSONB, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("image", sa.Text),
    sa.Column("image_digest", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("installed_by", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="installed"),
    now("installed_at"),
    comment="One row per version of a plugin that steps may use: installed, or yanked. `digest`: its package in the "
    "artifact store; `image_digest`: what its image's name stood for when it was installed.",
)

plugin_registries = sa.Table(
    "plugin_registries",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, nullable=False, unique=True),
    sa.Column("position", sa.BigInteger, sa.Identity()),
    sa.Column("added_by", sa.Text, nullable=False),
    now("added_at"),
    comment="One row per registry of others that plugins may come from, asked in the order of `position`.",
)

plugin_lock = sa.Table(
    "plugin_lock",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("signed_by", sa.Text),
    now("seen_at"),
    comment="One row per version that was ever installed: the digest that it has had and will always have.",
)
