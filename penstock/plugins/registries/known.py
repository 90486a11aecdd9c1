"""Which registries of others plugins may come from, and all of them as one with the platform's own."""

import hashlib
import re
from collections.abc import Sequence

import attrs
import sqlalchemy as sa

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.plugins.registries.composite import CompositeRegistry
from penstock.plugins.registries.remote import RemoteRegistry
from penstock.plugins.registries.wire import Registry
from penstock.settings import Settings
from penstock.state.plugin_tables import plugin_registries
from penstock.state.tables import audit
from penstock.webhooks.addresses import allowed_hosts, check_address

OWN = ("local", "official", "all")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


@attrs.frozen
class KnownRegistry:
    """A registry of somebody else's."""

    name: str
    url: str
    added_by: str


def add_registry(database: sa.Engine, settings: Settings, name: str, url: str, *, actor: str) -> KnownRegistry:
    """
    Ask this registry too, after those that are known.

    Raises: InputError for a name or address that cannot be; AccessError for an address that users may not reach;
    ConflictError when the name or address is known.
    """
    if not _NAME.fullmatch(name) or name in OWN:
        raise InputError(f'"{name[:80]}" cannot name a registry', remedy="use a-z, 0-9, . and -, such as hub")
    check_address(url, allowed_hosts(settings))
    row = {"name": name, "url": url.rstrip("/"), "added_by": actor}
    try:
        with database.begin() as connection:
            connection.execute(sa.insert(plugin_registries).values(**row))
            _record(connection, actor, "registry.add", name, url=row["url"])
    except sa.exc.IntegrityError as error:
        raise ConflictError(f'"{name}" or its address is known', remedy="see `penstock registry list`") from error
    return KnownRegistry(**row)


def remove_registry(database: sa.Engine, name: str, *, actor: str) -> None:
    """Ask it no more; what was installed from it stays. Raises: NotFoundError."""
    with database.begin() as connection:
        gone = sa.delete(plugin_registries).where(plugin_registries.c.name == name)
        if not connection.execute(gone).rowcount:
            raise NotFoundError(f'no registry is called "{name}"', remedy="see `penstock registry list`")
        _record(connection, actor, "registry.remove", name)


def known_registries(database: sa.Engine) -> tuple[KnownRegistry, ...]:
    """In the order in which they are asked."""
    wanted = sa.select(plugin_registries.c.name, plugin_registries.c.url, plugin_registries.c.added_by)
    with database.connect() as connection:
        return tuple(KnownRegistry(*row) for row in connection.execute(wanted.order_by(plugin_registries.c.position)))


def open_remote(settings: Settings, name: str, url: str, token: str | None = None) -> RemoteRegistry:
    """A registry of others, with its cache under PENSTOCK_HOME."""
    folder = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    cache = settings.home / "plugins" / "cache" / folder
    return RemoteRegistry(name, url, cache, allowed_hosts(settings), token)


def all_registries(settings: Settings, database: sa.Engine, own: Sequence[Registry]) -> CompositeRegistry:
    """The platform's own, then the others."""
    others = (open_remote(settings, one.name, one.url) for one in known_registries(database))
    return CompositeRegistry((*own, *others))


def _record(connection: sa.Connection, actor: str, action: str, subject: str, **detail: str) -> None:
    connection.execute(sa.insert(audit).values(actor=actor, action=action, subject=subject, detail=detail))
