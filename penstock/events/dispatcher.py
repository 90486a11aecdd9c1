"""Starts what the inbox holds, at once when an event arrives and again whenever something came between."""

import logging
import time
from datetime import timedelta

import attrs
import sqlalchemy as sa

from penstock.errors import NotFoundError, PenstockError
from penstock.events import inbox
from penstock.events.dispatch import TAG_EVENT, TAG_STRUCTURE, Launch, prepare
from penstock.events.inbox import EventRecord
from penstock.events.schedule import ask_when_due
from penstock.pipeline import records
from penstock.pipeline.log import utc_now
from penstock.platform.dagster import DagsterClient, NotDelivered
from penstock.rounds import Rounds
from penstock.settings import Settings

_log = logging.getLogger(__name__)
CLOCK_EVERY_S = 20.0
SOON = timedelta(seconds=1)


class Dispatcher:
    """One thread that claims events and launches their runs; `wake` makes it look at once."""

    def __init__(self, database: sa.Engine, settings: Settings, dagster: DagsterClient) -> None:
        self._database, self._settings, self._dagster = database, settings, dagster
        self._loaded: dict[str, str] = {}
        self._looked_s = 0.0
        self._rounds = Rounds("dispatcher", self._look)

    def start(self) -> None:
        """Begin, with what was left over."""
        self._rounds.start()

    def wake(self) -> None:
        """There is something new."""
        self._rounds.wake()

    def stop(self) -> None:
        """Finish the event in hand and end."""
        self._rounds.stop()

    def _look(self) -> int:
        self._look_at_the_clock()
        return self.round()

    def _look_at_the_clock(self) -> None:
        if time.monotonic() - self._looked_s >= CLOCK_EVERY_S:
            self._looked_s = time.monotonic()
            ask_when_due(self._database, self._settings, utc_now())

    def round(self) -> int:
        """Start what is waiting. Returns: how many events were claimed."""
        claimed = inbox.claim(self._database)
        for event in claimed:
            try:
                self._start(event)
            except PenstockError as error:
                _log.warning("event %s is tried again: %s", event.key, error)
                # What may have been delivered is given the time to show.
                soon = isinstance(error, NotDelivered)
                inbox.let_go(self._database, event, str(error), again_after=SOON if soon else inbox.CLAIM_LAPSES_AFTER)
            except sa.exc.IntegrityError as error:
                _log.warning("event %s is dropped: %s", event.key, str(error.orig).splitlines()[0])
                inbox.close(self._database, event, reason="its project was removed")
        return len(claimed)

    def _start(self, event: EventRecord) -> None:
        launch = prepare(self._database, self._settings, event)
        if launch is None or not self._may_start(event, launch):
            return
        info = attrs.evolve(launch.info, id=self._already(event) or self._launch(launch))
        records.create_run(self._database, info, launch.graph, event_key=event.key, group=launch.group)

    def _may_start(self, event: EventRecord, launch: Launch) -> bool:
        """Whether it is the event's turn in its concurrency group; what stands in its way may be cancelled."""
        concurrency = launch.graph.concurrency
        if concurrency is None or launch.group is None or event.claimed_before:
            return True
        newest_only = concurrency.mode in ("latest", "cancel")
        running = inbox.wait_for_group(self._database, event, launch.group, newest_only=newest_only)
        if concurrency.mode == "cancel":
            for run_id in running:
                if not records.is_deploying(self._database, run_id):
                    self._dagster.terminate(run_id)
        return not running

    def _launch(self, launch: Launch) -> str:
        self._ensure_loaded(launch)
        try:
            return self._dagster.launch(launch.job, launch.partitions, launch.info.partition, launch.tags)
        except PenstockError as error:
            # Its code server may have been restarted, or be away: the next attempt looks again.
            del self._loaded[launch.job]
            if isinstance(error, NotFoundError):
                raise NotDelivered(f"Dagster has lost the pipeline of {launch.info.project}") from error
            raise

    def _already(self, event: EventRecord) -> str | None:
        """The run of an earlier attempt that was cut off; one that was made but never begun is removed."""
        if not event.claimed_before:
            return None
        for run_id, status in self._dagster.runs_with_tag(TAG_EVENT, event.key).items():
            if status != "NOT_STARTED":
                return run_id
            self._dagster.delete(run_id)
        return None

    def _ensure_loaded(self, launch: Launch) -> None:
        """Dagster must have loaded this very structure under the job's name before it runs it."""
        wanted = launch.info.structure_hash
        if self._loaded.get(launch.job) == wanted:
            return
        if self._structure_of(launch.job) != wanted:
            self._dagster.reload()
            if self._structure_of(launch.job) != wanted:
                raise NotDelivered(f"Dagster has not loaded the pipeline of {launch.info.project} yet")
        self._loaded[launch.job] = wanted

    def _structure_of(self, job: str) -> str | None:
        try:
            return self._dagster.job_tags(job).get(TAG_STRUCTURE)
        except NotFoundError:
            return None
