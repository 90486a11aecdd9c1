"""What registries say to each other: values that are checked when they arrive, and how much of them there may be."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec

from penstock.errors import InputError

ANSWER_BYTES = 4 * 1024**2
PACKAGE_BYTES = 64 * 1024**2
PAGE = 100
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
# Semantic versioning 2.0.0 (https://semver.org), without build metadata, which takes no part in precedence.
_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Text = Mapping[str, str]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who vouches for a package. key_id: 16 hex digits of the public key's SHA-256. signature: Base64, of the statement
    that `signing.statement` writes.
    """

    key_id: str
    signature: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One version of a plugin, as a list shows it.

    digest: of the package's bytes, `sha256:…`. yanked: why nobody should install it any more; None while it may be.
    source: the registry that told of it; filled in by who asked.
    """

    name: str
    version: str
    kind: str
    digest: str
    size_bytes: int
    summary: str = ""
    licence: str = ""
    maintainer: str = ""
    published_at: datetime | None = None
    yanked: str | None = None
    signatures: tuple[Signature, ...] = ()
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """All of one version but its files. readme, docs: Markdown; docs by their path below `docs/`."""

    entry: Entry
    manifest: dict[str, Any]
    readme: str = ""
    docs: dict[str, str] = {}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a search answers. more: whether there are others, beyond the page."""

    plugins: tuple[Entry, ...]
    more: bool = False


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of one plugin, the newest first."""

    versions: tuple[Entry, ...]


@attrs.frozen
class Trouble:
    """A registry that could not be asked, or whose answer is old. stale: something older was shown in its place."""

    registry: str
    what: str
    stale: bool = False


@attrs.frozen
class Found:
    """The newest version of each plugin that fits, and which registries had trouble."""

    entries: tuple[Entry, ...]
    troubles: tuple[Trouble, ...] = ()


class Registry(Protocol):
    """Somewhere that plugins come from."""

    @property
    def name(self) -> str:
        """As people call it."""

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """The newest version of each plugin that holds every word of `text`; yanked ones are left out."""

    def versions(self, name: str) -> tuple[Entry, ...]:
        """Every version, the newest first, yanked ones too. Raises: NotFoundError, PlatformError."""

    def get(self, name: str, version: str) -> Detail:
        """Raises: NotFoundError, PlatformError."""

    def fetch(self, entry: Entry, into: Path) -> None:
        """
        Write the package's bytes to the file `into`, complete and with the entry's digest, or not at all.

        Raises: NotFoundError, PlatformError; AccessError when the bytes are not those of the digest.
        """


def check_name(name: str) -> str:
    """Raises: InputError unless this can be a plugin's name."""
    if not _NAME.fullmatch(name):
        raise InputError(f'"{name[:80]}" is no plugin\'s name', remedy="use a-z, 0-9 and -, at most 64 characters")
    return name


def check_version(version: str) -> str:
    """Raises: InputError unless this is a semantic version."""
    if not _VERSION.fullmatch(version):
        raise InputError(f'"{version[:80]}" is no semantic version', remedy="write one such as 1.4.0 or 2.0.0-rc.1")
    return version


def check_entry(entry: Entry) -> Entry:
    """Raises: InputError for one that no registry should tell of."""
    check_name(entry.name)
    check_version(entry.version)
    if not _DIGEST.fullmatch(entry.digest):
        raise InputError("its digest is no SHA-256", where=str(entry))
    if not 0 < entry.size_bytes <= PACKAGE_BYTES:
        raise InputError(
            f"its package has {entry.size_bytes} bytes, at most {PACKAGE_BYTES} are taken", where=str(entry)
        )
    return entry


def precedence(version: str) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
    """What versions are sorted by: semantic versioning's precedence, a pre-release before its release."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise InputError(f'"{version[:80]}" is no semantic version')
    major, minor, patch, before = found.groups()
    parts = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in (before or "").split(".") if part
    )
    return int(major), int(minor), int(patch), before is None, parts


def newest_first(entries: "tuple[Entry, ...] | list[Entry]") -> tuple[Entry, ...]:
    """Sorted by precedence."""
    return tuple(sorted(entries, key=lambda entry: precedence(entry.version), reverse=True))


def newest_of_each(entries: "tuple[Entry, ...] | list[Entry]") -> tuple[Entry, ...]:
    """By name: the newest release that was not yanked, or the newest pre-release where there is none."""
    best: dict[str, Entry] = {}
    for entry in newest_first(entries):
        known = best.get(entry.name)
        if entry.yanked is None and (known is None or ("-" in known.version and "-" not in entry.version)):
            best[entry.name] = entry
    return tuple(best[name] for name in sorted(best))


def fits(entry: Entry, text: str, kind: str | None) -> bool:
    """Whether a search finds it."""
    said = f"{entry.name} {entry.summary} {entry.kind}".casefold()
    return (kind is None or entry.kind == kind) and all(word in said for word in text.casefold().split())
