"""
How a team delivers, by DORA's four keys, from releases and commits.

Each question is a function from a connection of `connect` to a DataFrame. Times are UTC. None as a project means all.
"""

from typing import TYPE_CHECKING

import duckdb

from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd

_DEPLOYMENTS = """
    WITH made AS (
        SELECT *, coalesce(live_at, created_at) AS deployed_at, min(number) OVER same_commit AS first_number
        FROM releases
        WHERE state <> 'pending' AND environment = $environment AND ($project IS NULL OR project = $project)
        WINDOW same_commit AS (PARTITION BY project, environment, service, commit, live_at IS NULL)
    ), live AS (
        SELECT project, environment, service, number,
            coalesce(lag(first_number) OVER line > first_number, false) AS is_rollback,
            coalesce(lead(first_number) OVER line < first_number, false) AS is_taken_back
        FROM made WHERE live_at IS NOT NULL
        WINDOW line AS (PARTITION BY project, environment, service ORDER BY number)
    )
    SELECT made.project, made.environment, made.service, made.number, made.commit, made.run_id, made.deployed_at,
        made.live_at,
        coalesce(live.is_rollback, false) AS is_rollback,
        CASE WHEN made.live_at IS NULL THEN 'never got traffic'
             WHEN live.is_taken_back OR made.state = 'failed' THEN 'taken back' END AS failure,
        min(made.live_at) OVER later AS mended_at,
        CASE WHEN failure IS NOT NULL THEN epoch(mended_at - made.deployed_at) END AS restore_s
    FROM made LEFT JOIN live USING (project, environment, service, number)
    WINDOW later AS (
        PARTITION BY project, environment, service ORDER BY number ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
    )
"""

_LEAD_TIMES = """
    SELECT commits.project, commits.commit, commits.author, commits.committed_at, shipped.live_at,
        epoch(shipped.live_at - commits.committed_at) AS lead_s
    FROM commits
    ASOF JOIN (
        SELECT project, commits.ref, commits.committed_at, min(releases.live_at) AS live_at
        FROM releases JOIN commits USING (project, commit)
        WHERE releases.environment = $environment AND releases.live_at IS NOT NULL
            AND ($project IS NULL OR project = $project)
        GROUP BY ALL
    ) AS shipped
        ON shipped.project = commits.project AND shipped.ref = commits.ref
        AND shipped.committed_at >= commits.committed_at
"""


def deployments(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    environment: str = "production",
    days: int = 90,
) -> "pd.DataFrame":
    """
    One row per deployment of the last `days` days, oldest first: `deployed_at` (when traffic went to it, or
    when it was tried), `is_rollback` (it went back to a commit that had been live before), `failure` ("never got
    traffic", "taken back" when the next one that got traffic was a rollback, None), `mended_at` and `restore_s`
    (seconds from a failed one to the next that got traffic, None while there is none).

    Source: DORA's four keys, https://dora.dev/guides/dora-metrics-four-keys/: a change fails when it "requires
    immediate intervention following a deployment". Here that is what never got through its health checks, and what was
    taken back. Incidents that nobody answered with a rollback are not known to Penstock.
    """
    return _frame(
        connection,
        f"""
        SELECT * FROM ({_DEPLOYMENTS}) WHERE deployed_at >= now() - to_days($days::INT)
        ORDER BY deployed_at, project, service, number
        """,
        project=project,
        environment=environment,
        days=days,
    )


def lead_times(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    environment: str = "production",
    days: int = 90,
) -> "pd.DataFrame":
    """
    One row per commit that first got traffic in the last `days` days, oldest first: `live_at` of the first release of
    it, or of a later commit on its branch, and `lead_s` from the commit to it.

    Source: DORA, change lead time: "the amount of time it takes a commit to get into production".
    """
    return _frame(
        connection,
        f"SELECT * FROM ({_LEAD_TIMES}) WHERE live_at >= now() - to_days($days::INT) ORDER BY live_at, committed_at",
        project=project,
        environment=environment,
        days=days,
    )


def delivery(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    environment: str = "production",
    days: int = 90,
    by_week: bool = False,
) -> "pd.DataFrame":
    """
    DORA's four keys, one row per project, and the first, whose `project` is None, of all; or one row per `week`
    (Monday).

    deployments: changes that were deployed, whether they failed or not; rollbacks are not changes. per_week: of them.
    lead_median_s, lead_p90_s: see `lead_times`. failures and failure_rate (0 to 1): see `deployments`.
    restore_median_s: of the failures that are over; unrestored: of how many nothing got traffic since.
    Source: https://dora.dev/guides/dora-metrics-four-keys/; its reports use medians.
    """
    key, grouping = ("week", "week") if by_week else ("project", "GROUPING SETS ((), (project))")
    return _frame(
        connection,
        f"""
        WITH tried AS (
            SELECT *, date_trunc('week', deployed_at)::DATE AS week FROM ({_DEPLOYMENTS})
            WHERE deployed_at >= now() - to_days($days::INT) AND NOT is_rollback
        ), led AS (
            SELECT *, date_trunc('week', live_at)::DATE AS week FROM ({_LEAD_TIMES})
            WHERE live_at >= now() - to_days($days::INT)
        ), changes AS (
            SELECT {key}, count(*) AS deployments, count(*) * 7 / $days AS per_week, count(failure) AS failures,
                count(failure) / count(*) AS failure_rate, median(restore_s) AS restore_median_s,
                count(*) FILTER (failure IS NOT NULL AND mended_at IS NULL) AS unrestored
            FROM tried GROUP BY {grouping} HAVING count(*) > 0
        ), leads AS (
            SELECT {key}, median(lead_s) AS lead_median_s, quantile_cont(lead_s, 0.9) AS lead_p90_s
            FROM led GROUP BY {grouping}
        )
        SELECT changes.*, lead_median_s, lead_p90_s
        FROM changes LEFT JOIN leads ON changes.{key} IS NOT DISTINCT FROM leads.{key}
        ORDER BY changes.{key} NULLS FIRST
        """,
        project=project,
        environment=environment,
        days=days,
    )
