"""
Whether what looks can be trusted: tests that fail for nothing, rules that nobody heeds, scanners that do not look.

Each question is a function from a connection of `connect` to a DataFrame. Times are UTC. None as a parameter means all.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import duckdb

from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd


def flaky_tests(connection: duckdb.DuckDBPyConnection, *, project: str | None = None, days: int = 90) -> "pd.DataFrame":
    """
    One row per test that both passed and failed on one and the same commit in the last `days` days, worst first:
    `commits` it ran on, `flaky_commits`, `failures` on those, `last_at`, `last_run_id`, `last_message`.
    """
    return _frame(
        connection,
        """
        WITH each AS (
            SELECT project, suite, name, commit,
                count(*) FILTER (state NOT IN ('passed', 'skipped')) AS failures,
                bool_or(state = 'passed') AND failures > 0 AS is_flaky,
                arg_max(run_id, finished_at) FILTER (state NOT IN ('passed', 'skipped')) AS run_id,
                arg_max(message, finished_at) FILTER (state NOT IN ('passed', 'skipped')) AS message,
                max(finished_at) FILTER (state NOT IN ('passed', 'skipped')) AS failed_at
            FROM test_results
            WHERE ($project IS NULL OR project = $project) AND finished_at >= now() - to_days($days::INT)
            GROUP BY project, suite, name, commit
        )
        SELECT project, suite, name, count(*) AS commits, count(*) FILTER (is_flaky) AS flaky_commits,
            (sum(failures) FILTER (is_flaky))::BIGINT AS failures, max(failed_at) FILTER (is_flaky) AS last_at,
            arg_max(run_id, failed_at) FILTER (is_flaky) AS last_run_id,
            arg_max(message, failed_at) FILTER (is_flaky) AS last_message
        FROM each GROUP BY project, suite, name HAVING flaky_commits > 0
        ORDER BY flaky_commits DESC, last_at DESC, project, suite, name
        """,
        project=project,
        days=days,
    )


def failures_by_week(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, weeks: int = 26
) -> "pd.DataFrame":
    """
    One row per week (Monday) and kind with a failed test: `kind` is "flaky" where the test passed on the same commit
    too, else "broken"; `failures`.
    """
    return _frame(
        connection,
        """
        WITH each AS (
            SELECT project, suite, name, commit, min(finished_at) AS began_at, bool_or(state = 'passed') AS has_passed,
                count(*) FILTER (state NOT IN ('passed', 'skipped')) AS failures
            FROM test_results
            WHERE ($project IS NULL OR project = $project)
                AND finished_at >= date_trunc('week', now()) - to_weeks($weeks::INT)
            GROUP BY project, suite, name, commit
        )
        SELECT date_trunc('week', began_at)::DATE AS week, CASE WHEN has_passed THEN 'flaky' ELSE 'broken' END AS kind,
            sum(failures)::BIGINT AS failures
        FROM each WHERE failures > 0 GROUP BY ALL ORDER BY ALL
        """,
        project=project,
        weeks=weeks,
    )


def noisy_rules(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    branches: Sequence[str] | None = None,
    limit: int = 50,
) -> "pd.DataFrame":
    """
    One row per tool and rule that somebody suppressed, by how many: `findings` there ever were, `open`, `suppressed`,
    `fixed`, `reopened`, and `suppressed_share` of all (0 to 1).
    """
    return _frame(
        connection,
        """
        SELECT tool, rule_id, any_value(severity) AS severity, count(DISTINCT project) AS projects,
            count(*) AS findings,
            count(*) FILTER (state = 'open') AS open, count(*) FILTER (state = 'suppressed') AS suppressed,
            count(*) FILTER (state = 'fixed') AS fixed, sum(reopened)::BIGINT AS reopened,
            suppressed / findings AS suppressed_share
        FROM finding_history
        WHERE ($project IS NULL OR project = $project) AND ($branches IS NULL OR list_contains($branches, branch))
        GROUP BY tool, rule_id HAVING suppressed > 0
        ORDER BY suppressed DESC, suppressed_share DESC, tool, rule_id LIMIT $limit
        """,
        project=project,
        branches=None if branches is None else list(branches),
        limit=limit,
    )


def scan_coverage(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, days: int = 30
) -> "pd.DataFrame":
    """
    One row per project and category of scanner: `commits` that ran in the last `days` days, how many of them were
    `scanned` with success, and `share` (0 to 1). Every category that any project knows; zero where one has it not.
    """
    return _frame(
        connection,
        """
        WITH ran AS (
            SELECT DISTINCT project, commit FROM runs
            WHERE queued_at >= now() - to_days($days::INT) AND ($project IS NULL OR project = $project)
        ), looked AS (
            SELECT DISTINCT project, commit, category FROM scans WHERE state = 'succeeded'
        ), categories AS (
            SELECT DISTINCT category FROM scans
        )
        SELECT ran.project, categories.category, count(*) AS commits, count(looked.commit) AS scanned,
            scanned / commits AS share
        FROM ran CROSS JOIN categories
        LEFT JOIN looked ON looked.project = ran.project AND looked.commit = ran.commit
            AND looked.category = categories.category
        GROUP BY ran.project, categories.category ORDER BY ran.project, categories.category
        """,
        project=project,
        days=days,
    )


def failed_scans(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, days: int = 30, limit: int = 50
) -> "pd.DataFrame":
    """One row per scan of the last `days` days that failed or left something out, newest first: columns of `scans`."""
    return _frame(
        connection,
        """
        SELECT * FROM scans
        WHERE (state = 'failed' OR quarantined > 0) AND scanned_at >= now() - to_days($days::INT)
            AND ($project IS NULL OR project = $project)
        ORDER BY scanned_at DESC LIMIT $limit
        """,
        project=project,
        days=days,
        limit=limit,
    )
