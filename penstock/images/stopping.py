"""Ends a piece of work that does not end by itself: its time is over, or its run was cancelled."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from penstock.errors import StepTimeout
from penstock.pipeline.cancel import CancelToken


@attrs.define
class Limit:
    """
    How long a step may still take, and the token that may end it sooner.

    seconds: the step's whole limit. It counts from the moment this is made.
    """

    seconds: float
    token: CancelToken
    _deadline: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    @property
    def left_s(self) -> float:
        """Seconds until the limit, 0 when it has passed."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises: Cancelled, or StepTimeout when the time is over."""
        self.token.raise_if_cancelled()
        if not self.left_s:
            raise StepTimeout(f"took longer than its limit of {self.seconds:.0f} s")

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the limit or a cancellation. Raises: as `check`."""
        self.token.wait(min(seconds, self.left_s))
        self.check()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """
        While the block runs, `stop` is called when the time is over or the run is cancelled: at once, from
        another thread, once or twice. What the block raises because of it becomes what `check` raises.
        """
        watch = threading.Timer(self.left_s + 0.01, stop)  # a little late: `check` must find the time over
        watch.daemon = True
        watch.start()
        try:
            with self.token.stopping(stop):
                yield
        except Exception:
            self.check()
            raise
        finally:
            watch.cancel()
        self.check()
