"""Shows what the outbox holds: at once, and again until the forge has it."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from penstock.answers import outbox
from penstock.answers.connections import Connection, read_token
from penstock.answers.difference import Difference, read_difference
from penstock.answers.outbox import Item
from penstock.answers.texts import comment_text
from penstock.artifacts import ArtifactStore, open_store
from penstock.errors import AccessError, InputError, NotFoundError, PenstockError
from penstock.forges.clients import (
    Asset,
    Comment,
    ForgeAway,
    ForgeClient,
    ForgeRefused,
    Link,
    Shown,
    Status,
    open_client,
)
from penstock.forges.clients.wire import LONGEST_REST
from penstock.pipeline.log import utc_now
from penstock.rounds import Rounds
from penstock.settings import Settings
from penstock.sources.projects import get_project
from penstock.vault import Vault, open_vault
from penstock.warehouse.home import warehouse_location
from penstock.webhooks.addresses import allowed_hosts

_log = logging.getLogger(__name__)
LOOK_EVERY_S, TIDY_EVERY_S = 1.0, 3600.0
AT_ONCE = 4  # forges that are talked to at the same time
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 1800.0
_FOR_GOOD = (ForgeRefused, AccessError, InputError, NotFoundError)


def pause(failures: int, chance: float) -> timedelta:
    """2 s, 4 s, 8 s … half an hour, less up to a half by chance (0 to 1), so that not everybody comes back at once."""
    whole_s = min(_FIRST_PAUSE_S * 2.0 ** min(failures, 30), _LONGEST_PAUSE_S)
    return timedelta(seconds=whole_s * (1.0 - chance / 2.0))


def run_pages(settings: Settings) -> outbox.RunUrl:
    """Where people see a run: under PENSTOCK_PUBLIC_URL where that is set, else on this machine's dashboards."""
    base = (settings.public_url or settings.dashboards_url).rstrip("/")
    return lambda run_id: f"{base}/run?id={run_id}" if run_id else f"{base}/runs"


class Deliverer:
    """
    One thread, and a few more while it talks to forges; `wake` makes it look at once.

    opened: connection, token → client. clock: UTC. chance: 0 to 1.
    """

    def __init__(
        self,
        database: sa.Engine,
        settings: Settings,
        *,
        opened: Callable[[Connection, str], ForgeClient] | None = None,
        clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database, self._settings, self._clock, self._chance = database, settings, clock, chance
        link = Link(allowed_hosts(settings), clock=clock)
        self._opened = opened or (lambda of, secret: open_client(of.place, secret, link))
        self._clients: dict[str, tuple[tuple[object, ...], ForgeClient]] = {}
        self._pages = run_pages(settings)
        self._vault: Vault | None = None
        self._store: ArtifactStore | None = None
        self._tidied_s = 0.0
        self._rounds = Rounds("answers", self._look, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        """Begin, with what was left over."""
        self._rounds.start()

    def wake(self) -> None:
        """Something has changed."""
        self._rounds.wake()

    def stop(self) -> None:
        """Finish what is being told and end."""
        self._rounds.stop(limit_s=30)
        for _, client in self._clients.values():
            client.close()

    def _look(self) -> int:
        done = self.round()
        if not done:
            self._tidy()
        return done

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied_s >= TIDY_EVERY_S:
            self._tidied_s = time.monotonic()
            outbox.forget_old(self._database, self._clock())

    def round(self) -> int:
        """Find what has changed and tell what is due. Returns: how many answers were tried."""
        while outbox.look(self._database, self._pages, self._clock()) >= outbox.BATCH:
            continue
        due = outbox.claim(self._database, self._clock())
        if len(due) > 1:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="answers") as threads:
                return sum(threads.map(lambda pair: self._tell(*pair), due))
        return sum(self._tell(of, items) for of, items in due)

    def _tell(self, of: Connection, items: tuple[Item, ...]) -> int:
        """One forge, one answer after the other, until it wants a rest. Returns: how many were tried."""
        try:
            client = self._client(of)
        except PenstockError as error:
            return self._without_client(of, items, error)
        tried = 0
        for item in items:
            if self._rounds.stopping:
                break
            tried += 1
            if not self._told(of, client, item):
                break
        outbox.let_go(self._database, items[tried:])
        return tried

    def _client(self, of: Connection) -> ForgeClient:
        """Raises: whatever the vault raises, InputError for a secret that cannot be one of this forge."""
        if self._vault is None:
            self._vault = open_vault(self._settings)
        secret = read_token(self._database, self._vault, of)
        key, known = (of.place, secret), self._clients.get(of.project)
        if known and known[0] == key:
            return known[1]
        if known:
            known[1].close()
        made = self._opened(of, secret)
        self._clients[of.project] = (key, made)
        return made

    def _without_client(self, of: Connection, items: tuple[Item, ...], error: PenstockError) -> int:
        """No token: nothing can be told until there is one."""
        now = self._clock()
        outbox.rest(self._database, of.project, str(error), now + pause(of.failures, self._chance()), failed=True)
        outbox.let_go(self._database, items)
        return 0

    def _told(self, of: Connection, client: ForgeClient, item: Item) -> bool:
        """Tell one thing. Returns: whether the next one may be told."""
        now = self._clock()
        if item.is_too_old(now):
            outbox.refused(self._database, item, f"given up: {item.reason or 'nobody could tell it'}")
            return True
        try:
            shown = self._show(client, item)
        except ForgeAway as error:
            return self._away(of, item, error, now)
        except _FOR_GOOD as error:
            self._refused(of, item, error)
            return True
        except sa.exc.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: an answer nobody foresaw keeps no other waiting
            outbox.put_off(self._database, item, _told_of(error, of), now + pause(item.attempts, self._chance()))
            return True
        outbox.sent(self._database, item, shown.id, self._clock())
        return not self._rests(of, client)

    def _refused(self, of: Connection, item: Item, error: PenstockError) -> None:
        outbox.refused(self._database, item, str(error))
        if isinstance(error, ForgeRefused) and error.status in (203, 401, 403):
            outbox.note(self._database, of.project, str(error))

    def _rests(self, of: Connection, client: ForgeClient) -> bool:
        """Whether the forge wants a pause, although it did what was asked."""
        until = client.rest_until()
        if until:
            outbox.rest(self._database, of.project, f"{of.forge} asks for a pause", until, failed=False)
        return until is not None

    def _away(self, of: Connection, item: Item, error: ForgeAway, now: datetime) -> bool:
        """The forge is down or wants a rest: so do all answers to it, unless only this one is the matter."""
        if error.rest_s is not None:
            again_at = now + min(timedelta(seconds=min(max(error.rest_s, 1.0), 1e7)), LONGEST_REST)
        else:
            again_at = now + pause(item.attempts if error.alone else of.failures, self._chance())
        outbox.put_off(self._database, item, str(error), again_at)
        if error.alone:
            return True
        outbox.rest(self._database, of.project, str(error), again_at, failed=True)
        return False

    def _show(self, client: ForgeClient, item: Item) -> Shown:
        if item.kind == "comment":
            return self._comment(client, item)
        return client.attach(self._asset(item)) if item.kind == "asset" else client.show(_status(item), item.remote_id)

    def _comment(self, client: ForgeClient, item: Item) -> Shown:
        wanted = item.wanted
        target = wanted["target"] or get_project(self._database, item.project).default_branch
        found = self._difference(item.project, wanted["commit"], wanted["ref"], target)
        if not found.scanned and not item.remote_id:
            return Shown()  # nothing was scanned, and no earlier comment says otherwise
        text = comment_text(found, commit=wanted["commit"], target=target, url=wanted["url"])
        key = f"{item.project} {item.context}"
        return client.comment(Comment(int(item.target), key, text), item.remote_id)

    def _difference(self, project: str, commit: str, ref: str, target: str) -> Difference:
        location = warehouse_location(self._settings)
        return read_difference(location, project, commit, ref.removeprefix("refs/heads/"), target)

    def _asset(self, item: Item) -> Asset:
        if self._store is None:
            self._store = open_store(self._settings.artifacts_path)
        store, digest, size = self._store, item.wanted["digest"], int(item.wanted["size_bytes"])
        return Asset(item.target, item.wanted["name"], size, digest, lambda: store.read(digest))


def _told_of(error: Exception, of: Connection) -> str:
    """What is shown of an error that is not the forge's word: the warehouse is away, or an answer is not understood."""
    if isinstance(error, PenstockError):
        return str(error)
    _log.error("an answer of %s was not understood", of.forge, exc_info=error)
    return f"the answer of {of.forge} was not understood ({type(error).__name__})"


def _status(item: Item) -> Status:
    wanted: Mapping[str, Any] = item.wanted
    times = {name: _time(wanted[name]) for name in ("started_at", "finished_at")}
    return Status(commit=item.target, context=item.context, **{**wanted, **times})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
