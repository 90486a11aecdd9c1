"""
Signatures on packages: Ed25519 keys on this machine, no network needed.

What is signed is a statement of name, version and digest, so that a signature is worth nothing on another package, or
on the same one under another name. A key is trusted when its public half lies in `plugins/trusted` of PENSTOCK_HOME.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import attrs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from penstock.errors import AccessError, InputError, NotFoundError
from penstock.plugins.registries.wire import Entry, Signature
from penstock.settings import Settings

ALGORITHM = "ed25519"
_LINE = re.compile(r"ed25519 (?P<key>[A-Za-z0-9+/]{43}=) (?P<name>[\w.@ -]{1,100})")


@attrs.frozen
class PublicKey:
    """A key that signatures can be checked with. name: whose it is, as somebody here wrote it down."""

    raw: bytes
    name: str

    @property
    def id(self) -> str:
        """16 hex digits of its SHA-256."""
        return key_id(self.raw)

    def __str__(self) -> str:
        return f"{ALGORITHM} {base64.b64encode(self.raw).decode()} {self.name}"


def key_id(raw: bytes) -> str:
    """What a signature names its key by. raw: the 32 bytes of the public key."""
    return hashlib.sha256(raw).hexdigest()[:16]


def statement(name: str, version: str, digest: str) -> bytes:
    """The bytes that are signed."""
    return f"penstock plugin v1\n{name}\n{version}\n{digest}\n".encode()


def make_key(private: Path, name: str) -> PublicKey:
    """
    A new key: the private half in the file (mode 0600), the public one beside it as `.pub`.

    Raises: InputError when the file is there already, or the name cannot stand in a line.
    """
    key = Ed25519PrivateKey.generate()
    public = read_public_key(str(PublicKey(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), name)))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InputError(f"cannot write it: {(error.strerror or '').lower()}", where=str(private)) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    private.with_name(f"{private.name}.pub").write_text(f"{public}\n")
    return public


def sign(private: Path, name: str, version: str, digest: str) -> Signature:
    """Raises: InputError when the file holds no Ed25519 key."""
    try:
        key = load_pem_private_key(private.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"cannot read the key: {(error.strerror or '').lower()}", where=str(private)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(
            "this is no key without a password", where=str(private), remedy="make one: `penstock registry key`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError("this is no Ed25519 key", where=str(private), remedy="make one: `penstock registry key`")
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    made = key.sign(statement(name, version, digest))
    return Signature(key_id=key_id(raw), signature=base64.b64encode(made).decode())


def read_public_key(text: str, *, where: str | None = None) -> PublicKey:
    """Raises: InputError for a line that is none."""
    found = _LINE.fullmatch(text.strip())
    if not found:
        raise InputError("this is no public key", where=where, remedy="give the line of a .pub file: ed25519 KEY NAME")
    return PublicKey(base64.b64decode(found["key"]), found["name"].strip())


def trusted_folder(settings: Settings) -> Path:
    """Where the keys lie that are trusted, a file each, by their id."""
    folder = settings.home / "plugins" / "trusted"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def trust(settings: Settings, key: PublicKey) -> None:
    """Take packages that this key has signed from now on."""
    path = trusted_folder(settings) / f"{key.id}.pub"
    part = path.with_suffix(".part")
    part.write_text(f"{key}\n")
    part.replace(path)


def distrust(settings: Settings, given: str) -> PublicKey:
    """Take nothing more that this key has signed. given: its id or name. Raises: NotFoundError."""
    found = [key for key in trusted_keys(settings) if given in (key.id, key.name)]
    if len(found) != 1:
        raise NotFoundError(
            f'{len(found) or "no"} trusted keys are called "{given}"', remedy="see `penstock registry keys`"
        )
    (trusted_folder(settings) / f"{found[0].id}.pub").unlink(missing_ok=True)
    return found[0]


def trusted_keys(settings: Settings) -> tuple[PublicKey, ...]:
    """Raises: InputError for a file there that holds no key: a broken key is no reason to ask for fewer signatures."""
    paths = sorted(trusted_folder(settings).glob("*.pub"))
    return tuple(read_public_key(path.read_text(), where=str(path)) for path in paths)


def check_signed(entry: Entry, keys: Iterable[PublicKey]) -> PublicKey:
    """
    The trusted key that signed this very name, version and digest.

    Raises: AccessError when none did, saying whether it is unsigned, signed by strangers, or its signature is wrong.
    """
    known = {key.id: key for key in keys}
    wrong = []
    for signature in entry.signatures:
        if key := known.get(signature.key_id):
            if _is_right(key, signature, entry):
                return key
            wrong.append(key.name)
    raise AccessError(_why_not(entry, wrong), where=str(entry), remedy=_remedy(entry, wrong))


def _is_right(key: PublicKey, signature: Signature, entry: Entry) -> bool:
    try:
        made = base64.b64decode(signature.signature, validate=True)
        Ed25519PublicKey.from_public_bytes(key.raw).verify(made, statement(entry.name, entry.version, entry.digest))
    except (ValueError, InvalidSignature):
        return False
    return True


def _why_not(entry: Entry, wrong: list[str]) -> str:
    if wrong:
        return f"its signature by {wrong[0]} is not of this package"
    strangers = ", ".join(signature.key_id[:16] for signature in entry.signatures[:5])
    return f"signed only by keys that are not trusted here: {strangers}" if strangers else "it is not signed"


def _remedy(entry: Entry, wrong: list[str]) -> str:
    if wrong:
        return "do not install it; tell who runs the registry"
    if entry.signatures:
        return "have a key that you know trusted: `penstock registry trust`"
    return "ask its maintainer to sign it"
