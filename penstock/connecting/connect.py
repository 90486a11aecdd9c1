"""Connect a repository, change how it is reached, disconnect it: in Penstock, in the vault and at its forge."""

from contextlib import suppress
from pathlib import Path

import attrs
import sqlalchemy as sa

from penstock.answers import connections as answering
from penstock.connecting import by_hand
from penstock.connecting.asking import link_of, probe
from penstock.connecting.detect import PLAIN, Place, place_of
from penstock.connecting.hooking import ForgeHooks, hooks_at
from penstock.errors import InputError, NotFoundError, PenstockError, PlatformError
from penstock.forges.clients import CLIENTS, Link
from penstock.forges.clients.wire import check_base
from penstock.platform.example import write_hook
from penstock.settings import Settings, is_loopback
from penstock.sources.git import Remote, default_branch
from penstock.sources.login import Login, check_login, login_of
from penstock.sources.projects import (
    VAULT_PROJECT,
    Project,
    add_project,
    check_name,
    check_token,
    check_url,
    fetched_from,
    forge_token,
    get_project,
    remove_project,
    set_connection,
)
from penstock.sources.reaching import Reach, reach_of
from penstock.vault import Vault, open_vault
from penstock.webhooks import hooks

_WITHOUT_API = ("aws-codecommit", PLAIN)
_BITBUCKET_VERSION = "/api/1.0"  # of Data Center's hooks; its statuses are below another one


@attrs.frozen
class Wanted:
    """
    How a repository is to be connected; what is None is found out, or stays as it is.

    login: for git: `user:token`, a token, or an SSH key. token: for the forge's API; where it is None a token that is
    the login serves. hook: whether the forge is to tell of events. public_url: where forges reach Penstock's API.
    api_url: where the forge's API begins. answers: whether the forge is told how runs stand, where there is a token.
    """

    url: str
    name: str | None = None
    forge: str | None = None
    login: bytes | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    hook: bool = True
    public_url: str | None = None
    api_url: str | None = None
    answers: bool = True


@attrs.frozen
class Connected:
    """
    What came of it. done: lines on what is set up. left: lines on what a person has still to do.

    Lines of `left` may show the hook's secret, this once.
    """

    project: Project
    done: tuple[str, ...] = ()
    left: tuple[str, ...] = attrs.field(default=(), repr=False)


@attrs.frozen
class Connecting:
    """Everything that connecting needs."""

    settings: Settings
    database: sa.Engine
    link: Link

    @property
    def vault(self) -> Vault:
        """Opened when it is needed."""
        return open_vault(self.settings)

    def place(self, url: str, forge: str | None = None) -> Place:
        """Where a repository is; asks hosts that nothing is known of."""
        return place_of(url, forge=forge, ask=lambda address: probe(self.link, address))

    def place_of(self, project: Project) -> Place:
        """Where a connected repository is, as it is on record."""
        known = project.connection
        if known.forge is None:
            return place_of(project.url)
        found = place_of(project.url, forge=known.forge)
        return attrs.evolve(found, api_url=known.api_url or found.api_url)

    def api(self, project: Project) -> ForgeHooks | None:
        """
        The project's forge with its token; None where there is no API or no token.

        Raises: NotFoundError when the vault lacks the token.
        """
        token = self.token(project)
        return hooks_at(self.place_of(project), token, self.link) if token else None

    def token(self, project: Project) -> str | None:
        """For the forge's API: its own, else the password that git uses."""
        return forge_token(self.vault, project) if project.connection.token or project.connection.login else None

    def is_answered(self, project: Project) -> bool:
        """Whether its forge is told how runs stand."""
        return project.name in {known.project for known in answering.list_connections(self.database)}

    @property
    def reach(self) -> Reach:
        """Where git may go: to the same hosts as everything else."""
        return attrs.evolve(reach_of(self.settings), hosts=self.link.allow_private)


def connecting(settings: Settings, database: sa.Engine) -> Connecting:
    """With the settings' own guard on addresses."""
    return Connecting(settings, database, link_of(settings))


def connect(room: Connecting, wanted: Wanted) -> Connected:
    """
    Connect a repository. It is asked with its login before anything is kept.

    Raises: InputError for what cannot be used, ConflictError when the name is another's. What goes wrong with the hook
    is a line in `left`: the repository is connected and polled all the same.
    """
    local = Path(wanted.url).absolute() if Path(wanted.url).is_dir() else None
    url = str(local) if local else wanted.url
    check_url(url)
    name = wanted.name or url.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git").lower()
    check_name(name)
    place = _place(room, url, wanted)
    url = fetched_from(url, place.forge)
    login = _login(room, url, place.forge, wanted.login)
    token = _token(wanted.token)
    project = add_project(room.database, name, url, login=login, reach=room.reach)
    project = _keep(room, project, place, wanted.login, token)
    done = [f"{project.name}: {url}, default branch {project.default_branch}"]
    if place.forge != PLAIN:
        done.append(f"forge {place.forge}{f', {place.repository}' if place.repository else ''}")
    made = _told_by(room, Connected(project, tuple(done)), place, wanted, local)
    return _answered(room, made, place) if wanted.answers else made


def _place(room: Connecting, url: str, wanted: Wanted) -> Place:
    """Raises: InputError, AccessError for an address of an API that cannot be used."""
    if wanted.api_url is None:
        return room.place(url, wanted.forge)
    if wanted.forge in (None, PLAIN):
        raise InputError("the API is of no forge", where="api_url", remedy="say which forge it is of, such as gitea")
    check_base(wanted.api_url, room.link.allow_private)
    base = wanted.api_url.rstrip("/")
    if wanted.forge == "bitbucket-server" and base.endswith("/rest"):
        base += _BITBUCKET_VERSION
    return attrs.evolve(room.place(url, wanted.forge), api_url=base)


def _told_by(room: Connecting, made: Connected, place: Place, wanted: Wanted, local: Path | None) -> Connected:
    """The same with a hook, where one is wanted and can be."""
    if not wanted.hook:
        return attrs.evolve(made, left=("No hook: Penstock polls it every 30 s.",))
    if local:
        return _local(room, made.project, local, [*made.done])
    return _hooked(room, made.project, place, wanted.public_url, made.done)


def _answered(room: Connecting, made: Connected, place: Place) -> Connected:
    """The same, and its forge is told how runs stand, where there is a token and it is not told yet."""
    project = made.project
    if place.forge not in CLIENTS or not room.token(project):
        return made
    if room.is_answered(project):
        return made
    base = place.api_url and place.api_url.removesuffix(_BITBUCKET_VERSION)
    try:
        told = answering.connect(
            room.database, room.vault, project.name, place.forge, secret=None, url=base, link=room.link
        )
    except PenstockError as error:
        return attrs.evolve(made, left=(*made.left, f"{place.forge} is not told how runs stand: {error}"))
    return attrs.evolve(made, done=(*made.done, f"{told.forge} is told how runs stand: {told.repository}"))


def change(
    room: Connecting,
    name: str,
    *,
    login: bytes | None = None,
    token: str | None = None,
    default: str | None = None,
    polled: bool | None = None,
    hook: bool = False,
    public_url: str | None = None,
) -> Connected:
    """
    Change a connection; what is None stays. login, token: b"" and "" forget it. hook: make it if it is not there.

    Raises: NotFoundError, InputError; a login that the repository refuses is not kept.
    """
    project = get_project(room.database, name)
    place, had_token = room.place_of(project), _has_token(room, project)
    if login:
        url = fetched_from(project.url, place.forge)
        _check_answers(Remote(url, _login(room, url, place.forge, login), room.reach))
    if default is not None and not default.strip():
        raise InputError("the branch has no name", where="default_branch")
    project = _keep(room, project, place, login, _token(token))
    project = set_connection(
        room.database, name, project.connection, default_branch=default and default.strip(), polled=polled
    )
    if token:
        answering.use_projects_token(room.database, room.vault, name)
    done = (f"{name}: changed",)
    made = _hooked(room, project, place, public_url, done) if hook else Connected(project, done)
    return made if had_token else _answered(room, made, place)


def disconnect(room: Connecting, name: str) -> Connected:
    """
    Take a repository away: the hook at its forge, its address here, its secrets, its project; history stays.

    A forge that cannot be asked does not hold it up: then a line tells what is left there.
    """
    project = get_project(room.database, name)
    left = _remove_forge_hook(room, project)
    for hook in hooks.list_hooks(room.database, name):
        hooks.remove_hook(room.database, room.vault, hook.id)
    answering.use_projects_token(room.database, room.vault, name)
    remove_project(room.database, name)
    _forget(room.vault, project.connection.login, project.connection.token)
    _remove_local_hook(room.settings, project)
    return Connected(project, (f"{name} is disconnected",), left)


def _has_token(room: Connecting, project: Project) -> bool:
    """Also one that the vault has lost: what is changed now may be what replaces it."""
    try:
        return bool(room.token(project))
    except NotFoundError:
        return True


# Secrets


def _check_answers(remote: Remote) -> None:
    """Raises: InputError when the repository does not answer to the login."""
    try:
        default_branch(remote)
    except PlatformError as error:
        raise InputError(str(error), where=remote.url, remedy="give a login that may read it") from error


def _login(room: Connecting, url: str, forge: str, secret: bytes | None) -> Login | None:
    if not secret:
        return None
    login = login_of(secret, forge=forge, known_hosts=room.settings.home / "known_hosts")
    check_login(login, url)
    return login


def _token(token: str | None) -> str | None:
    return check_token(token) if token else token


def _keep(room: Connecting, project: Project, place: Place, login: bytes | None, token: str | None) -> Project:
    """Secrets into the vault, their names onto the project."""
    known = project.connection
    forge = known.forge or (None if place.forge == PLAIN else place.forge)
    kept = attrs.evolve(
        known,
        forge=forge,
        api_url=known.api_url or place.api_url,
        login=_kept(room, f"login-{project.name}", known.login, login),
        token=_kept(room, f"token-{project.name}", known.token, token.encode() if token is not None else None),
    )
    return project if kept == known else set_connection(room.database, project.name, kept)


def _kept(room: Connecting, name: str, known: str | None, value: bytes | None) -> str | None:
    if value is None:
        return known
    if value:
        room.vault.write(VAULT_PROJECT, name, value)
        return name
    _forget(room.vault, known)
    return None


def _forget(vault: Vault, *names: str | None) -> None:
    for name in filter(None, names):
        with suppress(NotFoundError):
            vault.remove(VAULT_PROJECT, name)


# Hooks


def _local(room: Connecting, project: Project, folder: Path, done: list[str]) -> Connected:
    """A bare repository on this machine tells of pushes by its own hook."""
    if not (folder / "HEAD").is_file():
        return Connected(project, tuple(done), ("No hook: it is no bare repository. Penstock polls it every 30 s.",))
    hook = folder / "hooks" / "post-receive"
    if hook.exists() and "post_receive.py" not in hook.read_text(errors="replace"):
        return Connected(project, tuple(done), (f"{hook} is somebody else's and stays; Penstock polls every 30 s.",))
    write_hook(room.settings, folder, project.name)
    return Connected(project, (*done, f"wrote {hook}"))


def _remove_local_hook(settings: Settings, project: Project) -> None:
    hook = Path(project.url) / "hooks" / "post-receive"
    with suppress(OSError, ValueError):
        if f"/projects/{project.name}/events" in hook.read_text() and str(settings.home) in hook.read_text():
            hook.unlink()


def _hooked(
    room: Connecting, project: Project, place: Place, public_url: str | None, done: tuple[str, ...]
) -> Connected:
    if place.forge in _WITHOUT_API:
        return Connected(project, done, by_hand.steps(place.forge, None, None))
    base = (public_url or room.settings.api_url).rstrip("/")
    api = room.api(project)
    if project.connection.forge_hook and api and _is_there(api, project.connection.forge_hook):
        return Connected(project, (*done, "the hook is there already"))
    project, secret = _address(room, project, place)
    address = f"{base}{hooks.get_hook(room.database, str(project.connection.hook)).path}"
    away = _cannot_reach(base, room.settings, public_url)
    if api is None or away:
        why = (away,) if away else ()
        return Connected(project, done, (*why, *by_hand.steps(place.forge, address, secret)))
    try:
        made = api.make(address, secret)
    except PenstockError as error:
        return Connected(project, done, (f"no hook was made: {error}", *by_hand.steps(place.forge, address, secret)))
    project = set_connection(room.database, project.name, attrs.evolve(project.connection, forge_hook=made.id))
    return Connected(project, (*done, f"made the hook {made.id} at {place.forge}, to {address}"))


def _is_there(api: ForgeHooks, hook_id: str) -> bool:
    try:
        return any(hook.id == hook_id for hook in api.list())
    except PenstockError:
        return False


def _address(room: Connecting, project: Project, place: Place) -> tuple[Project, str]:
    """Penstock's own address for the forge, and a secret that is new: the former one was shown once."""
    if project.connection.hook:
        with suppress(NotFoundError):
            hooks.remove_hook(room.database, room.vault, project.connection.hook)
    secret = hooks.new_secret()
    made = hooks.add_hook(
        room.database, room.vault, project.name, place.forge, secret=secret, repository=place.repository or ""
    )
    kept = attrs.evolve(project.connection, hook=made.id, forge_hook=None)
    return set_connection(room.database, project.name, kept), secret


def _cannot_reach(base: str, settings: Settings, public_url: str | None) -> str | None:
    if public_url is None and is_loopback(settings.host):
        return (
            f"No hook was made: {base} is this machine alone. Give --public-url, the address under which the forge "
            "reaches Penstock, such as a proxy's."
        )
    return None


def _remove_forge_hook(room: Connecting, project: Project) -> tuple[str, ...]:
    hook_id = project.connection.forge_hook
    if hook_id is None:
        made = hooks.list_hooks(room.database, project.name)
        return tuple(f"remove the hook to {hook.path} at {hook.forge} by hand" for hook in made)
    try:
        api = room.api(project)
        if api is None:
            return (f"remove the hook {hook_id} at {project.connection.forge} by hand: there is no token for it",)
        api.remove(hook_id)
    except PenstockError as error:
        return (f"remove the hook {hook_id} at {project.connection.forge} by hand: {error}",)
    return ()
