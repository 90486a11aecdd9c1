"""Who uses a plugin: which steps of which projects, how long it takes there, and how it ends."""

from datetime import datetime

import attrs
import sqlalchemy as sa


@attrs.frozen
class Use:
    """
    One step of one project that runs a version of a plugin.

    runs, failures: how many ended, and how many of these in another state than succeeded. median_s: of those that
    succeeded; None while none did. last_run: the identifier of the newest, and last_state how it ended or stands.
    """

    project: str
    step: str
    version: str
    runs: int
    failures: int
    median_s: float | None
    last_run: str
    last_state: str
    last_at: datetime


_USES = sa.text(
    """
    SELECT runs.project, steps.step, split_part(one ->> 'plugin', '@', 2) AS version,
        count(*) FILTER (WHERE steps.finished_at IS NOT NULL) AS runs,
        count(*) FILTER (WHERE steps.finished_at IS NOT NULL AND steps.state <> 'succeeded') AS failures,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM steps.finished_at - steps.started_at))
            FILTER (WHERE steps.state = 'succeeded') AS median_s,
        (array_agg(runs.id ORDER BY runs.queued_at DESC))[1] AS last_run,
        (array_agg(steps.state ORDER BY runs.queued_at DESC))[1] AS last_state,
        max(runs.queued_at) AS last_at
    FROM penstock.steps
    JOIN penstock.runs ON runs.id = steps.run_id
    CROSS JOIN LATERAL jsonb_array_elements(runs.graph -> 'steps') AS one
    WHERE steps.type = 'step.plugin' AND one ->> 'name' = steps.step AND split_part(one ->> 'plugin', '@', 1) = :name
    GROUP BY 1, 2, 3
    ORDER BY last_at DESC
    LIMIT 200
    """
)


def uses_of(database: sa.Engine, name: str) -> tuple[Use, ...]:
    """The newest use first, at most 200."""
    with database.connect() as connection:
        return tuple(Use(**row) for row in connection.execute(_USES, {"name": name}).mappings())
