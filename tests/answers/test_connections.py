"""Connecting a project with its forge: where the API is, what may be given, and where the token lies."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from forge_server import TOKEN, ForgeServer

from penstock.answers.connections import (
    Connection,
    Options,
    api_url,
    connect,
    get_connection,
    list_connections,
    read_token,
)
from penstock.answers.outbox import shows_steps
from penstock.errors import InputError, NotFoundError
from penstock.forges.clients import Link
from penstock.forges.clients.wire import check_base
from penstock.sources.projects import get_project, keep_token
from penstock.vault import Vault

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("forge", "url", "api"),
    [
        ("github", "https://github.com/shop/api.git", "https://api.github.com"),
        ("github", "git@github.com:shop/api.git", "https://api.github.com"),
        ("github", "https://git.corp.example/shop/api", "https://git.corp.example/api/v3"),
        ("gitlab", "https://gitlab.com/group/sub/api.git", "https://gitlab.com/api/v4"),
        ("gitlab", "https://git.corp.example:8443/a/b", "https://git.corp.example:8443/api/v4"),
        ("gitlab", "ssh://git@git.corp.example:2222/a/b", "https://git.corp.example/api/v4"),
        ("gitea", "https://codeberg.example/shop/api", "https://codeberg.example/api/v1"),
        ("forgejo", "https://codeberg.org/shop/api", "https://codeberg.org/api/v1"),
        ("bitbucket-cloud", "https://bitbucket.org/shop/api", "https://api.bitbucket.org/2.0"),
        ("bitbucket-server", "https://bb.example/scm/shop/api.git", "https://bb.example/rest"),
        ("azure-devops", "https://dev.azure.com/org/Shop/_git/api", "https://dev.azure.com/org"),
        ("azure-devops", "git@ssh.dev.azure.com:v3/org/Shop/api", "https://dev.azure.com/org"),
        (
            "aws-codecommit",
            "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/api",
            "https://codecommit.eu-central-1.amazonaws.com",
        ),
    ],
)
def test_the_api_is_known_by_the_repositorys_address(forge: str, url: str, api: str) -> None:
    """Where the forge has one place for it."""
    assert api_url(forge, url) == api


@pytest.mark.parametrize(
    ("forge", "url"),
    [
        ("azure-devops", "https://tfs.corp.example/tfs/Collection/Shop/_git/api"),
        ("bitbucket-cloud", "https://example.com/shop/api"),
        ("aws-codecommit", "codecommit::eu-central-1://api"),
        ("github", "/srv/git/shop.git"),
    ],
)
def test_an_address_that_does_not_tell_is_asked_for(forge: str, url: str) -> None:
    """With the option that gives it."""
    with pytest.raises(InputError, match="--api-url"):
        api_url(forge, url)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        (f"http://{PUBLIC}/api", "unencrypted"),
        (f"https://{PUBLIC}/api?x=1", "query"),
        (f"https://user:word@{PUBLIC}/api", "credentials"),
        ("ftp://example.com", "no address"),
        ("api.example.com", "no address"),
    ],
)
def test_an_address_that_would_give_the_token_away_is_refused(url: str, wrong: str) -> None:
    """Plain http only where the operator allows a private network."""
    with pytest.raises(InputError, match=wrong):
        check_base(url, True)


def test_plain_http_may_stay_in_an_allowed_private_network() -> None:
    """A forge in the same rack."""
    check_base("http://10.1.2.3/api/v1", ["10.0.0.0/8"])
    check_base(f"https://{PUBLIC}/api", ())


Connected = Callable[..., Connection]


def test_a_connection_is_changed_by_making_it_again(
    database: sa.Engine, connected: Connected, forge: ForgeServer, vault: Vault, link: Link
) -> None:
    """Without a token it keeps the one that it has."""
    connected(forge, context="ci", skipped=True)
    assert get_connection(database, "shop").options.context == "ci"
    named: dict[str, Any] = {"url": forge.url, "repository": "shop/api", "link": link}
    connect(database, vault, "shop", "github", secret=None, options=Options(comments=False), **named)
    (found,) = list_connections(database)
    assert found.options == Options(comments=False)
    assert (found.secret, read_token(database, vault, found)) == ("", TOKEN)
    assert vault.read("penstock-git", "token-shop") == TOKEN.encode()


def test_the_token_is_where_no_step_can_ask_for_it(connected: Connected, forge: ForgeServer, vault: Vault) -> None:
    """Neither the project's secrets nor the platform's hold it."""
    made = connected(forge)
    assert (*vault.names("shop"), *vault.names("")) == ()
    assert TOKEN not in repr(made)


@pytest.mark.parametrize("token", ["two\nlines", "a\r\nX-Evil: 1", "héllo", " ", "\x00"])
def test_what_is_no_token_is_refused(database: sa.Engine, vault: Vault, shop: object, link: Link, token: str) -> None:
    """A line break would be another header."""
    named: dict[str, Any] = {"url": "http://127.0.0.1:9", "repository": "shop/api", "link": link}
    with pytest.raises((InputError, NotFoundError)):
        connect(database, vault, "shop", "gitea", secret=token, **named)
    assert list_connections(database) == ()


@pytest.mark.parametrize("repository", ["../admin", "shop/api?x", "shop/ api", "a%2f..", "shop\\api"])
def test_what_is_no_repository_is_refused(
    database: sa.Engine, vault: Vault, shop: object, link: Link, repository: str
) -> None:
    """It becomes part of addresses."""
    with pytest.raises(InputError, match="repository"):
        connect(
            database, vault, "shop", "gitea", secret="t", url="http://127.0.0.1:9", repository=repository, link=link
        )


def test_a_path_on_this_machine_has_no_forge(database: sa.Engine, vault: Vault, shop: object, link: Link) -> None:
    """A bare repository needs a name from somebody."""
    with pytest.raises(InputError, match="--repository"):
        connect(database, vault, "shop", "gitea", secret="t", url="http://127.0.0.1:9", link=link)


@pytest.mark.parametrize("context", ["", "a/b", "x" * 41, "ä", "a\nb"])
def test_a_context_that_no_forge_takes_is_refused(
    database: sa.Engine, vault: Vault, shop: object, link: Link, context: str
) -> None:
    """It is the beginning of every status's name."""
    named: dict[str, Any] = {"url": "http://127.0.0.1:9", "repository": "a/b", "link": link}
    with pytest.raises(InputError, match="context"):
        connect(database, vault, "shop", "gitea", secret="t", options=Options(context=context), **named)


@pytest.mark.parametrize(("project", "forge"), [("nobody", "github"), ("shop", "sourceforge")])
def test_names_that_nothing_answers_to_are_told(
    *, database: sa.Engine, vault: Vault, shop: object, project: str, forge: str
) -> None:
    """Neither is made."""
    with pytest.raises(NotFoundError):
        connect(database, vault, project, forge, secret="t", url="https://api.github.com", repository="a/b")


def test_steps_are_shown_on_github_by_default(connected: Connected, forge: ForgeServer) -> None:
    """Where there are checks; elsewhere they are asked for."""
    assert shows_steps(connected(forge, steps=None))
    assert not shows_steps(connected(forge, steps=False))


def test_without_any_token_the_remedy_is_told(database: sa.Engine, vault: Vault, shop: object, link: Link) -> None:
    """The project's own command gives it one."""
    named: dict[str, Any] = {"url": "http://127.0.0.1:9", "repository": "shop/api", "link": link}
    with pytest.raises(NotFoundError, match="penstock project edit shop --token-file"):
        connect(database, vault, "shop", "gitea", secret=None, **named)


def test_the_projects_token_serves_without_being_given_again(
    database: sa.Engine, vault: Vault, shop: object, link: Link
) -> None:
    """As `penstock project add` has kept it."""
    keep_token(database, vault, get_project(database, "shop"), "of-the-project")
    made = connect(
        database, vault, "shop", "gitea", secret=None, url="http://127.0.0.1:9", repository="shop/api", link=link
    )
    assert read_token(database, vault, made) == "of-the-project"
