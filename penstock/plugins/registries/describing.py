"""What a registry tells of a package: read from its folder, which must have nothing wrong with it."""

from pathlib import Path

from penstock.plugins.folder import open_folder
from penstock.plugins.manifest import stored_values
from penstock.plugins.registries.package import Package
from penstock.plugins.registries.wire import Detail, Entry


def describe(folder: Path, package: Package) -> Detail:
    """Raises: InputError for a folder that `penstock plugin check` would refuse."""
    plugin = open_folder(folder)
    manifest = plugin.manifest
    entry = Entry(
        name=manifest.name,
        version=manifest.version,
        kind=manifest.kind,
        digest=package.digest,
        size_bytes=package.size_bytes,
        summary=manifest.summary,
        licence=manifest.licence,
        maintainer=manifest.maintainer,
    )
    return Detail(entry=entry, manifest=stored_values(manifest), readme=plugin.readme, docs=dict(plugin.docs))
