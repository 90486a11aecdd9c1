"""The rules of every talk with a forge: whom to ask, how long, how much, when to rest, and which failures pass."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import attrs

from penstock.errors import AccessError, InputError, PlatformError
from penstock.forges.clients.values import Asset, Shown
from penstock.webhooks.addresses import Allowed, check_address
from penstock.webhooks.guarded import guarded_client

if TYPE_CHECKING:
    import httpx

    from penstock.forges.clients import Link

LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
LONGEST_REST = timedelta(hours=24)
_LIMITED_REST_S = 60.0  # GitHub asks for at least a minute where it names no time
_MOST_REDIRECTS = 3
_LONGEST_ANSWER_S = 60.0
_Headers = Callable[[str, str, bytes], Mapping[str, str]]


class ForgeAway(PlatformError):
    """
    The forge cannot do it now. rest_s: how long it wants to be left alone, if it said so.

    alone: it concerns this one request; others may go on.
    """

    def __init__(self, what: str, *, where: str, rest_s: float | None = None, alone: bool = False) -> None:
        super().__init__(what, where=where)
        self.rest_s, self.alone = rest_s, alone


class ForgeRefused(AccessError):
    """The forge will not do it, however often it is asked. status: its HTTP status."""

    def __init__(self, what: str, *, where: str, status: int, remedy: str | None = None) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status


@attrs.frozen
class Reply:
    """An answer, read whole."""

    url: str
    status: int
    headers: "httpx.Headers"
    body: bytes = attrs.field(repr=False)

    def value(self) -> Any:
        """Its JSON. Raises: ForgeAway when it is none: something else answered in the forge's place."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ForgeAway("the answer is no JSON", where=str(urlsplit(self.url).hostname)) from error


class Wire:
    """
    Requests to one forge.

    url: where its API begins. headers: method, address, body → what proves who asks; or the same headers always.
    secrets: what no message may show.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str] | _Headers, link: "Link", *, secrets: Iterable[str] = ()
    ) -> None:
        self.url, self._headers, self._link = url.rstrip("/"), headers, link
        self._secrets = tuple(filter(None, secrets))
        self._client: httpx.Client | None = None
        self._rest_until: datetime | None = None
        self.host = str(urlsplit(url).hostname)

    def rest_until(self) -> datetime | None:
        """Until when the forge wants no more requests, by its last answer."""
        return self._rest_until

    def close(self) -> None:
        """Close the connections; asking again opens them again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def get(self, path: str, **params: str | int) -> Any:
        """The JSON at a path below the API's address, or at a whole address of the same host."""
        return self.ask("GET", path, params=params).value()

    def send(self, method: str, path: str, body: Any) -> Any:
        """Send JSON. Returns: the answer's JSON; None when it is empty."""
        reply = self.ask(method, path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return reply.value() if reply.body.strip() else None

    def ask(
        self,
        method: str,
        path: str,
        body: "bytes | Iterator[bytes]" = b"",
        headers: Mapping[str, str] = {},
        *,
        params: Mapping[str, str | int] = {},
    ) -> Reply:
        """
        One request. body: bytes, or pieces of the length that the headers tell.

        Raises: ForgeAway, ForgeRefused.
        """
        url = self._address(path)
        for _ in range(_MOST_REDIRECTS + 1):
            reply = self._ask(method, url, body, headers, params)
            target = self._redirect(reply, method)
            if target is None:
                return self._accepted(reply)
            url, params = target, {}
        raise ForgeRefused("it redirects in circles", where=self.host, status=310)

    def _address(self, path: str) -> str:
        """Raises: ForgeRefused for an address of another host, where the token must not go."""
        url = path if path.startswith(("https://", "http://")) else f"{self.url}{path}"
        if _origin(url) != _origin(self.url):
            what = f"it sends us to {urlsplit(url).hostname}, where its token must not go"
            raise ForgeRefused(
                what, where=self.host, status=310, remedy="connect the project to the forge's new address"
            )
        return url

    def _redirect(self, reply: Reply, method: str) -> str | None:
        moved = reply.status in (307, 308) or (reply.status in (301, 302, 303) and method == "GET")
        if not moved or "location" not in reply.headers:
            return None
        return self._address(urljoin(reply.url, reply.headers["location"]))

    def _ask(
        self,
        method: str,
        url: str,
        body: "bytes | Iterator[bytes]",
        headers: Mapping[str, str],
        params: Mapping[str, str | int],
    ) -> Reply:
        with self._told():
            reply = self._exchange(method, url, body, headers, params)
        return reply  # noqa: RET504 - for mypy, which cannot know that _told lets no error pass

    def _exchange(
        self,
        method: str,
        url: str,
        body: "bytes | Iterator[bytes]",
        headers: Mapping[str, str],
        params: Mapping[str, str | int],
    ) -> Reply:
        client = self._opened()
        named = {"User-Agent": "penstock", **headers}
        request = client.build_request(method, url, headers=named, params=dict(params) or None, content=body or None)
        request.headers.update(self._proof(method, str(request.url), body if isinstance(body, bytes) else b""))
        reply = client.send(request, stream=True)
        try:
            return Reply(str(request.url), reply.status_code, reply.headers, self._read(reply))
        finally:
            reply.close()

    def _opened(self) -> "httpx.Client":
        if self._client is None:
            self._client = guarded_client(self._link.allow_private, timeout_s=self._link.timeout_s)
        return self._client

    def _proof(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        return self._headers(method, url, body) if callable(self._headers) else self._headers

    def _read(self, reply: "httpx.Response") -> bytes:
        """All of it, unless it is too much or too slow."""
        until_s = time.monotonic() + _LONGEST_ANSWER_S
        read = bytearray()
        for piece in reply.iter_bytes():
            read += piece
            if len(read) > LARGEST_ANSWER_BYTES or time.monotonic() > until_s:
                raise ForgeAway("its answer does not end", where=self.host, alone=True)
        return bytes(read)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What may go wrong on the way, as errors of ours."""
        import httpx

        try:
            yield
        except (ForgeAway, ForgeRefused):
            raise
        except AccessError as error:
            raise ForgeRefused(error.what, where=error.where or self.host, status=0, remedy=error.remedy) from error
        except PlatformError as error:
            raise ForgeAway(error.what, where=self.host) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            told = self._redacted(str(error)) or type(error).__name__
            raise ForgeAway(f"it does not answer: {told}", where=self.host) from error

    def _accepted(self, reply: Reply) -> Reply:
        """Raises: ForgeAway, ForgeRefused for what is no success."""
        now = self._link.clock()
        self._rest_until = _until(now, _rest_s(reply, now)) if _is_spent(reply) else None
        if 200 <= reply.status < 300 and reply.status != 203:
            return reply
        if _is_limited(reply):
            rest_s = max(_rest_s(reply, now) or _LIMITED_REST_S, 1.0)
            raise ForgeAway(f"it asks us to wait {rest_s:.0f} s ({self._words(reply)})", where=self.host, rest_s=rest_s)
        if reply.status >= 500 or reply.status in (408, 409, 425):
            raise ForgeAway(self._words(reply), where=self.host, rest_s=_rest_s(reply, now), alone=reply.status == 409)
        raise ForgeRefused(self._words(reply), where=self.host, status=reply.status, remedy=_REMEDIES.get(reply.status))

    def _words(self, reply: Reply) -> str:
        """`404 Not Found`: the status and what the forge says of it, on one line and without secrets."""
        told = " ".join(self._redacted(_message(reply.body)).split())
        return f"{reply.status} {told}".strip()[:300]

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return "".join(c if c.isprintable() else " " for c in text)


class OnWire:
    """What clients share: they talk over one wire, and most forges have no releases."""

    _wire: Wire

    def attach(self, _asset: Asset) -> Shown:
        """Raises: ForgeRefused, since there is nothing to attach a file to."""
        raise ForgeRefused("this forge has no releases", where=self._wire.host, status=0)

    def rest_until(self) -> datetime | None:
        """Until when the forge wants to be left alone, although it did what was asked."""
        return self._wire.rest_until()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()


def change_or_write(known: str | None, change: Callable[[str], object], write: Callable[[], str]) -> Shown:
    """
    Change what is known, or write it anew where that is gone or is somebody else's, who quotes ours.

    Raises: ForgeAway, ForgeRefused.
    """
    if known:
        try:
            change(known)
        except ForgeRefused as error:
            if error.status not in (403, 404, 410):
                raise
        else:
            return Shown(known)
    return Shown(write())


_REMEDIES = {
    203: "give it a token that is valid",
    302: "give it a token that is valid",
    401: "give it a token that is valid: penstock project edit NAME --token-file FILE",
    403: "give the token the rights that docs/answers.md lists",
    404: "see that the repository's name is right, and that the token may see it",
}


def check_base(url: str, allow_private: Allowed) -> None:
    """
    Whether an API may be addressed so. Plain http carries the token for all to read: it must stay in a private network.

    Raises: InputError, AccessError; PlatformError when the name cannot be looked up.
    """
    check_address(url, allow_private)
    if urlsplit(url).query or urlsplit(url).fragment:
        raise InputError("the address has a query", where=url, remedy="leave it out")
    if url.startswith("https://"):
        return
    try:
        check_address(url)
    except AccessError:
        return
    raise InputError("http:// would send the token unencrypted", where=url, remedy="write https://")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _message(body: bytes) -> str:
    """What an error's body says, whatever the forge's form for it is."""
    text = body[:4000].decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except ValueError:
        return "" if "<" in text else text[:200]
    if isinstance(told, dict) and isinstance(told.get("__type"), str):  # AWS
        return f"{told['__type'].rpartition('#')[2]}: {told.get('message') or told.get('Message') or ''}"
    for name in ("message", "error", "errors", "Message", "error_description"):
        if isinstance(told, dict) and told.get(name):
            found = told[name]
            return found if isinstance(found, str) else _inner(found)
    return ""


def _inner(found: Any) -> str:
    first = found[0] if isinstance(found, list) else found
    if isinstance(first, dict) and isinstance(first.get("message"), str):
        return str(first["message"])
    return json.dumps(found, ensure_ascii=False)[:200]


_LIMIT_WORDS = re.compile(rb"rate limit|abuse detection|ThrottlingException|too many requests", re.IGNORECASE)


def _is_limited(reply: Reply) -> bool:
    """Whether it is not us but the number of our requests that is refused."""
    if reply.status == 429:
        return True
    if reply.status == 403:
        return "retry-after" in reply.headers or _is_spent(reply) or bool(_LIMIT_WORDS.search(reply.body))
    return reply.status == 400 and b"ThrottlingException" in reply.body


def _is_spent(reply: Reply) -> bool:
    """Whether no request is left, or a success asks for a pause (Azure DevOps does)."""
    left = reply.headers.get("x-ratelimit-remaining") or reply.headers.get("ratelimit-remaining")
    return left == "0" or (reply.status < 300 and "retry-after" in reply.headers)


def _rest_s(reply: Reply, now: datetime) -> float | None:
    """Seconds to rest, by Retry-After (seconds or a date), else by X-RateLimit-Reset (seconds since the epoch)."""
    if found := reply.headers.get("retry-after"):
        return _seconds(found, now)
    if not _is_spent(reply):
        return None
    reset = reply.headers.get("x-ratelimit-reset") or reply.headers.get("ratelimit-reset") or ""
    if not re.fullmatch(r"\d{1,12}(\.\d+)?", reset):
        return None
    told = float(reset)
    # GitLab and GitHub name the moment, some forges the seconds until then.
    return told - now.timestamp() if told > 1e9 else told


def _seconds(text: str, now: datetime) -> float | None:
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text.strip()):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _until(now: datetime, rest_s: float | None) -> datetime | None:
    """The end of a rest; one that is longer than a day is not believed."""
    if rest_s is None or rest_s <= 0:
        return None
    return now + min(timedelta(seconds=min(rest_s, 1e7)), LONGEST_REST)
