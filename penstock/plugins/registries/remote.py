"""
Another registry over HTTP: bounded in size and time, cached, and never asked where users may not reach.

What was asked within the last five minutes is answered from the cache; later the registry is asked whether it has
changed (ETag). When it does not answer, what it said before is shown as what it is: old.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import attrs
import httpx
import msgspec

from penstock.errors import AccessError, ConflictError, InputError, NotFoundError, PenstockError, PlatformError
from penstock.plugins.registries.package import chunks_of, write_checked
from penstock.plugins.registries.wire import (
    ANSWER_BYTES,
    Detail,
    Entry,
    Found,
    Page,
    Signature,
    Trouble,
    Versions,
    check_entry,
    check_name,
    check_version,
    newest_first,
    newest_of_each,
)
from penstock.webhooks.addresses import Allowed
from penstock.webhooks.guarded import guarded_client

FRESH_S = 300.0
T = TypeVar("T")


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was kept. asked_at: seconds since the epoch."""

    asked_at: float
    body: bytes
    etag: str | None = None


@attrs.frozen
class Answer:
    """What a registry said, and why it is old, if it is."""

    body: bytes
    trouble: Trouble | None = None


@attrs.frozen
class RemoteRegistry:
    """
    See `Registry`.

    url: its base address. cache: a folder of its own. allow_private: see `check_address`. token: for publishing.
    clock: seconds since the epoch.
    """

    name: str
    url: str
    cache: Path
    allow_private: Allowed = False
    token: str | None = attrs.field(default=None, repr=False)
    clock: Callable[[], float] = time.time
    ask_limit_s: float = 20.0
    fetch_limit_s: float = 300.0

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """Raises: PlatformError when it does not answer and never did."""
        answer = self._ask("plugins", {"q": text, **({"kind": kind} if kind else {})})
        entries = self._decoded(answer, Page).plugins
        return Found(newest_of_each(self._checked(entries)), (answer.trouble,) if answer.trouble else ())

    def versions(self, name: str) -> tuple[Entry, ...]:
        """See `Registry`."""
        answer = self._ask(f"plugins/{quote(check_name(name), safe='')}")
        return newest_first(self._checked(self._decoded(answer, Versions).versions, name=name))

    def get(self, name: str, version: str) -> Detail:
        """See `Registry`."""
        detail = self._decoded(self._ask(_path(name, version)), Detail)
        entry = self._checked((detail.entry,), name=name)[0]
        if entry.version != version:
            raise self._strange(f"asked for {version}, it told of {entry.version}")
        return msgspec.structs.replace(detail, entry=entry)

    def fetch(self, entry: Entry, into: Path) -> None:
        """See `Registry`."""
        deadline_s = time.monotonic() + self.fetch_limit_s
        try:
            with (
                self._client(self.fetch_limit_s) as client,
                client.stream("GET", self._address(f"{_path(entry.name, entry.version)}/package")) as answer,
            ):
                self._check_status(answer)
                write_checked(self._within(answer.iter_bytes(), deadline_s), entry.digest, into)
        except httpx.HTTPError as error:
            raise self._away(error) from error

    def publish(self, name: str, version: str, package: Path, signature: Signature | None) -> Entry:
        """
        Offer a package there. Returns: as it is listed now.

        Raises: AccessError without the right to, ConflictError when the version is there with other bytes.
        """
        headers = {"Content-Length": str(package.stat().st_size), "Content-Type": "application/x-tar"}
        if signature:
            headers["X-Penstock-Signature"] = f"{signature.key_id}:{signature.signature}"
        body = self._send("PUT", _path(name, version), content=chunks_of(package), headers=headers)
        return self._checked((self._decoded(Answer(body), Detail).entry,), name=name)[0]

    def yank(self, name: str, version: str, why: str) -> Entry:
        """Have nobody install it any more; who has it keeps it. An empty `why` takes that back."""
        body = self._send("POST", f"{_path(name, version)}/yank", json={"why": why})
        return self._checked((self._decoded(Answer(body), Detail).entry,), name=name)[0]

    def forget(self) -> None:
        """Drop what is cached."""
        for path in self.cache.glob("*.json"):
            path.unlink(missing_ok=True)

    def _ask(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        kept_at = self.cache / f"{hashlib.sha256(f'{path} {sorted((query or {}).items())}'.encode()).hexdigest()}.json"
        kept = _read_cached(kept_at)
        if kept and 0 <= self.clock() - kept.asked_at < FRESH_S:
            return Answer(kept.body)
        try:
            body, etag = self._asked(path, query, kept)
        except PlatformError as error:
            if kept is None:
                raise
            minutes = max(0, round((self.clock() - kept.asked_at) / 60))
            return Answer(
                kept.body, Trouble(self.name, f"{error.what}; this is what it said {minutes} min ago", stale=True)
            )
        except NotFoundError:
            kept_at.unlink(missing_ok=True)
            raise
        _write_cached(kept_at, Cached(asked_at=self.clock(), body=body, etag=etag))
        return Answer(body)

    def _asked(self, path: str, query: Mapping[str, str] | None, kept: Cached | None) -> tuple[bytes, str | None]:
        headers = {"If-None-Match": kept.etag} if kept and kept.etag else {}
        deadline_s = time.monotonic() + self.ask_limit_s
        try:
            with (
                self._client(self.ask_limit_s) as client,
                client.stream("GET", self._address(path), params=query, headers=headers) as answer,
            ):
                if answer.status_code == 304 and kept:
                    return kept.body, kept.etag
                self._check_status(answer)
                return self._bounded(answer, deadline_s), answer.headers.get("etag")
        except httpx.HTTPError as error:
            raise self._away(error) from error

    def _send(self, method: str, path: str, **options: object) -> bytes:
        deadline_s = time.monotonic() + self.fetch_limit_s
        try:
            with (
                self._client(self.fetch_limit_s) as client,
                client.stream(method, self._address(path), **options) as answer,  # type: ignore[arg-type]
            ):
                self._check_status(answer)
                body = self._bounded(answer, deadline_s)
        except httpx.HTTPError as error:
            raise self._away(error) from error
        self.forget()
        return body

    def _client(self, limit_s: float) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return guarded_client(self.allow_private, timeout_s=min(limit_s, 10.0), headers=headers)

    def _address(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/v1/{path}"

    def _bounded(self, answer: httpx.Response, deadline_s: float) -> bytes:
        body = bytearray()
        for chunk in self._within(answer.iter_bytes(), deadline_s):
            body += chunk
            if len(body) > ANSWER_BYTES:
                raise self._strange(f"its answer is larger than {ANSWER_BYTES} bytes")
        return bytes(body)

    def _within(self, chunks: Iterator[bytes], deadline_s: float) -> Iterator[bytes]:
        """A time limit for the whole; that of the client library begins anew at every byte."""
        for chunk in chunks:
            if time.monotonic() > deadline_s:
                raise PlatformError("it answers too slowly", where=f"registry {self.name}", remedy="try again later")
            yield chunk

    def _check_status(self, answer: httpx.Response) -> None:
        where, status = f"registry {self.name}", answer.status_code
        if status == 404:
            raise NotFoundError("it has no such plugin or version", where=where)
        if status in (401, 403):
            raise AccessError("it does not let us do that", where=where, remedy="give a token with `--token-file`")
        if status == 409:
            raise ConflictError("it has this version with other bytes", where=where, remedy="publish a new version")
        if status in (413, 422):
            said = next(answer.iter_bytes(400), b"").decode("utf-8", "replace")
            raise InputError(f"it refuses that: {said}", where=where)
        if status != 200:
            raise PlatformError(f"it answers {status}", where=where, remedy="try again later")

    def _decoded(self, answer: Answer, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._strange(f"its answer is not understood: {str(error)[:200]}") from error

    def _checked(self, entries: tuple[Entry, ...], name: str | None = None) -> tuple[Entry, ...]:
        try:
            known = tuple(check_entry(entry) for entry in entries)
        except InputError as error:
            raise self._strange(str(error)) from error
        if name and any(entry.name != name for entry in known):
            raise self._strange(f"asked for {name}, it told of another plugin")
        return tuple(msgspec.structs.replace(entry, source=self.name) for entry in known)

    def _strange(self, what: str) -> PenstockError:
        return PlatformError(what, where=f"registry {self.name}", remedy="tell who runs it")

    def _away(self, error: httpx.HTTPError) -> PlatformError:
        what = str(error).lower() or type(error).__name__
        return PlatformError(f"it does not answer: {what}", where=f"registry {self.name}", remedy="see that it runs")


def _path(name: str, version: str) -> str:
    return f"plugins/{quote(check_name(name), safe='')}/{quote(check_version(version), safe='')}"


def _read_cached(path: Path) -> Cached | None:
    """What was kept; a file that is broken counts as none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cached)
    except (OSError, msgspec.DecodeError):
        return None


def _write_cached(path: Path, cached: Cached) -> None:
    """Whole or not at all. A full disk costs the cache, not the answer."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(cached))
        Path(part).replace(path)
    except OSError:
        path.unlink(missing_ok=True)
