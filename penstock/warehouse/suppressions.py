"""
People's decisions about findings: suppressed with a reason, by whom and until when; and opened again.

A decision holds for a fingerprint on every branch of a project, at once and in later scans. Each change is an event in
`finding_events`, its author the one who decided, on the commit that the branch was at.
"""

from collections.abc import Mapping
from datetime import datetime

import duckdb

from penstock.errors import InputError, NotFoundError, PlatformError
from penstock.warehouse.connect import Location, connect, redact
from penstock.warehouse.rows import Suppression
from penstock.warehouse.write import Warehouse, replace_rows

EXPIRY = "expiry"
SHORTEST_PREFIX = 8

_ACTIVE = "project = $project AND fingerprint = $fingerprint AND ended_at IS NULL"
_INSERT = """
INSERT INTO finding_events BY NAME
WITH lives AS (
    SELECT branch, fingerprint, any_value(tool) AS tool, any_value(category) AS category, max(seq) AS last_seq,
        arg_max(state, seq) AS known_state, arg_max(commit, seq) AS commit, arg_max(run_id, seq) AS run_id,
        arg_max(rule_id, seq) AS rule_id, arg_max(severity, seq) AS severity, arg_max(path, seq) AS path
    FROM finding_events
    WHERE project = $project AND fingerprint = $fingerprint
    GROUP BY branch, fingerprint
)
SELECT $project AS project, branch, fingerprint, tool, category, last_seq + 1 AS seq, $event AS event,
    $state AS state, commit, $at::TIMESTAMPTZ AS committed_at, $author AS author, NULL::VARCHAR AS last_seen_commit,
    false AS baseline, run_id, rule_id, severity, path, $reason AS suppression_reason
FROM lives
WHERE known_state = $known_state
"""


def suppress(warehouse: Warehouse, suppression: Suppression) -> int:
    """
    Record a decision; an earlier one about the same finding ends with it.

    Returns: on how many branches the finding was open.
    Raises: InputError without a reason, or when it ends before it begins; NotFoundError for an unknown finding.
    """
    if not suppression.reason.strip():
        raise InputError("a suppression needs a reason", where=suppression.fingerprint, remedy="say why")
    if suppression.until is not None and suppression.until <= suppression.created_at:
        raise InputError("it would end before it begins", where="until", remedy="give a day to come")

    def work(lake: duckdb.DuckDBPyConnection) -> int:
        _end(lake, suppression.project, suppression.fingerprint, suppression.created_at, suppression.created_by)
        replace_rows(lake, [suppression])
        return _change(lake, suppression.project, suppression.fingerprint, "suppressed", suppression.created_at,
                       suppression.created_by, suppression.reason)  # fmt: skip

    return warehouse.write(work)


def unsuppress(warehouse: Warehouse, project: str, fingerprint: str, *, by: str, at: datetime) -> int:
    """
    End the decision about a finding.

    Returns: on how many branches it is open again.
    Raises: NotFoundError when nobody suppressed it (a report that suppresses it goes on doing so).
    """

    def work(lake: duckdb.DuckDBPyConnection) -> int:
        if not _end(lake, project, fingerprint, at, by):
            raise NotFoundError(
                f"nobody suppressed {fingerprint}",
                where=project,
                remedy="see `penstock findings list --state suppressed`",
            )
        return _change(lake, project, fingerprint, "unsuppressed", at, by, None)

    return warehouse.write(work)


def expire(warehouse: Warehouse, now: datetime) -> int:
    """Open again what was suppressed until now. Returns: how many decisions ended."""

    def work(lake: duckdb.DuckDBPyConnection) -> int:
        over = lake.execute(
            "SELECT project, fingerprint FROM suppressions WHERE ended_at IS NULL AND until <= ?", [now]
        ).fetchall()
        for project, fingerprint in over:
            _end(lake, project, fingerprint, now, EXPIRY)
            _change(lake, project, fingerprint, "unsuppressed", now, EXPIRY, None)
        return len(over)

    return warehouse.write(work)


def in_force(location: Location, project: str, now: datetime) -> Mapping[str, str]:
    """
    Fingerprint → reason of what is suppressed in a project now; nothing where there is no warehouse yet.

    Raises: PlatformError when the catalog does not answer: then it is not known, and nobody may guess.
    """
    try:
        lake = connect(location, read_only=True)
    except NotFoundError:
        return {}
    with lake:
        try:
            rows = lake.execute(
                """
                SELECT fingerprint, arg_max(reason, created_at) FROM suppressions
                WHERE project = ? AND ended_at IS NULL AND (until IS NULL OR until > ?) GROUP BY fingerprint
                """,
                [project, now],
            ).fetchall()
        except duckdb.CatalogException:  # of a Penstock that knew no suppressions
            return {}
        except duckdb.Error as error:
            what = f"what is suppressed cannot be read: {redact(str(error), location).splitlines()[0]}"
            raise PlatformError(what, where=project) from None
    return dict(rows)


def whole_fingerprint(lake: duckdb.DuckDBPyConnection, project: str, prefix: str) -> str:
    """
    The fingerprint of a project's finding that begins so.

    Raises: InputError for a prefix below 8 digits, or of several findings; NotFoundError for one of none.
    """
    if len(prefix) < SHORTEST_PREFIX or not all(digit in "0123456789abcdef" for digit in prefix):
        raise InputError(f'"{prefix[:40]}" is no fingerprint', remedy="give its first 8 digits, or all 32")
    found = lake.execute(
        "SELECT DISTINCT fingerprint FROM finding_events WHERE project = ? AND starts_with(fingerprint, ?) LIMIT 2",
        [project, prefix],
    ).fetchall()
    if not found:
        raise NotFoundError(
            f"no finding is called {prefix}", where=project, remedy="list them with `penstock findings list`"
        )
    if len(found) > 1:
        raise InputError(f"several findings are called {prefix}", where=project, remedy="give more of its digits")
    return str(found[0][0])


def _end(lake: duckdb.DuckDBPyConnection, project: str, fingerprint: str, at: datetime, by: str) -> bool:
    about = {"project": project, "fingerprint": fingerprint}
    row = lake.execute(f"SELECT count(*) FROM suppressions WHERE {_ACTIVE}", about).fetchone()
    lake.execute(
        f"UPDATE suppressions SET ended_at = $at, ended_by = $by WHERE {_ACTIVE}", about | {"at": at, "by": by}
    )
    return bool(row and row[0])


def _change(  # noqa: PLR0917  one statement's parameters
    lake: duckdb.DuckDBPyConnection,
    project: str,
    fingerprint: str,
    event: str,
    at: datetime,
    author: str,
    reason: str | None,
) -> int:
    state, known = ("suppressed", "open") if event == "suppressed" else ("open", "suppressed")
    parameters: Mapping[str, object] = {
        "project": project,
        "fingerprint": fingerprint,
        "event": event,
        "state": state,
        "known_state": known,
        "at": at,
        "author": author,
        "reason": reason,
    }
    row = lake.execute(_INSERT, parameters).fetchone()
    return int(row[0]) if row else 0
