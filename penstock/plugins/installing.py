"""Installing a plugin from a folder of this machine: checked, packed, kept, and written down."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock import __version__
from penstock.artifacts.store import ArtifactStore
from penstock.errors import ConflictError, InputError
from penstock.plugins.folder import PluginFolder
from penstock.plugins.manifest import Manifest, stored_values
from penstock.plugins.registries.package import pack, unpack
from penstock.plugins.resolve import Installed, InstalledPlugins
from penstock.state.plugin_tables import installed_plugins
from penstock.state.tables import audit


@attrs.frozen
class Installation:
    """Who installs from where. image_digest: of the plugin's image, where there is an engine that knows it."""

    source: str
    actor: str
    image_digest: str | None = None


def check_penstock(manifest: Manifest) -> None:
    """Raises: InputError when this Penstock is too old for the plugin."""
    if manifest.needs_newer(__version__):
        raise InputError(
            f"it needs Penstock {manifest.minimum_penstock}, and this is {__version__}",
            where=manifest.full_name,
            remedy="upgrade Penstock, or use an older version of the plugin",
        )


def install_folder(
    database: sa.Engine, store: ArtifactStore, folder: PluginFolder, installation: Installation
) -> Installed:
    """
    Let steps use a plugin. The same bytes again change nothing but the image's digest, where none was known.

    Raises: ConflictError when this version is installed with other bytes or another image, InputError for one that
    cannot be packed or needs a newer Penstock.
    """
    manifest = folder.manifest
    check_penstock(manifest)
    with tempfile.TemporaryDirectory(prefix="penstock-plugin-") as temporary:
        package = pack(folder.path, Path(temporary) / "package.tar")
        digest = store.put_file(package.path).digest
    installed = Installed(manifest, digest, installation.image_digest, "installed", installation.source)
    _check_same(InstalledPlugins(database).find(manifest.name, manifest.version), installed)
    _write_down(database, folder, installed, installation.actor)
    return installed


def _check_same(known: Installed | None, new: Installed) -> None:
    if known is None:
        return
    changed = [
        what
        for what, before, now in (("files", known.digest, new.digest), ("image", known.image_digest, new.image_digest))
        if before and now and before != now
    ]
    if changed:
        raise ConflictError(
            f"this version is installed with other {' and another '.join(changed)}",
            where=new.manifest.full_name,
            remedy="give it a new version, or `penstock plugin uninstall` the old one",
        )


def _write_down(database: sa.Engine, folder: PluginFolder, installed: Installed, actor: str) -> None:
    manifest = installed.manifest
    row = insert(installed_plugins).values(
        name=manifest.name,
        version=manifest.version,
        manifest=stored_values(manifest),
        readme=folder.readme.replace("\0", ""),
        docs={page: text.replace("\0", "") for page, text in folder.docs.items()},
        digest=installed.digest,
        image=manifest.image,
        image_digest=installed.image_digest,
        source=installed.source,
        installed_by=actor,
        state="installed",
    )
    digest = sa.func.coalesce(row.excluded.image_digest, installed_plugins.c.image_digest)
    newer = row.on_conflict_do_update(
        index_elements=["name", "version"], set_={"image_digest": digest, "state": "installed"}
    )
    told = {"digest": installed.digest, "image": installed.image_digest, "source": installed.source}
    with database.begin() as connection:
        connection.execute(newer)
        connection.execute(
            sa.insert(audit).values(actor=actor, action="plugin.install", subject=manifest.full_name, detail=told)
        )


def uninstall(database: sa.Engine, name: str, version: str, actor: str) -> bool:
    """Let no step use it any more. Returns: whether it was installed."""
    table = installed_plugins
    with database.begin() as connection:
        gone = connection.execute(sa.delete(table).where(table.c.name == name, table.c.version == version)).rowcount
        if gone:
            connection.execute(
                sa.insert(audit).values(actor=actor, action="plugin.uninstall", subject=f"{name}@{version}")
            )
    return bool(gone)


@contextmanager
def unpacked_plugin(store: ArtifactStore, installed: Installed, folder: Path) -> Iterator[Path]:
    """The plugin's files in a new folder, gone afterwards. Raises: InputError, PlatformError."""
    from penstock.folders import remove_tree

    package = folder.with_name(f"{folder.name}.tar")
    try:
        store.fetch_file(installed.digest, package)
        unpack(package, folder)
        yield folder
    finally:
        package.unlink(missing_ok=True)
        remove_tree(folder)
