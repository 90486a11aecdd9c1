"""A thread that looks for work, at once when it is woken and now and then anyway, and outlives what goes wrong."""

import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa

_log = logging.getLogger(__name__)


class Rounds:
    """
    Calls `work` again and again; it returns how much it found, and is called again at once while it finds some.

    name: of the thread. every_s: seconds between two looks when nobody wakes it.
    """

    def __init__(self, name: str, work: Callable[[], int], *, every_s: float = 2.0) -> None:
        self._name, self._work, self._every_s = name, work, every_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with what was left over."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end: work that takes long asks in between."""
        return self._stop.is_set()

    def stop(self, limit_s: float = 10.0) -> None:
        """Finish what is in hand and end."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=limit_s)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                while not self._stop.is_set() and self._work():
                    continue
            except sa.exc.OperationalError as error:
                _log.warning("%s: the database is away: %s", self._name, str(error.orig).splitlines()[0])
            except Exception:  # noqa: BLE001 - the boundary: a defect that one thing meets keeps no other waiting
                _log.exception("%s goes on", self._name)
            self._wake.wait(self._every_s)
