"""
The questions of the dashboards and notebooks: each a function from a connection of `connect` to a DataFrame.

None as a parameter means "all". Times are UTC.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from penstock.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SEVERITY_NAMES = ("critical", "high", "medium", "low", "info")

_WORST_FIRST = "array_position(['critical', 'high', 'medium', 'low', 'info'], {})"

_LATEST_SCANS = """
    SELECT project, branch, tool, category, arg_max(commit, committed_at) AS commit
    FROM scans
    WHERE state = 'succeeded'
        AND ($project IS NULL OR project = $project) AND ($branch IS NULL OR branch = $branch)
    GROUP BY ALL
"""

_BY_SEVERITY = ", ".join(f"count(*) FILTER (severity = '{name}') AS {name}" for name in SEVERITY_NAMES)


# Neither by the report itself, nor by a decision that is in force: what a scan's own verdict counts.
_NOT_SUPPRESSED = """
    NOT coalesce(suppressed, false) AND (project, fingerprint) NOT IN (
        SELECT (project, fingerprint) FROM suppressions WHERE ended_at IS NULL AND (until IS NULL OR until > now()))
"""


def runs(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, state: str | None = None, limit: int = 200
) -> "pd.DataFrame":
    """
    One row per run, newest first, at most `limit`: the columns of `runs`, `title` (the message's first line), `steps`
    and `failed_step` (the first that did not succeed, None without).
    """
    return _frame(
        connection,
        """
        WITH wanted AS (
            SELECT * FROM runs
            WHERE ($project IS NULL OR project = $project) AND ($state IS NULL OR state = $state)
            ORDER BY coalesce(queued_at, started_at) DESC
            LIMIT $limit
        ), work AS (
            SELECT
                run_id,
                count(DISTINCT step) AS steps,
                arg_min(step, finished_at) FILTER (state NOT IN ('succeeded', 'skipped')) AS failed_step
            FROM steps WHERE run_id IN (SELECT run_id FROM wanted)
            GROUP BY run_id
        )
        SELECT wanted.*, split_part(commits.message, chr(10), 1) AS title, coalesce(work.steps, 0) AS steps,
            CASE WHEN wanted.state <> 'succeeded' THEN work.failed_step END AS failed_step
        FROM wanted
        LEFT JOIN work USING (run_id)
        LEFT JOIN commits USING (project, commit)
        ORDER BY coalesce(wanted.queued_at, wanted.started_at) DESC
        """,
        project=project,
        state=state,
        limit=limit,
    )


def steps_of_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> "pd.DataFrame":
    """One row per attempt at a step of the run, in the order of starting: the columns of `steps` and `queue_s`."""
    return _frame(
        connection,
        """
        SELECT *, epoch(started_at - queued_at) AS queue_s
        FROM steps WHERE run_id = $run_id ORDER BY started_at NULLS LAST, step, attempt
        """,
        run_id=run_id,
    )


def open_findings(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    branch: str | None = None,
    branches: Sequence[str] | None = None,
    environment: str | None = None,
    severity: str | None = None,
    limit: int = 10_000,
) -> "pd.DataFrame":
    """
    One row per open finding per branch, worst first then oldest: `project`, `branch`, `fingerprint`, `tool`,
    `category`, `rule_id`, `severity`, `path`, `line`, `column`, `message`, `package`, `fixed_version` and `cwe` as last
    seen at `commit`, with `introduced_commit`, `introduced_at`, `introduced_by`, `baseline`, `reopened` and `age_days`.
    Suppressed and fixed findings are left out.

    branches: several names in place of `branch`. environment: only what is in a commit that is live there too.
    """
    # Few columns decide what is shown; the others are asked for those rows alone. And two questions, joined here:
    # DuckDB leaves out the files of other commits for a plain semi-join, but reads every column of all of them as soon
    # as the same query joins the result. Of 10.7 million findings on two busy cores: 0.7 s in place of 1.5 s.
    found = _frame(
        connection,
        f"""
        WITH live AS (
            SELECT project, commit FROM releases WHERE environment = $environment AND state = 'live'
        ), running AS (
            SELECT DISTINCT project, fingerprint FROM findings
            WHERE commit IN (SELECT commit FROM live) AND (project, commit) IN (SELECT (project, commit) FROM live)
        ), latest AS ({_LATEST_SCANS}), events AS (
            SELECT * FROM finding_events
            WHERE ($project IS NULL OR project = $project) AND ($branch IS NULL OR branch = $branch)
                AND ($branches IS NULL OR list_contains($branches, branch))
        ), lives AS (
            SELECT project, branch, fingerprint, any_value(tool) AS tool, any_value(category) AS category,
                arg_max(state, seq) AS state, arg_max(severity, seq) AS severity, arg_max(path, seq) AS path,
                min(committed_at) FILTER (event = 'introduced') AS introduced_at
            FROM events GROUP BY project, branch, fingerprint
        ), wanted AS MATERIALIZED (
            SELECT lives.*, latest.commit FROM lives JOIN latest USING (project, branch, tool, category)
            WHERE state = 'open' AND ($severity IS NULL OR severity = $severity)
                AND ($environment IS NULL OR (project, fingerprint) IN (SELECT (project, fingerprint) FROM running))
            ORDER BY {_WORST_FIRST.format("severity")}, introduced_at, path, fingerprint
            LIMIT $limit
        ), details AS (
            SELECT project, branch, fingerprint, arg_max(rule_id, seq) AS rule_id,
                arg_min(commit, committed_at) FILTER (event = 'introduced') AS introduced_commit,
                arg_min_null(author, committed_at) FILTER (event = 'introduced') AS introduced_by,
                bool_and(baseline) FILTER (event = 'introduced') AS baseline,
                count(*) FILTER (event = 'reopened') AS reopened
            FROM events
            WHERE fingerprint IN (SELECT fingerprint FROM wanted)
            GROUP BY project, branch, fingerprint
        )
        SELECT wanted.* EXCLUDE (state), details.* EXCLUDE (project, branch, fingerprint),
            date_diff('day', introduced_at, now()) AS age_days
        FROM wanted JOIN details USING (project, branch, fingerprint)
        """,
        project=project,
        branch=branch,
        branches=list(branches) if branches is not None else None,
        environment=environment,
        severity=severity,
        limit=limit,
    )
    texts = _frame(
        connection,
        """
        SELECT project, commit, fingerprint, message, line, "column", package, fixed_version, cwe FROM findings
        WHERE commit IN (SELECT unnest($commits::VARCHAR[]))
            AND fingerprint IN (SELECT unnest($fingerprints::VARCHAR[]))
        """,
        commits=sorted(set(found["commit"])),
        fingerprints=sorted(set(found["fingerprint"])),
    )
    both = found.merge(texts, on=["project", "commit", "fingerprint"])
    rank = both["severity"].map({name: at for at, name in enumerate(SEVERITY_NAMES)})
    ordered = both.assign(rank=rank).sort_values(["rank", "introduced_at", "path", "line"], kind="stable")
    return ordered.drop(columns="rank").reset_index(drop=True)


def introduced_by_commit(connection: duckdb.DuckDBPyConnection, *, project: str, commit: str) -> "pd.DataFrame":
    """
    One row per finding per branch that this commit introduced, worst first: state now, what it is and where.

    baseline: true where it is only known to be as old as the first scan, so that the commit may not be to blame.
    """
    return _changed(connection, "introduced_commit", project, commit)


def fixed_by_commit(connection: duckdb.DuckDBPyConnection, *, project: str, commit: str) -> "pd.DataFrame":
    """One row per finding per branch that this commit fixed and that did not come back, worst first."""
    return _changed(connection, "fixed_commit", project, commit)


def _changed(connection: duckdb.DuckDBPyConnection, column: str, project: str, commit: str) -> "pd.DataFrame":
    return _frame(
        connection,
        f"""
        WITH history AS (SELECT * FROM finding_history WHERE project = $project AND {column} = $commit), texts AS (
            SELECT fingerprint, arg_max(message, scanned_at) AS message, arg_max(line, scanned_at) AS line,
                arg_max(snippet, scanned_at) AS snippet
            FROM findings
            WHERE project = $project AND fingerprint IN (SELECT fingerprint FROM history)
                AND commit IN (SELECT unnest([introduced_commit, last_seen_commit]) FROM history)
            GROUP BY fingerprint
        )
        SELECT history.*, texts.message, texts.line, texts.snippet
        FROM history LEFT JOIN texts USING (fingerprint)
        ORDER BY {_WORST_FIRST.format("severity")}, path, line
        """,
        project=project,
        commit=commit,
    )


def live_releases(
    connection: duckdb.DuckDBPyConnection, *, environment: str | None = None, project: str | None = None
) -> "pd.DataFrame":
    """
    One row per service that runs in an environment now: the columns of its release, who wrote the commit and what it
    says (`author`, `title`), and the findings of that commit that are not suppressed: `critical` … `info`, and
    `scanned`, which is false where nothing ever scanned that commit with success, so that 0 means nothing.
    """
    return _frame(
        connection,
        f"""
        WITH live AS (
            SELECT * FROM releases
            WHERE state = 'live' AND ended_at IS NULL
                AND ($environment IS NULL OR environment = $environment) AND ($project IS NULL OR project = $project)
            QUALIFY row_number() OVER (PARTITION BY project, environment, service ORDER BY number DESC) = 1
        ), weak AS (
            SELECT project, commit, {_BY_SEVERITY}
            FROM findings
            WHERE {_NOT_SUPPRESSED} AND commit IN (SELECT commit FROM live)
            GROUP BY project, commit
        ), scanned AS (
            SELECT DISTINCT project, commit, true AS scanned FROM scans
            WHERE state = 'succeeded' AND commit IN (SELECT commit FROM live)
        )
        SELECT live.*, commits.author, split_part(commits.message, chr(10), 1) AS title,
            coalesce(scanned, false) AS scanned,
            coalesce(critical, 0) AS critical, coalesce(high, 0) AS high, coalesce(medium, 0) AS medium,
            coalesce(low, 0) AS low, coalesce(info, 0) AS info
        FROM live
        LEFT JOIN commits USING (project, commit)
        LEFT JOIN weak USING (project, commit)
        LEFT JOIN scanned USING (project, commit)
        ORDER BY environment, project, service
        """,
        environment=environment,
        project=project,
    )


def findings_over_time(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, branch: str = "main", days: int = 90
) -> "pd.DataFrame":
    """
    One row per day and severity of the last `days` days, ascending: `open` findings at the end of that day, and how
    many were `introduced` (or came back) and `fixed` on it. Suppressed findings count until they were suppressed.
    """
    return _frame(
        connection,
        f"""
        WITH days AS (
            SELECT unnest(generate_series(today() - $days + 1, today(), INTERVAL 1 DAY))::DATE AS day
        ), severities AS (
            SELECT unnest(['critical', 'high', 'medium', 'low', 'info']) AS severity
        ), moves AS (
            SELECT
                committed_at::DATE AS day,
                arg_max(severity, seq) OVER (PARTITION BY project, branch, fingerprint) AS severity,
                event,
                (state = 'open')::INT - coalesce((lag(state) OVER life = 'open')::INT, 0) AS step
            FROM finding_events
            WHERE branch = $branch AND ($project IS NULL OR project = $project)
            WINDOW life AS (PARTITION BY project, branch, fingerprint ORDER BY seq)
        ), daily AS (
            SELECT day, severity, sum(step) AS step,
                count(*) FILTER (event IN ('introduced', 'reopened') AND step > 0) AS introduced,
                count(*) FILTER (event = 'fixed') AS fixed
            FROM moves GROUP BY day, severity
        )
        SELECT
            days.day,
            severities.severity,
            coalesce(sum(daily.step), 0)::BIGINT AS open,
            coalesce(sum(daily.introduced) FILTER (daily.day = days.day), 0)::BIGINT AS introduced,
            coalesce(sum(daily.fixed) FILTER (daily.day = days.day), 0)::BIGINT AS fixed
        FROM days CROSS JOIN severities
        LEFT JOIN daily ON daily.severity = severities.severity AND daily.day <= days.day
        GROUP BY days.day, severities.severity
        ORDER BY days.day, {_WORST_FIRST.format("severities.severity")}
        """,
        project=project,
        branch=branch,
        days=days,
    )


def findings_by_severity(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, branch: str | None = None
) -> "pd.DataFrame":
    """One row per project, branch and tool with something open: open findings, `critical` … `info`."""
    return _frame(
        connection,
        f"""
        SELECT project, branch, tool, {_BY_SEVERITY}
        FROM finding_history
        WHERE state = 'open' AND ($project IS NULL OR project = $project) AND ($branch IS NULL OR branch = $branch)
        GROUP BY ALL ORDER BY ALL
        """,
        project=project,
        branch=branch,
    )


def scanner_health(connection: duckdb.DuckDBPyConnection, *, project: str | None = None) -> "pd.DataFrame":
    """
    One row per project, tool and category: scans, failures, `last_scanned_at`, `last_succeeded_at`, `last_state`,
    `last_reason`, `stale_days` since the last success (None: never), `quarantined` and `findings` of the last scan.
    """
    return _frame(
        connection,
        """
        SELECT
            project,
            tool,
            category,
            count(*) AS scans,
            count(*) FILTER (state = 'failed') AS failures,
            max(scanned_at) AS last_scanned_at,
            max(scanned_at) FILTER (state = 'succeeded') AS last_succeeded_at,
            arg_max(state, scanned_at) AS last_state,
            arg_max_null(reason, scanned_at) AS last_reason,
            date_diff('day', max(scanned_at) FILTER (state = 'succeeded'), now()) AS stale_days,
            arg_max(quarantined, scanned_at) AS quarantined,
            arg_max(findings, scanned_at) AS findings
        FROM scans WHERE $project IS NULL OR project = $project
        GROUP BY project, tool, category
        ORDER BY last_state = 'succeeded', stale_days DESC NULLS FIRST, project, tool
        """,
        project=project,
    )


def gate_history(
    connection: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    branches: Sequence[str] | None = None,
    days: int = 90,
) -> "pd.DataFrame":
    """
    What a gate would have had before it: one row per commit and branch of the last `days` days that a scanner read with
    success, newest first. `critical` … `info` count its findings that are not suppressed, `new_critical` … `new_info`
    those that it introduced or brought back; `author`, `title`, `run_id`, and `is_released`: whether it got traffic.

    What was there at a branch's first scan is never new. `blocked` holds a policy against it.
    """
    new = ", ".join(f"coalesce(brought.{name}, 0) AS new_{name}" for name in SEVERITY_NAMES)
    there = ", ".join(f"coalesce(present.{name}, 0) AS {name}" for name in SEVERITY_NAMES)
    return _frame(
        connection,
        f"""
        WITH looked AS (
            SELECT project, branch, commit, max(committed_at) AS committed_at, any_value(author) AS author,
                arg_max(run_id, scanned_at) AS run_id
            FROM scans
            WHERE state = 'succeeded' AND committed_at >= now() - to_days($days::INT)
                AND ($project IS NULL OR project = $project)
                AND ($branches IS NULL OR list_contains($branches, branch))
            GROUP BY project, branch, commit
        ), present AS (
            -- No scan is older than its commit: this leaves whole files out.
            SELECT any_value(project) AS project, commit, {_BY_SEVERITY}
            FROM findings
            WHERE {_NOT_SUPPRESSED} AND scanned_at >= now() - to_days($days::INT)
                AND ($project IS NULL OR project = $project)
            GROUP BY commit, hash(project)
        ), brought AS (
            SELECT project, branch, commit, {_BY_SEVERITY}
            FROM finding_events
            WHERE event IN ('introduced', 'reopened') AND state = 'open' AND NOT baseline
                AND committed_at >= now() - to_days($days::INT)
            GROUP BY project, branch, commit
        )
        SELECT looked.*, split_part(commits.message, chr(10), 1) AS title, {there}, {new},
            (looked.project, looked.commit) IN (
                SELECT (project, commit) FROM releases WHERE live_at IS NOT NULL AND environment = 'production'
            ) AS is_released
        FROM looked
        LEFT JOIN present USING (project, commit)
        LEFT JOIN brought USING (project, branch, commit)
        LEFT JOIN commits USING (project, commit)
        ORDER BY committed_at DESC, project, commit
        """,
        project=project,
        branches=list(branches) if branches is not None else None,
        days=days,
    )


def blocked(history: "pd.DataFrame", *, severity: str, new_only: bool) -> "pd.Series[bool]":
    """
    Which rows of `gate_history` a gate with `fail_on_severity: severity` would have stopped.

    new_only: count only what the commit brought. Raises: InputError when no severity is called that.
    """
    if severity not in SEVERITY_NAMES:
        raise InputError(
            f'no severity is called "{severity}"', where="severity", remedy=f"use one of {', '.join(SEVERITY_NAMES)}"
        )
    worst = SEVERITY_NAMES[: SEVERITY_NAMES.index(severity) + 1]
    return history[[f"new_{name}" if new_only else name for name in worst]].sum(axis=1) > 0


def _frame(connection: duckdb.DuckDBPyConnection, query: str, **parameters: Any) -> "pd.DataFrame":
    named: Mapping[str, Any] = {name: value for name, value in parameters.items() if f"${name}" in query}
    return connection.execute(query, named).df()
