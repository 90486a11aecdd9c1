"""
One flag per run that everything started for it obeys.

The run's owner (the CLI, the Dagster executor) cancels; a step asks before it starts and registers
what must be stopped while it runs.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from penstock.errors import Cancelled


class CancelToken:
    """Set once, never unset. Callbacks run in the thread that cancels, newest first."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.reason = ""

    @property
    def cancelled(self) -> bool:
        """True once somebody cancelled."""
        return self._event.is_set()

    def cancel(self, reason: str) -> None:
        """Set the flag and stop what is registered. The first reason stays."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            callbacks = list(reversed(self._callbacks))
        with ExitStack() as stack:  # each is called, also when one before it raises
            for callback in reversed(callbacks):
                stack.callback(callback)

    def raise_if_cancelled(self) -> None:
        """Raises: Cancelled, with the reason."""
        if self.cancelled:
            raise Cancelled(self.reason)

    def wait(self, timeout_s: float) -> bool:
        """Sleep that ends early when the run is cancelled. Returns: whether it was."""
        return self._event.wait(timeout_s)

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """While the block runs, cancelling calls `stop` (at once if it is too late already)."""
        with self._lock:
            self._callbacks.append(stop)
            late = self._event.is_set()
        if late:
            stop()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(stop)


_current: ContextVar[CancelToken | None] = ContextVar("penstock_cancel_token", default=None)


def current_token() -> CancelToken:
    """The token of the run that this thread works for; a fresh one outside of a run."""
    return _current.get() or CancelToken()


@contextmanager
def token_in_use(token: CancelToken) -> Iterator[CancelToken]:
    """Make `token` the current one for this thread's context."""
    mark = _current.set(token)
    try:
        yield token
    finally:
        _current.reset(mark)
