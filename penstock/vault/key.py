"""The key of the encrypted file: an age identity in a file that only its owner can read, apart from what it opens."""

import os
import stat
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from penstock.errors import PlatformError, SettingsError

VARIABLE = "PENSTOCK_VAULT_KEY_FILE"


@attrs.frozen
class Key:
    """
    Identities of a key file, as age-keygen writes it: the first encrypts, all decrypt, so that keys can be replaced.
    """

    identities: tuple[Any, ...] = attrs.field(repr=False)

    def encrypted(self, plain: bytes) -> bytes:
        """An age file for the first identity."""
        import pyrage  # type: ignore[import-untyped]

        sealed: bytes = pyrage.encrypt(plain, [self.identities[0].to_public()])
        return sealed


def check_key_place(path: Path, home: Path) -> None:
    """
    Raises: SettingsError when the key lies where the encrypted file lies too, or where git would take it along.
    """
    place = path.resolve()
    if place.is_relative_to(home.resolve()):
        raise _misplaced(f"the vault's key {path} lies in PENSTOCK_HOME, beside what it opens")
    for folder in place.parents:
        if (folder / ".git").exists():
            raise _misplaced(f"the vault's key {path} lies in the git repository {folder}")


def _misplaced(what: str) -> SettingsError:
    return SettingsError(what, where=VARIABLE, remedy="move it elsewhere, such as ~/.config/penstock/vault.key")


def read_key(path: Path) -> Key | None:
    """
    The key; None when there is no such file.

    Raises: SettingsError when others can read it or it holds no age identity, PlatformError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(64 * 1024).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlatformError(f"cannot read the vault's key: {error.strerror}", where=str(path)) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"others than its owner may use the vault's key (mode {stat.S_IMODE(mode):04o})",
            where=str(path),
            remedy=f"run `chmod 600 {path}`, and replace the key if others could read it",
        )
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> Key:
    import pyrage

    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for line in lines:
        with suppress(pyrage.IdentityError):
            found.append(pyrage.x25519.Identity.from_str(line))
    if not lines or len(found) < len(lines):
        raise SettingsError(
            "this is no key of age", where=str(path), remedy="put the vault's key back from where you keep a copy"
        )
    return Key(tuple(found))


def create_key(path: Path) -> Key:
    """
    Make a key file (mode 0600, its folder 0700 if it is new), complete or not at all. One made meanwhile stays.

    Raises: PlatformError when it cannot be written.
    """
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    text = f"# created: {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n# public key: {identity.to_public()}\n{identity}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _place(path, text.encode())
    except OSError as error:
        raise PlatformError(f"cannot write the vault's key: {error.strerror}", where=str(path)) from error
    made = read_key(path)
    assert made is not None
    return made


def _place(path: Path, data: bytes) -> None:
    """Without replacing: whoever comes second takes the first one's key."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, path)
        sync_folder(path.parent)
    finally:
        Path(part).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
