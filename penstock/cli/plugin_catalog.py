"""`penstock plugin search | show | install | upgrade`: plugins from the registries that this platform knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from penstock.cli.show import console
from penstock.errors import ConflictError, InputError

if TYPE_CHECKING:
    from penstock.plugins.catalog import Catalog, Change, Offer
    from penstock.plugins.manifest import Manifest

Reference = Annotated[str, typer.Argument(help="name, or name@version; default: the newest.")]
From = Annotated[str | None, typer.Option("--registry", help="Ask this registry alone.")]
Unsigned = Annotated[bool, typer.Option("--unsigned", help="Take it although no trusted key vouches for it.")]


def search(
    words: Annotated[list[str] | None, typer.Argument(help="Every one must be in its name or summary.")] = None,
    kind: Annotated[str | None, typer.Option(help="scanner, report, deployer, notify, build, test, policy.")] = None,
    registry: From = None,
) -> None:
    """
    Look for plugins in all registries that this platform knows.

    Examples:

        penstock plugin search licence
        penstock plugin search --kind scanner --registry hub
    """
    with opened_catalog() as catalog:
        found = catalog.registry(registry).search(" ".join(words or ()), kind)
    table = Table("plugin", "kind", "registry", "what it does", box=None, pad_edge=False)
    for entry in found.entries:
        table.add_row(str(entry), entry.kind, entry.source, entry.summary)
    for trouble in found.troubles:
        typer.echo(f"registry {trouble.registry}: {trouble.what}", err=True)
    if found.entries:
        console().print(table)
    else:
        typer.echo("no plugin fits", err=True)


def show(reference: Reference, registry: From = None) -> None:
    """
    Show what a plugin is, asks for and may reach, its versions and its docs.

    Examples:

        penstock plugin show licenses
    """
    with opened_catalog() as catalog:
        offer = _offer(catalog, reference, registry)
        versions = catalog.registry(registry).versions(offer.entry.name)
        installed = [one.manifest.version for one in catalog.installed_of(offer.entry.name)]
    entry = offer.entry
    told = {
        "plugin": f"{entry}, {entry.kind}, {entry.licence}",
        "what it does": entry.summary,
        "maintainer": entry.maintainer,
        "registry": entry.source,
        "signed by": str(offer.signed_by.name) if offer.signed_by else offer.unsigned or "delivered by the platform",
        "digest": entry.digest,
        "yanked": entry.yanked or "no",
        "installed": ", ".join(installed) or "no",
        "versions": ", ".join(f"{one.version}{' (yanked)' if one.yanked else ''}" for one in versions),
    }
    for name, text in told.items():
        typer.echo(f"{name:13} {text}")
    for line in asked_for(offer.manifest):
        typer.echo(line)
    typer.echo("")
    for page, text in {"README.md": offer.detail.readme, **offer.detail.docs}.items():
        typer.echo(f"── {page}\n{text.strip()}\n")


def install_offer(reference: str, registry: str | None, *, unsigned: bool) -> None:
    """What `penstock plugin install NAME` does: fetch, check, keep."""
    from penstock.people.users import system_account

    with opened_catalog() as catalog:
        offer = _offer(catalog, reference, registry)
        installed = catalog.install(offer, actor=system_account(), unsigned=unsigned)
    typer.echo(f"{installed.manifest.full_name}: installed from {installed.source}, package {installed.digest[:12]}")
    for line in asked_for(installed.manifest):
        typer.echo(line)


def upgrade(
    name: Annotated[str, typer.Argument(help="The plugin.")],
    to: Annotated[str | None, typer.Option(help="The version; default: the newest.")] = None,
    registry: From = None,
    unsigned: Unsigned = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """
    Show what a newer version changes, and install it beside the present one; pipelines choose by name@version.

    Examples:

        penstock plugin upgrade licenses
        penstock plugin upgrade licenses --to 2.0.0 --yes
    """
    from penstock.people.users import system_account
    from penstock.plugins.registries.wire import precedence

    with opened_catalog() as catalog:
        known = catalog.installed_of(name)
        if not known:
            raise InputError(f'"{name}" is not installed', remedy=f"penstock plugin install {name}")
        present = known[0].manifest
        offer = _offer(catalog, f"{name}@{to}" if to else name, registry)
        if precedence(offer.entry.version) <= precedence(present.version):
            raise ConflictError(
                f"{present.full_name} is installed, and nothing newer is offered", remedy="nothing to do"
            )
        typer.echo(f"{present.full_name} → {offer.entry} from {offer.entry.source}")
        for change in catalog.changes(present, offer):
            typer.echo(_change(change))
        if not yes:
            typer.confirm("Install it?", abort=True)
        catalog.install(offer, actor=system_account(), unsigned=unsigned)
    typer.echo(f"{offer.entry}: installed; write plugin: {offer.entry} where it shall be used")


def asked_for(manifest: "Manifest") -> Iterator[str]:
    """What whoever installs it must know: secrets, hosts, whom it reads."""
    for secret in manifest.secrets:
        yield f"  asks for the secret {secret.name}: {secret.why}"
    if manifest.network:
        yield f"  may reach {', '.join(manifest.network)}"
    if manifest.reads:
        yield f"  reads what these tell: {', '.join(manifest.reads)}"


def _change(change: "Change") -> str:
    return f"  {'!' if change.widens else ' '} {change.part}: {change.what}"


def _offer(catalog: "Catalog", reference: str, registry: str | None) -> "Offer":
    name, _, version = reference.partition("@")
    return catalog.offer(name, version or None, registry)


@contextmanager
def opened_catalog() -> Iterator["Catalog"]:
    """The catalog of the home that the environment names."""
    from penstock.artifacts import open_store
    from penstock.plugins.catalog import Catalog
    from penstock.settings import create_home, load_settings
    from penstock.state.database import hosted_database

    settings = load_settings()
    create_home(settings)
    with hosted_database(settings) as database:
        yield Catalog.open(settings, database, open_store(settings.artifacts_path))
