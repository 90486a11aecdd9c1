"""Which forge is told how a project's runs stand, what of them, and with which secret of the vault."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import InputError, NotFoundError
from penstock.forges.clients import CLIENTS, Link, Place, open_client
from penstock.forges.clients.wire import check_base
from penstock.sources.projects import Project, check_token, forge_token, get_project, keep_token
from penstock.state.tables import connections
from penstock.vault import Vault
from penstock.webhooks.hooks import VAULT_PROJECT, repository_in

_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
_PUBLIC_APIS = {
    ("github", "github.com"): "https://api.github.com",
    ("bitbucket-cloud", "bitbucket.org"): "https://api.bitbucket.org/2.0",
}
_API_PATHS = {
    "github": "/api/v3",
    "gitlab": "/api/v4",
    "gitea": "/api/v1",
    "forgejo": "/api/v1",
    "bitbucket-server": "/rest",
}


@attrs.frozen
class Options:
    """
    What the forge is told.

    context: the first part of every status's name. steps: each step too, not only the run; None: where the forge has
    checks. comments: the finding difference on pull requests. skipped: an event that starts no run, by the pipeline's
    triggers or [skip ci], is a success. assets: keys of artifacts (* at the end is any) for a tag's release.
    """

    context: str = "penstock"
    steps: bool | None = None
    comments: bool = True
    skipped: bool = False
    assets: tuple[str, ...] = ()


@attrs.frozen
class Connection:
    """
    One project's forge. created_at: what was over before is not told.

    secret: the name of a token of its own in the vault's `penstock-hooks`, as older homes may have; else empty.

    failures, reason, again_at: how it went of late.
    """

    project: str
    forge: str
    url: str
    repository: str
    secret: str
    options: Options
    created_at: datetime
    failures: int = 0
    reason: str | None = None
    again_at: datetime | None = None

    @property
    def place(self) -> Place:
        """Where its API is."""
        return Place(self.forge, self.url, self.repository)


def api_url(forge: str, url: str) -> str:
    """
    Where the API of the forge behind a repository's address begins.

    Raises: InputError where that cannot be told from the address.
    """
    host, path = _host(url), urlsplit(url).path.strip("/") if "://" in url else ""
    if known := _PUBLIC_APIS.get((forge, host)):
        return known
    if forge in _API_PATHS and host:
        return f"https://{host}{_API_PATHS[forge]}"
    if forge == "azure-devops" and host in ("dev.azure.com", "ssh.dev.azure.com"):
        words = path.split("/") if path else url.partition(":")[2].split("/")
        return f"https://dev.azure.com/{words[1] if words[0] == 'v3' else words[0]}"
    if forge == "aws-codecommit" and (found := re.fullmatch(r"git-codecommit\.([a-z0-9-]+)\.amazonaws\.com", host)):
        return f"https://codecommit.{found[1]}.amazonaws.com"
    raise InputError(f"{url} does not tell where the API of {forge} is", remedy="give it with --api-url")


def _host(url: str) -> str:
    if "://" in url:
        parts = urlsplit(url)
        # ssh's port is not that of the API.
        port = f":{parts.port}" if parts.port and parts.scheme in ("http", "https") else ""
        return f"{parts.hostname or ''}{port}"
    found = re.fullmatch(r"[^/@]+@([^/:]+):.+", url)
    return found[1] if found else ""


def connect(
    database: sa.Engine,
    vault: Vault,
    project: str,
    forge: str,
    *,
    secret: str | None,
    url: str | None = None,
    repository: str | None = None,
    options: Options | None = None,
    link: Link | None = None,
) -> Connection:
    """
    Tell a forge of a project's runs from now on; called again, it changes how.

    secret: becomes the project's token, for everything that its forge is asked; None: that is there already.
    url, repository: None takes them from the project's address.
    Raises: NotFoundError for a project or forge that is not there, InputError, AccessError for what cannot be used.
    """
    if forge not in CLIENTS:
        raise NotFoundError(f'no forge is called "{forge}"', remedy=f"take one of {', '.join(CLIENTS)}")
    link, options = link or Link(), options or Options()
    _check_options(options)
    known = get_project(database, project)
    url = (url or api_url(forge, known.url)).rstrip("/")
    check_base(url, link.allow_private)
    place = Place(forge, url, _repository(repository, known.url))
    former = _own_secret(database, project)
    told = check_token(secret) if secret else _present_token(vault, known, former)
    open_client(place, told, link).close()
    if secret:
        keep_token(database, vault, known, told)
    row: dict[str, Any] = {"project": project, "forge": forge, "url": url, "repository": place.repository}
    row |= {"secret": "" if secret else former, "options": attrs.asdict(options)}
    row |= {"failures": 0, "reason": None, "again_at": None}
    made = insert(connections).values(**row)
    with database.begin() as connection:
        connection.execute(made.on_conflict_do_update(index_elements=["project"], set_=row))
    if secret:
        _forget(vault, former)
    return get_connection(database, project)


def _own_secret(database: sa.Engine, project: str) -> str:
    with database.connect() as connection:
        found = connection.execute(sa.select(connections.c.secret).where(connections.c.project == project)).scalar()
    return found or ""


def _present_token(vault: Vault, project: Project, own: str) -> str:
    token = vault.read(VAULT_PROJECT, own).decode().strip() if own else forge_token(vault, project)
    if not token:
        remedy = f"give it one: penstock project edit {project.name} --token-file FILE"
        raise NotFoundError("there is no token for its forge", where=project.name, remedy=remedy)
    return token


def read_token(database: sa.Engine, vault: Vault, of: Connection) -> str:
    """
    What opens the forge.

    Raises: NotFoundError where there is no token, PlatformError when the vault is away.
    """
    return _present_token(vault, get_project(database, of.project), of.secret)


def forge_access(database: sa.Engine, vault: Vault, project: str, forge: str) -> tuple[Place, str] | None:
    """
    Where the project's forge is asked, and its token; None without a token.

    Raises: NotFoundError, InputError where the place cannot be told, PlatformError when the vault is away.
    """
    answered = {found.project: found for found in list_connections(database)}.get(project)
    if answered and answered.forge == forge:
        return answered.place, read_token(database, vault, answered)
    known = get_project(database, project)
    token = forge_token(vault, known)
    if token is None:
        return None
    url = known.connection.api_url or api_url(forge, known.url)
    return Place(forge, url.rstrip("/"), _repository(None, known.url)), token


def use_projects_token(database: sa.Engine, vault: Vault, project: str) -> None:
    """From now on the project's token alone is asked for; one that answers had of their own is forgotten."""
    own = _own_secret(database, project)
    if own:
        change = sa.update(connections).where(connections.c.project == project)
        with database.begin() as connection:
            connection.execute(change.values(secret=""))
        _forget(vault, own)


def _forget(vault: Vault, name: str) -> None:
    if name and name in {held.name for held in vault.names(VAULT_PROJECT)}:
        vault.remove(VAULT_PROJECT, name)


def _repository(given: str | None, address: str) -> str:
    found = given or repository_in(address)
    if not found:
        raise InputError(f"{address} does not tell the repository's name", remedy="give it with --repository")
    if any(ord(char) < 33 or char in "?#%\\" for char in found) or ".." in found.split("/"):
        raise InputError("this is no name of a repository", where=found[:100])
    return found


def _check_options(options: Options) -> None:
    if not _CONTEXT.fullmatch(options.context):
        raise InputError(f'"{options.context[:80]}" is no name for a status', where="context", remedy="40 letters")


def get_connection(database: sa.Engine, project: str) -> Connection:
    """Raises: NotFoundError."""
    for found in list_connections(database):
        if found.project == project:
            return found
    raise NotFoundError(f"no forge is told of {project}", remedy="see `penstock answers connect --help`")


def list_connections(database: sa.Engine) -> tuple[Connection, ...]:
    """By project."""
    with database.connect() as connection:
        rows = connection.execute(sa.select(connections).order_by(connections.c.project)).mappings()
        return tuple(connection_of(row) for row in rows)


def connection_of(row: Mapping[Any, Any]) -> Connection:
    """A row of the table as a value."""
    told = {field.name: row[field.name] for field in attrs.fields(Connection)}
    options = {**told["options"], "assets": tuple(told["options"].get("assets", ()))}
    return Connection(**{**told, "options": Options(**options)})


def disconnect(database: sa.Engine, vault: Vault, project: str) -> None:
    """
    Tell the forge nothing more; what it shows stays there, and the project keeps its token.

    Raises: NotFoundError.
    """
    found = get_connection(database, project)
    with database.begin() as connection:
        connection.execute(sa.delete(connections).where(connections.c.project == project))
    _forget(vault, found.secret)
