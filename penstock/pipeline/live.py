"""What is live in an environment, as a gate's condition asks for it: `env("staging").healthy_s > 3600`."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from penstock.pipeline.log import utc_now
from penstock.state.tables import instances, releases


def live_in(database: sa.Engine, project: str, environment: str) -> dict[str, Any]:
    """
    `live`, `healthy_s`, `commit`, `digest` and `number` of the project's live release there.

    healthy_s: whole seconds since it has been live with every instance at work; 0 while one is not. Of several
    services: those of the one that went live last, and all of them count. Where nothing is live: false, 0 and empty.
    """
    wanted = sa.select(releases).where(
        releases.c.project == project, releases.c.environment == environment, releases.c.state == "live"
    )
    with database.connect() as connection:
        live = connection.execute(wanted.order_by(releases.c.live_at.desc())).mappings().all()
        if not live:
            return {"live": False, "healthy_s": 0, "commit": "", "digest": "", "number": 0}
        since = [healthy_since(connection, row["id"], row["live_at"]) for row in live]
    now = utc_now()
    healthy_s = min(max(0, int((now - at).total_seconds())) if at else 0 for at in since)
    return {"live": True, "healthy_s": healthy_s, **{name: live[0][name] for name in ("commit", "digest", "number")}}


def healthy_since(connection: sa.Connection, release: str, live_at: datetime | None) -> datetime | None:
    """When the youngest instance started, or when it went live if that was later; None while one does not run."""
    wanted = sa.select(instances.c.state, instances.c.started_at).where(
        instances.c.release_id == release, instances.c.desired == "running"
    )
    rows = connection.execute(wanted).all()
    if live_at is None or any(row.state != "running" for row in rows):
        return None
    started: list[datetime] = [row.started_at for row in rows if row.started_at]
    return max([live_at, *started])
