"""Which forge is behind an address."""

import pytest

from penstock.connecting.detect import Answer, Place, place_of
from penstock.errors import NotFoundError

GITHUB = "https://api.github.com"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://github.com/a/b.git", Place("github", "a/b", GITHUB)),
        ("git@github.com:a/b.git", Place("github", "a/b", GITHUB)),
        ("ssh://git@ssh.github.com:443/a/b.git", Place("github", "a/b", GITHUB)),
        ("HTTPS://GitHub.com/a/b", Place("github", "a/b", GITHUB)),
        ("https://gitlab.com/g/s/p.git", Place("gitlab", "g/s/p", "https://gitlab.com/api/v4")),
        ("https://bitbucket.org/w/r", Place("bitbucket-cloud", "w/r", "https://api.bitbucket.org/2.0")),
        ("https://codeberg.org/a/b", Place("forgejo", "a/b", "https://codeberg.org/api/v1")),
        ("https://dev.azure.com/org/Shop/_git/api", Place("azure-devops", "Shop/api", "https://dev.azure.com/org")),
        ("git@ssh.dev.azure.com:v3/org/Shop/api", Place("azure-devops", "Shop/api", "https://dev.azure.com/org")),
        ("https://org.visualstudio.com/Shop/_git/api", Place("azure-devops", "Shop/api", "https://dev.azure.com/org")),
        ("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/api", Place("aws-codecommit", "api")),
        ("/srv/git/shop.git", Place("git")),
        ("file:///srv/git/shop.git", Place("git")),
        ("https://github.com.evil.example/a/b", Place("git", "a/b")),
    ],
)
def test_known_hosts_are_asked_nothing(url: str, place: Place):
    """The host says it, wherever the name stands in the address."""
    assert place_of(url) == place


def answering(path: str, answer: Answer):
    """A host that knows one address."""
    return lambda url: answer if url == f"https://git.example{path}" else Answer(404, {})


@pytest.mark.parametrize(
    ("path", "answer", "forge", "api"),
    [
        ("/api/v1/version", Answer(200, {}, {"version": "1.21"}), "gitea", "/api/v1"),
        ("/api/forgejo/v1/version", Answer(200, {}, {"version": "9"}), "forgejo", "/api/v1"),
        ("/api/v4/version", Answer(401, {}, {"message": "401 Unauthorized"}), "gitlab", "/api/v4"),
        ("/api/v4/version", Answer(403, {"x-gitlab-meta": "{}"}, None), "gitlab", "/api/v4"),
        ("/api/v3/meta", Answer(200, {}, {"installed_version": "3.12"}), "github", "/api/v3"),
        (
            "/rest/api/1.0/application-properties",
            Answer(200, {}, {"buildNumber": "8"}),
            "bitbucket-server",
            "/rest/api/1.0",
        ),
    ],
)
def test_other_hosts_are_asked(path: str, answer: Answer, forge: str, api: str):
    """Each forge answers a question that needs no token."""
    found = place_of("ssh://git@git.example:2222/team/shop.git", ask=answering(path, answer))
    assert found == Place(forge, "team/shop", f"https://git.example{api}")


@pytest.mark.parametrize(
    "answer", [None, Answer(200, {}, None), Answer(200, {}, ["x"]), Answer(500, {}, {"version": "x"}), Answer(302, {})]
)
def test_host_that_answers_something_else_is_a_plain_git_server(answer: Answer | None):
    """Polling works with every one."""
    assert place_of("https://git.example/a/b", ask=lambda _: answer) == Place("git", "a/b")


def test_what_the_user_says_wins():
    """Also over a host that is known; `git` asks nobody."""
    assert place_of("https://git.example/a/b", forge="gitlab").api_url == "https://git.example/api/v4"
    assert place_of("https://github.com/a/b", forge="git") == Place("git", "a/b")
    with pytest.raises(NotFoundError, match='no forge is called "svn"'):
        place_of("https://git.example/a/b", forge="svn")
