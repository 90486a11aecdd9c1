"""
Secrets in HashiCorp Vault or OpenBao: a kv engine of version 2, at `MOUNT/penstock/PROJECT/NAME`.

What the platform shares lies under `_shared`, which no project can be called. A secret has one field, `value`, or
`value_base64` when it is no UTF-8, so that it can be set with the vault's own tools.
"""

import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import attrs
import msgspec

from penstock.errors import AccessError, NotFoundError, PenstockError, PlatformError, SettingsError
from penstock.settings import is_loopback
from penstock.vault import SHARED, SecretInfo, absent, check_place, check_value

if TYPE_CHECKING:
    from penstock.settings import Settings

TIMEOUT_S = 10
_ROOT = "penstock"
_SHARED_FOLDER = "_shared"
_SHOWN = 200  # characters of what a server says


class _Role(msgspec.Struct, frozen=True):
    """What a token file holds instead of a token when Penstock is to log in by AppRole."""

    role_id: str
    secret_id: str

    def __repr__(self) -> str:
        return "_Role()"


@attrs.define
class HashicorpVault:
    """Keeps secrets in a server. TLS certificates are always verified. May be used by several threads."""

    address: str
    token_file: Path
    mount: str
    _open: Any = attrs.field(default=None, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """
        The server that the settings name.

        Raises: SettingsError for an address or a token file that is missing or must not be used.
        """
        if not settings.vault_token_file:
            raise SettingsError(
                "no token for the vault is named", where="PENSTOCK_VAULT_TOKEN_FILE", remedy="name a file with a token"
            )
        return cls(_checked(settings.vault_addr), settings.vault_token_file, settings.vault_mount.strip("/"))

    def read(self, project: str, name: str) -> bytes:
        """See `Vault.read`."""
        check_place(project, name)
        for owner in dict.fromkeys((project, SHARED)):
            with suppress(NotFoundError):
                return self._read(owner, name)
        raise absent(project, name)

    def _read(self, project: str, name: str) -> bytes:
        answer = self._ask(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=_path(project, name), mount_point=self.mount, raise_on_deleted_version=True
            )
        )
        value = _value(answer)
        if value is None:
            raise PlatformError(
                f"the secret {self.mount}/{_path(project, name)} has no field `value` or `value_base64`",
                where=self._where,
                remedy=f"set it with `penstock secret set {name}`",
            )
        return value

    def names(self, project: str) -> tuple[SecretInfo, ...]:
        """See `Vault.names`."""
        check_place(project, "any")
        try:
            answer = self._ask(
                lambda client: client.secrets.kv.v2.list_secrets(path=_path(project), mount_point=self.mount)
            )
        except NotFoundError:
            return ()
        found = (self._info(project, name) for name in sorted(answer["data"]["keys"]) if not name.endswith("/"))
        return tuple(info for info in found if info)

    def _info(self, project: str, name: str) -> SecretInfo | None:
        """None for one that was deleted, of which the server only keeps that it was there."""
        try:
            found = self._metadata(project, name)
        except NotFoundError:
            return None
        newest = found["versions"].get(str(found["current_version"]), {"destroyed": True})
        if newest["destroyed"] or newest["deletion_time"]:
            return None
        return SecretInfo(project, name, datetime.fromisoformat(newest["created_time"]))

    def _metadata(self, project: str, name: str) -> Mapping[str, Any]:
        answer = self._ask(
            lambda client: client.secrets.kv.v2.read_secret_metadata(path=_path(project, name), mount_point=self.mount)
        )
        data: Mapping[str, Any] = answer["data"]
        return data

    def write(self, project: str, name: str, value: bytes) -> None:
        """See `Vault.write`."""
        check_place(project, name)
        check_value(name, value)
        self._check_mount()  # version 1 would take it without a word, and keep it elsewhere
        fields = _fields(value)
        self._ask(
            lambda client: client.secrets.kv.v2.create_or_update_secret(
                path=_path(project, name), secret=fields, mount_point=self.mount
            )
        )

    def remove(self, project: str, name: str) -> None:
        """See `Vault.remove`. All of its versions go."""
        check_place(project, name)
        if self._info(project, name) is None:
            raise absent(project, name)
        self._ask(
            lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                path=_path(project, name), mount_point=self.mount
            ),
            answers=False,
        )

    def check(self) -> str:
        """See `Vault.check`."""
        self._check_mount()
        count = len(self.names(SHARED))
        return f"{self.address} answers, the token is good for {self.mount}/{_ROOT}; secrets of the platform: {count}"

    def _check_mount(self) -> None:
        answer = self._ask(lambda client: client.adapter.get(f"/v1/sys/internal/ui/mounts/{self.mount}"))
        if (answer["data"].get("options") or {}).get("version") != "2":
            raise SettingsError(
                f'"{self.mount}" is no kv engine of version 2', where="PENSTOCK_VAULT_MOUNT", remedy="name one that is"
            )

    @property
    def _where(self) -> str:
        return f"vault {self.address}"

    def _ask(self, call: Callable[[Any], Any], *, answers: bool = True) -> Any:
        """
        What the server answers; asked again with the token file read anew when it refuses, because tokens expire.

        The libraries' errors hold requests with tokens and values in them, so none of them is passed on.
        """
        client = self._client()
        answer, failure = self._tried(call, client)
        if isinstance(failure, AccessError):
            client = self._client(instead_of=client)
            answer, failure = self._tried(call, client)
        if isinstance(failure, AccessError):
            failure = self._why_refused(client, failure)
        if failure is None and answers and not (isinstance(answer, Mapping) and "data" in answer):
            failure = PlatformError("what answers is no vault", where=self._where, remedy="check PENSTOCK_VAULT_ADDR")
        if failure:
            raise failure
        return answer

    def _tried(self, call: Callable[[Any], Any], client: Any) -> tuple[Any, PenstockError | None]:
        from hvac.exceptions import VaultError
        from requests.exceptions import RequestException

        try:
            return call(client), None
        except VaultError as error:
            return None, _said(error, self._where)
        except RequestException as error:
            return None, _unreachable(error, self._where)

    def _why_refused(self, client: Any, refusal: AccessError) -> AccessError:
        _, failure = self._tried(lambda asked: asked.auth.token.lookup_self(), client)
        if not isinstance(failure, AccessError):
            return AccessError(
                f"the token may not do this with {self.mount}/{_ROOT}/…: {refusal.what}",
                where=self._where,
                remedy="give its policy that right",
            )
        return AccessError(
            "the token is wrong, expired or revoked", where=self._where, remedy=f"put a new one into {self.token_file}"
        )

    def _client(self, instead_of: Any = None) -> Any:
        """The client that is open; a new one if there is none, or if it is the one that was refused."""
        with self._lock:
            if self._open is None or self._open is instead_of:
                self._open = self._logged_in()
            return self._open

    def _logged_in(self) -> Any:
        import hvac

        client = hvac.Client(url=self.address, timeout=TIMEOUT_S)
        credentials = self._credentials()
        if isinstance(credentials, str):
            client.token = credentials
            return client
        _, failure = self._tried(
            lambda asked: asked.auth.approle.login(credentials.role_id, credentials.secret_id), client
        )
        if isinstance(failure, AccessError):
            failure = AccessError(
                f"the vault takes no login by AppRole with these ids: {failure.what}",
                where=self._where,
                remedy=f"put new ones into {self.token_file}",
            )
        if failure:
            raise failure
        return client

    def _credentials(self) -> str | _Role:
        try:
            text = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(f"cannot read the vault's token: {what}", where=str(self.token_file)) from None
        role = None
        if text.startswith("{"):
            with suppress(msgspec.MsgspecError):
                role = msgspec.json.decode(text, type=_Role)
        elif text.isascii() and text.isprintable() and text and " " not in text:
            return text
        if role is None:
            raise SettingsError(
                "this is no token of a vault",
                where=str(self.token_file),
                remedy='put the token into it, or {"role_id": …, "secret_id": …}',
            )
        return role


def _checked(address: str | None) -> str:
    """The address without a trailing slash; it is in messages, so it must hold no credentials."""
    where, remedy = "PENSTOCK_VAULT_ADDR", "give https://HOST:PORT"
    if not address:
        raise SettingsError("no vault is named", where=where, remedy=remedy)
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.username is not None:
        raise SettingsError("this is no address of a vault", where=where, remedy=remedy)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise SettingsError(f'"{address}" would show secrets to the network', where=where, remedy=remedy)
    return address.rstrip("/")


def _path(project: str, name: str = "") -> str:
    return "/".join(filter(None, (_ROOT, project or _SHARED_FOLDER, name)))


def _fields(value: bytes) -> dict[str, str]:
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": b64encode(value).decode()}


def _value(answer: Any) -> bytes | None:
    """None when it is not as Penstock writes it."""
    fields = answer["data"].get("data")
    if not isinstance(fields, Mapping):
        return None
    if isinstance(plain := fields.get("value"), str):
        return plain.encode("utf-8", "surrogatepass")
    with suppress(ValueError, TypeError):
        return b64decode(fields["value_base64"], validate=True) if "value_base64" in fields else None
    return None


def _said(error: Any, where: str) -> PenstockError:
    """What a server's refusal means; of what it said only the list of errors, which no request is in."""
    from hvac import exceptions as known

    words = "; ".join(str(each) for each in error.errors) if isinstance(error.errors, list) else ""
    words = " ".join(words.split())[:_SHOWN] or type(error).__name__
    if isinstance(error, known.Forbidden | known.Unauthorized) or "invalid role or secret" in words:
        return AccessError(words, where=where)
    if isinstance(error, known.InvalidPath):
        if "no handler for route" in words:
            return SettingsError(
                "the vault has no such engine", where="PENSTOCK_VAULT_MOUNT", remedy="name a kv engine"
            )
        return NotFoundError("the vault has no such secret", where=where)
    if isinstance(error, known.VaultDown) and "sealed" in words:
        return PlatformError("the vault is sealed", where=where, remedy="unseal it")
    if isinstance(error, known.VaultNotInitialized):
        return PlatformError("the vault is not initialised", where=where, remedy="initialise and unseal it")
    return PlatformError(f"the vault cannot do this now: {words}", where=where)


def _unreachable(error: Exception, where: str) -> PlatformError:
    from requests import exceptions as known

    if isinstance(error, known.SSLError):
        return PlatformError(
            "the vault's certificate cannot be trusted",
            where=where,
            remedy="name the file of the authority that signed it in VAULT_CACERT",
        )
    if isinstance(error, known.Timeout):
        return PlatformError(f"the vault did not answer within {TIMEOUT_S} s", where=where)
    if isinstance(error, known.ConnectionError):
        return PlatformError(
            "the vault cannot be reached", where=where, remedy="start it, or check PENSTOCK_VAULT_ADDR"
        )
    return PlatformError(f"the vault cannot be asked: {type(error).__name__}", where=where)
