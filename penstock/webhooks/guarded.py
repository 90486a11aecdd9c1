"""A client for addresses that users configure: each connection goes to the very address that was checked."""

import ssl
from typing import Any

import httpcore
import httpx

from penstock.webhooks.addresses import Allowed, check_host


class _Guard(httpcore.SyncBackend):
    """Connects to the address that was checked, not to whatever the name leads to a moment later."""

    def __init__(self, allow_private: Allowed) -> None:
        self._allow_private = allow_private

    def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return super().connect_tcp(check_host(host, port, self._allow_private)[0], port, *args, **options)


def guarded_client(allow_private: Allowed = False, *, timeout_s: float = 10.0, **options: Any) -> httpx.Client:
    """
    A client for addresses that users configure: every connection is checked, redirects are not followed.

    Its requests raise AccessError for a host that must not be asked. options: of httpx.Client.
    """
    transport = httpx.HTTPTransport()
    # httpx has no word for it; httpcore's own pool takes a network backend.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=ssl.create_default_context(), network_backend=_Guard(allow_private)
    )
    return httpx.Client(transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False, **options)
