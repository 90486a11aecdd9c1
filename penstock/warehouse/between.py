"""What lies between two commits: findings and components that only one of both has. Functions from a connection."""

from typing import TYPE_CHECKING

import duckdb

from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd


def findings_between(
    connection: duckdb.DuckDBPyConnection, *, project: str, former: str, latter: str
) -> "pd.DataFrame":
    """
    One row per finding that only one of two commits has, worst first: `change` ("introduced": only the latter has it,
    "fixed": only the former), `severity`, `rule_id`, `path`, `line`, `message`, `tool`, `fingerprint`, `branch` (on
    which that commit was scanned). Only of scanners that have read both; what is suppressed is left out.
    """
    return _frame(
        connection,
        f"""
        WITH of_both AS ({_SCANNED_BOTH}), seen AS (
            SELECT DISTINCT ON (commit, fingerprint)
                commit, fingerprint, severity, rule_id, path, line, message, tool
            FROM findings SEMI JOIN of_both USING (tool, category)
            WHERE project = $project AND commit IN ($former, $latter) AND NOT coalesce(suppressed, false)
            ORDER BY scanned_at DESC
        ), changed AS (
            SELECT CASE WHEN commit = $latter THEN 'introduced' ELSE 'fixed' END AS change, seen.*
            FROM seen QUALIFY count(*) OVER (PARTITION BY fingerprint) = 1
        ), branches AS (
            SELECT commit, min(branch) AS branch FROM scans
            WHERE project = $project AND commit IN ($former, $latter) GROUP BY commit
        )
        SELECT change, severity, rule_id, path, line, message, tool, fingerprint, branch
        FROM changed LEFT JOIN branches USING (commit)
        ORDER BY change, array_position(['critical', 'high', 'medium', 'low', 'info'], severity), path, line
        """,
        project=project,
        former=former,
        latter=latter,
    )


def scanners_of_both(
    connection: duckdb.DuckDBPyConnection, *, project: str, former: str, latter: str
) -> "pd.DataFrame":
    """One row per scanner that has read both commits with success: `tool`, `category`. None: nothing can be said."""
    return _frame(connection, _SCANNED_BOTH, project=project, former=former, latter=latter)


def components_between(
    connection: duckdb.DuckDBPyConnection, *, project: str, former: str, latter: str
) -> "pd.DataFrame":
    """
    One row per component and source that two commits do not have alike: `source`, `ecosystem`, `namespace`, `name`,
    `former`, `latter`: its versions in each, divided by commas; None where it is not. Only what was listed of both.
    """
    return _frame(
        connection,
        """
        WITH listed AS (
            SELECT step, regexp_replace(source, '[:@][^/]*$', '') AS place, commit FROM sboms
            WHERE project = $project AND commit IN ($former, $latter)
        ), of_both AS (
            SELECT step, place FROM listed GROUP BY ALL HAVING count(DISTINCT commit) = 2
        ), had AS (
            SELECT step, regexp_replace(source, '[:@][^/]*$', '') AS source, ecosystem, namespace, name,
                string_agg(DISTINCT version, ', ' ORDER BY version) FILTER (commit = $former) AS former,
                string_agg(DISTINCT version, ', ' ORDER BY version) FILTER (commit = $latter) AS latter
            FROM components WHERE project = $project AND commit IN ($former, $latter) GROUP BY ALL
        )
        SELECT source, ecosystem, namespace, name, former, latter
        FROM had JOIN of_both ON had.step = of_both.step AND had.source = of_both.place
        WHERE former IS DISTINCT FROM latter
        ORDER BY ecosystem, namespace, name, source
        """,
        project=project,
        former=former,
        latter=latter,
    )


_SCANNED_BOTH = """
    SELECT tool, category FROM scans WHERE project = $project AND commit = $former AND state = 'succeeded'
    INTERSECT
    SELECT tool, category FROM scans WHERE project = $project AND commit = $latter AND state = 'succeeded'
"""
