"""Connected repositories."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, InputError, NotFoundError, PlatformError
from penstock.pipeline.complaints import suggestion
from penstock.settings import Settings
from penstock.sources.git import COMMIT, Remote, Repository, default_branch, fetch_pull_request, ls_remote, mirror
from penstock.sources.login import Login, login_of
from penstock.sources.reaching import Reach, reach_of
from penstock.state.tables import heads, projects

if TYPE_CHECKING:
    from penstock.vault import Vault

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VAULT_PROJECT = "penstock-git"
# What the vault keeps under these names is out of every step's reach.
RESERVED = frozenset({"penstock-hooks", VAULT_PROJECT})


@attrs.frozen
class Connection:
    """
    How Penstock reaches a repository and its forge; all None: as whoever runs Penstock, at no forge that is known.

    forge, api_url: what answers there. login, token: names of secrets in the vault's `penstock-git`: for git, and for
    the forge's API. hook: Penstock's own address for it; forge_hook: what the forge calls the hook that it made.
    """

    forge: str | None = None
    api_url: str | None = None
    login: str | None = None
    token: str | None = None
    hook: str | None = None
    forge_hook: str | None = None


@attrs.frozen
class Project:
    """A connected repository. url: whatever git can fetch from, without credentials."""

    name: str
    url: str
    default_branch: str
    polled: bool = True
    connection: Connection = attrs.field(factory=Connection)

    def remote(self, settings: Settings) -> Remote:
        """
        Where git fetches from, with its login from the vault.

        Raises: NotFoundError when the vault lacks the login, PlatformError when it is away.
        """
        url, reach = fetched_from(self.url, self.connection.forge), reach_of(settings)
        if self.connection.login is None:
            return Remote(url, reach=reach)
        from penstock.vault import open_vault

        secret = open_vault(settings).read(VAULT_PROJECT, self.connection.login)
        known_hosts = settings.home / "known_hosts"
        return Remote(url, login_of(secret, forge=self.connection.forge, known_hosts=known_hosts), reach)

    def mirror_folder(self, settings: Settings) -> Path:
        """Where its mirror lies."""
        return settings.home / "mirrors" / f"{self.name}.git"

    def repository(self, settings: Settings) -> Repository:
        """Its mirror as it is."""
        return Repository(self.mirror_folder(settings))

    def with_commit(self, settings: Settings, commit: str, pull_request: "PullRequestHead | None" = None) -> Repository:
        """
        Its mirror, brought up to date if the commit is not there yet.

        pull_request: fetched too where the commit is on no branch. What only forks brought is there for it alone.
        Raises: NotFoundError when the remote has no such commit, PlatformError when git fails.
        """
        repository = self.repository(settings)
        if not ((repository.git_dir / "HEAD").exists() and repository.has(commit)):
            remote = self.remote(settings)
            repository = mirror(remote, repository.git_dir)
            if pull_request and pull_request.ref and not repository.has(commit):
                fetch_pull_request(remote, repository.git_dir, pull_request.ref, fork=pull_request.fork)
        if not repository.has(commit):
            raise NotFoundError(self._no_commit(commit, pull_request), where=self.name)
        if not (pull_request and pull_request.fork) and repository.is_only_of_forks(repository.resolve(commit)):
            what = f"commit {commit[:12]} is known from a fork's pull request only"
            raise NotFoundError(what, where=self.name, remedy="merge it, or push it to a branch of the repository")
        return repository

    def _no_commit(self, commit: str, pull_request: "PullRequestHead | None") -> str:
        if pull_request and pull_request.ref is None:
            return "the forge offers no ref for a fork's pull request, and the fork's own address is not followed"
        return f"no branch or tag of {self.url} holds commit {commit[:12]}"

    def with_ref(self, settings: Settings, ref: str) -> tuple[Repository, str]:
        """
        Its mirror brought up to date, and the commit of a branch or tag.

        Raises: NotFoundError when the remote has no such ref, PlatformError when git fails.
        """
        repository = mirror(self.remote(settings), self.mirror_folder(settings))
        return repository, repository.resolve(ref)


@attrs.frozen
class PullRequestHead:
    """What fetches a pull request's head; no ref: nothing does. fork: whether it comes from another repository."""

    ref: str | None
    fork: bool


_WITH_USER = frozenset({"azure-devops", "bitbucket-cloud", "bitbucket-server"})  # whose tokens may be `user:token`


def forge_token(vault: "Vault", project: Project) -> str | None:
    """
    What opens the forge's API, for making hooks, asking and answering: the token, else the password that git uses.

    Returns: one line, or JSON of a GitHub app or an AWS key; None where there is neither.
    Raises: NotFoundError when the vault lacks it, PlatformError when it is away.
    """
    known = project.connection
    if known.token:
        token = vault.read(VAULT_PROJECT, known.token).decode().strip()
        has_user = ":" in token and not token.startswith("{") and known.forge not in _WITH_USER
        return token.partition(":")[2] if has_user else token
    if known.login:
        login = login_of(vault.read(VAULT_PROJECT, known.login), forge=known.forge)
        return None if login.key else login.password
    return None


def check_token(token: str) -> str:
    """The token without what stands around it. Raises: InputError; a line break in a header would be another header."""
    told = token.strip()
    if not told or not (told.startswith("{") or (told.isascii() and told.isprintable())):
        raise InputError("this is no token", where="token", remedy="give one line of ASCII, or JSON")
    return told


def keep_token(database: sa.Engine, vault: "Vault", project: Project, token: str) -> Project:
    """The project with its token in the vault, where no step can ask for it. Raises: InputError for what is none."""
    name = f"token-{project.name}"
    vault.write(VAULT_PROJECT, name, check_token(token).encode())
    if project.connection.token == name:
        return project
    return set_connection(database, project.name, attrs.evolve(project.connection, token=name))


def add_project(
    database: sa.Engine, name: str, url: str, *, login: Login | None = None, reach: Reach | None = None
) -> Project:
    """
    Connect a repository; the same name and address again is fine.

    login: for asking it now; what is used later is set with `set_connection`. reach: which hosts may be asked.

    Raises: InputError for a name or address that cannot be used, AccessError for one that must not be, ConflictError
    when the name is another's.
    """
    check_name(name)
    check_url(url)
    remote = Remote(url, login, reach or Reach())
    try:
        project = Project(name, url, default_branch(remote))
        tags = {ref: commit for ref, commit in ls_remote(remote, tags=True).items() if ref.startswith("refs/tags/")}
    except PlatformError as error:
        raise InputError(str(error), where=url, remedy="give an address that `git ls-remote` can read") from error
    row = {"name": name, "url": url, "default_branch": project.default_branch}
    _check_alike(database, name)
    with database.begin() as connection:
        made = connection.execute(insert(projects).values(row).on_conflict_do_nothing().returning(projects.c.name))
        if made.first() and tags:  # those that are there already are no news; branches run once, to show what they do
            known = [{"project": name, "ref": ref, "commit": commit} for ref, commit in tags.items()]
            connection.execute(insert(heads).on_conflict_do_nothing(), known)
    found = get_project(database, name)
    if found.url != url:
        raise ConflictError(f'a project "{name}" is connected to {found.url}', remedy="choose another name")
    return found


def fetched_from(url: str, forge: str | None) -> str:
    """What git is told for an address: GitLab would redirect one without `.git`, and redirects are not followed."""
    is_web = url.lower().startswith(("https://", "http://"))
    return f"{url.rstrip('/')}.git" if forge == "gitlab" and is_web and not url.rstrip("/").endswith(".git") else url


def check_name(name: str) -> None:
    """Raises: InputError for what is no name of a project."""
    if not NAME.fullmatch(name):
        raise InputError(f'"{name}" is no name for a project', remedy="use small letters, digits, - and _")
    if name in RESERVED:
        raise InputError(f'"{name}" is Penstock\'s own', where="name", remedy="choose another name")


def _check_alike(database: sa.Engine, name: str) -> None:
    for other in list_projects(database):
        if other.name != name and other.name.replace("-", "_") == name.replace("-", "_"):
            raise ConflictError(f'there is a project "{other.name}"', remedy="differ in more than - and _")


def check_url(url: str) -> None:
    """Raises: InputError for what is no address, or holds credentials; none is repeated."""
    if url.startswith("-") or "::" in url or any(ord(char) < 33 for char in url):
        raise InputError("this is no address of a repository", where="url", remedy="give https://, ssh:// or a path")
    # A name alone may be a token, as in https://TOKEN@github.com.
    if re.match(r"https?://[^/]*@|[a-z+]+://[^/@]*:[^/@]*@", url, re.IGNORECASE):
        raise InputError("the address holds credentials", where="url", remedy="leave them out")


def get_project(database: sa.Engine, name: str) -> Project:
    """Raises: NotFoundError with the nearest name."""
    found = {project.name: project for project in list_projects(database)}
    if name not in found:
        raise NotFoundError(f'no project is called "{name}"', remedy=suggestion(name, found))
    return found[name]


def list_projects(database: sa.Engine) -> tuple[Project, ...]:
    """By name."""
    with database.connect() as connection:
        rows = connection.execute(sa.select(projects).order_by(projects.c.name)).mappings()
        return tuple(_project(row) for row in rows)


def _project(row: Mapping[Any, Any]) -> Project:
    known = Connection(**row["connection"])
    return Project(row["name"], row["url"], row["default_branch"], row["polled"], known)


def set_connection(
    database: sa.Engine,
    name: str,
    connection: Connection,
    *,
    default_branch: str | None = None,
    polled: bool | None = None,
) -> Project:
    """
    Change how a repository is reached; what is None stays.

    Raises: NotFoundError.
    """
    get_project(database, name)
    given = {"default_branch": default_branch, "polled": polled}
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    values["connection"] = {key: value for key, value in attrs.asdict(connection).items() if value is not None}
    with database.begin() as engine:
        engine.execute(sa.update(projects).where(projects.c.name == name).values(values))
    return get_project(database, name)


def remove_project(database: sa.Engine, name: str) -> None:
    """
    Disconnect a repository; its history stays in the warehouse.

    Raises: NotFoundError.
    """
    get_project(database, name)
    with database.begin() as connection:
        connection.execute(sa.delete(projects).where(projects.c.name == name))


def known_heads(database: sa.Engine, project: str) -> dict[str, str]:
    """Ref → the commit that was last accepted for it."""
    with database.connect() as connection:
        rows = connection.execute(sa.select(heads.c.ref, heads.c.commit).where(heads.c.project == project))
        return {row.ref: row.commit for row in rows}


def is_commit(text: str) -> bool:
    """Whether `text` is a full hash, and not that of a deletion."""
    return bool(COMMIT.fullmatch(text)) and set(text) != {"0"}
