"""Where a step finds the plugin that it names: `name@version` → manifest, package, image."""

from typing import Protocol

import attrs
import sqlalchemy as sa

from penstock.errors import AccessError, InputError, NotFoundError
from penstock.pipeline.complaints import suggestion
from penstock.plugins.manifest import Manifest, load_manifest
from penstock.plugins.registries.wire import check_name, check_version
from penstock.state.plugin_tables import installed_plugins


@attrs.frozen
class Installed:
    """
    A version of a plugin that steps may use.

    digest: of its package in the artifact store, 64 hex digits. image_digest: what its image's name stood for.
    """

    manifest: Manifest
    digest: str
    image_digest: str | None
    state: str
    source: str


class Resolver(Protocol):
    """What knows plugins."""

    def find(self, name: str, version: str) -> Installed | None:
        """None when it is not installed."""

    def versions(self, name: str) -> tuple[str, ...]:
        """Those that are installed, in no order."""

    def names(self) -> tuple[str, ...]:
        """Of all that are installed."""


@attrs.frozen
class InstalledPlugins:
    """The plugins of this platform's database."""

    database: sa.Engine

    def find(self, name: str, version: str) -> Installed | None:
        """See `Resolver`."""
        table = installed_plugins
        wanted = sa.select(table).where(table.c.name == name, table.c.version == version)
        with self.database.connect() as connection:
            row = connection.execute(wanted).mappings().first()
        if row is None:
            return None
        manifest = load_manifest(row["manifest"])
        return Installed(manifest, row["digest"], row["image_digest"], row["state"], row["source"])

    def versions(self, name: str) -> tuple[str, ...]:
        """See `Resolver`."""
        wanted = sa.select(installed_plugins.c.version).where(installed_plugins.c.name == name)
        with self.database.connect() as connection:
            return tuple(connection.execute(wanted).scalars())

    def names(self) -> tuple[str, ...]:
        """See `Resolver`."""
        with self.database.connect() as connection:
            return tuple(connection.execute(sa.select(installed_plugins.c.name).distinct()).scalars())


def parse_reference(text: str) -> tuple[str, str]:
    """
    `name@version` → both.

    Raises: InputError for anything else.
    """
    name, at, version = text.partition("@")
    if not at:
        raise InputError(f'"{text[:80]}" names no version', remedy=f"write {name[:60] or 'name'}@1.0.0")
    return check_name(name), check_version(version)


def required(resolver: Resolver, reference: str) -> Installed:
    """
    The plugin that a step names.

    Raises: NotFoundError when it is not installed, AccessError when it was taken back.
    """
    name, version = parse_reference(reference)
    found = resolver.find(name, version)
    if found is None:
        raise not_installed(name, version, resolver.versions(name), resolver.names())
    if found.state != "installed":
        raise AccessError(f"the plugin {reference} was {found.state}", remedy="use another version")
    return found


def not_installed(name: str, version: str, versions: tuple[str, ...], names: tuple[str, ...]) -> NotFoundError:
    """The words for a plugin, or a version, that is not here."""
    if versions:
        what = f'the plugin "{name}" is not installed in version {version}'
        return NotFoundError(what, remedy=suggestion(version, sorted(versions)))
    return NotFoundError(f'no plugin "{name}" is installed', remedy=suggestion(name, sorted(names)))
