"""The components of commits built again, from the lists that their steps archived."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import sqlalchemy as sa

from penstock.components import read_bill
from penstock.errors import ReportError
from penstock.pipeline import records
from penstock.pipeline.ingest import component_list
from penstock.steps.context import BillOutcome
from penstock.steps.listing import REPORTS, SUFFIX
from penstock.warehouse.write import ComponentList, Warehouse

BATCH = 20
_Sources = Mapping[tuple[str, str], str]


def relist(
    database: sa.Engine, warehouse: Warehouse, read: Callable[[str], bytes | None], run_ids: Iterable[str]
) -> int:
    """
    Record every archived list of these runs, oldest first; doing it again changes nothing.

    read: digest → the archived bytes, None where they are gone. Returns: how many lists.
    """
    sources = warehouse.alone(
        lambda lake: {
            (run_id, step): source
            for run_id, step, source in lake.sql("SELECT run_id, step, source FROM sboms").fetchall()
        }
    )
    done = 0
    found = (one for run_id in run_ids for one in _lists(database, read, run_id, sources))
    while batch := list(itertools.islice(found, BATCH)):
        warehouse.record(*batch)
        done += len(batch)
    return done


def _lists(
    database: sa.Engine, read: Callable[[str], bytes | None], run_id: str, sources: _Sources
) -> Iterator[ComponentList]:
    run = records.load_run(database, run_id)
    for step, made in records.artifacts_by_step(database, run_id):
        if PurePosixPath(made.path) != PurePosixPath(REPORTS) / f"{step}{SUFFIX}":
            continue
        data = read(made.digest)
        try:
            bill = read_bill(data, made.key) if data is not None else None
        except ReportError:  # whoever stored it could read it: another Penstock did
            bill = None
        if bill is not None:
            # A list that the warehouse does not know says itself what it is of.
            own = (bill.subject or step) if bill.image_digest else "checkout"
            outcome = BillOutcome(bill, made.digest, sources.get((run_id, step), own))
            yield component_list(run.info, step, outcome, run.finished_at or run.queued_at)
