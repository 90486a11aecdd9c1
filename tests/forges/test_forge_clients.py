"""Each forge's client against a server that answers as the forge's documentation says."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import get_args

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from forge_server import COMMIT, TOKEN, Answer, ForgeServer, Seen, running
from forge_servers import SERVERS, AzureServer, GiteaServer, GitHubServer, GitLabServer

from penstock.errors import InputError
from penstock.forges.clients import (
    CLIENTS,
    Asset,
    Comment,
    ForgeAway,
    ForgeClient,
    ForgeRefused,
    Link,
    Place,
    Status,
    open_client,
)
from penstock.forges.clients.values import State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSING = {"success", "SUCCESSFUL", "succeeded", "skipped"}
LINK = Link(allow_private=["127.0.0.1"], timeout_s=60.0, clock=lambda: NOW)

STATUS = Status(
    commit=COMMIT,
    context="penstock/push",
    state="running",
    line="runs",
    url="https://ci.example/run?id=r1",
    external_id="r1",
    ref="refs/heads/main",
    started_at=NOW,
)
COMMENT = Comment(7, "shop findings", "### Findings: 1 introduced, 0 fixed")


@pytest.fixture(params=sorted(SERVERS))
def forge(request: pytest.FixtureRequest) -> Iterator[ForgeServer]:
    """Each forge in turn."""
    with running(SERVERS[request.param]) as made:
        yield made


def client_of(forge: ForgeServer, **place: str) -> ForgeClient:
    found = Place(forge.name, forge.url, forge.repository)
    return open_client(attrs.evolve(found, **place), forge.secret, LINK)


@pytest.fixture
def client(forge: ForgeServer) -> Iterator[ForgeClient]:
    made = client_of(forge)
    yield made
    made.close()


def test_every_forge_has_a_client_and_a_server_here() -> None:
    """A new forge is held by the same tests."""
    assert sorted(CLIENTS) == sorted(SERVERS)


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_said_in_the_forges_own_words(forge: ForgeServer, client: ForgeClient, state: State) -> None:
    """The server refuses a word that is not the forge's; only what succeeded or was rightly left out passes."""
    client.show(attrs.evolve(STATUS, state=state, line=state), None)
    (shown,) = forge.shown().values()
    assert (shown in PASSING) == (state in ("succeeded", "skipped"))


def test_the_newest_state_takes_the_place_of_the_former(forge: ForgeServer, client: ForgeClient) -> None:
    """One status for one context, wherever the forge lists them."""
    known = client.show(STATUS, None).id
    client.show(attrs.evolve(STATUS, state="failed", line="failed", finished_at=NOW + timedelta(seconds=3)), known)
    assert len(forge.shown()) == 1
    assert next(iter(forge.shown().values())).lower() in ("failure", "failed")


def test_the_same_state_told_twice_is_shown_once(forge: ForgeServer, client: ForgeClient) -> None:
    """Whoever does not know whether it was taken tells it again."""
    client.show(STATUS, None)
    client.show(STATUS, None)
    assert len(forge.shown()) == 1


def test_each_context_is_a_status_of_its_own(forge: ForgeServer, client: ForgeClient) -> None:
    """The push, the pull request and each step can be seen side by side."""
    names = ("penstock/push", "penstock/pull_request", "penstock/push/build-and-test-everything-there-is")
    for name in names:
        client.show(attrs.evolve(STATUS, context=name), None)
    assert sorted(forge.shown()) == sorted(names)


def test_a_comment_is_written_once_and_changed_in_place(forge: ForgeServer, client: ForgeClient) -> None:
    """Known by what the forge calls it, and by its marker where that was lost."""
    known = client.comment(COMMENT, None).id
    client.comment(attrs.evolve(COMMENT, text="second"), known)
    client.comment(attrs.evolve(COMMENT, text="third"), None)
    (text,) = forge.texts()
    assert text.endswith("third")
    assert text.splitlines()[0] == "[penstock]: # (shop findings)"


def test_a_comment_is_found_among_many(forge: ForgeServer, client: ForgeClient) -> None:
    """Behind other people's, on a later page."""
    for number in range(5):
        client.comment(Comment(7, f"other {number}", "…"), None)
    client.comment(COMMENT, None)
    client.comment(attrs.evolve(COMMENT, text="again"), None)
    assert len(forge.texts()) == 6
    assert forge.texts()[-1].endswith("again")


def test_a_comment_that_somebody_deleted_is_written_again(forge: ForgeServer, client: ForgeClient) -> None:
    """What the forge no longer knows does not stop the next one."""
    known = client.comment(COMMENT, None).id
    forge.notes.clear()
    client.comment(COMMENT, known)
    assert len(forge.texts()) == 1


def test_a_strangers_copy_of_the_marker_does_not_silence_us(forge: ForgeServer, client: ForgeClient) -> None:
    """Who cannot change a comment writes one of their own."""
    client.comment(COMMENT, None)
    next(iter(forge.notes.values()))["stranger"] = True
    client.comment(attrs.evolve(COMMENT, text="ours"), None)
    assert sorted(text.endswith("ours") for text in forge.texts()) == [False, True]


def test_the_connection_is_cut_while_it_writes(forge: ForgeServer, client: ForgeClient) -> None:
    """Each request of a comment's writing is cut in turn, and at the end there is one comment."""
    client.comment(COMMENT, None)
    asked = len(forge.seen)
    for cut in range(asked):
        forge.notes.clear()
        getattr(forge, "tokens", {}).clear()
        client.close()
        routed, count = forge._routed, iter(range(100))

        def cutting(seen: Seen, routed=routed, count=count, cut=cut) -> Answer | None:
            found = routed(seen)
            return None if next(count) == cut else found

        forge._routed = cutting  # type: ignore[method-assign]
        with pytest.raises(ForgeAway):
            client.comment(COMMENT, None)
        forge._routed = routed  # type: ignore[method-assign]
        client.comment(COMMENT, None)
        assert len(forge.texts()) == 1


def test_a_token_that_was_revoked_is_refused_for_good(forge: ForgeServer, client: ForgeClient) -> None:
    """The message says what to do, and does not show the token."""
    client.show(STATUS, None)
    forge.token = "another"
    with pytest.raises(ForgeRefused) as refused:
        client.show(attrs.evolve(STATUS, state="succeeded"), None)
    assert "token" in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_a_repository_that_is_not_there_is_refused_for_good(forge: ForgeServer) -> None:
    """A wrong name is not asked for again and again."""
    if forge.name == "aws-codecommit":
        forge.troubles = [Answer(400, {"__type": "RepositoryDoesNotExistException", "message": "it does not exist"})]
    client = client_of(forge, repository="nobody/nothing" if "/" in forge.repository else "nothing")
    with pytest.raises(ForgeRefused, match=r"40[04]"):
        client.check()
    client.close()


def test_the_token_can_be_tried(forge: ForgeServer, client: ForgeClient) -> None:
    """One line tells which repository it sees."""
    assert "api" in client.check()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_broken_forge_is_asked_again(forge: ForgeServer, client: ForgeClient, status: int) -> None:
    """A proxy's page in HTML is no reason for another error."""
    forge.troubles = [Answer(status, raw=b"<html><h1>Bad Gateway</h1></html>")]
    with pytest.raises(ForgeAway, match=str(status)) as away:
        client.show(STATUS, None)
    assert away.value.rest_s is None
    client.show(STATUS, None)


def test_a_forge_that_hangs_up_is_asked_again(forge: ForgeServer, client: ForgeClient) -> None:
    """No answer at all is no refusal."""
    forge.away = True
    with pytest.raises(ForgeAway, match="does not answer"):
        client.show(STATUS, None)


def test_rate_limits_say_how_long_to_rest(forge: ForgeServer, client: ForgeClient) -> None:
    """In the words that the forge has for it."""
    forge.troubles = [forge.limited]
    with pytest.raises(ForgeAway) as away:
        client.show(STATUS, None)
    assert away.value.rest_s == (60 if forge.name == "aws-codecommit" else 17)


def test_an_answer_that_is_no_json_is_not_believed(forge: ForgeServer, client: ForgeClient) -> None:
    """A captive portal's page is no success where something has to be read."""
    forge.troubles = [Answer(200, raw=b"<html>hello</html>")]
    with pytest.raises(ForgeAway, match="no JSON"):
        client.comment(COMMENT, None)


def test_the_token_is_in_no_address(forge: ForgeServer, client: ForgeClient) -> None:
    """Addresses are in everybody's logs."""
    client.show(STATUS, None)
    client.comment(COMMENT, None)
    assert forge.seen
    assert not any(TOKEN in seen.path or TOKEN in str(seen.query) for seen in forge.seen)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(forge: ForgeServer, client: ForgeClient, status: int) -> None:
    """The token goes where its owner sent it, and nowhere else."""
    with running(GitHubServer) as other:
        forge.troubles = [Answer(status, headers={"Location": f"{other.origin}/repos/shop/api"})]
        with pytest.raises(ForgeRefused):
            client.check()
        assert other.seen == []


@pytest.mark.parametrize("forge_name", ["bitbucket-cloud"])
def test_the_next_page_is_not_fetched_from_another_host(forge_name: str) -> None:
    """An address in an answer is no more to be believed than a redirect."""
    with running(SERVERS[forge_name]) as forge, running(GitHubServer) as other:
        client = client_of(forge)
        forge.troubles = [Answer(200, {"values": [], "next": f"{other.origin}/2.0/more"})]
        with pytest.raises(ForgeRefused, match="must not go"):
            client.comment(COMMENT, None)
        assert other.seen == []
        client.close()


def test_an_address_in_a_private_network_is_not_asked(forge: ForgeServer) -> None:
    """Unless the platform's operator allows it."""
    place = Place(forge.name, forge.url, forge.repository)
    client = open_client(place, forge.secret, Link())
    with pytest.raises(ForgeRefused, match="not a public address"):
        client.show(STATUS, None)
    assert forge.seen == []
    client.close()


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    with running(GitHubServer) as made:
        yield made


def test_a_renamed_repository_is_followed_on_its_host(github: GitHubServer) -> None:
    """GitHub answers the former name with a redirect to the repository's number."""
    client = client_of(github)
    github.troubles = [Answer(307, {"message": "Moved"}, {"Location": "/repos/shop/api/statuses/" + COMMIT})]
    client.show(STATUS, None)
    assert github.shown() == {"penstock/push": "pending"}
    client.close()


def test_a_github_app_writes_checks_with_a_token_of_an_hour(github: GitHubServer) -> None:
    """The key signs for a token, which is asked for once; a run has one check run, and the next run another."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret = f'{{"app_id": 12, "private_key": {json.dumps(key.private_bytes(*form).decode())}}}'
    github.is_app = True
    client = open_client(Place("github", github.url, "shop/api"), secret, LINK)
    known = client.show(STATUS, None).id
    client.show(attrs.evolve(STATUS, state="waiting"), known)
    assert github.shown() == {"penstock/push": "action_required"}
    client.show(STATUS, None)  # its number was lost
    assert len(github.checks) == 1
    client.show(attrs.evolve(STATUS, external_id="r2"), None)
    assert len(github.checks) == 2
    assert github.tokens_given == 1
    client.close()


@pytest.mark.parametrize("secret", ["{}", '{"app_id": 1}', "{nothing", '{"app_id": 1, "private_key": "none"}'])
def test_an_app_that_is_none_is_told_so(github: GitHubServer, secret: str) -> None:
    """Before anything is asked."""
    with pytest.raises(InputError):
        open_client(Place("github", github.url, "shop/api"), secret, LINK).show(STATUS, None)
    assert github.seen == []


@pytest.mark.parametrize("forge_name", ["bitbucket-server", "azure-devops"])
@pytest.mark.parametrize("repository", ["api", "a/b/c"])
def test_a_repository_without_its_project_is_told_so(forge_name: str, repository: str) -> None:
    """These forges have two parts in a name."""
    with pytest.raises(InputError, match="no repository"):
        open_client(Place(forge_name, "https://git.example", repository), "token", LINK)


@pytest.mark.parametrize("secret", ["token", "{}", "[]", '{"access_key_id": "a"}'])
def test_a_key_of_aws_that_is_none_is_told_so(secret: str) -> None:
    """A token is not what CodeCommit takes."""
    with pytest.raises(InputError, match="key of AWS"):
        open_client(Place("aws-codecommit", "https://codecommit.eu-west-1.amazonaws.com", "api"), secret, LINK)


@pytest.mark.parametrize(
    ("headers", "rest_s"),
    [
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 90)}, 90),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(NOW.timestamp()) + 30)}, 30),
        ({"Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT"}, 120),
        ({"Retry-After": "soon"}, 60),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "never"}, 60),
        ({"Retry-After": "-5"}, 60),
    ],
)
def test_every_way_to_name_a_pause_is_understood(github: GitHubServer, headers: dict[str, str], rest_s: float) -> None:
    """Seconds, a date, or the moment when requests are left again; a minute for what cannot be read."""
    client = client_of(github)
    github.troubles = [Answer(403, {"message": "API rate limit exceeded"}, headers)]
    with pytest.raises(ForgeAway) as away:
        client.show(STATUS, None)
    assert away.value.rest_s == rest_s
    client.close()


def test_the_last_request_before_the_limit_asks_for_a_pause(github: GitHubServer) -> None:
    """It succeeded, and there shall be none until the limit is lifted."""
    client = client_of(github)
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 90)}
    github.troubles = [Answer(201, {"id": 1}, reset)]
    client.show(STATUS, None)
    assert client.rest_until() == NOW + timedelta(seconds=90)
    client.show(STATUS, None)
    assert client.rest_until() is None
    client.close()


def test_azure_shows_a_pull_requests_status_where_its_policies_look() -> None:
    """On the pull request as well as on the commit."""
    with running(AzureServer) as azure:
        client = client_of(azure)
        client.show(attrs.evolve(STATUS, pull_request=7, state="succeeded"), None)
        assert [one["state"] for one in azure.on_request] == ["succeeded"]
        assert azure.shown() == {"penstock/push": "succeeded"}
        client.close()


@pytest.mark.parametrize("kind", [GitHubServer, GitLabServer, GiteaServer])
def test_a_file_is_put_to_a_release_once(kind: type[GitHubServer | GitLabServer | GiteaServer]) -> None:
    """The release is made where there is none; the same file again changes nothing."""
    data = b"made" * 50_000
    with running(kind) as forge:
        client = client_of(forge)
        asset = Asset("v1", "shop.tar", len(data), "0" * 64, lambda: iter((data[:70_000], data[70_000:])))
        first, second = client.attach(asset), client.attach(asset)
        assert first == second
        assert forge.files == {"shop.tar": data}
        client.close()


def test_an_upload_to_github_that_was_cut_off_is_replaced(github: GitHubServer) -> None:
    """It leaves a name without a file, which cannot be used again until it is removed."""
    asset = Asset("v1", "shop.tar", 4, "0" * 64, lambda: iter((b"made",)))
    client = client_of(github)
    github.releases["v1"] = {
        "id": 1,
        "assets": [{"id": 2, "name": "shop.tar", "size": 0, "state": "starter"}],
        "upload_url": f"{github.origin}/uploads/v1{{?name,label}}",
    }
    client.attach(asset)
    assert github.files == {"shop.tar": b"made"}
    client.close()


def test_github_does_not_get_a_file_put_elsewhere(github: GitHubServer) -> None:
    """The address for uploads is in an answer, which may not send the token to another host."""
    asset = Asset("v1", "shop.tar", 4, "0" * 64, lambda: iter((b"made",)))
    client = client_of(github)
    github.releases["v1"] = {"id": 1, "assets": [], "upload_url": "https://elsewhere.example/uploads{?name}"}
    with pytest.raises(ForgeRefused, match=re.escape("elsewhere.example")):
        client.attach(asset)
    client.close()


@pytest.mark.parametrize("forge_name", ["bitbucket-cloud", "bitbucket-server", "azure-devops", "aws-codecommit"])
def test_a_forge_without_releases_says_so(forge_name: str) -> None:
    """Once, and for good."""
    with running(SERVERS[forge_name]) as forge:
        client = client_of(forge)
        with pytest.raises(ForgeRefused, match="no releases"):
            client.attach(Asset("v1", "x", 1, "0" * 64, lambda: iter((b"x",))))
        client.close()
