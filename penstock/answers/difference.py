"""What a pull request introduces and fixes: the findings of its head against those that are open on its target."""

from collections.abc import Sequence
from typing import Any

import attrs
import duckdb

from penstock.errors import NotFoundError, PlatformError
from penstock.warehouse import Location, connect

_WORST_FIRST = ("critical", "high", "medium", "low", "info")

# One row per tool and category that scanned this commit for this ref: its newest scan.
_SCANS = """
SELECT tool, category, arg_max(state, scanned_at) AS state, max(committed_at) AS committed_at, EXISTS (
        SELECT 1 FROM scans AS earlier
        WHERE earlier.project = $project AND earlier.branch = $target AND earlier.state = 'succeeded'
            AND earlier.tool = scans.tool AND earlier.category = scans.category
    ) AS comparable
FROM scans
WHERE project = $project AND commit = $commit AND branch = $branch
GROUP BY tool, category
ORDER BY tool, category
"""
# What is open on the target is no news, wherever it came from.
_INTRODUCED = """
WITH here AS (
    SELECT fingerprint, any_value(severity) AS severity, any_value(rule_id) AS rule, any_value(path) AS path,
        any_value(line) AS line, any_value(message) AS message
    FROM findings
    WHERE project = $project AND commit = $commit AND tool = $tool AND category = $category
        AND NOT coalesce(suppressed, false)
    GROUP BY fingerprint
)
SELECT severity, rule, path, line, message FROM here
WHERE fingerprint NOT IN (
    SELECT fingerprint FROM finding_history
    WHERE project = $project AND branch = $target AND tool = $tool AND category = $category AND state <> 'fixed'
)
ORDER BY path, line, rule
"""
# A finding that came to the target after this head was made has never been here, so that it cannot be fixed here.
_FIXED = """
SELECT history.severity, history.rule_id AS rule, history.path, NULL AS line, coalesce((
        SELECT arg_max(message, scanned_at) FROM findings
        WHERE findings.project = $project AND findings.fingerprint = history.fingerprint
    ), '') AS message
FROM finding_history AS history
WHERE history.project = $project AND history.branch = $target AND history.tool = $tool
    AND history.category = $category AND history.state = 'open' AND history.introduced_at <= $committed_at
    AND history.fingerprint NOT IN (
        SELECT fingerprint FROM findings
        WHERE project = $project AND commit = $commit AND tool = $tool AND category = $category
    )
ORDER BY path, rule
"""


@attrs.frozen
class Change:
    """One finding that a pull request brings or takes away."""

    severity: str
    rule: str
    path: str
    line: int | None
    message: str


@attrs.frozen
class Difference:
    """
    introduced, fixed: worst first. blind: tools that failed on this head. incomparable: tools without a scan of the
    target. scanned: whether anything scanned this head at all.
    """

    introduced: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    blind: tuple[str, ...] = ()
    incomparable: tuple[str, ...] = ()
    scanned: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether some tool could not speak."""
        return bool(self.blind or self.incomparable)


def read_difference(location: Location, project: str, commit: str, branch: str, target: str) -> Difference:
    """
    branch: under which the head was scanned, such as refs/pull/7/head. target: the short name of a branch.

    Raises: PlatformError when the warehouse does not answer.
    """
    try:
        connection = connect(location, read_only=True)
    except NotFoundError:
        return Difference()
    try:
        return difference(connection, project, commit, branch, target)
    except duckdb.Error as error:
        raise PlatformError("the warehouse cannot be read", where=type(error).__name__) from error
    finally:
        connection.close()


def difference(
    connection: duckdb.DuckDBPyConnection, project: str, commit: str, branch: str, target: str
) -> Difference:
    """The same from an open connection."""
    named = {"project": project, "commit": commit, "target": target}
    scans = connection.execute(_SCANS, {**named, "branch": branch}).fetchall()
    introduced: list[Change] = []
    fixed: list[Change] = []
    for tool, category, state, committed_at, comparable in scans:
        if state == "succeeded" and comparable:
            of = {**named, "tool": tool, "category": category}
            introduced += _changes(connection, _INTRODUCED, of)
            fixed += _changes(connection, _FIXED, {**of, "committed_at": committed_at})
    return Difference(
        introduced=_sorted(introduced),
        fixed=_sorted(fixed),
        blind=tuple(row[0] for row in scans if row[2] != "succeeded"),
        incomparable=tuple(row[0] for row in scans if row[2] == "succeeded" and not row[4]),
        scanned=bool(scans),
    )


def _changes(connection: duckdb.DuckDBPyConnection, query: str, named: dict[str, Any]) -> list[Change]:
    rows = connection.execute(query, named).fetchall()
    return [Change(row[0] or "info", row[1] or "", row[2] or "", row[3], row[4] or "") for row in rows]


def _sorted(changes: Sequence[Change]) -> tuple[Change, ...]:
    def rank(change: Change) -> int:
        return _WORST_FIRST.index(change.severity) if change.severity in _WORST_FIRST else len(_WORST_FIRST)

    return tuple(sorted(changes, key=rank))
