"""Users: a name, a mail address, and the names under which commits and forges know them."""

import os
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from email.utils import parseaddr
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.people import NAME
from penstock.state.people_tables import users
from penstock.state.tables import tokens

LOCAL = "local"
_MAIL = re.compile(r"^[^\s@<>,;:\"\x00-\x1f]{1,64}@[^\s@<>,;:\"\x00-\x1f]{1,255}$")
_NAME_LIMIT = 200


@attrs.frozen
class User:
    """
    A person. git_names, git_mails: what else the author of a commit, or a forge's account, may be called.

    is_local: whether this machine's own token speaks for this person.
    """

    name: str
    mail: str | None = None
    git_names: tuple[str, ...] = ()
    git_mails: tuple[str, ...] = ()
    is_local: bool = False
    created_at: datetime | None = None

    def __attrs_post_init__(self) -> None:
        if not re.match(NAME, self.name):
            remedy = "use letters, digits and ._@+-, at most 100, beginning with a letter or digit"
            raise InputError(f'"{self.name[:50]}" cannot be a user\'s name', remedy=remedy)
        if self.name == LOCAL:
            raise InputError(f'"{LOCAL}" is what this machine\'s own token is called', remedy="choose another name")
        for mail in (*((self.mail,) if self.mail else ()), *self.git_mails):
            if not _MAIL.match(mail):
                raise InputError(f'"{mail[:100]}" is no mail address', remedy="write it as ada@example.org")
        for called in self.git_names:
            if not 0 < len(called) <= _NAME_LIMIT or not called.isprintable():
                raise InputError("a git name is 1 to 200 printable characters", remedy="write it as git log shows it")

    @property
    def known_as(self) -> frozenset[str]:
        """Every name and address of the person, without regard to case."""
        return frozenset(one.casefold() for one in (self.name, self.mail, *self.git_names, *self.git_mails) if one)

    @property
    def can_be_recognised(self) -> bool:
        """Whether a commit's author can be told to be this person, or not to be."""
        return bool(self.mail or self.git_mails or self.git_names)


def called(text: str) -> frozenset[str]:
    """What a commit's author, or an event's actor, goes by: `Ada <ada@example.org>` has a name and an address."""
    name, mail = parseaddr(text)
    return frozenset(one.strip().casefold() for one in (text, name, mail, text.partition("<")[0]) if one.strip())


def add_user(connection: sa.Connection, user: User) -> User:
    """Raises: ConflictError when there is one of that name."""
    row = insert(users).values(_row(user)).on_conflict_do_nothing(index_elements=["name"]).returning(*users.c)
    _make_way(connection, user)
    if not (found := connection.execute(row).mappings().first()):
        raise ConflictError(f'there is a user "{user.name}" already', remedy="edit it, or choose another name")
    return _user(found)


def edit_user(connection: sa.Connection, name: str, change: Mapping[str, Any]) -> User:
    """
    change: fields of User but the name, those that are given.

    Raises: NotFoundError, InputError for what cannot be stored.
    """
    user = attrs.evolve(get_user(connection, name), **change)
    _make_way(connection, user)
    connection.execute(sa.update(users).where(users.c.name == name).values(_row(user)))
    return user


def remove_user(connection: sa.Connection, name: str) -> None:
    """With the person's tokens and memberships; what the person said stays on record. Raises: NotFoundError."""
    get_user(connection, name)
    connection.execute(sa.delete(tokens).where(tokens.c.subject == name))
    connection.execute(sa.delete(users).where(users.c.name == name))


def get_user(connection: sa.Connection, name: str) -> User:
    """Raises: NotFoundError."""
    if not (found := find_users(connection, [name])):
        raise NotFoundError(f'no user is called "{name}"', remedy="list them with `penstock user list`")
    return found[0]


def find_users(connection: sa.Connection, names: Iterable[str]) -> tuple[User, ...]:
    """Those that there are of these names."""
    wanted = sa.select(users).where(users.c.name.in_(list(names))).order_by(users.c.name)
    return tuple(_user(row) for row in connection.execute(wanted).mappings())


def list_users(connection: sa.Connection, *, after: str = "", limit: int = 1000) -> tuple[User, ...]:
    """By name, those that come after `after`."""
    wanted = sa.select(users).where(users.c.name > after).order_by(users.c.name).limit(limit)
    return tuple(_user(row) for row in connection.execute(wanted).mappings())


def person_of(connection: sa.Connection, subject: str) -> str:
    """For whom a token speaks: this machine's own for the user who is `local`, else for the system's account."""
    if subject != LOCAL:
        return subject
    return connection.execute(sa.select(users.c.name).where(users.c.is_local)).scalar() or system_account()


def system_account() -> str:
    """Who runs this process, by the system's account; what LOGNAME says is anybody's to choose."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def authors_among(
    connection: sa.Connection, names: Sequence[str], author: str | None, actor: str | None
) -> frozenset[str]:
    """
    Which of these people wrote the commit or set the run off.

    author: as git says it, `Ada <ada@example.org>`. actor: as the forge says it.
    """
    theirs = called(author or "") | called(actor or "")
    known = {user.name: user.known_as for user in find_users(connection, names)}
    return frozenset(name for name in names if known.get(name, frozenset({name.casefold()})) & theirs)


def perhaps_authors(
    connection: sa.Connection, names: Sequence[str], author: str | None, actor: str | None
) -> frozenset[str]:
    """
    The same, and those who cannot be told not to have.

    Whose git names nobody has told Penstock might be anybody, and so might the author of a commit that names none.
    """
    if not author:
        return frozenset(names)
    told = {user.name for user in find_users(connection, names) if user.can_be_recognised}
    return authors_among(connection, names, author, actor) | (frozenset(names) - told)


def _make_way(connection: sa.Connection, user: User) -> None:
    """One person at a time is the local one."""
    if user.is_local:
        others = sa.update(users).where(users.c.is_local, users.c.name != user.name)
        connection.execute(others.values(is_local=False))


def _row(user: User) -> dict[str, Any]:
    fields = attrs.asdict(user, filter=attrs.filters.exclude("created_at"))
    return {**fields, "git_names": list(user.git_names), "git_mails": list(user.git_mails)}


def _user(row: Mapping[Any, Any]) -> User:
    lists = {"git_names": tuple(row["git_names"]), "git_mails": tuple(row["git_mails"])}
    return User(**{**{field.name: row[field.name] for field in attrs.fields(User)}, **lists})
