"""Turns deliveries that are on disk into events: at once, and again after whatever came between."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from penstock.errors import AccessError, InputError, NotFoundError, PenstockError
from penstock.events import inbox
from penstock.forges import aws_codecommit, sns
from penstock.forges.event import GitEvent, Parsed
from penstock.forges.registry import FORGES
from penstock.rounds import Rounds
from penstock.state.tables import hooks as hooks_table
from penstock.webhooks import deliveries
from penstock.webhooks.deliveries import Claimed, State
from penstock.webhooks.hooks import Hook, hook_of, is_of
from penstock.webhooks.meaning import Outcome, take_in
from penstock.webhooks.rereading import UNSIGNED, Reread
from penstock.webhooks.sns import Get, get

_log = logging.getLogger(__name__)
LOOK_EVERY_S, TIDY_EVERY_S = 2.0, 3600.0
BATCH = 20
MOST_ATTEMPTS, MOST_REREADS = 12, 200  # the latter for a forge that is away: more than a day
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 600.0


@attrs.frozen
class _Work:
    """A delivery as it was understood: its events, or the state and reason that it ends with."""

    claimed: Claimed
    hook: Hook
    parsed: Sequence[Parsed] = ()
    ends: tuple[State, str] | None = None


class Processor:
    """
    One thread; `wake` makes it look at once.

    told: called when there are new events. confirm: gets an address of SNS's. tidy: called every few seconds.
    reread: makes it work on what nobody signed, and on nothing else: it waits for a forge, the others wait for nobody.
    """

    def __init__(
        self,
        database: sa.Engine,
        told: Callable[[], None],
        *,
        confirm: Get = get,
        tidy: Callable[[], None] = lambda: None,
        reread: Reread | None = None,
    ) -> None:
        self._database, self._told, self._confirm, self._tidy = database, told, confirm, tidy
        self._reread = reread
        self._tidied_s = 0.0
        name = "unsigned deliveries" if reread else "deliveries"
        self._rounds = Rounds(name, self._look, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        """Begin, with what was left over."""
        self._rounds.start()

    def wake(self) -> None:
        """There is something new."""
        self._rounds.wake()

    def stop(self) -> None:
        """Finish the deliveries in hand and end."""
        self._rounds.stop()

    def _look(self) -> int:
        done = self.round()
        if not done:
            self._tidy_up()
        return done

    def _tidy_up(self) -> None:
        self._tidy()
        if time.monotonic() - self._tidied_s >= TIDY_EVERY_S:
            self._tidied_s = time.monotonic()
            deliveries.forget_old(self._database)

    def round(self) -> int:
        """Work on what is waiting. Returns: how many deliveries there were."""
        if self._reread:
            return self._one_by_one()
        try:
            return self._together(BATCH)
        except sa.exc.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others go on
            _log.info("one by one, because of %s: %s", type(error).__name__, error)
        return self._one_by_one()

    def _together(self, limit: int) -> int:
        """Several in one transaction: all of what they say is in the inbox, or nothing and they are still waiting."""
        with self._database.begin() as connection:
            work = [self._understood(connection, claimed) for claimed in self._claim(connection, limit)]
            refs = [(one.hook.project, e.ref) for one in work for e in one.parsed if isinstance(e, GitEvent)]
            inbox.lock_refs(connection, refs)
            new = [_taken_in(connection, one) for one in work]
        if any(new):
            self._told()
        return len(new)

    def _claim(self, connection: sa.Connection, limit: int) -> tuple[Claimed, ...]:
        if self._reread:
            return deliveries.claim(connection, limit, of=UNSIGNED)
        return deliveries.claim(connection, limit, not_of=UNSIGNED)

    def _one_by_one(self) -> int:
        """The next one alone, put off when it cannot be done."""
        with self._database.begin() as connection:
            waiting = self._claim(connection, 1)
        if not waiting:
            return 0
        (first,) = waiting
        try:
            return self._together(1)
        except sa.exc.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: one that is wrong is put off
            told = str(error) if isinstance(error, PenstockError) else f"defect: {type(error).__name__}"
            if not isinstance(error, PenstockError):
                _log.exception("delivery %d", first.id)
            self._put_off(first, told)
        return 1

    def _put_off(self, claimed: Claimed, reason: str) -> None:
        if claimed.attempts + 1 < (MOST_REREADS if self._reread else MOST_ATTEMPTS):
            pause_s = min(_FIRST_PAUSE_S * 2.0**claimed.attempts, _LONGEST_PAUSE_S)
            deliveries.put_off(self._database, claimed.id, reason, pause_s)
            return
        with self._database.begin() as connection:
            deliveries.finish(connection, claimed.id, "rejected", f"given up: {reason}", ())

    def _understood(self, connection: sa.Connection, claimed: Claimed) -> _Work:
        """Raises: PlatformError when SNS cannot be asked just now."""
        row = connection.execute(sa.select(hooks_table).where(hooks_table.c.id == claimed.hook)).mappings().one()
        hook = hook_of(row)
        try:
            if ends := self._subscription(hook, claimed):
                return _Work(claimed, hook, ends=ends)
            parsed = self._parsed(hook, claimed)
        except (InputError, AccessError, NotFoundError) as error:
            return _Work(claimed, hook, ends=("rejected", str(error)))
        strangers = [e for e in parsed if isinstance(e, GitEvent) and not is_of(hook, e.repository)]
        if strangers:
            what = f"the delivery is of {strangers[0].repository}, the hook of {hook.repository}"
            return _Work(claimed, hook, ends=("rejected", f"{what}; make a hook for it, with --repository"))
        return _Work(claimed, hook, parsed)

    def _parsed(self, hook: Hook, claimed: Claimed) -> Sequence[Parsed]:
        if self._reread:
            return self._reread(hook.project, claimed.body)
        return FORGES[hook.forge].parse_all(claimed.body, claimed.headers, None)

    def _subscription(self, hook: Hook, claimed: Claimed) -> tuple[State, str] | None:
        """Confirm a subscription to the pinned topic; None when the delivery is something else."""
        if hook.forge != aws_codecommit.NAME or not hook.pins.topic_arn:
            return None
        url = sns.confirmation_url(hook.forge, claimed.body, hook.pins.topic_arn)
        if url is None:
            return None
        self._confirm(url)
        return "done", f"the subscription to {hook.pins.topic_arn} is confirmed"


def _taken_in(connection: sa.Connection, work: _Work) -> bool:
    """Returns: whether there is something to start."""
    claimed = work.claimed
    if work.ends:
        deliveries.finish(connection, claimed.id, *work.ends, ())
        return False
    again = f"again-{claimed.id}-{claimed.replays}" if claimed.replays else ""
    outcomes = [take_in(connection, work.hook.project, parsed, again=again) for parsed in work.parsed]
    state, reason = _ended(outcomes)
    deliveries.finish(connection, claimed.id, state, reason, [_values(outcome) for outcome in outcomes])
    return any(outcome.became == "accepted" for outcome in outcomes)


def _ended(outcomes: Sequence[Outcome]) -> tuple[State, str | None]:
    """The best of what became of a delivery's events is what became of the delivery."""
    became = {outcome.became for outcome in outcomes}
    reason = next((outcome.reason for outcome in outcomes if outcome.reason), None)
    if became & {"accepted", "known", "removed"}:
        return "done", reason
    return ("rejected", reason) if "refused" in became else ("ignored", reason)


def _values(outcome: Outcome) -> Mapping[str, Any]:
    return {name: value for name, value in attrs.asdict(outcome).items() if value is not None}
