"""What SNS asks of its subscribers: the certificate it signs with, and the confirmation of a subscription."""

import threading
import time
from collections.abc import Callable

import httpx

from penstock.errors import PlatformError
from penstock.webhooks.guarded import guarded_client

LARGEST_BYTES = 64 * 1024
KEPT_S, KEPT_COUNT = 24 * 3600.0, 16
Get = Callable[[str], bytes]


def get(url: str) -> bytes:
    """
    What is at an address of SNS's, which has been checked to be one.

    Raises: PlatformError when it does not answer, or not with 200 and a little.
    """
    try:
        with guarded_client(timeout_s=5.0) as client, client.stream("GET", url) as answer:
            said = b""
            for chunk in answer.iter_bytes():
                said += chunk
                if len(said) > LARGEST_BYTES:
                    raise PlatformError("SNS answers with more than it should", where="aws-codecommit")
    except httpx.HTTPError as error:
        raise PlatformError(f"SNS does not answer: {type(error).__name__}", where="aws-codecommit") from error
    if answer.status_code != 200:
        raise PlatformError(f"SNS answers {answer.status_code}", where="aws-codecommit")
    return said


class Certificates:
    """Certificates by address; kept for a day, so that a delivery need not wait for another server."""

    def __init__(self, fetch: Get = get, now_s: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._now_s, self._lock = fetch, now_s, threading.Lock()
        self._turns = threading.BoundedSemaphore(2)
        self._kept: dict[str, tuple[float, bytes]] = {}

    def __call__(self, url: str) -> bytes:
        """The PEM at an address. Raises: PlatformError."""
        with self._lock:
            kept = self._kept.get(url)
        if kept and self._now_s() - kept[0] < KEPT_S:
            return kept[1]
        # The address is a stranger's until the signature is checked: it shall not keep every thread waiting.
        if not self._turns.acquire(timeout=1.0):
            raise PlatformError("too many certificates are asked for", where="aws-codecommit", remedy="try again")
        try:
            found = self._fetch(url)
        finally:
            self._turns.release()
        with self._lock:
            if len(self._kept) >= KEPT_COUNT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[url] = (self._now_s(), found)
        return found
