"""
What the dashboards look at beyond `queries`: one finding's life, releases, tests that fail; and the reader they share.

Times are UTC. None as a parameter means "all".
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import duckdb

from penstock.errors import PlatformError
from penstock.warehouse.connect import LAKE, Location, connect, redact
from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """
    One read-only connection for all threads of a process; each question gets a cursor of its own.

    Opens on first use, and again when the catalog went away in between. Every question sees the newest commit.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._guard = threading.Lock()
        self._lake: duckdb.DuckDBPyConnection | None = None

    def ask(
        self, question: Callable[Concatenate[duckdb.DuckDBPyConnection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """
        What `question` answers, a function of `queries` or of this module.

        Raises: NotFoundError when there is no warehouse yet; PlatformError when its catalog does not answer.
        """
        try:
            return self._once(question, *args, **kwargs)
        except duckdb.Error:
            # The catalog may have been restarted since; what is wrong with the question fails the second time too.
            self.close()
        try:
            return self._once(question, *args, **kwargs)
        except duckdb.Error as error:
            self.close()
            what = redact(str(error), self._location).splitlines()[0]
            raise PlatformError(f"the warehouse did not answer: {what}", remedy=_remedy(error)) from None

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._guard:
            lake, self._lake = self._lake, None
        if lake is not None:
            with suppress(duckdb.Error):
                lake.close()

    def _once(
        self, question: Callable[Concatenate[duckdb.DuckDBPyConnection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with closing(self._cursor()) as cursor:
            return question(cursor, *args, **kwargs)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._guard:
            if self._lake is None:
                self._lake = connect(self._location, read_only=True)
            cursor = self._lake.cursor()
        # A cursor starts without what its connection was told.
        cursor.execute(f"USE {LAKE}; SET TimeZone = 'UTC'")
        return cursor


def _remedy(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.CatalogException):
        return "it was made by an older Penstock; run a pipeline, which brings it up to date"
    return "see that PostgreSQL runs"


def finding_lives(
    connection: duckdb.DuckDBPyConnection, *, project: str, fingerprint: str, branch: str | None = None
) -> "pd.DataFrame":
    """
    One row per branch on which this finding has ever been: the columns of `finding_history`, and the columns of
    `findings` as they were last seen on that branch (None where retention has taken them).
    """
    return _frame(
        connection,
        """
        WITH lives AS (
            SELECT * FROM finding_history
            WHERE project = $project AND fingerprint = $fingerprint AND ($branch IS NULL OR branch = $branch)
        )
        SELECT lives.*, seen.* EXCLUDE (project, fingerprint, tool, category, rule_id, severity, path, commit,
            suppressed, suppression_reason)
        FROM lives
        LEFT JOIN findings AS seen ON seen.project = lives.project AND seen.fingerprint = lives.fingerprint
            AND seen.commit = lives.last_seen_commit
        ORDER BY lives.introduced_at, lives.branch
        """,
        project=project,
        fingerprint=fingerprint,
        branch=branch,
    )


def finding_life(
    connection: duckdb.DuckDBPyConnection, *, project: str, branch: str, fingerprint: str
) -> "pd.DataFrame":
    """One row per change in the life of a finding on a branch, oldest first: `finding_events`, and `title`."""
    return _frame(
        connection,
        """
        SELECT finding_events.*, split_part(commits.message, chr(10), 1) AS title
        FROM finding_events
        LEFT JOIN commits USING (project, commit)
        WHERE project = $project AND branch = $branch AND fingerprint = $fingerprint
        ORDER BY seq
        """,
        project=project,
        branch=branch,
        fingerprint=fingerprint,
    )


def releases(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    environment: str | None = None,
    limit: int = 500,
) -> "pd.DataFrame":
    """One row per release, newest first: the columns of `releases`, `author` and `title` of the commit, `live_s`."""
    return _frame(
        connection,
        """
        SELECT releases.*, commits.author, split_part(commits.message, chr(10), 1) AS title,
            epoch(coalesce(ended_at, now()) - live_at) AS live_s
        FROM releases
        LEFT JOIN commits USING (project, commit)
        WHERE ($project IS NULL OR project = $project) AND ($environment IS NULL OR environment = $environment)
        ORDER BY created_at DESC, number DESC
        LIMIT $limit
        """,
        project=project,
        environment=environment,
        limit=limit,
    )


def tests_of_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> "pd.DataFrame":
    """One row per test of the run, those that did not pass first, then the slowest: the columns of `test_results`."""
    return _frame(
        connection,
        """
        SELECT * FROM test_results WHERE run_id = $run_id
        ORDER BY state IN ('passed', 'skipped'), seconds DESC NULLS LAST, suite, name
        """,
        run_id=run_id,
    )


def durations_of_tests(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, days: int = 90
) -> "pd.DataFrame":
    """
    One row per test of the last `days` days, slowest first: `runs`, `failures`, `median_s`, `p95_s`, `total_s`,
    `last_state`, and `flaky`: whether it both passed and failed on one and the same commit.
    """
    return _frame(
        connection,
        """
        WITH recent AS (
            SELECT * FROM test_results
            WHERE ($project IS NULL OR project = $project) AND finished_at >= now() - to_days($days::INT)
        ), commits_of AS (
            SELECT project, suite, name, commit,
                bool_or(state = 'passed') AND bool_or(state NOT IN ('passed', 'skipped')) AS is_both
            FROM recent GROUP BY ALL
        ), flaky AS (
            SELECT project, suite, name, bool_or(is_both) AS flaky FROM commits_of GROUP BY ALL
        )
        SELECT project, suite, name, count(*) AS runs,
            count(*) FILTER (state NOT IN ('passed', 'skipped')) AS failures,
            median(seconds) AS median_s, quantile_cont(seconds, 0.95) AS p95_s, sum(seconds) AS total_s,
            arg_max(state, finished_at) AS last_state, any_value(flaky) AS flaky
        FROM recent JOIN flaky USING (project, suite, name)
        GROUP BY ALL
        ORDER BY median_s DESC NULLS LAST, project, suite, name
        """,
        project=project,
        days=days,
    )


def introduced_and_fixed(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, branch: str | None = None, weeks: int = 26
) -> "pd.DataFrame":
    """
    One row per week (Monday) with a change of the last `weeks` weeks, and severity: findings `introduced` (or come
    back) and `fixed`. What was there at the first scan is left out: nobody knows when it came.
    """
    return _frame(
        connection,
        """
        SELECT
            date_trunc('week', committed_at)::DATE AS week,
            severity,
            count(*) FILTER (event IN ('introduced', 'reopened')) AS introduced,
            count(*) FILTER (event = 'fixed') AS fixed
        FROM finding_events
        WHERE event IN ('introduced', 'reopened', 'fixed') AND NOT (event = 'introduced' AND baseline)
            AND ($project IS NULL OR project = $project) AND ($branch IS NULL OR branch = $branch)
            AND committed_at >= date_trunc('week', now()) - to_weeks($weeks::INT)
        GROUP BY ALL ORDER BY ALL
        """,
        project=project,
        branch=branch,
        weeks=weeks,
    )


def open_by_age(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    branches: Sequence[str] | None = None,
    limits: Sequence[int | None] = (7, 30, 90, 180, None),
) -> "pd.DataFrame":
    """
    One row per project, severity and age with something open: `age` ("up to a week", "up to a month", "up to a
    quarter", "longer"), `open`, and `overdue`: open for longer than its severity may be.

    limits: days from critical to info; None has no limit. What was there at the first scan is at least so old.
    """
    return _frame(
        connection,
        """
        WITH ages AS (
            SELECT project, severity, date_diff('day', introduced_at, now()) AS days,
                $limits[array_position(['critical', 'high', 'medium', 'low', 'info'], severity)] AS days_allowed
            FROM finding_history
            WHERE state = 'open' AND ($project IS NULL OR project = $project)
                AND ($branches IS NULL OR list_contains($branches, branch))
        )
        SELECT project, severity,
            CASE WHEN days <= 7 THEN 'up to a week' WHEN days <= 30 THEN 'up to a month'
                 WHEN days <= 90 THEN 'up to a quarter' ELSE 'longer' END AS age,
            count(*) AS open, count(*) FILTER (days > days_allowed) AS overdue
        FROM ages GROUP BY ALL ORDER BY ALL
        """,
        project=project,
        branches=_list(branches),
        limits=list(limits),
    )


def time_to_fix(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    branches: Sequence[str] | None = None,
    days: int = 90,
) -> "pd.DataFrame":
    """
    One row per severity of what was fixed in the last `days` days and is not back: `fixed`, `mean_days` and
    `median_days` from introduced to fixed. Without what was there at the first scan: nobody knows when it came.
    """
    return _frame(
        connection,
        """
        SELECT severity, count(*) AS fixed, avg(epoch(fixed_at - introduced_at)) / 86400 AS mean_days,
            median(epoch(fixed_at - introduced_at)) / 86400 AS median_days
        FROM finding_history
        WHERE state = 'fixed' AND NOT baseline AND fixed_at >= now() - to_days($days::INT)
            AND ($project IS NULL OR project = $project)
            AND ($branches IS NULL OR list_contains($branches, branch))
        GROUP BY severity
        ORDER BY array_position(['critical', 'high', 'medium', 'low', 'info'], severity)
        """,
        project=project,
        branches=_list(branches),
        days=days,
    )


def scanned_commits(
    connection: duckdb.DuckDBPyConnection, *, project: str, branch: str | None = None, limit: int = 200
) -> "pd.DataFrame":
    """One row per scanned commit and branch, newest first: `commit`, `branch`, `committed_at`, `author`, `title`."""
    return _frame(
        connection,
        """
        SELECT scans.commit, scans.branch, max(scans.committed_at) AS committed_at, any_value(scans.author) AS author,
            any_value(split_part(commits.message, chr(10), 1)) AS title
        FROM scans LEFT JOIN commits USING (project, commit)
        WHERE project = $project AND ($branch IS NULL OR scans.branch = $branch)
        GROUP BY scans.commit, scans.branch ORDER BY committed_at DESC LIMIT $limit
        """,
        project=project,
        branch=branch,
        limit=limit,
    )


def branch_difference(
    connection: duckdb.DuckDBPyConnection, *, project: str, branch: str, base: str = "main"
) -> "pd.DataFrame":
    """
    What merging a branch would bring and fix, worst first: one row per finding with `change` ("brought", "fixed", or
    "absent": open on `base` since before the branch's first scan and never seen on the branch by the same scanner: it
    was fixed there at once, or the branch is older), `severity`, `rule_id`, `path`, `line`, `message`, `tool`,
    `fingerprint`, and `branch` (on which it is, or was, open), `commit`, `author`, `changed_at`.
    """
    return _frame(
        connection,
        """
        WITH here AS (
            SELECT * FROM finding_history WHERE project = $project AND branch = $branch
        ), there AS (
            SELECT * FROM finding_history WHERE project = $project AND branch = $base AND state <> 'fixed'
        ), begun AS (
            SELECT tool, category, min(committed_at) AS first_at FROM scans
            WHERE project = $project AND branch = $branch AND state = 'succeeded' GROUP BY ALL
        ), changes AS (
            SELECT 'brought' AS change, here.*,
                introduced_commit AS commit, introduced_by AS author, introduced_at AS changed_at
            FROM here ANTI JOIN there USING (fingerprint) WHERE here.state = 'open'
            UNION ALL
            SELECT 'fixed', here.*, fixed_commit, fixed_by, fixed_at
            FROM here SEMI JOIN there USING (fingerprint) WHERE here.state = 'fixed'
            UNION ALL
            SELECT 'absent', there.*, NULL, NULL, NULL
            FROM there JOIN begun USING (tool, category) ANTI JOIN here USING (fingerprint)
            WHERE there.state = 'open' AND there.introduced_at < begun.first_at
        ), texts AS (
            SELECT fingerprint, arg_max(message, scanned_at) AS message, arg_max(line, scanned_at) AS line
            FROM findings
            WHERE project = $project AND commit IN (SELECT last_seen_commit FROM changes)
                AND fingerprint IN (SELECT fingerprint FROM changes)
            GROUP BY fingerprint
        )
        SELECT change, severity, rule_id, path, line, message, tool, fingerprint,
            CASE WHEN change = 'absent' THEN $base ELSE $branch END AS branch, commit, author, changed_at
        FROM changes LEFT JOIN texts USING (fingerprint)
        ORDER BY change, array_position(['critical', 'high', 'medium', 'low', 'info'], severity), path, line
        """,
        project=project,
        branch=branch,
        base=base,
    )


def _list(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def table_columns(connection: duckdb.DuckDBPyConnection) -> "pd.DataFrame":
    """One row per column of the warehouse's tables and views: `table_name`, `grain`, `column_name`, `data_type`."""
    return _frame(
        connection,
        f"""
        SELECT columns.table_name, coalesce(tables.comment, views.comment) AS grain, column_name, data_type
        FROM duckdb_columns() AS columns
        LEFT JOIN duckdb_tables() AS tables
            ON tables.database_name = columns.database_name AND tables.table_name = columns.table_name
        LEFT JOIN duckdb_views() AS views
            ON views.database_name = columns.database_name AND views.view_name = columns.table_name
        WHERE columns.database_name = '{LAKE}' ORDER BY columns.table_name, column_index
        """,
    )
