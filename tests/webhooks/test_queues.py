"""CodeCommit's events by EventBridge through SQS, in its protocol at the wire: nothing lost, nothing run twice."""

import json
from collections.abc import Iterator

import forge_payloads as made
import httpx
import pytest
import sqlalchemy as sa
from delivered import with_commits
from forge_server import Answer, running
from forge_servers import CodeCommitServer
from git_builder import GitRepository

from penstock.answers import connections as answering
from penstock.errors import InputError
from penstock.events import inbox
from penstock.forges.clients import ForgeAway, ForgeRefused, Link
from penstock.forges.clients.sqs import Queue
from penstock.processes import wait_until
from penstock.vault import Vault
from penstock.webhooks.deliveries import list_deliveries
from penstock.webhooks.hooks import Hook, Pins, add_hook, get_hook, remove_hook
from penstock.webhooks.queues import Room, read_queue

LINK = Link(("127.0.0.1",))
LIMIT_S = 60.0


@pytest.fixture
def aws() -> Iterator[CodeCommitServer]:
    """CodeCommit and a queue."""
    with running(CodeCommitServer) as made_:
        yield made_


@pytest.fixture
def hook(database: sa.Engine, vault: Vault, shop: GitRepository, aws: CodeCommitServer) -> Hook:
    """The shop's, with an AWS key that the project has."""
    place = {"url": aws.url, "repository": "api", "link": LINK}
    answering.connect(database, vault, "shop", "aws-codecommit", secret=aws.secret, **place)  # type: ignore[arg-type]
    pins = Pins(queue_url=aws.queue_url)
    return add_hook(database, vault, "shop", "aws-codecommit", secret=None, repository="api", pins=pins)


@pytest.fixture
def room(database: sa.Engine, vault: Vault) -> Room:
    """For reading without a thread."""
    return Room(database, lambda: vault, LINK, lambda: None)


def push(shop: GitRepository) -> dict:  # type: ignore[type-arg]
    return with_commits(made.codecommit_reference(), shop)


def test_message_becomes_an_event_and_is_deleted(
    client: httpx.Client, hook: Hook, aws: CodeCommitServer, database: sa.Engine, shop: GitRepository
) -> None:
    """By the API's own threads; nothing is posted to it."""
    aws.put(push(shop), "m-1")
    assert wait_until(lambda: aws.deleted == ["m-1"], limit_s=LIMIT_S)
    assert wait_until(lambda: len(inbox.list_events(database)) == 1, limit_s=LIMIT_S)
    (delivery,) = list_deliveries(database)
    assert (delivery.delivery_id, delivery.forge) == ("m-1", "aws-codecommit")
    assert client.post(hook.path, content=json.dumps(push(shop))).status_code == 401


def test_message_that_comes_again_is_known(
    room: Room, hook: Hook, aws: CodeCommitServer, database: sa.Engine, shop: GitRepository
) -> None:
    """SQS delivers at least once; EventBridge may send the same event in two messages, which is one event."""
    queue = room.open(hook)
    for name in ("m-1", "m-1", "m-2"):
        aws.put(push(shop), name)
    assert read_queue(room, hook, queue) == 3
    assert {one.delivery_id: one.repeats for one in list_deliveries(database)} == {"m-1": 1, "m-2": 0}
    assert aws.queue == []
    queue.close()


def test_what_could_not_be_stored_is_not_deleted(
    room: Room, hook: Hook, aws: CodeCommitServer, shop: GitRepository
) -> None:
    """The database is away: the message comes again, and is stored then."""
    aws.put(push(shop), "m-1")
    queue = room.open(hook)
    broken = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(sa.exc.OperationalError):
        read_queue(Room(broken, room.vault, LINK, room.told), hook, queue)
    assert ([one["MessageId"] for one in aws.queue], aws.deleted) == (["m-1"], [])
    assert read_queue(room, hook, queue, lambda: True) == 0
    assert aws.deleted == []
    read_queue(room, hook, queue)
    assert aws.deleted == ["m-1"]
    queue.close()


def test_answer_that_got_lost_runs_nothing_twice(
    room: Room, hook: Hook, aws: CodeCommitServer, database: sa.Engine, shop: GitRepository
) -> None:
    """The connection is cut when it is to be deleted: it comes again, and is known."""
    aws.put(push(shop), "m-1")
    queue = room.open(hook)
    messages = queue.receive()
    aws.away = True
    with pytest.raises(ForgeAway):
        queue.delete(messages)
    aws.away = False
    read_queue(room, hook, queue)
    read_queue(room, hook, queue)
    assert [one.delivery_id for one in list_deliveries(database)] == ["m-1"]
    queue.close()


def test_message_that_is_no_event_is_kept_as_rejected_and_deleted(
    room: Room, hook: Hook, aws: CodeCommitServer, database: sa.Engine
) -> None:
    """It would come for ever otherwise."""
    aws.queue.append({"MessageId": "m-odd", "Body": "no JSON at all \x00"})
    queue = room.open(hook)
    read_queue(room, hook, queue)
    (delivery,) = list_deliveries(database)
    assert (delivery.state, aws.deleted) == ("rejected", ["m-odd"])
    queue.close()


def test_queue_that_cannot_be_read_is_told_with_the_hook(
    client: httpx.Client, hook: Hook, aws: CodeCommitServer, database: sa.Engine, vault: Vault
) -> None:
    """In AWS's words and without the key; it is gone when it works again."""
    token, aws.token = aws.token, "another"

    def reason() -> str | None:
        return get_hook(database, hook.id).refused_reason

    assert wait_until(lambda: "UnrecognizedClientException" in str(reason()), limit_s=LIMIT_S)
    assert token not in str(reason())
    aws.token = token
    assert wait_until(lambda: reason() is None, limit_s=LIMIT_S)
    remove_hook(database, vault, hook.id)


@pytest.mark.parametrize(
    ("secret", "error", "told"),
    [
        ('{"access_key_id": "a", "secret_access_key": "b"}', InputError, "region"),
        ("a-token", InputError, "no key of AWS"),
        ('{"access_key_id": "a", "secret_access_key": "wrong", "region": "eu-central-1"}', ForgeRefused, "403"),
    ],
)
def test_key_that_opens_nothing_is_one_line(
    aws: CodeCommitServer, secret: str, error: type[Exception], told: str
) -> None:
    """With what is missing."""
    with pytest.raises(error, match=told):
        Queue(aws.queue_url, secret, LINK).receive()


def test_odd_answers_are_no_messages(aws: CodeCommitServer) -> None:
    """Whatever stands between us and AWS."""
    queue = Queue(aws.queue_url, aws.secret, LINK)
    for odd in ({"Messages": [{"MessageId": "x"}]}, {"Messages": [7]}, [1], "x"):
        aws.troubles.append(Answer(200, odd))
        with pytest.raises(ForgeAway):
            queue.receive()
    queue.close()


@pytest.mark.parametrize(
    ("forge", "pins", "told"),
    [
        ("aws-codecommit", Pins(), "--queue-url"),
        ("aws-codecommit", Pins(queue_url="https://sqs.eu-central-1.amazonaws.com/"), "no SQS queue"),
        ("aws-codecommit", Pins(queue_url="file:///etc/passwd"), "no SQS queue"),
        ("github", Pins(queue_url="https://sqs.eu-central-1.amazonaws.com/123456789012/q"), "only aws-codecommit"),
    ],
)
def test_queue_is_named_as_aws_names_it(
    *, database: sa.Engine, vault: Vault, shop: GitRepository, forge: str, pins: Pins, told: str
) -> None:
    """Nothing is made of anything else."""
    secret = None if forge == "aws-codecommit" else "a-secret-that-is-long-enough"
    with pytest.raises(InputError, match=told):
        add_hook(database, vault, "shop", forge, secret=secret, pins=pins)


def test_queue_inside_is_refused(aws: CodeCommitServer) -> None:
    """Like every address that users configure."""
    with pytest.raises(ForgeRefused, match="not a public address"):
        Queue(aws.queue_url, aws.secret, Link()).receive()
