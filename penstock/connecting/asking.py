"""A forge's API: addresses guarded, answers bounded, errors in one line that repeats no token."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import httpx

from penstock.connecting.detect import Answer
from penstock.errors import AccessError, NotFoundError, PenstockError, PlatformError
from penstock.settings import Settings
from penstock.webhooks.addresses import allowed_hosts, guarded_client

LARGEST_ANSWER_BYTES = 8 * 1024**2
_TIMEOUT_S, _PROBE_S = 20.0, 5.0


@attrs.frozen
class ForgeApi:
    """One repository's forge, asked with one token. headers: with the token in the forge's own way."""

    forge: str
    api_url: str
    repository: str
    client: httpx.Client = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """
        path: below the API's base, or a whole address at the same base.

        Raises: AccessError where the token may not, NotFoundError, PlatformError for all else.
        """
        url = path if path.startswith(self.api_url) else f"{self.api_url}{path}"
        try:
            answer = _ask(self.client, method, url, self.headers, body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = f"it does not answer: {type(error).__name__}"
            raise PlatformError(what, where=f"{self.forge} {_host(self.api_url)}", remedy="try again") from error
        if answer.status >= 300:
            raise self._refused(answer)
        return answer

    def _refused(self, answer: Answer) -> PenstockError:
        where = f"{self.forge} {self.repository}"
        told = f"HTTP {answer.status}{_message(answer.body)}"
        if answer.status == 401:
            return AccessError(f"the token is not believed ({told})", where=where, remedy="give one that is valid")
        if answer.status == 403:
            return AccessError(f"the token may not do that ({told})", where=where, remedy="give it the scopes it needs")
        if answer.status in (404, 410):
            what = f"there is no such thing, or the token may not see it ({told})"
            return NotFoundError(what, where=where, remedy="give the token access to the repository")
        return PlatformError(f"it answers {told}", where=where, remedy="try again later")


def open_client(settings: Settings) -> httpx.Client:
    """Asks no host that only this machine can reach, unless the operator allows it."""
    return guarded_client(allowed_hosts(settings), timeout_s=_TIMEOUT_S, headers={"User-Agent": "Penstock"})


def probe(client: httpx.Client, url: str) -> Answer | None:
    """Without a token; None for a host that does not answer or must not be asked."""
    try:
        return _ask(client, "GET", url, {"Accept": "application/json"}, timeout_s=_PROBE_S)
    except (httpx.HTTPError, httpx.InvalidURL, PenstockError):
        return None


def _ask(
    client: httpx.Client,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Any = None,
    timeout_s: float = _TIMEOUT_S,
) -> Answer:
    with client.stream(method, url, headers=dict(headers), json=body, timeout=timeout_s) as response:
        received = bytearray()
        for piece in response.iter_bytes():
            received += piece
            if len(received) > LARGEST_ANSWER_BYTES:
                raise PlatformError("the answer is too large", where=_host(url))
        told = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, told, _json(bytes(received)))


def _json(received: bytes) -> Any:
    try:
        return json.loads(received)
    except (ValueError, RecursionError):
        return None


def _message(body: Any) -> str:
    """What a forge says went wrong, in whichever of their ways."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    nested = error.get("message") if isinstance(error, dict) else error
    told = body.get("message") or nested
    if isinstance(errors := body.get("errors"), list) and errors and isinstance(errors[0], dict):
        told = told or errors[0].get("message")
    text = "".join(c if c.isprintable() else " " for c in str(told or ""))
    return f": {text[:200]}" if text else ""


def _host(url: str) -> str:
    return httpx.URL(url).host
