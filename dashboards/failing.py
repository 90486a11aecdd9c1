"""Which branches are failing, by the runs that they had."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from dashboards.showing import BAD_STATES
from penstock.pipeline.records import UNFINISHED, RunRecord


@attrs.frozen
class Failing:
    """A branch whose newest finished run did not succeed. runs: how many in a row; since: when the first was queued."""

    newest: RunRecord
    runs: int
    since: datetime


def failing_branches(runs: Sequence[RunRecord]) -> list[Failing]:
    """Branches that are failing, the longest first. runs: newest first."""
    by_branch: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        if run.state not in (*UNFINISHED, "cancelled"):
            by_branch.setdefault((run.info.project, run.info.ref), []).append(run)
    failing = []
    for history in by_branch.values():
        bad = next((at for at, run in enumerate(history) if run.state not in BAD_STATES), len(history))
        if bad:
            failing.append(Failing(history[0], bad, history[bad - 1].queued_at))
    return sorted(failing, key=lambda each: each.since)
