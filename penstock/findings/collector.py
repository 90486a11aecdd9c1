"""The cyclic garbage collector, held off while many small values without cycles are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """
    Without the cyclic garbage collector for some milliseconds.

    A block is thousands of lists and dicts without a cycle among them; looking for one takes a quarter of the
    time. Threads that do this at once only let the collector run sooner than they meant.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
