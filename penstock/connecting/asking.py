"""Asking forges: with a token over the wire that all clients share, without one to find out what answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import httpx

from penstock.connecting.detect import Answer, Place
from penstock.errors import PenstockError
from penstock.forges.clients import Link
from penstock.forges.clients.wire import Wire
from penstock.settings import Settings
from penstock.webhooks.addresses import allowed_hosts
from penstock.webhooks.guarded import guarded_client

_LARGEST_PROBE_BYTES = 1024**2
_PROBE_S = 5.0
Headers = Mapping[str, str] | Callable[[str, str, bytes], Mapping[str, str]]
"""What proves who asks: always the same, or by method, address and body."""


@attrs.frozen
class ForgeApi:
    """One repository's forge, asked with one token."""

    forge: str
    repository: str
    wire: Wire = attrs.field(repr=False)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """
        path: below the API's base. body: sent as JSON.

        Raises: ForgeRefused where the token may not or there is nothing, ForgeAway when it is worth trying again.
        """
        sent = b"" if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        reply = self.wire.ask(method, path, sent, headers)
        return Answer(reply.status, dict(reply.headers), _json(reply.body))


def open_api(place: Place, headers: Headers, token: str, link: Link) -> ForgeApi | None:
    """None where the place is at no forge with an API."""
    if not place.api_url or not place.repository:
        return None
    secrets = (token, token.partition(":")[2], *(() if callable(headers) else headers.values()))
    return ForgeApi(place.forge, place.repository, Wire(place.api_url, headers, link, secrets=secrets))


def link_of(settings: Settings) -> Link:
    """Asks no host that only this machine can reach, unless the operator allows it."""
    return Link(allow_private=allowed_hosts(settings), timeout_s=20.0)


def probe(link: Link, url: str) -> Answer | None:
    """Without a token; None for a host that does not answer, must not be asked, or says too much."""
    try:
        with guarded_client(link.allow_private, timeout_s=_PROBE_S) as client:
            return _read(client, url)
    except (httpx.HTTPError, httpx.InvalidURL, PenstockError):
        return None


def _read(client: httpx.Client, url: str) -> Answer | None:
    with client.stream("GET", url, headers={"Accept": "application/json", "User-Agent": "penstock"}) as response:
        received = bytearray()
        for piece in response.iter_bytes():
            received += piece
            if len(received) > _LARGEST_PROBE_BYTES:
                return None
        return Answer(response.status_code, dict(response.headers), _json(bytes(received)))


def _json(received: bytes) -> Any:
    try:
        return json.loads(received)
    except (ValueError, RecursionError):
        return None
