"""When two deliveries are one event, and which events start a run at all."""

from __future__ import annotations

import forge_payloads as made
import msgspec
import pytest
from forge_payloads import A, B, C, as_bytes

from penstock.forges.event import GitEvent, event_key
from penstock.forges.registry import forge_named
from penstock.forges.rules import why_not_run


def event_of(forge: str, payload: object, event: str | None = None) -> GitEvent:
    told = forge_named(forge).parse(as_bytes(payload), {}, event)
    assert isinstance(told, GitEvent), told
    return told


def test_a_redelivered_push_has_the_same_key():
    """Only what happened counts: not titles, senders or the order of members."""
    first = event_of("github", made.github_push())
    again = event_of("github", made.github_push(sender={"login": "bot"}, compare=None, commits=[]))
    assert event_key(first) == event_key(again)
    assert len(event_key(first)) == 64


@pytest.mark.parametrize(
    "other",
    [
        made.github_push(after=C),
        made.github_push(before=C),
        made.github_push(ref="refs/heads/next"),
        made.github_push(ref="refs/tags/main"),
        made.github_push(repository={"full_name": "shop/web"}),
        made.github_push(after="0" * 40, deleted=True),
    ],
)
def test_another_push_has_another_key(other):
    """Going back to an earlier head by force is an event of its own."""
    assert event_key(event_of("github", made.github_push())) != event_key(event_of("github", other))


def test_the_same_push_on_another_forge_is_another_event():
    """A mirror runs on its own."""
    assert event_key(event_of("gitea", made.gitea_push())) != event_key(event_of("forgejo", made.gitea_push()))


def test_giteas_create_and_push_of_one_tag_are_one_event():
    """Gitea tells a new annotated tag twice: as `create` with the tag object, as `push` with the commit."""
    push = event_of("gitea", made.gitea_push(ref="refs/tags/v1", before="0" * 40, after=C), "push")
    create = event_of("gitea", made.gitea_created("v1", sha=C), "create")
    assert push.commit == B
    assert event_key(push) == event_key(create)


def test_a_new_title_on_bitbucket_is_not_a_new_head():
    """Bitbucket Cloud says "updated" for both; the head that was opened with has run already."""
    opened = event_of("bitbucket-cloud", made.cloud_pull_request(), "pullrequest:created")
    retitled = event_of("bitbucket-cloud", made.cloud_pull_request(title="New"), "pullrequest:updated")
    pushed = made.cloud_pull_request()
    pushed["pullrequest"]["source"]["commit"]["hash"] = C[:12]
    assert event_key(opened) == event_key(retitled)
    assert event_key(opened) != event_key(event_of("bitbucket-cloud", pushed, "pullrequest:updated"))


def test_reopening_twice_is_two_events():
    """The forge's time stamp tells them apart; the same delivery again is still the same event."""
    first = event_of("github", made.github_pull_request("reopened"))
    second = event_of("github", made.github_pull_request("reopened", updated_at="2025-03-05T10:00:00Z"))
    assert event_key(first) != event_key(second)
    assert event_key(first) == event_key(event_of("github", made.github_pull_request("reopened")))


@pytest.mark.parametrize(
    ("forge", "payload"),
    [
        ("github", made.github_push()),
        ("github", made.github_push(forced=True)),
        ("github", made.github_push(before="0" * 40, created=True, commits=[])),
        ("github", made.github_push(ref="refs/tags/v1", head_commit=made.listed(message="[skip ci]"))),
        ("github", made.github_push(commits=[made.listed()] * 2048)),
        ("github", made.github_release()),
        *[("github", made.github_pull_request(a)) for a in ("opened", "synchronize", "reopened", "ready_for_review")],
        ("github", made.github_pull_request(draft=True)),
        ("github", made.github_pull_request(head_repo={"id": 9, "full_name": "eve/api"})),
    ],
)
def test_these_reach_the_triggers(forge, payload):
    """Force pushes, new branches, tags in spite of [skip ci], huge pushes, drafts and forks included."""
    assert why_not_run(event_of(forge, payload)) is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (made.github_push(after="0" * 40, deleted=True), "refs/heads/main was deleted"),
        (made.github_push(after=A), "did not move"),
        (made.github_push(head_commit=made.listed(message="[skip ci]")), "[skip ci]"),
        (made.github_pull_request("labeled"), "pull request labeled"),
        (made.github_pull_request("closed", merged=True), "pull request merged"),
        (made.github_release("edited"), "only published"),
    ],
)
def test_these_start_nothing_and_say_why(payload, reason):
    """One line for the page of recent events."""
    why = why_not_run(event_of("github", payload))
    assert why is not None
    assert reason in why


def test_a_pull_request_without_head_starts_nothing():
    """GitLab tells merge requests whose source branch is empty."""
    event = event_of("gitlab", made.gitlab_merge_request(last_commit=None))
    assert why_not_run(event) == "the forge names no commit"


def test_an_event_survives_being_stored():
    """The receiver stores events as JSON and reads back the same value."""
    event = event_of("github", made.github_pull_request())
    assert msgspec.json.decode(msgspec.json.encode(event), type=GitEvent) == event


def test_an_event_cannot_be_changed():
    """Values are frozen."""
    with pytest.raises(AttributeError):
        event_of("github", made.github_push()).commit = C  # type: ignore[misc]
