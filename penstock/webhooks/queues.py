"""
Queues that forges' events come through: EventBridge → SQS → here.

What is in our own queue is believed: only those may write to it whom its policy names, and it is read with our own key
over TLS. A message is deleted when it is on disk and not before, so that a kill at any moment loses nothing; one that
comes again is known by its id.
"""

import logging
import threading
from collections.abc import Callable

import attrs
import sqlalchemy as sa

from penstock.answers.connections import forge_access
from penstock.errors import AccessError, PenstockError
from penstock.forges import aws_codecommit
from penstock.forges.clients import Link
from penstock.forges.clients.sqs import Queue
from penstock.rounds import Rounds
from penstock.vault import Vault
from penstock.webhooks.deliveries import store
from penstock.webhooks.hooks import Hook, list_hooks, note_queue
from penstock.webhooks.intake import read_delivery

_log = logging.getLogger(__name__)
LOOK_EVERY_S, STOP_LIMIT_S = 5.0, 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 600.0


@attrs.frozen
class Room:
    """What reading needs. told: called when there are new deliveries. vault: opened when it is needed."""

    database: sa.Engine
    vault: Callable[[], Vault]
    link: Link
    told: Callable[[], None]

    def open(self, hook: Hook) -> Queue:
        """
        The queue of a hook, with the project's key.

        Raises: AccessError without a key, InputError for one that is none, PlatformError when the vault is away.
        """
        access = forge_access(self.database, self.vault(), hook.project, hook.forge)
        if access is None:
            remedy = f"give it one: penstock project edit {hook.project} --token-file FILE"
            raise AccessError("the project has no AWS key", where=aws_codecommit.NAME, remedy=remedy)
        return Queue(str(hook.pins.queue_url), access[1], self.link)


def read_queue(room: Room, hook: Hook, queue: Queue, stopping: Callable[[], bool] = lambda: False) -> int:
    """
    Receive, store, delete. stopping: whether what was received is to be left where it is.

    Returns: how many messages were stored. Raises: ForgeAway, ForgeRefused, NotFoundError when the hook has gone
    meanwhile: then nothing is deleted.
    """
    messages = queue.receive()
    if stopping():
        return 0
    for message in messages:
        new, _ = read_delivery(hook, message.body, {})
        store(room.database, attrs.evolve(new, delivery_id=message.id))
    if messages:
        room.told()
        queue.delete(messages)
    return len(messages)


class _Reader(threading.Thread):
    """One queue's thread. It waits at the forge, so it is not waited for at the end: what it held comes again."""

    def __init__(self, room: Room, hook: Hook) -> None:
        super().__init__(name=f"queue of {hook.project}", daemon=True)
        self._room, self._hook, self._stop_asked = room, hook, threading.Event()
        self._failures, self._noted = 0, True  # perhaps by the process before this one

    def ask_to_stop(self) -> None:
        """It stores nothing that it receives from now on."""
        self._stop_asked.set()

    def run(self) -> None:
        """Read until it is asked to stop, less and less often while that fails."""
        while not self._stop_asked.is_set():
            try:
                self._read()
            except (PenstockError, sa.exc.SQLAlchemyError) as error:
                self._note(str(error) if isinstance(error, PenstockError) else "the database is away")
                self._stop_asked.wait(min(_FIRST_PAUSE_S * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE_S))
                self._failures += 1

    def _read(self) -> None:
        queue = self._room.open(self._hook)
        try:
            while not self._stop_asked.is_set():
                read_queue(self._room, self._hook, queue, self._stop_asked.is_set)
                self._failures = 0
                if self._noted:
                    note_queue(self._room.database, self._hook.id, None)
                    self._noted = False
        finally:
            queue.close()

    def _note(self, reason: str) -> None:
        _log.warning("the queue of %s cannot be read: %s", self._hook.project, reason)
        self._noted = True
        try:
            note_queue(self._room.database, self._hook.id, reason)
        except sa.exc.SQLAlchemyError as error:
            _log.warning("nor can that be noted: %s", type(error).__name__)


class QueueReaders:
    """A reader for each hook that has a queue; they come and go with their hooks."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._readers: dict[str, _Reader] = {}
        self._rounds = Rounds("queues", self._look, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        """Begin."""
        self._rounds.start()

    def stop(self) -> None:
        """Nothing more is received."""
        self._rounds.stop()
        for reader in self._readers.values():
            reader.ask_to_stop()
        for reader in self._readers.values():
            reader.join(STOP_LIMIT_S)

    def _look(self) -> int:
        wanted = {hook.id: hook for hook in list_hooks(self._room.database) if hook.pins.queue_url}
        for name, reader in list(self._readers.items()):
            if name not in wanted:
                reader.ask_to_stop()
                del self._readers[name]
            elif not reader.is_alive():
                del self._readers[name]
        for name, hook in wanted.items():
            if name not in self._readers:
                self._readers[name] = _Reader(self._room, hook)
                self._readers[name].start()
        return 0
