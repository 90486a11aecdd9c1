"""The findings of a project's branches as they stand, filtered: what `penstock findings list` prints."""

from datetime import datetime
from typing import Any

import duckdb
from attrs import asdict, frozen

from penstock.errors import NotFoundError

STATES = ("open", "suppressed", "fixed")

_LIST = """
WITH latest AS (
    SELECT project, branch, tool, category, arg_max(commit, (committed_at, scanned_at)) AS commit
    FROM scans
    WHERE state = 'succeeded' AND ($project IS NULL OR project = $project) AND ($branch IS NULL OR branch = $branch)
    GROUP BY ALL
), shown AS (
    SELECT latest.branch, findings.project, findings.fingerprint, any_value(message) AS message,
        any_value(line) AS line, any_value(package) AS package, any_value(fixed_version) AS fixed_version
    FROM findings JOIN latest USING (project, tool, category, commit)
    GROUP BY latest.branch, findings.project, findings.fingerprint
), decided AS (
    SELECT project, fingerprint, max_by(created_by, created_at) AS suppressed_by, max_by(until, created_at) AS until
    FROM suppressions WHERE ended_at IS NULL GROUP BY ALL
)
SELECT lives.project, lives.branch, lives.state, lives.severity, lives.tool, lives.category, lives.rule_id, lives.path,
    shown.line, shown.package, shown.fixed_version, shown.message, lives.fingerprint, lives.introduced_commit,
    lives.introduced_at, lives.introduced_by, lives.baseline, lives.fixed_commit, lives.fixed_at,
    lives.suppression_reason, decided.suppressed_by, decided.until AS suppressed_until
FROM finding_history AS lives
LEFT JOIN shown USING (project, branch, fingerprint)
LEFT JOIN decided USING (project, fingerprint)
WHERE ($project IS NULL OR lives.project = $project)
    AND ($branch IS NULL OR lives.branch = $branch)
    AND ($severity IS NULL OR list_contains($severity::VARCHAR[], lives.severity))
    AND ($tool IS NULL OR lower(lives.tool) = lower($tool))
    AND ($state IS NULL OR lives.state = $state)
    AND ($since IS NULL OR lives.introduced_at >= $since::TIMESTAMPTZ)
ORDER BY list_position(['critical', 'high', 'medium', 'low', 'info'], lives.severity), lives.project, lives.branch,
    lives.path, shown.line, lives.fingerprint
"""


@frozen(kw_only=True)
class Wanted:
    """Which findings; None is all. severity: any of these. since: introduced then or later."""

    project: str | None = None
    branch: str | None = None
    severity: tuple[str, ...] | None = None
    tool: str | None = None
    state: str | None = "open"
    since: datetime | None = None


def list_findings(
    lake: duckdb.DuckDBPyConnection, wanted: Wanted, limit: int | None = None
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """
    Names of the columns, and one row per finding and branch, worst first. limit: rows at most.
    """
    values = asdict(wanted) | {"severity": list(wanted.severity) if wanted.severity else None}
    result = lake.execute(_LIST + (f" LIMIT {limit:d}" if limit else ""), values)
    return tuple(column[0] for column in result.description or ()), result.fetchall()


@frozen
class Place:
    """Where the newest scan of a branch saw a finding. line: from 1."""

    commit: str
    path: str
    line: int


def locate_finding(lake: duckdb.DuckDBPyConnection, project: str, branch: str, fingerprint: str) -> Place:
    """
    The place of a finding in the newest commit of a branch that shows it.

    Raises: NotFoundError when there is none, or none with a file and a line.
    """
    row = lake.execute(
        """
        SELECT findings.commit, findings.path, findings.line
        FROM findings JOIN scans USING (project, commit, tool, category)
        WHERE project = ? AND branch = ? AND fingerprint = ? AND findings.path IS NOT NULL AND findings.line IS NOT NULL
        ORDER BY scans.committed_at DESC LIMIT 1
        """,
        [project, branch, fingerprint],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"{fingerprint} has no line on {branch}", where=project, remedy="give --branch")
    return Place(*row)
