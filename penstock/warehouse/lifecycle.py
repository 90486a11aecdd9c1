"""
The life of a finding on a branch, as one INSERT into `finding_events`.

    unknown ──present──▶ open ◀──unsuppressed── suppressed        introduced, suppressed, unsuppressed
       open, suppressed ──absent──▶ fixed ──present──▶ open        fixed, reopened
       present with another severity, path or rule                changed

Suppressed is what the report says is, and what somebody decided about (`suppressions`).

Only a scan that succeeded speaks, and only about its own tool and category on its own branch. "Fixed" needs a report
that was read whole: a result that had to be quarantined might be the one that seems to be gone. A scan of a commit
older than the newest one scanned there (a late or repeated run) changes no state; it may only show that a finding is
older than was thought.

What the base branch has open, or had at the time of the commit, is no news: it keeps who introduced it, when and where.
A branch's first scan is a baseline (nobody knows when its findings came) unless the base had been scanned by then: what
the base never had was brought by the branch. What the base had fixed before that commit stays in the baseline: the
branch may have left it before.
"""

from datetime import datetime

import duckdb
import pyarrow as pa
from attrs import frozen

from penstock.warehouse.rows import Scan

_INSERT_EVENTS = """
INSERT INTO finding_events BY NAME
WITH events AS MATERIALIZED (
    SELECT *
    FROM finding_events
    WHERE project = $project AND branch IN ($branch, $base_branch) AND tool = $tool AND category = $category
), known AS MATERIALIZED (
    SELECT
        fingerprint,
        max(seq) AS seq,
        arg_max(state, seq) AS state,
        arg_max(rule_id, seq) AS rule_id,
        arg_max(severity, seq) AS severity,
        arg_max(path, seq) AS path,
        min(committed_at) FILTER (event = 'introduced') AS introduced_at,
        bool_and(baseline) FILTER (event = 'introduced') AS baseline
    FROM events
    WHERE branch = $branch
    GROUP BY fingerprint
), decided AS (
    SELECT fingerprint, arg_max(reason, created_at) AS reason
    FROM suppressions
    WHERE project = $project AND ended_at IS NULL AND (until IS NULL OR until > $scanned_at)
    GROUP BY fingerprint
), seen AS (
    SELECT
        fingerprint,
        any_value(rule_id) AS rule_id,
        any_value(severity) AS severity,
        any_value(path) AS path,
        bool_and(coalesce(suppressed, false)) OR any_value(decided.fingerprint) IS NOT NULL AS suppressed,
        coalesce(any_value(decided.reason), any_value(suppression_reason)) AS suppression_reason
    FROM incoming_findings
    LEFT JOIN decided USING (fingerprint)
    GROUP BY fingerprint
), base AS (
    SELECT
        fingerprint,
        arg_min(commit, committed_at) FILTER (event = 'introduced') AS commit,
        min(committed_at) FILTER (event = 'introduced') AS committed_at,
        arg_min_null(author, committed_at) FILTER (event = 'introduced') AS author,
        bool_and(baseline) FILTER (event = 'introduced') AS baseline,
        arg_max(state, seq) <> 'fixed' OR arg_max(committed_at, seq) > $committed_at AS is_there
    FROM events
    WHERE branch = $base_branch AND branch <> $branch
    GROUP BY fingerprint
), facts AS (
    SELECT
        coalesce(seen.fingerprint, known.fingerprint) AS fingerprint,
        seen.fingerprint IS NOT NULL AS present,
        CASE WHEN seen.suppressed THEN 'suppressed' ELSE 'open' END AS wanted,
        known.state AS known_state,
        known.introduced_at,
        known.baseline AS known_baseline,
        coalesce(seen.rule_id, known.rule_id) AS rule_id,
        coalesce(seen.severity, known.severity) AS severity,
        coalesce(seen.path, known.path) AS path,
        seen.suppression_reason,
        seen.severity <> known.severity OR seen.path <> known.path OR seen.rule_id <> known.rule_id AS is_changed,
        coalesce(base.is_there, false) AS inherited,
        base.fingerprint IS NOT NULL AS base_knew,
        base.commit AS base_commit,
        base.committed_at AS base_committed_at,
        base.author AS base_author,
        base.baseline AS base_baseline
    FROM seen
    FULL OUTER JOIN known USING (fingerprint)
    LEFT JOIN base ON base.fingerprint = coalesce(seen.fingerprint, known.fingerprint)
), changes AS (
    SELECT *, CASE
        WHEN $is_late THEN CASE WHEN present AND introduced_at > $committed_at THEN 'introduced' END
        WHEN present AND known_state IS NULL THEN 'introduced'
        WHEN present AND known_state = 'fixed' THEN 'reopened'
        WHEN present AND known_state = 'open' AND wanted = 'suppressed' THEN 'suppressed'
        WHEN present AND known_state = 'suppressed' AND wanted = 'open' THEN 'unsuppressed'
        WHEN NOT present AND known_state <> 'fixed' AND $quarantined = 0 THEN 'fixed'
        WHEN present AND is_changed THEN 'changed'
    END AS event
    FROM facts
)
SELECT
    $project AS project,
    $branch AS branch,
    fingerprint,
    $tool AS tool,
    $category AS category,
    (SELECT coalesce(max(seq), 0) + 1 FROM known) AS seq,
    event,
    CASE WHEN $is_late THEN known_state WHEN event = 'fixed' THEN 'fixed' ELSE wanted END AS state,
    CASE WHEN event = 'introduced' AND inherited THEN base_commit ELSE $commit END AS commit,
    CASE WHEN event = 'introduced' AND inherited THEN base_committed_at ELSE $committed_at END AS committed_at,
    CASE WHEN event = 'introduced' AND inherited THEN base_author ELSE $author END AS author,
    CASE WHEN event = 'fixed' THEN $commit_before END AS last_seen_commit,
    CASE WHEN $is_late THEN known_baseline
         WHEN event = 'introduced' AND inherited THEN base_baseline
         ELSE event = 'introduced' AND $is_first AND (base_knew OR NOT $base_was_scanned) END AS baseline,
    $run_id AS run_id,
    rule_id,
    severity,
    path,
    suppression_reason
FROM changes
WHERE event IS NOT NULL
"""


@frozen
class CommitBefore:
    """The newest commit of the branch that the same tool and category scanned with success."""

    commit: str
    committed_at: datetime


def record_events(
    connection: duckdb.DuckDBPyConnection,
    scan: Scan,
    findings: pa.Table,
    *,
    before: CommitBefore | None,
    base_branch: str | None = None,
    base_was_scanned: bool = False,
) -> None:
    """
    What a scan that succeeded changes in the lives of the findings on its branch.

    findings: at least the columns fingerprint, rule_id, severity, path, suppressed and suppression_reason.
    before: None at the first scan, whose findings are the baseline, but for what the base branch does not have.
    base_was_scanned: whether the same tool and category read a commit of the base, no newer than this, with success.
    """
    connection.register("incoming_findings", findings)
    try:
        parameters = _parameters(scan, before, base_branch) | {"base_was_scanned": base_was_scanned}
        connection.execute(_INSERT_EVENTS, parameters)
    finally:
        connection.unregister("incoming_findings")


def _parameters(scan: Scan, before: CommitBefore | None, base_branch: str | None) -> dict[str, object]:
    names = (
        "project", "branch", "tool", "category", "commit", "author", "run_id", "quarantined", "committed_at",
        "scanned_at",
    )  # fmt: skip
    return {name: getattr(scan, name) for name in names} | {
        "base_branch": base_branch or scan.branch,
        "is_first": before is None,
        "is_late": before is not None and scan.committed_at < before.committed_at,
        "commit_before": before.commit if before else None,
    }
