"""
Secrets in one encrypted file, PENSTOCK_HOME/vault/secrets.age, which `age -d -i KEY` opens too.

Inside it is JSON: {"version": 1, "secrets": {project: {name: {"value": base64, "updated_at": ISO 8601}}}}. The file
is replaced whole, after the new one has reached the disk, by one writer at a time: it is always the old or the new.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs
import msgspec

from penstock.errors import PenstockError, PlatformError
from penstock.settings import create_home
from penstock.vault import SHARED, SecretInfo, absent, check_place, check_value
from penstock.vault.key import Key, check_key_place, create_key, read_key, sync_folder

if TYPE_CHECKING:
    from penstock.settings import Settings

VERSION = 1
LOCK_LIMIT_S = 30.0
_PART = ".secrets.part."
_BACKUP = "put it back from a backup, or remove it and set the secrets again"


class _Entry(msgspec.Struct, frozen=True):
    value: bytes  # base64 in the file
    updated_at: datetime

    def __repr__(self) -> str:
        return "_Entry()"


class _Contents(msgspec.Struct, frozen=True):
    secrets: Mapping[str, Mapping[str, _Entry]]
    version: int = VERSION

    def __repr__(self) -> str:
        return "_Contents()"


@attrs.frozen
class FileVault:
    """Keeps secrets in an encrypted file. Safe with several readers and writers, and with `kill -9` at any moment."""

    settings: "Settings"

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """The vault of this PENSTOCK_HOME."""
        return cls(settings)

    @property
    def path(self) -> Path:
        """The encrypted file."""
        return self.settings.home / "vault" / "secrets.age"

    @property
    def key_file(self) -> Path:
        """The file of its key."""
        return self.settings.vault_key_file

    def read(self, project: str, name: str) -> bytes:
        """See `Vault.read`."""
        check_place(project, name)
        secrets = self._contents().secrets
        for owner in (project, SHARED):
            if name in secrets.get(owner, {}):
                return secrets[owner][name].value
        raise absent(project, name)

    def names(self, project: str) -> tuple[SecretInfo, ...]:
        """See `Vault.names`."""
        check_place(project, "any")
        entries = self._contents().secrets.get(project, {})
        return tuple(SecretInfo(project, name, entries[name].updated_at) for name in sorted(entries))

    def write(self, project: str, name: str, value: bytes) -> None:
        """See `Vault.write`."""
        check_place(project, name)
        check_value(name, value)
        with self._changing() as secrets:
            secrets.setdefault(project, {})[name] = _Entry(value, datetime.now(UTC))

    def remove(self, project: str, name: str) -> None:
        """See `Vault.remove`."""
        check_place(project, name)
        with self._changing() as secrets:
            if secrets.get(project, {}).pop(name, None) is None:
                raise absent(project, name)

    def check(self) -> str:
        """See `Vault.check`."""
        contents = self._contents()
        if not self.path.exists():
            return f"no secrets yet; the first one makes {self.path} and its key {self.key_file}"
        count = sum(map(len, contents.secrets.values()))
        return f"{self.path} opens with the key {self.key_file}; secrets in it: {count}"

    def _contents(self) -> _Contents:
        """
        What the file holds; nothing when it is not there.

        Raises: SettingsError for a key that must not be used, PlatformError when the file cannot be opened with it.
        """
        check_key_place(self.key_file, self.settings.home)
        sealed = self._sealed()
        return _Contents({}) if sealed is None else _parsed(self._opened(sealed, self._key()), self.path)

    def _sealed(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PlatformError(f"cannot read the vault: {error.strerror}", where=str(self.path)) from error

    def _key(self) -> Key:
        key = read_key(self.key_file)
        if key is None:
            raise PlatformError(
                f"the vault's key is not there: {self.key_file}",
                where=str(self.path),
                remedy="put it back from where you keep a copy, or name it in PENSTOCK_VAULT_KEY_FILE",
            )
        return key

    def _opened(self, sealed: bytes, key: Key) -> bytes:
        import pyrage  # type: ignore[import-untyped]

        try:
            plain: bytes = pyrage.decrypt(sealed, list(key.identities))
            return plain
        except pyrage.DecryptError as error:
            why = str(error)
        if "No matching keys" in why:
            raise PlatformError(
                f"the vault was not encrypted for the key {self.key_file}, or its beginning is damaged",
                where=str(self.path),
                remedy="name the right key in PENSTOCK_VAULT_KEY_FILE",
            )
        raise PlatformError(
            "the vault is damaged: cut short, or changed by another hand", where=str(self.path), remedy=_BACKUP
        )

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, _Entry]]]:
        """What is in the file, to be changed; it is written when the block ends well."""
        check_key_place(self.key_file, self.settings.home)
        with self._locked():
            found = {project: dict(entries) for project, entries in self._contents().secrets.items()}
            yield found
            key = read_key(self.key_file) or create_key(self.key_file)
            kept = {project: entries for project, entries in found.items() if entries}
            self._replace(key.encrypted(msgspec.json.encode(_Contents(kept))))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; the lock of a process that died is free."""
        handle = self._lock_file()
        try:
            _wait_for_lock(handle, self.path)
            yield
        finally:
            os.close(handle)

    def _lock_file(self) -> int:
        create_home(self.settings)
        try:
            self.path.parent.mkdir(exist_ok=True, mode=0o700)
            return os.open(self.path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    def _replace(self, sealed: bytes) -> None:
        try:
            self._remove_parts()
            handle, part = tempfile.mkstemp(dir=self.path.parent, prefix=_PART)
            with os.fdopen(handle, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def _remove_parts(self) -> None:
        """What writers have left that were killed, or had no room."""
        for part in self.path.parent.glob(f"{_PART}*"):
            part.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> PlatformError:
        return PlatformError(f"cannot write the vault: {error.strerror}", where=str(self.path))


def _wait_for_lock(handle: int, path: Path) -> None:
    until = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise PlatformError(
                    f"another process has been writing the vault for {LOCK_LIMIT_S:.0f} s",
                    where=str(path),
                    remedy="try again when it has ended",
                ) from None
        time.sleep(0.02)


def _parsed(plain: bytes, path: Path) -> _Contents:
    """The errors of the JSON reader would carry what it read, so none of them is passed on."""
    found: _Contents | PenstockError
    try:
        found = msgspec.json.decode(plain, type=_Contents)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = PlatformError("the vault holds no secrets of Penstock", where=str(path), remedy=_BACKUP)
    if isinstance(found, PenstockError):
        raise found
    if found.version != VERSION:
        raise PlatformError(
            f"the vault is of version {found.version}, this Penstock reads {VERSION}",
            where=str(path),
            remedy="use the Penstock that wrote it, or a newer one",
        )
    return found
