"""Azure DevOps signs no body: what a delivery tells is read again through its API, and that alone is believed."""

from collections.abc import Callable

import forge_payloads as made
import pytest
import sqlalchemy as sa
from delivered import settled, with_commits
from forge_sender import Sender
from forge_server import Answer
from forge_servers import AzureServer
from git_builder import GitRepository

from penstock.answers import connections as answering
from penstock.errors import EventError
from penstock.events import inbox
from penstock.forges import azure_devops
from penstock.sources.projects import Connection, set_connection
from penstock.vault import Vault
from penstock.webhooks.deliveries import replay
from penstock.webhooks.hooks import Hook

Connect = Callable[..., "tuple[Hook, Sender]"]
Azure = Callable[[], AzureServer]


def test_what_the_forge_knows_wins_over_what_was_told(
    connect: Connect, azure: Azure, database: sa.Engine, shop: GitRepository
) -> None:
    """Another branch, commit and author in the body change nothing: the push is the one that its number names."""
    _, sender = connect("azure-devops")
    sender.api = None
    real = with_commits(made.azure_push(), shop)["resource"] | {"pushId": 77}
    azure().knows({"resource": real})
    lie = made.azure_push(made.azure_update("refs/heads/production", made.ZERO, shop.git("rev-parse", "orders")))
    lie["resource"] |= {"pushedBy": {"uniqueName": "eve@evil.test"}}
    delivery = settled(database, _posted(sender, lie, 77))
    assert [one["became"] for one in delivery.events] == ["accepted"], delivery
    (event,) = inbox.list_events(database)
    assert (event.ref, event.commit) == ("refs/heads/main", shop.git("rev-parse", "main"))
    assert event.about["actor"] == "ada@shop.test"


def _posted(sender: Sender, payload: dict, number: int) -> int:  # type: ignore[type-arg]
    """A push under a number of one's own choice."""
    payload["resource"] |= {"pushId": number}
    import json

    body = json.dumps(payload).encode()
    answer = sender.post(body, sender.headers(body, "", "d"))
    assert answer.status_code == 202, answer.text
    return int(answer.json()["delivery"])


def test_push_that_the_forge_does_not_know_is_rejected(
    connect: Connect, azure: Azure, database: sa.Engine, shop: GitRepository
) -> None:
    """Whoever has the hook's password alone cannot start anything."""
    _, sender = connect("azure-devops")
    sender.api = None
    delivery = settled(database, _posted(sender, with_commits(made.azure_push(), shop), 99))
    assert delivery.state == "rejected"
    assert "push 99 cannot be read again" in str(delivery.reason)
    assert inbox.list_events(database) == ()


def test_pull_request_is_as_it_is_by_now(
    connect: Connect, azure: Azure, database: sa.Engine, shop: GitRepository
) -> None:
    """One from a fork that is told as the repository's own stays a fork's: it is held, and gets no secrets."""
    _, sender = connect("azure-devops")
    fork = {"repository": {"id": "r2", "name": "api", "project": {"id": "p9", "name": "Eve"}}}
    told = with_commits(made.azure_pull_request(), shop)
    azure().knows({"resource": told["resource"] | {"forkSource": fork}})
    sender.api = None
    delivery = settled(database, sender.send(told).json()["delivery"])
    (event,) = inbox.list_events(database)
    assert (event.state, event.about["pull_request"]["fork"]) == ("held", True), delivery


def test_without_a_token_it_is_rejected_with_the_remedy(
    connect: Connect, database: sa.Engine, vault: Vault, shop: GitRepository
) -> None:
    """Once there is one, a replay runs it."""
    _, sender = connect("azure-devops")
    answering.disconnect(database, vault, "shop")
    set_connection(database, "shop", Connection())
    delivery = settled(database, sender.send(with_commits(made.azure_push(), shop)).json()["delivery"])
    assert delivery.state == "rejected"
    assert "no token" in str(delivery.reason)
    assert "penstock project edit" in str(delivery.reason)


def test_forge_that_is_away_is_asked_again(
    connect: Connect, azure: Azure, database: sa.Engine, shop: GitRepository
) -> None:
    """The delivery waits on disk, and other forges' deliveries do not wait for it."""
    _, sender = connect("azure-devops")
    azure().troubles.append(Answer(503, {"message": "down"}))
    first = sender.send(with_commits(made.azure_push(), shop)).json()["delivery"]
    _, github = connect("github")
    body = with_commits(made.github_push(ref="refs/heads/orders", before=made.ZERO), shop)
    assert settled(database, github.send(body, "push").json()["delivery"]).state == "done"
    delivery = settled(database, first)
    assert (delivery.state, delivery.attempts) == ("done", 2)


def test_token_that_is_refused_says_so(
    connect: Connect, azure: Azure, database: sa.Engine, shop: GitRepository
) -> None:
    """Azure DevOps shows a page to sign in; the reason names what to give it, and a replay works then."""
    _, sender = connect("azure-devops")
    token, azure().token = azure().token, "another"
    delivery = settled(database, sender.send(with_commits(made.azure_push(), shop)).json()["delivery"])
    assert (delivery.state, "give it a token that is valid" in str(delivery.reason)) == ("rejected", True)
    assert token not in str(delivery.reason)
    azure().token = token
    replay(database, delivery.id)
    assert settled(database, delivery.id).state == "done"


@pytest.mark.parametrize("number", [None, 0, -1, "14", "../../x", 2**60, 1.5, True])
def test_number_becomes_part_of_an_address_only_if_it_is_one(number: object) -> None:
    """Everything else is no event of the forge."""
    body = made.azure_push()
    body["resource"]["pushId"] = number
    with pytest.raises(EventError):
        azure_devops.resource_of(made.as_bytes(body))


def test_what_starts_nothing_is_not_asked_for(connect: Connect, azure: Azure, database: sa.Engine) -> None:
    """A comment's delivery is ignored, as everywhere."""
    _, sender = connect("azure-devops")
    body = made.azure("ms.vss-code.git-pullrequest-comment-event", {"comment": {"content": "x"}})
    delivery = settled(database, sender.send(body).json()["delivery"])
    assert (delivery.state, azure().seen) == ("ignored", [])
