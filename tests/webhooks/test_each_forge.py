"""Each forge end to end: a signed delivery to the running API becomes an event, and the event a launch."""

import json
from collections.abc import Callable, Mapping

import forge_payloads as made
import pytest
import sqlalchemy as sa
from delivered import Json, settled, with_commits
from forge_sender import TOPIC, Sender
from git_builder import GitRepository

from penstock.events import inbox
from penstock.events.dispatch import Launch, prepare
from penstock.events.inbox import EventRecord
from penstock.events.poll import poll
from penstock.settings import Settings
from penstock.sources.projects import get_project, known_heads
from penstock.webhooks.deliveries import Delivery
from penstock.webhooks.hooks import Hook


def launched(database: sa.Engine, settings: Settings, delivery: Delivery) -> tuple[EventRecord, Launch]:
    """The delivery's one event, and what is to run."""
    assert (delivery.state, [one["became"] for one in delivery.events]) == ("done", ["accepted"]), delivery
    event = event_of(database, delivery)
    launch = prepare(database, settings, event)
    assert launch is not None, event_of(database, delivery).reason
    return event_of(database, delivery), launch


def event_of(database: sa.Engine, delivery: Delivery) -> EventRecord:
    (found,) = [one for one in inbox.list_events(database) if one.id == delivery.events[0]["event"]]
    return found


PUSHES: Mapping[str, tuple[Callable[[], Json], str]] = {
    "github": (made.github_push, "push"),
    "gitlab": (made.gitlab_push, "Push Hook"),
    "gitea": (made.gitea_push, "push"),
    "forgejo": (made.gitea_push, "push"),
    "bitbucket-cloud": (made.cloud_push, "repo:push"),
    "bitbucket-server": (made.server_push, "repo:refs_changed"),
    "azure-devops": (made.azure_push, ""),
    "aws-codecommit": (lambda: made.sns_envelope(made.codecommit_reference()), ""),
}


@pytest.mark.parametrize("forge", PUSHES)
def test_push_becomes_a_launch_and_polling_adds_nothing(
    told: Callable[..., Delivery], database: sa.Engine, settings: Settings, shop: GitRepository, forge: str
) -> None:
    """The branch's new head, once, with who pushed; the poll that comes later finds the other branch alone."""
    payload, name = PUSHES[forge]
    body = payload()
    if forge == "aws-codecommit":
        body["Message"] = json.dumps(with_commits(json.loads(body["Message"]), shop))
    event, launch = launched(database, settings, told(forge, with_commits(body, shop), name))
    head = shop.git("rev-parse", "HEAD")
    assert (event.kind, event.ref, event.commit, event.source) == ("push", "refs/heads/main", head, "hook")
    assert (launch.info.commit, launch.info.before) == (head, shop.git("rev-parse", "HEAD~1"))
    assert launch.info.about["actor"].startswith("ada")
    assert launch.info.about["forge"] == forge
    assert poll(database, settings, get_project(database, "shop")) == 1
    assert [one.ref for one in inbox.list_events(database)] == ["refs/heads/orders", "refs/heads/main"]


PULL_REQUESTS: Mapping[str, tuple[Callable[[], Json], str, str]] = {
    "github": (made.github_pull_request, "pull_request", "refs/pull/12/head"),
    "gitlab": (made.gitlab_merge_request, "Merge Request Hook", "refs/merge-requests/3/head"),
    "gitea": (made.gitea_pull_request, "pull_request", "refs/pull/4/head"),
    "forgejo": (made.gitea_pull_request, "pull_request", "refs/pull/4/head"),
    "bitbucket-cloud": (made.cloud_pull_request, "pullrequest:created", "refs/heads/orders"),
    "bitbucket-server": (made.server_pull_request, "pr:opened", "refs/pull-requests/6/from"),
    "azure-devops": (made.azure_pull_request, "", "refs/heads/orders"),
    "aws-codecommit": (lambda: made.sns_envelope(made.codecommit_pull_request()), "", "refs/heads/orders"),
}


@pytest.mark.parametrize("forge", PULL_REQUESTS)
def test_pull_request_becomes_a_launch_of_its_head(
    told: Callable[..., Delivery], database: sa.Engine, settings: Settings, shop: GitRepository, forge: str
) -> None:
    """Its head is fetched by the forge's own ref; it runs under no branch, and knows what it changes of its target."""
    payload, name, ref = PULL_REQUESTS[forge]
    shop.git("checkout", "--quiet", "--detach", "orders")
    head = shop.commit({"orders.py": "1"}, "Count orders")
    shop.git("checkout", "--quiet", "main")
    base = shop.git("rev-parse", "main")
    later = shop.commit({"README": "y"}, "Main goes on")
    shop.git("update-ref", ref, head)
    body = payload()
    if forge == "aws-codecommit":
        body["Message"] = json.dumps(with_commits(json.loads(body["Message"]), shop, after=head))
    event, launch = launched(database, settings, told(forge, with_commits(body, shop, after=head), name))
    assert (event.kind, event.commit, launch.info.before) == ("pull_request", head, base)
    assert event.commit != later
    assert not event.ref.startswith("refs/heads/")
    request = launch.info.about["pull_request"]
    assert (request["source"], request["target"], request["fork"]) == ("orders", "main", False)
    assert launch.info.branch != "orders"
    assert "main" not in known_heads(database, "shop")


TAGS: Mapping[str, tuple[Json, str]] = {
    "github": (made.github_push(ref="refs/tags/v1", before=made.ZERO), "push"),
    "gitlab": (made.gitlab_push(object_kind="tag_push", ref="refs/tags/v1", before=made.ZERO), "Tag Push Hook"),
    "gitea": (made.gitea_push(ref="refs/tags/v1", before=made.ZERO, head_commit=None, commits=[]), "push"),
    "bitbucket-cloud": (
        made.cloud_push({"new": made.cloud_ref("v1", made.B, "tag"), "old": None, "commits": []}),
        "repo:push",
    ),
    "bitbucket-server": (made.server_push(made.server_change("refs/tags/v1", made.ZERO)), "repo:refs_changed"),
    "azure-devops": (made.azure_push(made.azure_update("refs/tags/v1", made.ZERO)), ""),
}


@pytest.mark.parametrize("forge", TAGS)
@pytest.mark.parametrize("annotated", [True, False])
def test_tag_runs_once_whether_its_object_or_its_commit_is_told(
    told: Callable[..., Delivery],
    database: sa.Engine,
    settings: Settings,
    shop: GitRepository,
    *,
    forge: str,
    annotated: bool,
) -> None:
    """Forges tell one or the other; polling finds nothing new before and after git has been asked."""
    shop.git("tag", *(("-a", "-m", "One", "v1") if annotated else ("v1",)))
    payload, name = TAGS[forge]
    delivery = told(forge, with_commits(payload, shop, after="refs/tags/v1"), name)
    shop.git("branch", "-D", "orders")
    poll(database, settings, get_project(database, "shop"))
    event, launch = launched(database, settings, delivery)
    assert (event.kind, event.ref) == ("tag", "refs/tags/v1")
    assert event.commit == launch.info.commit == shop.git("rev-parse", "HEAD")
    poll(database, settings, get_project(database, "shop"))
    assert [one.kind for one in inbox.list_events(database)].count("tag") == 1


def test_created_tag_and_its_push_are_one_run(
    told: Callable[..., Delivery], database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """Gitea tells the commit in the one and the tag's object in the other."""
    shop.git("tag", "-a", "-m", "One", "v1.2.0")
    pushed = made.gitea_push(ref="refs/tags/v1.2.0", before=made.ZERO, head_commit=None, commits=[])
    first = told("gitea", with_commits(pushed, shop, after="refs/tags/v1.2.0"), "push")
    second = told("gitea", with_commits(made.gitea_created(), shop), "create")
    # The dispatcher may have learned meanwhile which commit the tag is of: then the second one tells nothing new.
    events = [event_of(database, one) for one in (first, second) if "event" in one.events[0]]
    assert len([one for one in events if prepare(database, settings, one)]) == 1


RELEASES: Mapping[str, tuple[Json, str]] = {
    "github": (made.github_release(), "release"),
    "gitlab": (made.gitlab_release(), "Release Hook"),
    "gitea": (made.gitea_release(), "release"),
    "forgejo": (made.gitea_release(), "release"),
}


@pytest.mark.parametrize("forge", RELEASES)
def test_release_runs_the_tags_commit(
    told: Callable[..., Delivery], database: sa.Engine, settings: Settings, shop: GitRepository, forge: str
) -> None:
    """Also where the forge names no commit: the tag says which."""
    shop.git("tag", "-a", "-m", "Spring", "v1.2.0")
    payload, name = RELEASES[forge]
    event, launch = launched(database, settings, told(forge, with_commits(payload, shop), name))
    assert (event.kind, event.ref, event.commit) == ("release", "refs/tags/v1.2.0", shop.git("rev-parse", "HEAD"))
    assert launch.info.about["release"] == "Spring"


def test_gitlabs_signing_token_is_believed_too(
    told: Callable[..., Delivery], database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """The scheme follows the secret that is configured."""
    from penstock.webhooks.hooks import new_secret

    delivery = told("gitlab", with_commits(made.gitlab_push(), shop), "Push Hook", secret=new_secret(signing=True))
    launched(database, settings, delivery)


def test_several_refs_in_one_delivery_are_an_event_each(
    told: Callable[..., Delivery], database: sa.Engine, shop: GitRepository
) -> None:
    """Bitbucket puts them together; what is no branch or tag is passed over."""
    changes = [made.server_change(ref, made.ZERO) for ref in ("refs/heads/main", "refs/heads/orders", "refs/notes/x")]
    delivery = told("bitbucket-server", with_commits(made.server_push(*changes), shop), "repo:refs_changed")
    assert [one["became"] for one in delivery.events] == ["accepted", "accepted", "ignored"]
    assert len(inbox.list_events(database)) == 2


def test_subscription_is_confirmed_for_the_pinned_topic_alone(
    connect: Callable[..., tuple[Hook, Sender]], database: sa.Engine, asked: list[str]
) -> None:
    """Its address is asked once; another topic's message is not even kept."""
    _, sender = connect("aws-codecommit")
    url = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t"
    message = made.sns_envelope("Confirm", Type="SubscriptionConfirmation", Token="t", SubscribeURL=url)
    done = settled(database, sender.send(message).json()["delivery"])
    assert done.state == "done"
    assert asked.count(url) == 1
    other = TOPIC + "-other"
    stranger = message | {"TopicArn": other, "SubscribeURL": url.replace(TOPIC, other), "MessageId": "m2"}
    assert sender.send(stranger).status_code == 401
    assert [one for one in asked if "Confirm" in one] == [url]


def test_confirmation_that_leads_elsewhere_is_rejected(
    connect: Callable[..., tuple[Hook, Sender]], database: sa.Engine, asked: list[str]
) -> None:
    """Although it is signed: only SNS's own host is asked."""
    _, sender = connect("aws-codecommit")
    url = f"http://169.254.169.254/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t"
    message = made.sns_envelope("Confirm", Type="SubscriptionConfirmation", Token="t", SubscribeURL=url)
    done = settled(database, sender.send(message).json()["delivery"])
    assert (done.state, url in asked) == ("rejected", False)


def test_azure_delivery_of_another_subscription_is_refused(
    connect: Callable[..., tuple[Hook, Sender]], shop: GitRepository
) -> None:
    """Its password alone is not enough: the body is not signed."""
    _, sender = connect("azure-devops")
    payload = with_commits(made.azure_push(), shop)
    assert sender.send(payload | {"subscriptionId": "s2"}).status_code == 401
    assert sender.send(payload | {"resourceContainers": {"project": {"id": "p2"}}}).status_code == 401
    assert sender.send(payload).status_code == 202
