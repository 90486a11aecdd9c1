"""The platform's own registries: what was installed here from folders, and what is delivered with Penstock."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import attrs
import msgspec
import sqlalchemy as sa

from penstock.artifacts.store import ArtifactStore
from penstock.errors import NotFoundError
from penstock.plugins.beginning import bring_sdk
from penstock.plugins.registries.describing import describe
from penstock.plugins.registries.package import chunks_of, pack, write_checked
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
from penstock.state.plugin_tables import installed_plugins

LOCAL, OFFICIAL = "local", "official"
PENSTOCK = Path(__file__).parents[2]
SHARED = {
    "semgrep": (("scanners/locks/semgrep.lock", "requirements.lock"), ("scanners/rules", "rules")),
    "trivy": (("scanners/locks/trivy.lock", "requirements.lock"),),
    "sbom": (("scanners/locks/trivy.lock", "requirements.lock"),),
}
"""What a delivered plugin takes from Penstock's own files: from where, and what it is called there."""


@attrs.frozen
class LocalRegistry:
    """
    See `Registry`: PostgreSQL knows the plugins that came from folders, the artifact store has their bytes.

    every: also those that came from other registries.
    """

    database: sa.Engine
    store: ArtifactStore
    name: str = LOCAL
    every: bool = False

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """See `Registry`."""
        found = [detail.entry for detail in self._details() if fits(detail.entry, text, kind)]
        return Found(newest_of_each(found))

    def versions(self, name: str) -> tuple[Entry, ...]:
        """See `Registry`."""
        return newest_first([detail.entry for detail in self._some(check_name(name))])

    def get(self, name: str, version: str) -> Detail:
        """See `Registry`."""
        return self._some(check_name(name), check_version(version))[0]

    def fetch(self, entry: Entry, into: Path) -> None:
        """See `Registry`."""
        write_checked(self.store.read(entry.digest.removeprefix("sha256:")), entry.digest, into)

    def _some(self, name: str, version: str | None = None) -> list[Detail]:
        found = [one for one in self._details(name) if version in (None, one.entry.version)]
        if not found:
            what = f"{name}@{version}" if version else name
            raise NotFoundError(f"no {what} was installed from a folder", where=f"registry {self.name}")
        return found

    def _details(self, name: str | None = None) -> Iterator[Detail]:
        table = installed_plugins
        wanted = sa.select(table)
        if not self.every:
            wanted = wanted.where(table.c.source == LOCAL)
        if name:
            wanted = wanted.where(table.c.name == name)
        with self.database.connect() as connection:
            rows = connection.execute(wanted.order_by(table.c.name)).mappings().all()
        for row in rows:
            yield self._detail(row)

    def _detail(self, row: sa.RowMapping) -> Detail:
        manifest = row["manifest"]
        entry = Entry(
            name=row["name"],
            version=row["version"],
            digest=f"sha256:{row['digest']}",
            size_bytes=self.store.size_bytes(row["digest"]),
            published_at=row["installed_at"],
            yanked=None if row["state"] == "installed" else row["state"],
            source=self.name,
            kind=manifest["kind"],
            summary=manifest["summary"],
            licence=manifest["licence"],
            maintainer=manifest["maintainer"],
        )
        return Detail(entry=entry, manifest=manifest, readme=row["readme"], docs=row["docs"])


@attrs.frozen
class DeliveredRegistry:
    """
    See `Registry`: plugins that come with Penstock, a folder each below `root`; one version of each.

    describe: folder, package → what is told of it.
    """

    root: Path
    name: str = OFFICIAL
    describe: Callable[..., Detail] = describe

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """See `Registry`."""
        return Found(tuple(detail.entry for detail in self._details() if fits(detail.entry, text, kind)))

    def versions(self, name: str) -> tuple[Entry, ...]:
        """See `Registry`."""
        return (self._named(name).entry,)

    def get(self, name: str, version: str) -> Detail:
        """See `Registry`."""
        detail = self._named(name)
        if detail.entry.version != check_version(version):
            what = f"{name} is delivered in version {detail.entry.version}, not {version}"
            raise NotFoundError(what, where=f"registry {self.name}", remedy=f"write {detail.entry}")
        return detail

    def fetch(self, entry: Entry, into: Path) -> None:
        """See `Registry`."""
        self.get(entry.name, entry.version)
        with tempfile.TemporaryDirectory(prefix="penstock-plugin-") as scratch:
            packed = pack(assemble(self.root / entry.name, Path(scratch)), Path(scratch) / "package.tar")
            write_checked(chunks_of(packed.path), entry.digest, into)

    def _named(self, name: str) -> Detail:
        folder = self.root / check_name(name)
        if not folder.is_dir():
            raise NotFoundError(f'no plugin "{name}" is delivered', where=f"registry {self.name}")
        return self._detail(folder)

    def _details(self) -> Iterator[Detail]:
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if (folder / "plugin.yaml").is_file():
                yield self._detail(folder)

    def _detail(self, folder: Path) -> Detail:
        detail = _described(folder, self.describe)
        return msgspec.structs.replace(detail, entry=msgspec.structs.replace(detail.entry, source=self.name))


@cache
def _described(folder: Path, describe: Callable[..., Detail]) -> Detail:
    """Once per process: what is delivered does not change."""
    with tempfile.TemporaryDirectory(prefix="penstock-plugin-") as scratch:
        whole = assemble(folder, Path(scratch))
        return describe(whole, pack(whole, Path(scratch) / "package.tar"))


def assemble(folder: Path, into: Path) -> Path:
    """
    A delivered plugin's folder as somebody else's would be: with the SDK, and what it shares with Penstock itself.

    Returns: a folder of the plugin's name in `into`.
    """
    whole = into / folder.name
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    bring_sdk(whole)
    for source, target in SHARED.get(folder.name, ()):
        place = PENSTOCK / source
        (shutil.copytree if place.is_dir() else shutil.copy)(place, whole / target)
    return whole
