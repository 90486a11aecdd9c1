"""How fast one step may tell and ask."""

import threading
import time
from collections.abc import Callable

import attrs

from penstock.plugins.data.scope import Scope

MOST_KNOWN = 10_000


class TooFast(Exception):
    """A step tells or asks more than is taken of one. after_s: when to come again."""

    def __init__(self, after_s: float) -> None:
        super().__init__("too much at once")
        self.after_s = after_s


@attrs.define
class _Bucket:
    left: float
    at_s: float


class Rate:
    """
    So many at once and so many a second, of each scope, in this process. What something costs is known when it is done,
    so that a bucket may be overdrawn; the next one waits until it is not.
    """

    def __init__(self, per_s: float, burst: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now_s = per_s, burst, now_s
        self._guard = threading.Lock()
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}

    def check(self, scope: Scope) -> None:
        """Raises: TooFast while the scope's bucket holds less than one."""
        with self._guard:
            bucket = self._bucket(scope)
            if bucket.left < 1:
                raise TooFast((1 - bucket.left) / self._per_s)

    def charge(self, scope: Scope, cost: float) -> None:
        """Take `cost` out of the scope's bucket."""
        with self._guard:
            self._bucket(scope).left -= cost

    def _bucket(self, scope: Scope) -> _Bucket:
        key, now = (scope.run_id, scope.step, scope.plugin), self._now_s()
        if len(self._buckets) >= MOST_KNOWN and key not in self._buckets:
            full = [one for one, kept in self._buckets.items() if self._filled(kept, now) >= self._burst]
            for one in full:
                del self._buckets[one]
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
        bucket.left, bucket.at_s = self._filled(bucket, now), now
        return bucket

    def _filled(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.left + (now - bucket.at_s) * self._per_s)
