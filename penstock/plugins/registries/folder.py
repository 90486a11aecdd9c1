"""A registry's plugins as files: a folder per version with its package and what is told of it."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import msgspec

from penstock.errors import AccessError, ConflictError, NotFoundError
from penstock.plugins.registries.package import chunks_of, digest_of, write_checked
from penstock.plugins.registries.wire import (
    Detail,
    Entry,
    Found,
    check_name,
    check_version,
    fits,
    newest_first,
    newest_of_each,
)

DETAIL, PACKAGE = "plugin.json", "package.tar"


@attrs.frozen
class FolderRegistry:
    """See `Registry`. root: holds `<name>/<version>/`. clock: now, UTC."""

    root: Path
    name: str = "local"
    clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC))

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """See `Registry`."""
        found = [entry for entry in newest_of_each(list(self._entries())) if fits(entry, text, kind)]
        return Found(tuple(found))

    def versions(self, name: str) -> tuple[Entry, ...]:
        """See `Registry`."""
        found = newest_first(list(self._entries(check_name(name))))
        if not found:
            raise NotFoundError(f'there is no plugin "{name}"', where=f"registry {self.name}")
        return found

    def get(self, name: str, version: str) -> Detail:
        """See `Registry`."""
        try:
            text = (self._folder(name, version) / DETAIL).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"there is no {name}@{version}", where=f"registry {self.name}") from error
        detail = msgspec.json.decode(text, type=Detail)
        return msgspec.structs.replace(detail, entry=msgspec.structs.replace(detail.entry, source=self.name))

    def fetch(self, entry: Entry, into: Path) -> None:
        """See `Registry`."""
        write_checked(chunks_of(self.package(entry.name, entry.version)), entry.digest, into)

    def package(self, name: str, version: str) -> Path:
        """The package's file. Raises: NotFoundError."""
        path = self._folder(name, version) / PACKAGE
        if not path.is_file():
            raise NotFoundError(f"there is no {name}@{version}", where=f"registry {self.name}")
        return path

    def publish(self, detail: Detail, package: Path) -> Detail:
        """
        Offer a package, whose bytes the detail's digest is of. The same again changes nothing but adds signatures.

        Raises: ConflictError when the version is there with other bytes; AccessError when the digest is another.
        """
        entry = detail.entry
        if digest_of(package) != entry.digest:
            raise AccessError("the package has another digest than was said", where=str(entry))
        with self._writing(entry.name):
            folder = self._folder(entry.name, entry.version)
            if (folder / DETAIL).exists():
                return self._signed_again(detail)
            folder.mkdir(parents=True, exist_ok=True)
            write_checked(chunks_of(package), entry.digest, folder / PACKAGE)
            stamped = msgspec.structs.replace(entry, published_at=self.clock(), yanked=None, source="")
            self._write(msgspec.structs.replace(detail, entry=stamped))
        return self.get(entry.name, entry.version)

    def yank(self, name: str, version: str, why: str) -> Detail:
        """Have nobody install it any more; an empty `why` takes that back. Raises: NotFoundError."""
        with self._writing(name):
            detail = self.get(name, version)
            entry = msgspec.structs.replace(detail.entry, yanked=why or None, source="")
            self._write(msgspec.structs.replace(detail, entry=entry))
        return self.get(name, version)

    def _signed_again(self, detail: Detail) -> Detail:
        known, entry = self.get(detail.entry.name, detail.entry.version), detail.entry
        if known.entry.digest != entry.digest:
            raise ConflictError(
                "this version is there with other bytes", where=str(entry), remedy="publish a new version"
            )
        more = [one for one in entry.signatures if one not in known.entry.signatures]
        signed = msgspec.structs.replace(known.entry, signatures=(*known.entry.signatures, *more), source="")
        self._write(msgspec.structs.replace(known, entry=signed))
        return self.get(entry.name, entry.version)

    def _write(self, detail: Detail) -> None:
        """The detail last, and whole: a version without it does not exist."""
        path = self._folder(detail.entry.name, detail.entry.version) / DETAIL
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(detail))
        part.replace(path)

    def _entries(self, name: str = "*") -> Iterator[Entry]:
        for path in sorted(self.root.glob(f"{name}/*/{DETAIL}")):
            entry = msgspec.json.decode(path.read_bytes(), type=Detail).entry
            yield msgspec.structs.replace(entry, source=self.name)

    def _folder(self, name: str, version: str) -> Path:
        return self.root / check_name(name) / check_version(version)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{check_name(name)}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
