"""Groups of users."""

import re
from collections.abc import Iterable
from datetime import datetime

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.people import NAME
from penstock.people.users import get_user
from penstock.state.people_tables import group_members, groups


@attrs.frozen
class Group:
    """A group and who is in it, by name."""

    name: str
    members: tuple[str, ...] = ()
    created_at: datetime | None = None


def add_group(connection: sa.Connection, name: str, members: Iterable[str] = ()) -> Group:
    """Raises: InputError for a name that cannot be; ConflictError for one that is; NotFoundError for a member."""
    if not re.match(NAME, name):
        remedy = "use letters, digits and ._@+-, at most 100, beginning with a letter or digit"
        raise InputError(f'"{name[:50]}" cannot be a group\'s name', remedy=remedy)
    row = insert(groups).values(name=name).on_conflict_do_nothing().returning(groups.c.name)
    if not connection.execute(row).first():
        raise ConflictError(f'there is a group "{name}" already', remedy="add people to it")
    for member in members:
        add_member(connection, name, member)
    return get_group(connection, name)


def remove_group(connection: sa.Connection, name: str) -> None:
    """Raises: NotFoundError."""
    get_group(connection, name)
    connection.execute(sa.delete(groups).where(groups.c.name == name))


def add_member(connection: sa.Connection, group: str, user: str) -> None:
    """Who is in it already stays. Raises: NotFoundError for the group or the user."""
    get_group(connection, group)
    get_user(connection, user)
    connection.execute(insert(group_members).values(group=group, user=user).on_conflict_do_nothing())


def remove_member(connection: sa.Connection, group: str, user: str) -> None:
    """Raises: NotFoundError when the group is not there, or the user not in it."""
    get_group(connection, group)
    is_it = (group_members.c.group == group, group_members.c.user == user)
    if not connection.execute(sa.delete(group_members).where(*is_it)).rowcount:
        raise NotFoundError(f'"{user}" is not in the group "{group}"', remedy="see `penstock group list`")


def get_group(connection: sa.Connection, name: str) -> Group:
    """Raises: NotFoundError."""
    for group in _groups(connection, sa.select(groups).where(groups.c.name == name)):
        return group
    raise NotFoundError(f'no group is called "{name}"', remedy="list them with `penstock group list`")


def list_groups(connection: sa.Connection, *, after: str = "", limit: int = 1000) -> tuple[Group, ...]:
    """By name, those that come after `after`."""
    return _groups(connection, sa.select(groups).where(groups.c.name > after).order_by(groups.c.name).limit(limit))


def members_of(connection: sa.Connection, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Group → who is in it now; a group that is not there has nobody in it."""
    wanted = sa.select(group_members).where(group_members.c.group.in_(list(names)))
    rows = connection.execute(wanted).all()
    return {name: frozenset(row.user for row in rows if row.group == name) for name in {row.group for row in rows}}


def _groups(connection: sa.Connection, wanted: sa.Select[tuple[object, ...]]) -> tuple[Group, ...]:
    rows = connection.execute(wanted).all()
    members = members_of(connection, [row.name for row in rows])
    return tuple(Group(row.name, tuple(sorted(members.get(row.name, ()))), row.created_at) for row in rows)
