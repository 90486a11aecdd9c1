"""Connected repositories: by name, address without credentials."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from git_builder import PIPELINE, GitRepository

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.settings import Settings
from penstock.sources.projects import Project, add_project, get_project, is_commit, list_projects, remove_project


@pytest.fixture
def repository(make_repository: Callable[..., GitRepository]) -> GitRepository:
    return make_repository(files={"penstock.yaml": PIPELINE})


def test_project_is_connected_listed_and_disconnected(database: sa.Engine, repository: GitRepository):
    """The same twice is once."""
    url = str(repository.root)
    assert add_project(database, "shop", url) == add_project(database, "shop", url)
    assert list_projects(database) == (Project("shop", url, "main"),)
    remove_project(database, "shop")
    with pytest.raises(NotFoundError, match='no project is called "shop"'):
        remove_project(database, "shop")


def test_name_that_is_taken_is_refused(
    database: sa.Engine, repository: GitRepository, make_repository: Callable[..., GitRepository]
):
    """By another address, or by a name that Dagster takes for the same."""
    add_project(database, "my-shop", str(repository.root))
    other = str(make_repository("other", {"a": "a"}).root)
    with pytest.raises(ConflictError, match='a project "my-shop" is connected to'):
        add_project(database, "my-shop", other)
    with pytest.raises(ConflictError, match='there is a project "my-shop"'):
        add_project(database, "my_shop", other)


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "a/b", "../x", "a" * 64, "ä", "-x"])
def test_bad_names_are_refused(database: sa.Engine, repository: GitRepository, name: str):
    """A name becomes a folder, an asset key and part of addresses."""
    with pytest.raises(InputError, match="no name for a project"):
        add_project(database, name, str(repository.root))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("ext::sh -c id", "no address"),
        ("--upload-pack=id", "no address"),
        ("a\nb", "no address"),
        ("https://me:word@example.org/x", "credentials"),
        ("https://TOKEN@example.org/x", "credentials"),
        ("HTTPS://TOKEN@example.org/x", "credentials"),
        ("ssh://git:word@example.org/x", "credentials"),
    ],
)
def test_bad_addresses_are_refused(database: sa.Engine, url: str, what: str):
    """Neither commands nor credentials, and no credential is repeated in the message."""
    with pytest.raises(InputError, match=what) as caught:
        add_project(database, "shop", url)
    assert "word" not in str(caught.value)
    assert "TOKEN" not in str(caught.value)


def test_address_that_does_not_answer_is_not_connected(database: sa.Engine):
    """A typo is found at once."""
    with pytest.raises(InputError, match="git ls-remote failed"):
        add_project(database, "shop", "/nowhere/at/all")
    assert list_projects(database) == ()


def test_unknown_project_names_the_nearest(database: sa.Engine, repository: GitRepository):
    """For `--project shpo`."""
    add_project(database, "shop", str(repository.root))
    with pytest.raises(NotFoundError, match='did you mean "shop"'):
        get_project(database, "shpo")


def test_mirror_is_brought_up_to_date_when_a_commit_is_missing(settings: Settings, repository: GitRepository):
    """And only then; a commit that no branch holds is said to be missing."""
    project = Project("shop", str(repository.root), "main")
    first = repository.git("rev-parse", "HEAD")
    assert project.with_commit(settings, first).has(first)
    second = repository.commit({"b": "b"})
    assert project.with_commit(settings, second).has(second)
    with pytest.raises(NotFoundError, match=r"no branch or tag of .* holds commit 111111111111"):
        project.with_commit(settings, "1" * 40)


@pytest.mark.parametrize(
    ("text", "answer"), [("a" * 40, True), ("a" * 64, True), ("0" * 40, False), ("a" * 39, False), ("g" * 40, False)]
)
def test_full_hashes_are_commits(text: str, answer: bool):
    """SHA-1 and SHA-256; zeros are a deletion."""
    assert is_commit(text) is answer
