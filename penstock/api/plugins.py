"""/plugins: what is installed, what can be, and who uses it."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from penstock.api.access import Actor
from penstock.api.models import Name
from penstock.api.problems import problems
from penstock.errors import AccessError, ConflictError, NotFoundError
from penstock.plugins.catalog import Catalog, Change, Offer
from penstock.plugins.registries.wire import Entry, Trouble, check_name, check_version
from penstock.plugins.resolve import Installed, InstalledPlugins
from penstock.plugins.usage import Use, uses_of

router = APIRouter(tags=["plugins"])

PluginName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
Version = Annotated[str, Field(min_length=5, max_length=100, pattern=r"^[0-9A-Za-z.-]+$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstalledOut(_Model):
    """A version of a plugin that steps may use."""

    name: str
    version: str
    kind: str
    summary: str
    source: str
    state: str
    digest: str
    image_digest: str | None

    @classmethod
    def of(cls, one: Installed) -> "InstalledOut":
        told = one.manifest
        return cls(
            name=told.name,
            version=told.version,
            kind=told.kind,
            summary=told.summary,
            source=one.source,
            state=one.state,
            digest=f"sha256:{one.digest}",
            image_digest=one.image_digest,
        )


class OfferOut(_Model):
    """A version that a registry offers. yanked: why nobody should install it any more."""

    name: str
    version: str
    kind: str
    summary: str
    licence: str
    maintainer: str
    source: str
    digest: str
    size_bytes: int
    yanked: str | None

    @classmethod
    def of(cls, entry: Entry) -> "OfferOut":
        return cls(**{field: getattr(entry, field) for field in cls.model_fields})


class TroubleOut(_Model):
    """A registry that could not be asked, or whose answer is old (`stale`)."""

    registry: str
    what: str
    stale: bool

    @classmethod
    def of(cls, trouble: Trouble) -> "TroubleOut":
        return cls(registry=trouble.registry, what=trouble.what, stale=trouble.stale)


class FoundOut(_Model):
    """What a search found, and which registries had trouble."""

    plugins: tuple[OfferOut, ...]
    troubles: tuple[TroubleOut, ...]


class ChangeOut(_Model):
    """What differs from the newest installed version. widens: whether it may do, or is told, more."""

    part: str
    what: str
    widens: bool

    @classmethod
    def of(cls, change: Change) -> "ChangeOut":
        return cls(part=change.part, what=change.what, widens=change.widens)


class DetailOut(_Model):
    """
    All that is known of an offer. signed_by: whose trusted signature it bears. unsigned: why it bears none; neither is
    said of the platform's own plugins. installed: the versions that are installed, the newest first.
    """

    offer: OfferOut
    manifest: dict[str, Any]
    readme: str
    docs: dict[str, str]
    versions: tuple[OfferOut, ...]
    signed_by: str | None
    unsigned: str | None
    installed: tuple[str, ...]
    changes: tuple[ChangeOut, ...]

    @classmethod
    def of(cls, catalog: Catalog, offer: Offer) -> "DetailOut":
        installed = catalog.installed_of(offer.entry.name)
        changes = catalog.changes(installed[0].manifest, offer) if installed else ()
        return cls(
            offer=OfferOut.of(offer.entry),
            manifest=offer.detail.manifest,
            readme=offer.detail.readme,
            docs=offer.detail.docs,
            versions=tuple(map(OfferOut.of, catalog.registry(offer.entry.source).versions(offer.entry.name))),
            signed_by=f"{offer.signed_by.name} ({offer.signed_by.id})" if offer.signed_by else None,
            unsigned=offer.unsigned,
            installed=tuple(one.manifest.version for one in installed),
            changes=tuple(map(ChangeOut.of, changes)),
        )


class UseOut(_Model):
    """One step of one project that runs a version of a plugin."""

    project: str
    step: str
    version: str
    runs: int
    failures: int
    median_s: float | None
    last_run: str
    last_state: str
    last_at: datetime

    @classmethod
    def of(cls, use: Use) -> "UseOut":
        return cls(**{field: getattr(use, field) for field in cls.model_fields})


class NewPlugin(_Model):
    """What to install. version: the newest by default. unsigned: take it although no trusted key vouches for it."""

    name: PluginName
    version: Version | None = None
    registry: Name | None = None
    unsigned: bool = False


def _catalog(request: Request) -> Catalog:
    state = request.app.state
    return Catalog.open(state.settings, state.database, state.store)


@router.get("/plugins")
def list_plugins(request: Request) -> list[InstalledOut]:
    """Every version that steps may use, by name."""
    known = InstalledPlugins(request.app.state.database)
    found = (known.find(name, version) for name in sorted(known.names()) for version in known.versions(name))
    return [InstalledOut.of(one) for one in found if one]


@router.get("/plugins/offers", responses=problems(404))
def search_plugins(
    request: Request,
    q: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")] = "",
    kind: Annotated[str | None, Query(max_length=50, pattern=r"^[a-z]+$")] = None,
    registry: Annotated[Name | None, Query()] = None,
) -> FoundOut:
    """The newest version of each plugin that holds every word of `q`; registries that are away are told of."""
    found = _catalog(request).registry(registry).search(q, kind)
    return FoundOut(plugins=tuple(map(OfferOut.of, found.entries)), troubles=tuple(map(TroubleOut.of, found.troubles)))


@router.get("/plugins/offers/{name}", responses=problems(404))
def show_offer(
    request: Request,
    name: PluginName,
    version: Annotated[Version | None, Query()] = None,
    registry: Annotated[Name | None, Query()] = None,
) -> DetailOut:
    """Manifest, docs and versions of what can be installed, and what it changes."""
    catalog = _catalog(request)
    return DetailOut.of(catalog, catalog.offer(check_name(name), version, registry))


@router.post("/plugins", status_code=HTTPStatus.CREATED, responses=problems(400, 404, 409, 413))
def install_plugin(request: Request, new: NewPlugin, actor: Actor) -> InstalledOut:
    """Fetch, check and keep a plugin; steps may use it afterwards."""
    catalog = _catalog(request)
    offer = catalog.offer(check_name(new.name), new.version, new.registry)
    try:
        return InstalledOut.of(catalog.install(offer, actor=actor, unsigned=new.unsigned))
    except AccessError as error:  # of the package: whoever asks may ask
        raise ConflictError(error.what, where=error.where, remedy=error.remedy) from error


@router.delete("/plugins/{name}/{version}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
def uninstall_plugin(request: Request, name: PluginName, version: Version, actor: Actor) -> None:
    """Let no step use it any more; what it told stays."""
    _catalog(request).uninstall(check_name(name), check_version(version), actor=actor)


@router.get("/plugins/{name}/uses", responses=problems(404))
def list_uses(request: Request, name: PluginName) -> list[UseOut]:
    """The steps that run it, the newest first."""
    database = request.app.state.database
    uses = uses_of(database, check_name(name))
    if not uses and not InstalledPlugins(database).versions(name):
        raise NotFoundError(f'no plugin "{name}" is installed, and no step ran one')
    return [UseOut.of(use) for use in uses]
