"""The runs that a caller asks for: filters, newest first, page by page."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import sqlalchemy as sa

from penstock.api.paging import read_cursor, write_cursor
from penstock.pipeline.records import RunRecord
from penstock.state.tables import runs
from penstock.steps.context import RunInfo


@attrs.frozen
class RunQuery:
    """
    Which runs. Each that is not None must hold; one of the states is enough.

    commit: the beginning of a hash. since: when they were queued, at the earliest. cursor: where the page before ended.
    """

    project: str | None = None
    commit: str | None = None
    ref: str | None = None
    states: Sequence[str] = ()
    since: datetime | None = None
    cursor: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """For a select of runs. Raises: InputError for a cursor that is none."""
        given = [
            runs.c.project == self.project if self.project is not None else None,
            runs.c.commit.startswith(self.commit, autoescape=True) if self.commit is not None else None,
            runs.c.ref == self.ref if self.ref is not None else None,
            runs.c.state.in_(self.states) if self.states else None,
            runs.c.queued_at >= self.since if self.since is not None else None,
            _after(self.cursor) if self.cursor is not None else None,
        ]
        return [condition for condition in given if condition is not None]


def _after(cursor: str) -> sa.ColumnElement[bool]:
    at, run_id = read_cursor(cursor)
    return sa.tuple_(runs.c.queued_at, runs.c.id) < sa.tuple_(sa.literal(at), sa.literal(run_id))


def find_runs(database: sa.Engine, query: RunQuery, limit: int) -> tuple[tuple[RunRecord, ...], str | None]:
    """
    One page, newest first, and the cursor of the next one; None when this is the last.

    Raises: InputError for a cursor that is none.
    """
    wanted = sa.select(runs).where(*query.conditions()).order_by(runs.c.queued_at.desc(), runs.c.id.desc())
    with database.connect() as connection:
        rows = connection.execute(wanted.limit(limit + 1)).mappings().all()
    page = tuple(_record(row) for row in rows[:limit])
    return page, write_cursor(page[-1].queued_at, page[-1].info.id) if len(rows) > limit else None


def _record(row: Any) -> RunRecord:
    info = RunInfo(**{field.name: row[field.name] for field in attrs.fields(RunInfo)})
    rest = {name: row[name] for name in ("state", "reason", "queued_at", "started_at", "finished_at")}
    return RunRecord(info=info, ingested=row["ingested_at"] is not None, **rest)
