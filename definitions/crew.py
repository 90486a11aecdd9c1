"""
The threads that a run's steps work in, under one cancel token. Knows nothing of Dagster.

Every method but `_work` belongs to the thread that owns the crew.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

from penstock.pipeline.cancel import CancelToken, token_in_use

Event = TypeVar("Event")


@frozen
class Attempt(Generic[Event]):
    """One try of a step, over: its events in order, and what it raised beyond them."""

    step_key: str
    events: list[Event]
    error: BaseException | None


class Crew(Generic[Event]):
    """One daemon thread per running step: a step that ignores the token cannot keep the process alive."""

    def __init__(self, token: CancelToken) -> None:
        self.token = token
        self.running: set[str] = set()
        self._over: queue.SimpleQueue[Attempt[Event]] = queue.SimpleQueue()

    def start(self, step_key: str, work: Callable[[], Iterable[Event]]) -> None:
        """Begin `work` in a thread; what it yields and raises comes back from `over`."""
        self.running.add(step_key)
        threading.Thread(target=self._work, args=(step_key, work), name=step_key, daemon=True).start()

    def over(self, timeout_s: float) -> list[Attempt[Event]]:
        """Attempts that ended since the last call: waits up to `timeout_s` for the first, may be empty."""
        attempts: list[Attempt[Event]] = []
        try:
            attempts.append(self._over.get(timeout=max(timeout_s, 0.001)))
            while True:
                attempts.append(self._over.get_nowait())
        except queue.Empty:
            self.running.difference_update(attempt.step_key for attempt in attempts)
            return attempts

    def stop(self, reason: str, limit_s: float) -> Iterator[Attempt[Event]]:
        """Set the token; yields the attempts that end within `limit_s`. The rest stays in `running`."""
        # From a thread of its own: the callbacks stop containers, one after the other, and may block.
        threading.Thread(target=self.token.cancel, args=(reason,), name="cancel", daemon=True).start()
        deadline = time.monotonic() + limit_s
        while self.running and time.monotonic() < deadline:
            yield from self.over(0.05)

    def _work(self, step_key: str, work: Callable[[], Iterable[Event]]) -> None:
        events: list[Event] = []
        error: BaseException | None = None
        try:
            with token_in_use(self.token):
                events.extend(work())
        except BaseException as raised:  # noqa: BLE001 - the owner's thread gets it, whatever it is
            error = raised
        self._over.put(Attempt(step_key, events, error))
