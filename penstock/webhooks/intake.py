"""A delivery at the door: whose it is, whether it is genuine, whether it can be read; then it is on disk."""

import threading
import time
from collections.abc import Callable, Mapping

import attrs
import sqlalchemy as sa

from penstock.errors import AccessError, EventError, NotFoundError, PlatformError, SettingsError
from penstock.forges import azure_devops
from penstock.forges.registry import FORGES
from penstock.forges.verify import Trust
from penstock.vault import Vault
from penstock.webhooks.deliveries import NewDelivery, new_delivery, storable, store
from penstock.webhooks.hooks import HOOK_ID, VAULT_PROJECT, WITHOUT_SECRET, Hook, count_refused, get_hook
from penstock.webhooks.sns import Certificates

KNOWN_FOR_S = 5.0  # so long a hook that was removed, or a secret that was taken back, is still believed
LOOK_AGAIN_S = 1.0
RATE_PER_S, BURST = 200.0, 4000.0  # of believed deliveries of one hook
_MOST_KNOWN = 1000


@attrs.frozen
class Receipt:
    """What a forge is told. number: of the delivery; None when it is known already. refusal: why it cannot be read."""

    number: int | None
    refusal: EventError | None = None


class TooFast(Exception):
    """A hook tells more than is taken of one. after_s: when to come again."""

    def __init__(self, after_s: float) -> None:
        super().__init__("too many deliveries")
        self.after_s = after_s


@attrs.frozen
class _Known:
    hook: Hook
    trust: Trust
    since_s: float


@attrs.define
class _Bucket:
    """So many at once, and so many a second."""

    left: float = BURST
    at_s: float = 0.0

    def take(self, now_s: float) -> float:
        """Returns: 0, or the seconds until there is one."""
        self.left = min(BURST, self.left + (now_s - self.at_s) * RATE_PER_S) if self.at_s else BURST
        self.at_s = now_s
        if self.left < 1:
            return (1 - self.left) / RATE_PER_S
        self.left -= 1
        return 0.0


class Intake:
    """
    Receives deliveries. Safe with many threads.

    certificates: SNS's, by address. now_s: seconds since the epoch.
    """

    def __init__(
        self,
        database: sa.Engine,
        vault: Vault,
        *,
        certificates: Callable[[str], bytes] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._vault, self._now_s = database, vault, now_s
        self._certificates = certificates or Certificates()
        self._known: dict[str, _Known] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def expects(self, hook_id: str) -> Hook:
        """
        The hook of an address, before anything of the body is read.

        Raises: NotFoundError; PlatformError when the vault is away.
        """
        return self._lookup(hook_id, KNOWN_FOR_S).hook

    def knows(self, hook_id: str) -> bool:
        """Whether `expects` would answer at once, without asking anybody."""
        known = self._known.get(hook_id)
        return known is not None and time.monotonic() - known.since_s < KNOWN_FOR_S

    def receive(self, hook_id: str, body: bytes, headers: Mapping[str, str]) -> Receipt:
        """
        Believe and store a delivery; on disk when this returns.

        Raises: NotFoundError for an address that is none, AccessError for what is not genuine, TooFast, PlatformError.
        """
        hook = self._believed(hook_id, body, headers)
        if wait_s := self._too_fast(hook_id):
            raise TooFast(wait_s)
        new, refusal = read_delivery(hook, body, headers)
        return Receipt(store(self._database, new), refusal)

    def _believed(self, hook_id: str, body: bytes, headers: Mapping[str, str]) -> Hook:
        known = self._lookup(hook_id, KNOWN_FOR_S)
        try:
            self._verify(known, body, headers)
        except AccessError as error:
            newer = self._lookup(hook_id, LOOK_AGAIN_S)  # its secret may have been rotated just now
            if newer is known:
                self._refuse(hook_id, error)
                raise
            try:
                self._verify(newer, body, headers)
            except AccessError as again:
                self._refuse(hook_id, again)
                raise
            return newer.hook
        return known.hook

    def _verify(self, known: _Known, body: bytes, headers: Mapping[str, str]) -> None:
        hook = known.hook
        if hook.forge in WITHOUT_SECRET and not hook.pins.topic_arn:
            raise AccessError(
                "this hook is read from a queue", where=hook.forge, remedy="pin an SNS topic to post here"
            )
        try:
            FORGES[hook.forge].verify(body, headers, known.trust, self._now_s())
        except SettingsError as error:  # whoever sends it can do nothing about it
            raise PlatformError(f"the hook's own settings are wrong: {error.what}", where=hook.forge) from error
        if hook.forge == azure_devops.NAME and (hook.pins.subscription or hook.pins.azure_project):
            expected = azure_devops.Origin(hook.pins.subscription, hook.pins.azure_project)
            try:
                azure_devops.verify_origin(body, expected)
            except EventError as error:
                raise AccessError("the body names no subscription", where=hook.forge) from error

    def _lookup(self, hook_id: str, known_for_s: float) -> _Known:
        if not HOOK_ID.fullmatch(hook_id):
            raise NotFoundError("no hook has this address", remedy="see `penstock hook list`")
        now_s = time.monotonic()
        known = self._known.get(hook_id)
        if known and now_s - known.since_s < known_for_s:
            return known
        hook = get_hook(self._database, hook_id)
        found = _Known(hook, self._trust(hook), now_s)
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[hook_id] = found
        return found

    def _trust(self, hook: Hook) -> Trust:
        try:
            values = [self._vault.read(VAULT_PROJECT, name).decode() for name in hook.secrets]
        except (NotFoundError, UnicodeDecodeError) as error:
            raise PlatformError(
                "the hook's secret is not in the vault", where=hook.project, remedy="rotate it, or make the hook anew"
            ) from error
        return Trust(tuple(values), hook.pins.username, hook.pins.topic_arn, self._certificates)

    def _too_fast(self, hook_id: str) -> float:
        with self._lock:
            if len(self._buckets) >= _MOST_KNOWN:
                self._buckets.clear()
            return self._buckets.setdefault(hook_id, _Bucket()).take(time.monotonic())

    def _refuse(self, hook_id: str, error: AccessError) -> None:
        with self._lock:
            count, _ = self._refused.get(hook_id, (0, ""))
            self._refused[hook_id] = (count + 1, storable(error.what)[:300])

    def note_refused(self) -> None:
        """Write down how many were not believed. Strangers can make it count, and nothing else."""
        with self._lock:
            refused, self._refused = self._refused, {}
        if refused:
            try:
                count_refused(self._database, refused)
            except sa.exc.SQLAlchemyError:
                with self._lock:
                    for hook_id, (count, reason) in refused.items():
                        more, newest = self._refused.get(hook_id, (0, reason))
                        self._refused[hook_id] = (count + more, newest)
                raise


def read_delivery(hook: Hook, body: bytes, headers: Mapping[str, str]) -> tuple[NewDelivery, EventError | None]:
    """What is stored; one that cannot be read is kept as rejected, to be looked at."""
    forge = FORGES[hook.forge]
    told_id: str | None = None
    try:
        told_id = forge.delivery_id(body, headers)
        forge.parse_all(body, headers, None)
    except EventError as error:
        new = new_delivery(hook.id, hook.forge, told_id, body, headers)
        return attrs.evolve(new, state="rejected", reason=storable(str(error))), error
    return new_delivery(hook.id, hook.forge, told_id, body, headers), None
