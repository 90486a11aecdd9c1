"""Pushes an image by the engine, and then asks the registry itself what it holds."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from penstock.engines.docker_server import Server
from penstock.errors import PlatformError, StepFailure
from penstock.images.logins import Account, Credentials
from penstock.images.names import ImageName, auth_address
from penstock.images.registries import Registry, registry_http
from penstock.images.stopping import Limit
from penstock.images.talk import FULL_DISK, Call, Message, messages, told_plainly
from penstock.images.tokens import credentials_for

PAUSES_S = (1.0, 4.0)  # between three attempts; the engine itself has tried each layer five times by then
SAY_EVERY_S = 5.0
_REFUSED = re.compile(
    r"unauthorized|no basic auth credentials|authentication required|access.*denied|denied:|forbidden|\b40[13]\b", re.I
)
_AWAY = re.compile(
    r"connection refused|connection reset|broken pipe|no such host|i/o timeout|timed? ?out|no route to host|EOF\b"
    r"|network is unreachable|TLS handshake|temporarily unavailable|status: 5\d\d|\b50[0234]\b"
    r"|server misbehaving|closed network connection|too ?many ?requests|deadline exceeded|server gave HTTP response",
    re.I,
)
_DONE = ("Pushed", "Layer already exists")

Say = Callable[[str], None]


@attrs.frozen
class Pushed:
    """What a registry now holds. digest: of the manifest. reference: `repository@digest`."""

    name: ImageName
    digest: str

    @property
    def reference(self) -> str:
        """The one name that never means anything else."""
        return self.name.pinned(self.digest)


@attrs.frozen
class Push:
    """
    What goes where. image: a local name or id. targets: each has a tag.

    account: who logs in, None for nobody. insecure: whether plain HTTP will do for asking what the registry holds.
    """

    image: str
    targets: tuple[ImageName, ...]
    account: Account | None = None
    insecure: bool = False


def push_image(push: Push, server: Server, say: Say, limit: Limit) -> tuple[Pushed, ...]:
    """
    Push to every target and verify each.

    Returns: in the order of the targets.
    Raises: StepFailure when a registry refuses, or holds something else than what was pushed; PlatformError when it
    does not answer after three attempts.
    """
    pusher = _Pusher(push, server, say, limit)
    return tuple(pusher.until_it_answers(target) for target in push.targets)


@attrs.frozen
class _Pusher:
    push: Push
    server: Server
    say: Say
    limit: Limit

    def until_it_answers(self, target: ImageName) -> Pushed:
        for number, pause_s in enumerate(PAUSES_S, start=1):
            try:
                return self._once(target)
            except PlatformError as error:
                self.say(f"attempt {number} of {len(PAUSES_S) + 1}: {error}")
                self.limit.wait(pause_s)
        return self._once(target)

    def _once(self, target: ImageName) -> Pushed:
        self.limit.check()
        push = self.push
        with registry_http(target.registry) as http:
            credentials = credentials_for(push.account, target.registry, http) if push.account else None
            self._tag(target)
            self.say(f"pushing {target}")
            digest = self._engine_pushes(target, credentials)
            held = Registry(http, credentials, insecure=push.insecure).manifest_digest(target, target.tag or digest)
        if held != digest:
            raise StepFailure(
                f"{target} is {held} in the registry, but {digest} was pushed",
                where=target.registry,
                remedy="see who else pushes this tag, or what stands between here and the registry; then push again",
            )
        self.say(f"pushed and verified: {target.pinned(digest)}")
        return Pushed(target, digest)

    def _tag(self, target: ImageName) -> None:
        if self.push.image != str(target):
            with told_plainly(self.server.host):
                self.server.client.api.tag(self.push.image, target.untagged, target.tag, force=True)

    def _engine_pushes(self, target: ImageName, credentials: Credentials | None) -> str:
        """Returns: the digest that the engine says it pushed."""
        headers = {"X-Registry-Auth": auth_header(target, credentials)}
        params = {"tag": target.tag}
        if self.server.podman and (target.loopback or self.push.insecure):
            params["tlsVerify"] = "false"  # Docker needs no telling for loopback, and knows the others by its own file
        call = Call(f"/images/{target.untagged}/push", params, headers)
        with messages(self.server, call, self.limit) as answer:
            digest = _digest_of(_followed(answer, target, self.say))
        if digest is None:
            raise PlatformError("the engine ended the push without a digest", where=target.registry)
        return digest


def auth_header(target: ImageName, credentials: Credentials | None) -> str:
    """The login for one call of the engine's, in its own form."""
    from docker.auth import encode_header

    if credentials is None:
        return str(encode_header({}).decode())  # an engine wants the header, be it empty
    login = {"username": credentials.username, "password": credentials.password}
    login["serveraddress"] = auth_address(target.registry)
    return str(encode_header(login).decode())


def _followed(answer: Iterable[Message], target: ImageName, say: Say) -> Iterable[Message]:
    """Pass the messages on and tell how far it is: once per layer, and every five seconds in between."""
    told = _Progress(say)
    for message in answer:
        if text := message.get("error"):
            raise failed_push(str(text), target)
        told.take(message)
        yield message


def failed_push(text: str, target: ImageName) -> StepFailure | PlatformError:
    """What the engine said of a push that failed, as the error that it is."""
    where = target.registry
    if _REFUSED.search(text):
        remedy = "check username and password_secret, and that the account may write there"
        return StepFailure(f"refused the push of {target.path}: {text}", where=where, remedy=remedy)
    if away_in(text) or FULL_DISK in text:
        return PlatformError(f"the registry does not answer: {text}", where=where, remedy="run the step again later")
    return StepFailure(f"the push of {target.path} failed: {text}", where=where)


def away_in(text: str) -> bool:
    """Whether an engine's words say that a registry, or what leads to it, is away."""
    return _AWAY.search(text) is not None


def _digest_of(answer: Iterable[Message]) -> str | None:
    found = None
    for message in answer:
        aux: Mapping[str, Any] = message.get("aux") or {}
        found = aux.get("Digest") or _digest_in(str(message.get("status", ""))) or found
    return found


def _digest_in(status: str) -> str | None:
    """Podman says `latest: digest: sha256:… size: 527` as Docker does, but has no aux."""
    match = re.search(r"digest: (sha256:[0-9a-f]{64})", status)
    return match[1] if match else None


@attrs.define
class _Progress:
    """Bounded: a line per layer that is there, and one every five seconds."""

    say: Say
    layers: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    done: set[str] = attrs.field(factory=set)
    said_at: float = attrs.field(factory=time.monotonic)

    def take(self, message: Message) -> None:
        layer, status = str(message.get("id", "")), str(message.get("status", ""))
        if not layer:
            return
        if status.startswith((*_DONE, "Mounted from")) and layer not in self.done:
            self.done.add(layer)
            self.say(f"{layer}: {status.lower()}")
        detail: Mapping[str, Any] = message.get("progressDetail") or {}
        self.layers[layer] = (int(detail.get("current") or 0), int(detail.get("total") or 0))
        self._sometimes()

    def _sometimes(self) -> None:
        if time.monotonic() - self.said_at < SAY_EVERY_S:
            return
        self.said_at = time.monotonic()
        sent, total = (sum(sizes) / 1e6 for sizes in zip(*self.layers.values(), strict=True))
        self.say(f"{len(self.done)} of {len(self.layers)} layers are there; {sent:.1f} of {total:.1f} MB on their way")
