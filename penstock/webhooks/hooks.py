"""Hooks: the address at which a forge tells of a project, what it is believed by, and its secrets in the vault."""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import sqlalchemy as sa

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.forges.registry import forge_named
from penstock.forges.verify import MAX_LIVE_SECRETS
from penstock.sources.projects import get_project
from penstock.state.tables import hooks
from penstock.vault import Vault

VAULT_PROJECT = "penstock-hooks"
HOOK_ID = re.compile(r"hk[0-9a-f]{32}")
WITHOUT_SECRET = ("aws-codecommit",)
QUEUE_NOTE = "the queue cannot be read: "
_SIGNING = "whsec_"
_QUEUE = re.compile(r"https?://[A-Za-z0-9.:-]{1,255}/\d{12}/[A-Za-z0-9_-]{1,80}(\.fifo)?")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_.-]{1,256}")


@attrs.frozen
class Pins:
    """
    What a forge's deliveries must say besides.

    username: Azure DevOps: of the basic authentication. subscription, azure_project: Azure DevOps: the ids that its
    bodies name; None is not compared. topic_arn: CodeCommit: the one SNS topic that is believed. queue_url: CodeCommit:
    the SQS queue that Penstock reads.
    """

    username: str = "penstock"
    subscription: str | None = None
    azure_project: str | None = None
    topic_arn: str | None = None
    queue_url: str | None = None


@attrs.frozen
class Hook:
    """
    One address. secrets: their names in the vault, newest first. repository: the forge's name for it; None: any.

    refused: deliveries that were not believed, counted; nothing else is kept of them.
    """

    id: str
    project: str
    forge: str
    repository: str | None
    pins: Pins
    secrets: tuple[str, ...]
    created_at: datetime
    refused: int = 0
    refused_at: datetime | None = None
    refused_reason: str | None = None

    @property
    def path(self) -> str:
        """Where the forge sends to, below the API's address."""
        return f"/api/v1/hooks/{self.id}"


def add_hook(
    database: sa.Engine,
    vault: Vault,
    project: str,
    forge: str,
    *,
    secret: str | None,
    repository: str | None = None,
    pins: Pins | None = None,
) -> Hook:
    """
    Make an address for a forge, and keep its secret.

    secret: None for CodeCommit alone. repository: None takes it from the project's address, empty means any.
    Raises: NotFoundError for a project or forge that is not there, InputError for what cannot be used.
    """
    forge_named(forge)
    url = get_project(database, project).url
    pins = pins or Pins()
    _check(forge, secret, pins)
    made = f"hk{secrets.token_hex(16)}"
    named = (f"{made}-1",) if secret else ()
    for name in named:
        vault.write(VAULT_PROJECT, name, str(secret).encode())
    told = repository_in(url) if repository is None else repository or None
    row = {"id": made, "project": project, "forge": forge, "repository": told, "pins": attrs.asdict(pins)}
    with database.begin() as connection:
        connection.execute(sa.insert(hooks).values(**row, secrets=list(named)))
    return get_hook(database, made)


def new_secret(*, signing: bool = False) -> str:
    """Enough for any scheme. signing: GitLab's signing token, `whsec_` and base64."""
    if signing:
        return _SIGNING + base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(32)


def _check(forge: str, secret: str | None, pins: Pins) -> None:
    if forge in WITHOUT_SECRET:
        if pins.topic_arn is None and pins.queue_url is None:
            raise InputError(
                "no SNS topic is pinned", where=forge, remedy="give --topic-arn arn:aws:sns:… or --queue-url"
            )
        if pins.topic_arn is not None and not _TOPIC.fullmatch(pins.topic_arn):
            raise InputError("this is no SNS topic", where=forge, remedy="give --topic-arn arn:aws:sns:…")
        if pins.queue_url is not None and not _QUEUE.fullmatch(pins.queue_url):
            raise InputError(
                "this is no SQS queue", where=forge, remedy="give --queue-url https://sqs.REGION.amazonaws.com/…"
            )
        return
    if pins.queue_url is not None:
        raise InputError("only aws-codecommit is read from a queue", where=forge, remedy="leave --queue-url out")
    if not secret or len(secret) < 16 or not secret.isprintable():
        raise InputError("the hook's secret is too short", where=forge, remedy="use 16 printable characters or more")
    if secret.startswith(_SIGNING):
        try:
            base64.b64decode(secret.removeprefix(_SIGNING).encode(), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError("the signing token is not whsec_ and base64", where=forge) from error


def repository_in(url: str) -> str | None:
    """
    What the forge calls the repository at an address, such as `shop/api`; None for a path on this machine.

    `https://dev.azure.com/org/Shop/_git/api` is `Shop/api`, CodeCommit's `…/v1/repos/api` is `api`, Bitbucket Data
    Center's `…/scm/shop/api.git` is `shop/api`.
    """
    scp = re.fullmatch(r"[^/@]+@[^/:]+:(?!\d+/)(.+)", url)
    if not scp and "://" not in url:
        return None
    parts = urlsplit(url)
    if parts.scheme == "file":
        return None
    path = (scp[1] if scp else parts.path).strip("/").removesuffix(".git")
    words = [word for word in path.split("/") if word]
    if "_git" in words[1:]:
        place = words.index("_git")
        return unquote("/".join((words[place - 1], *words[place + 1 :])))
    if words[:1] == ["v3"] and len(words) == 4:  # git@ssh.dev.azure.com:v3/org/Shop/api
        return "/".join(words[2:])
    if words[:2] == ["v1", "repos"]:
        return "/".join(words[2:])
    return "/".join(words[words.index("scm") + 1 :] if "scm" in words else words) or None


def is_of(hook: Hook, repository: str) -> bool:
    """
    Whether a delivery's repository is the hook's; forges do not mind letter case.

    An address may have a path before the name, where the forge does not live at the root.
    """
    if hook.repository is None:
        return True
    wanted, told = hook.repository.casefold(), repository.casefold()
    return wanted == told or wanted.endswith(f"/{told}")


def get_hook(database: sa.Engine, hook_id: str) -> Hook:
    """Raises: NotFoundError."""
    found = _rows(database, sa.select(hooks).where(hooks.c.id == hook_id)) if HOOK_ID.fullmatch(hook_id) else ()
    if not found:
        raise NotFoundError("no hook has this address", remedy="see `penstock hook list`")
    return found[0]


def list_hooks(database: sa.Engine, project: str | None = None) -> tuple[Hook, ...]:
    """By project and age."""
    wanted = sa.select(hooks).order_by(hooks.c.project, hooks.c.created_at, hooks.c.id)
    return _rows(database, wanted.where(hooks.c.project == project) if project else wanted)


def rotate(database: sa.Engine, vault: Vault, hook_id: str, secret: str) -> Hook:
    """
    One more secret; deliveries with the old or the new one are believed until `end_rotation`.

    Raises: ConflictError while two are live, InputError for a forge that has none.
    """
    hook = get_hook(database, hook_id)
    if hook.forge in WITHOUT_SECRET:
        raise InputError("this forge signs with its own key", where=hook.forge)
    _check(hook.forge, secret, hook.pins)
    if len(hook.secrets) >= MAX_LIVE_SECRETS:
        raise ConflictError("two secrets are live already", where=hook_id, remedy="end that rotation with --finish")
    number = max((int(name.rpartition("-")[2]) for name in hook.secrets), default=0) + 1
    name = f"{hook.id}-{number}"
    vault.write(VAULT_PROJECT, name, secret.encode())
    return _set_secrets(database, hook, (name, *hook.secrets))


def end_rotation(database: sa.Engine, vault: Vault, hook_id: str) -> Hook:
    """
    Only the newest secret stays.

    Raises: ConflictError when there is no other.
    """
    hook = get_hook(database, hook_id)
    if len(hook.secrets) < MAX_LIVE_SECRETS:
        raise ConflictError("only one secret is live", where=hook_id, remedy="begin with `penstock hook rotate`")
    kept = _set_secrets(database, hook, hook.secrets[:1])
    _forget(vault, hook.secrets[1:])
    return kept


def _set_secrets(database: sa.Engine, hook: Hook, names: tuple[str, ...]) -> Hook:
    with database.begin() as connection:
        connection.execute(sa.update(hooks).where(hooks.c.id == hook.id).values(secrets=list(names)))
    return get_hook(database, hook.id)


def remove_hook(database: sa.Engine, vault: Vault, hook_id: str) -> Hook:
    """Deliveries to it are refused from now on; those on record go with it, their events and runs stay."""
    hook = get_hook(database, hook_id)
    with database.begin() as connection:
        connection.execute(sa.delete(hooks).where(hooks.c.id == hook.id))
    _forget(vault, hook.secrets)
    return hook


def _forget(vault: Vault, names: tuple[str, ...]) -> None:
    held = {found.name for found in vault.names(VAULT_PROJECT)}
    for name in held & set(names):
        vault.remove(VAULT_PROJECT, name)


def count_refused(database: sa.Engine, refused: Mapping[str, tuple[int, str]]) -> None:
    """hook → how many deliveries were not believed since the last time, and why the newest was not."""
    with database.begin() as connection:
        for hook_id, (count, reason) in sorted(refused.items()):
            values = {"refused": hooks.c.refused + count, "refused_at": sa.func.now(), "refused_reason": reason}
            connection.execute(sa.update(hooks).where(hooks.c.id == hook_id).values(**values))


def note_queue(database: sa.Engine, hook_id: str, reason: str | None) -> None:
    """Why a hook's queue cannot be read just now; None: it can, and what was noted of it is gone."""
    change = sa.update(hooks).where(hooks.c.id == hook_id)
    if reason:
        change = change.values(refused_reason=f"{QUEUE_NOTE}{reason}"[:300], refused_at=sa.func.now())
    else:
        noted = hooks.c.refused_reason.startswith(QUEUE_NOTE, autoescape=True)
        change = change.where(noted).values(refused_reason=None, refused_at=None)
    with database.begin() as connection:
        connection.execute(change)


def _rows(database: sa.Engine, wanted: sa.Select[Any]) -> tuple[Hook, ...]:
    with database.connect() as connection:
        return tuple(hook_of(row) for row in connection.execute(wanted).mappings())


def hook_of(row: Mapping[Any, Any]) -> Hook:
    """A row of the table as a value."""
    told = {field.name: row[field.name] for field in attrs.fields(Hook)}
    return Hook(**{**told, "pins": Pins(**told["pins"]), "secrets": tuple(told["secrets"])})
