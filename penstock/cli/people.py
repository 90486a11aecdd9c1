"""`penstock user`, `group` and `token`: people, what groups they are in, and what their tokens let them do."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table

from penstock.cli.show import console as make_console
from penstock.errors import InputError
from penstock.people import groups as group_rows
from penstock.people import tokens as token_rows
from penstock.people import users as user_rows
from penstock.people.audit import record_in
from penstock.people.users import User, system_account
from penstock.pipeline.log import utc_now
from penstock.settings import load_settings
from penstock.state.database import hosted_database

users = typer.Typer(no_args_is_help=True)
groups = typer.Typer(no_args_is_help=True)
tokens = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name.")]
GroupName = Annotated[str, typer.Argument(help="The group's name.")]
Mail = Annotated[str | None, typer.Option(help="Where to ask for approvals; empty takes it away.")]
GitNames = Annotated[list[str] | None, typer.Option("--git-name", help="A name in commits or on a forge; repeatable.")]
GitMails = Annotated[list[str] | None, typer.Option("--git-mail", help="Another address in commits; repeatable.")]
Local = Annotated[bool | None, typer.Option("--local/--not-local", help="Whether this machine's token is theirs.")]
NEVER, DEFAULT_DAYS, LONGEST_DAYS = "never", 90, 3650


@users.callback()
def _users() -> None:
    """
    People: who they are, and what commits call them.

    Examples:

        penstock user add ada --mail ada@example.org --git-name "Ada Lovelace"
    """


@users.command("add")
def add_user(
    name: Name, mail: Mail = None, git_name: GitNames = None, git_mail: GitMails = None, local: Local = None
) -> None:
    """
    Make a person known.

    Examples:

        penstock user add ada --mail ada@example.org --git-name "Ada Lovelace" --git-name ada-l
    """
    user = User(name, mail or None, tuple(git_name or ()), tuple(git_mail or ()), bool(local))
    with _changing("user.add", name, **_given(mail, git_name, git_mail, local)) as connection:
        user_rows.add_user(connection, user)
    typer.echo(f"{name} is known; a token: penstock token create {name} --scope approve")


@users.command("list")
def list_users() -> None:
    """
    List the people, by name.

    Examples:

        penstock user list
    """
    table = Table("name", "mail", "called in commits", "", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database, database.connect() as connection:
        for user in user_rows.list_users(connection):
            also = ", ".join((*user.git_names, *user.git_mails))
            table.add_row(user.name, user.mail or "", also, "this machine" if user.is_local else "")
    make_console().print(table)


@users.command("show")
def show_user(name: Name) -> None:
    """
    Show a person, with groups and tokens.

    Examples:

        penstock user show ada
    """
    with hosted_database(load_settings()) as database, database.connect() as connection:
        user = user_rows.get_user(connection, name)
        member_of = [group.name for group in group_rows.list_groups(connection) if name in group.members]
        table = Table(box=None, pad_edge=False, show_header=False)
        for what, told in (
            ("name", user.name),
            ("mail", user.mail or ""),
            ("git names", ", ".join(user.git_names)),
            ("git mails", ", ".join(user.git_mails)),
            ("this machine's token", "theirs" if user.is_local else ""),
            ("groups", ", ".join(member_of)),
            ("tokens", ", ".join(token.id for token in token_rows.list_tokens(connection, user=name))),
        ):
            table.add_row(what, told)
    make_console().print(table)


@users.command("edit")
def edit_user(
    name: Name, mail: Mail = None, git_name: GitNames = None, git_mail: GitMails = None, local: Local = None
) -> None:
    """
    Change a person; what is not named stays, and names that are given take the place of all.

    Examples:

        penstock user edit ada --mail lovelace@example.org
    """
    change = _given(mail, git_name, git_mail, local)
    if not change:
        raise InputError("there is nothing to change", remedy="give --mail, --git-name, --git-mail or --local")
    with _changing("user.edit", name, **change) as connection:
        user_rows.edit_user(connection, name, change)
    typer.echo(f"{name} is changed")


@users.command("remove")
def remove_user(name: Name) -> None:
    """
    Forget a person, with tokens and memberships; what the person approved stays on record.

    Examples:

        penstock user remove ada
    """
    with _changing("user.remove", name) as connection:
        user_rows.remove_user(connection, name)
    typer.echo(f"{name} is forgotten, and the tokens are worth nothing any more")


@contextmanager
def _changing(action: str, subject: str, **detail: Any) -> Iterator[sa.Connection]:
    """A change and its row in the audit, both or neither; by the system's account."""
    with hosted_database(load_settings()) as database, database.begin() as connection:
        yield connection
        record_in(connection, system_account(), action, subject, **detail)


def _given(
    mail: str | None, git_name: list[str] | None, git_mail: list[str] | None, local: bool | None
) -> dict[str, Any]:
    """What was named on the command line, as fields of User."""
    given = {
        "mail": mail if mail is None else mail or None,
        "git_names": None if git_name is None else tuple(one for one in git_name if one),
        "git_mails": None if git_mail is None else tuple(one for one in git_mail if one),
        "is_local": local,
    }
    named = {"mail": mail, "git_names": git_name, "git_mails": git_mail, "is_local": local}
    return {field: value for field, value in given.items() if named[field] is not None}


@groups.callback()
def _groups() -> None:
    """
    Groups of people.

    Examples:

        penstock group add release-managers ada grace
    """


@groups.command("add")
def add_group(
    name: GroupName, members: Annotated[list[str] | None, typer.Argument(help="Users to put into it.")] = None
) -> None:
    """
    Make a group, or put more people into one.

    Examples:

        penstock group add release-managers ada grace
    """
    people = tuple(members or ())
    with _changing("group.add", name, members=people) as connection:
        known = {group.name for group in group_rows.list_groups(connection)}
        if name not in known:
            group_rows.add_group(connection, name)
        elif not people:
            raise InputError(f'there is a group "{name}" already', remedy="name people to put into it")
        for member in people:
            group_rows.add_member(connection, name, member)
        found = group_rows.get_group(connection, name)
    typer.echo(f"{name}: {', '.join(found.members) or 'nobody yet'}")


@groups.command("list")
def list_groups() -> None:
    """
    List the groups and who is in them.

    Examples:

        penstock group list
    """
    table = Table("group", "people", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database, database.connect() as connection:
        for group in group_rows.list_groups(connection):
            table.add_row(group.name, ", ".join(group.members))
    make_console().print(table)


@groups.command("remove")
def remove_group(
    name: GroupName, members: Annotated[list[str] | None, typer.Argument(help="Only these people, not it.")] = None
) -> None:
    """
    Take people out of a group; without people, remove the group.

    Examples:

        penstock group remove release-managers grace
    """
    with _changing("group.remove", name, members=tuple(members or ())) as connection:
        for member in members or ():
            group_rows.remove_member(connection, name, member)
        if not members:
            group_rows.remove_group(connection, name)
    typer.echo(f"{', '.join(members or ())} left {name}" if members else f"the group {name} is gone")


@tokens.callback()
def _tokens() -> None:
    """
    Tokens for the API, with what they let do.

    Examples:

        penstock token create ada --scope read --scope approve
    """


@tokens.command("create")
def create_token(
    user: Name,
    scope: Annotated[list[str], typer.Option(help="read, write, approve or admin; repeatable.")] = ["read"],  # noqa: B006
    expires: Annotated[str, typer.Option(help="In days, such as 90d, or never.")] = f"{DEFAULT_DAYS}d",
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """
    Make a token for a user. It is printed here, once, and never again.

    Examples:

        penstock token create ada --scope approve --expires 30d --label laptop
    """
    until = None if expires == NEVER else utc_now() + timedelta(days=_days(expires))
    with _changing("token.create", user, scopes=tuple(scope), label=label, expires=expires) as connection:
        made, secret = token_rows.create_token(connection, user, scope, expires_at=until, label=label)
    told = "never expires" if until is None else f"expires on {until:%Y-%m-%d}"
    typer.echo(f"token {made.id} of {user} ({', '.join(made.scopes)}) {told}; it is shown this once:", err=True)
    typer.echo(secret)


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isascii() or not number.isdecimal() or not 0 < int(number[:9]) <= LONGEST_DAYS:
        remedy = f"write 1d to {LONGEST_DAYS}d, or {NEVER}"
        raise InputError(f'"{text[:30]}" is no number of days', where="--expires", remedy=remedy)
    return int(number)


@tokens.command("list")
def list_tokens(user: Annotated[str | None, typer.Option(help="Only this user's.")] = None) -> None:
    """
    List the tokens, without their secrets.

    Examples:

        penstock token list --user ada
    """
    table = Table("id", "user", "scopes", "label", "expires", "used", box=None, pad_edge=False)
    with hosted_database(load_settings()) as database, database.connect() as connection:
        for token in token_rows.list_tokens(connection, user=user):
            expires = f"{token.expires_at:%Y-%m-%d}" if token.expires_at else NEVER
            expires += " (expired)" if token.expires_at and token.expires_at < utc_now() else ""
            used = f"{token.used_at:%Y-%m-%d}" if token.used_at else ""
            table.add_row(token.id, token.subject, ", ".join(token.scopes), token.label, expires, used)
    make_console().print(table)


@tokens.command("revoke")
def revoke_token(token: Annotated[str, typer.Argument(help="Its identifier, not the secret.")]) -> None:
    """
    Make a token worth nothing.

    Examples:

        penstock token revoke 3f9a01bc
    """
    with _changing("token.revoke", token) as connection:
        gone = token_rows.revoke_token(connection, token)
    typer.echo(f"token {token} of {gone.subject} is worth nothing any more")
