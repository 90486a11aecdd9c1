"""
The catalog: what plugins there are, installing one of them, and what an upgrade changes.

A package that comes over the network is taken when a trusted key signed it, or when whoever installs it says that it
need not be signed; and only with the digest that its version has always had here.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.artifacts.store import ArtifactStore
from penstock.errors import AccessError, InputError, NotFoundError, PlatformError
from penstock.pipeline.cancel import CancelToken
from penstock.plugins.declared import define_metrics, drop_metrics
from penstock.plugins.folder import open_folder
from penstock.plugins.installing import Installation, install_folder, uninstall
from penstock.plugins.launch import look_at_image
from penstock.plugins.manifest import Manifest, load_manifest
from penstock.plugins.registries.composite import CompositeRegistry
from penstock.plugins.registries.known import all_registries
from penstock.plugins.registries.local import DeliveredRegistry, LocalRegistry
from penstock.plugins.registries.package import unpacked
from penstock.plugins.registries.signing import PublicKey, check_signed, trusted_keys
from penstock.plugins.registries.wire import Detail, Entry, Registry, precedence
from penstock.plugins.resolve import Installed, InstalledPlugins, not_installed
from penstock.settings import Settings
from penstock.state.plugin_tables import plugin_lock

DELIVERED = Path(__file__).parent / "official"
Part = Literal[
    "inputs", "outputs", "secrets", "network", "reads", "environments", "image", "command", "licence", "needs"
]


@attrs.frozen
class Change:
    """What differs between two versions. widens: whether the newer one may do, or is told, more than the older one."""

    part: Part
    what: str
    widens: bool = False


@attrs.frozen
class Offer:
    """Something that can be installed, all that is known of it, and whose signature it bears."""

    detail: Detail
    manifest: Manifest
    signed_by: PublicKey | None
    unsigned: str | None

    @property
    def entry(self) -> Entry:
        return self.detail.entry


@attrs.frozen
class Catalog:
    """
    Plugins of this platform: its own and those of the registries that it knows.

    image_digest: image → what its name stands for on the engine; None where there is none.
    """

    settings: Settings
    database: sa.Engine
    store: ArtifactStore
    image_digest: Callable[[str], str | None] = lambda _image: None

    @classmethod
    def open(cls, settings: Settings, database: sa.Engine, store: ArtifactStore) -> "Catalog":
        """The catalog of a platform, whose engine says what images are."""
        return cls(settings, database, store, lambda image: _image_digest(settings, image))

    @property
    def own(self) -> tuple[Registry, ...]:
        """The registries that are part of the platform."""
        return (LocalRegistry(self.database, self.store), DeliveredRegistry(DELIVERED))

    @property
    def registries(self) -> CompositeRegistry:
        """All of them as one, the platform's own first."""
        return all_registries(self.settings, self.database, self.own)

    def registry(self, name: str | None) -> Registry:
        """One by its name, or all. Raises: NotFoundError."""
        if name is None:
            return self.registries
        for one in self.registries.parts:
            if one.name == name:
                return one
        raise NotFoundError(f'no registry is called "{name}"', remedy="see `penstock registry list`")

    def newest(self, name: str, registry: str | None = None) -> Entry:
        """
        The newest release that was not yanked; a pre-release only where there is no release.

        Raises: NotFoundError.
        """
        usable = [entry for entry in self.registry(registry).versions(name) if entry.yanked is None]
        if not usable:
            raise NotFoundError(f'every version of "{name}" was yanked', remedy="choose another plugin")
        return next((entry for entry in usable if "-" not in entry.version), usable[0])

    def offer(self, name: str, version: str | None = None, registry: str | None = None) -> Offer:
        """
        All that can be known before anything is fetched; of what is installed also while its registry is away.

        Raises: NotFoundError, PlatformError, InputError.
        """
        detail = self._detail(name, version, registry)
        manifest = _manifest(detail)
        signed, why_not = self._signed(detail.entry)
        return Offer(detail, manifest, signed, why_not)

    def _detail(self, name: str, version: str | None, registry: str | None) -> Detail:
        try:
            return self.registry(registry).get(name, version or self.newest(name, registry).version)
        except (NotFoundError, PlatformError):
            installed = LocalRegistry(self.database, self.store, every=True)
            known = [] if registry else [one.manifest.version for one in self.installed_of(name)]
            if not known or (version or known[0]) not in known:
                raise
            return installed.get(name, version or known[0])

    def install(self, offer: Offer, *, actor: str, unsigned: bool = False) -> Installed:
        """
        Fetch, check, keep and write down; steps may use it afterwards.

        unsigned: take it although no trusted key vouches for it.
        Raises: AccessError for a yanked version, a signature or a digest that is wrong; ConflictError, InputError.
        """
        entry = offer.entry
        if entry.yanked is not None:
            raise AccessError(f"this version was yanked: {entry.yanked}", where=str(entry), remedy="choose another one")
        if offer.unsigned and not unsigned:
            self._require_signature(entry)
        self._check_lock(entry)
        with tempfile.TemporaryDirectory(prefix="penstock-plugin-") as scratch:
            package = Path(scratch) / "package.tar"
            self.registry(entry.source).fetch(entry, package)
            with unpacked(package) as folder:
                plugin = open_folder(folder)
                _check_same(offer, plugin.manifest)
                digest = self.image_digest(plugin.manifest.image) if plugin.manifest.image else None
                self._lock(entry, offer.signed_by)
                define_metrics(self.settings, plugin.manifest)
                return install_folder(self.database, self.store, plugin, Installation(entry.source, actor, digest))

    def uninstall(self, name: str, version: str, *, actor: str) -> None:
        """Let no step use it any more; with its last version go the views of its metrics. Raises: NotFoundError."""
        known = InstalledPlugins(self.database)
        found = known.find(name, version)
        if found is None or not uninstall(self.database, name, version, actor):
            raise not_installed(name, version, known.versions(name), known.names())
        if not known.versions(name):
            drop_metrics(self.settings, found.manifest)

    def changes(self, old: Manifest, offer: Offer) -> tuple[Change, ...]:
        """What an upgrade brings, what it may do more first."""
        return tuple(sorted(_changes(old, offer.manifest), key=lambda change: not change.widens))

    def installed_of(self, name: str) -> tuple[Installed, ...]:
        """The installed versions of a plugin, the newest first."""
        plugins = InstalledPlugins(self.database)
        found = (plugins.find(name, version) for version in plugins.versions(name))
        return tuple(
            sorted((one for one in found if one), key=lambda one: precedence(one.manifest.version), reverse=True)
        )

    def _signed(self, entry: Entry) -> tuple[PublicKey | None, str | None]:
        if self._is_own(entry):
            return None, None
        try:
            return check_signed(entry, trusted_keys(self.settings)), None
        except AccessError as error:
            return None, error.what

    def _require_signature(self, entry: Entry) -> None:
        check_signed(entry, trusted_keys(self.settings))

    def _is_own(self, entry: Entry) -> bool:
        """Whether it comes with the platform: what is delivered changes with Penstock's own version."""
        return entry.source in (registry.name for registry in self.own)

    def _check_lock(self, entry: Entry) -> None:
        if self._is_own(entry):
            return
        locked = locked_digest(self.database, entry.name, entry.version)
        if locked is not None and locked != entry.digest:
            raise AccessError(
                f"it had the digest {locked} and now has {entry.digest}: a version never changes",
                where=str(entry),
                remedy="do not install it; tell who runs the registry",
            )

    def _lock(self, entry: Entry, signed_by: PublicKey | None) -> None:
        if self._is_own(entry):
            return
        row = insert(plugin_lock).values(
            name=entry.name,
            version=entry.version,
            digest=entry.digest,
            source=entry.source,
            signed_by=f"{signed_by.name} ({signed_by.id})" if signed_by else None,
        )
        with self.database.begin() as connection:
            connection.execute(row.on_conflict_do_nothing())
        self._check_lock(entry)


def _image_digest(settings: Settings, image: str) -> str | None:
    """Raises: PlatformError when the engine of containers cannot get the image."""
    if settings.engine != "docker":
        return None
    return look_at_image(settings, image, CancelToken()).id


def locked_digest(database: sa.Engine, name: str, version: str) -> str | None:
    """The digest that a version of a plugin from a registry has always had here; None for one that never came."""
    wanted = sa.select(plugin_lock.c.digest).where(plugin_lock.c.name == name, plugin_lock.c.version == version)
    with database.connect() as connection:
        digest: str | None = connection.execute(wanted).scalar()
    return digest


def _manifest(detail: Detail) -> Manifest:
    try:
        return load_manifest(detail.manifest)
    except ValueError as error:  # pydantic's
        what = "the registry tells of a manifest that is none"
        raise InputError(what, where=str(detail.entry), remedy="tell who runs the registry") from error


def _check_same(offer: Offer, manifest: Manifest) -> None:
    """What was shown before installing is what is installed."""
    if manifest != offer.manifest:
        raise AccessError(
            "the package's manifest is not the one that the registry shows",
            where=str(offer.entry),
            remedy="do not install it; tell who runs the registry",
        )


def _changes(old: Manifest, new: Manifest) -> Iterator[Change]:
    yield from _schema_changes("inputs", old.inputs, new.inputs)
    yield from _schema_changes("outputs", old.outputs, new.outputs)
    yield from _set_changes("secrets", _reasons(old), _reasons(new))
    yield from _set_changes("network", dict.fromkeys(old.network, ""), dict.fromkeys(new.network, ""))
    yield from _set_changes("reads", dict.fromkeys(old.reads, ""), dict.fromkeys(new.reads, ""))
    if set(old.environments) != set(new.environments):
        fewer = bool(new.environments) and set(new.environments) <= set(old.environments or new.environments)
        yield Change("environments", f"{_listed(old.environments)} → {_listed(new.environments)}", widens=not fewer)
    for part in ("image", "command", "licence"):
        before, after = getattr(old, part), getattr(new, part)
        if before != after:
            yield Change(part, f"{before or 'none'} → {after or 'none'}")
    if old.minimum_penstock != new.minimum_penstock:
        yield Change("needs", f"Penstock {old.minimum_penstock} → {new.minimum_penstock}")


def _reasons(manifest: Manifest) -> Mapping[str, str]:
    """Secret → why it is asked for."""
    return {one.name: one.why for one in manifest.secrets}


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "all"


def _set_changes(part: Part, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted(new.keys() - old.keys()):
        yield Change(part, f"+ {name}" + (f": {new[name]}" if new[name] else ""), widens=True)
    for name in sorted(old.keys() - new.keys()):
        yield Change(part, f"- {name}")


def _schema_changes(
    part: Literal["inputs", "outputs"], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    before, after = old.get("properties") or {}, new.get("properties") or {}
    was, needed = set(old.get("required") or ()), set(new.get("required") or ())
    for name in sorted({*before, *after}):
        if name not in before:
            yield Change(part, f"+ {name}" + (", which must be given" if part == "inputs" and name in needed else ""))
        elif name not in after:
            yield Change(part, f"- {name}")
        elif before[name] != after[name]:
            yield Change(part, f"{name} takes other values")
        elif part == "inputs" and name in needed - was:
            yield Change(part, f"{name} must be given now")
