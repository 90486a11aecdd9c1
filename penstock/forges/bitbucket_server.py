"""Bitbucket Data Center and Server: https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.forges import bitbucket_addon
from penstock.forges.commits import asks_to_skip
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Number, decode, header, is_told, required
from penstock.forges.refs import (
    HEADS,
    TAGS,
    commit_or_none,
    full_ref,
    neither_branch_nor_tag,
    repository_name,
    short,
)
from penstock.forges.verify import Trust, verify_hub_signature

NAME = "bitbucket-server"

_ACTIONS = {
    "pr:opened": "opened",
    "pr:from_ref_updated": "synchronize",
    "pr:modified": "edited",
    "pr:merged": "merged",
    "pr:declined": "closed",
    "pr:deleted": "deleted",
    "pr:reopened": "reopened",
}
_PASSED_OVER = {
    "diagnostics:ping": "Bitbucket tries whether the hook answers",
    "mirror:repo_synchronized": "a mirror caught up; the repository's own push tells its changes",
}


class _User(msgspec.Struct, frozen=True):
    name: str | None = None
    slug: str | None = None


class _Participant(msgspec.Struct, frozen=True):
    user: _User | None = None


class _Project(msgspec.Struct, frozen=True):
    key: str | None = None


class _Repository(msgspec.Struct, frozen=True):
    id: int | None = None
    slug: str | None = None
    project: _Project | None = None


class _Ref(msgspec.Struct, frozen=True):
    id: str | None = None
    type: str | None = None


class _Change(msgspec.Struct, frozen=True):
    ref: _Ref | None = None
    refId: str | None = None  # noqa: N815
    fromHash: str | None = None  # noqa: N815
    toHash: str | None = None  # noqa: N815
    type: str | None = None


class _Commit(msgspec.Struct, frozen=True):
    id: str | None = None
    message: str | None = None


class _Push(msgspec.Struct, frozen=True):
    repository: _Repository | None = None
    actor: _User | None = None
    changes: list[_Change] | None = None
    # The add-on that came before built-in webhooks (Server 5.4) writes refChanges.
    refChanges: list[_Change] | None = None  # noqa: N815
    toCommit: _Commit | None = None  # noqa: N815


class _End(msgspec.Struct, frozen=True):
    id: str | None = None
    displayId: str | None = None  # noqa: N815
    latestCommit: str | None = None  # noqa: N815
    repository: _Repository | None = None


class _Link(msgspec.Struct, frozen=True):
    href: str | None = None


class _Links(msgspec.Struct, frozen=True):
    self: list[_Link | None] | None = None


class _PullRequest(msgspec.Struct, frozen=True):
    id: Number | None = None
    title: str | None = None
    draft: bool | None = None
    version: int | None = None
    fromRef: _End | None = None  # noqa: N815
    toRef: _End | None = None  # noqa: N815
    author: _Participant | None = None
    links: _Links | None = None


class _PullRequestEvent(msgspec.Struct, frozen=True):
    actor: _User | None = None
    pullRequest: _PullRequest | None = None  # noqa: N815
    previousFromHash: str | None = None  # noqa: N815


class _Shape(msgspec.Struct, frozen=True):
    eventKey: str | None = None  # noqa: N815
    refChanges: msgspec.Raw = ABSENT  # noqa: N815
    push: msgspec.Raw = ABSENT
    test: bool | None = None


def parse_all(body: bytes, headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The events of a delivery, in its order: a push tells every ref that it changed.

    event: `repo:refs_changed`, `pr:opened`, …; None takes it from `X-Event-Key`, else from the body.
    Raises: EventError for what is no Bitbucket Data Center event.
    """
    name = event or header(headers, "X-Event-Key") or _event_by_shape(body)
    if name == "repo:refs_changed":
        return _pushes(decode(NAME, body, _Push))
    if name in _ACTIONS:
        return (_pull_request(decode(NAME, body, _PullRequestEvent), _ACTIONS[name]),)
    if name == "repo:push":
        return bitbucket_addon.parse_push(NAME, body)
    if name in bitbucket_addon.ACTIONS:
        return (bitbucket_addon.parse_pull_request(NAME, body, name),)
    decode(NAME, body, _Shape)
    return (Ignored(_PASSED_OVER.get(name, f"{shown(name)} events start nothing")),)


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """Raises: AccessError unless `X-Hub-Signature` is right under a live secret."""
    verify_hub_signature(NAME, body, header(headers, "X-Hub-Signature"), trust)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`X-Request-Id`."""
    return header(headers, "X-Request-Id")


def _event_by_shape(body: bytes) -> str:
    shape = decode(NAME, body, _Shape)
    if shape.test:
        return "diagnostics:ping"
    if is_told(shape.refChanges):
        return "repo:refs_changed"
    return "repo:push" if is_told(shape.push) else required(NAME, shape.eventKey, "eventKey; pass --event")


def _repository(repository: _Repository | None) -> str:
    known = repository or _Repository()
    return repository_name(NAME, known.project.key if known.project else None, known.slug)


def _pushes(push: _Push) -> tuple[Parsed, ...]:
    repository = _repository(push.repository)
    changes = push.changes if push.changes is not None else push.refChanges
    told = required(NAME, changes, "changes")
    # toCommit is told for the delivery as a whole: it belongs to the change only where there is one.
    head = push.toCommit if len(told) == 1 else None
    events = tuple(_change(repository, push.actor, change, head) for change in told)
    return events or (Ignored("the push changed no ref"),)


def _change(repository: str, actor: _User | None, change: _Change, head: _Commit | None) -> Parsed:
    name = required(NAME, change.refId or (change.ref.id if change.ref else None), "changes[].refId")
    ref = full_ref(NAME, name, TAGS if change.ref and change.ref.type == "TAG" else HEADS)
    after = None if change.type == "DELETE" else commit_or_none(NAME, required(NAME, change.toHash, "toHash"))
    before = commit_or_none(NAME, change.fromHash)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    is_tag = ref.startswith(TAGS)
    # For an annotated tag toHash is the tag object.
    peeled = commit_or_none(NAME, head.id) if head and is_tag else None
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if after is None else "tag" if is_tag else "push",
        ref=ref,
        commit=after and (peeled or after),
        before=before,
        ref_object=after,
        author=_who(actor),
        tag=short(ref) if is_tag else None,
        skip_ci=after is not None and asks_to_skip(head.message if head else None),
    )


def _who(user: _User | None) -> str | None:
    return (user.name or user.slug) if user else None


def _pull_request(told: _PullRequestEvent, action: str) -> GitEvent:
    request = required(NAME, told.pullRequest, "pullRequest")
    number = required(NAME, request.id, "pullRequest.id")
    source = required(NAME, request.fromRef, "pullRequest.fromRef")
    target = required(NAME, request.toRef, "pullRequest.toRef")
    author = request.author.user if request.author else None
    links = request.links.self if request.links else None
    return GitEvent(
        forge=NAME,
        repository=_repository(target.repository),
        kind="pull_request",
        ref=f"refs/pull-requests/{number}/from",
        commit=commit_or_none(NAME, source.latestCommit),
        before=commit_or_none(NAME, told.previousFromHash),
        author=_who(author) or _who(told.actor),
        pull_request=PullRequest(
            number=number,
            source=short(full_ref(NAME, required(NAME, source.id or source.displayId, "pullRequest.fromRef.id"))),
            target=short(full_ref(NAME, required(NAME, target.id or target.displayId, "pullRequest.toRef.id"))),
            fork=_is_fork(source.repository, target.repository),
            source_repository=_name_or_none(source.repository),
            target_commit=commit_or_none(NAME, target.latestCommit),
        ),
        url=next((link.href for link in links or () if link), None),
        action=action,
        title=request.title,
        draft=bool(request.draft),
        skip_ci=asks_to_skip(request.title),
        at=str(request.version) if request.version is not None else None,
    )


def _name_or_none(repository: _Repository | None) -> str | None:
    return _repository(repository) if repository and repository.slug and repository.project else None


def _is_fork(source: _Repository | None, target: _Repository | None) -> bool:
    if source is None or target is None:
        return True
    if source.id is not None and target.id is not None:
        return source.id != target.id
    return _name_or_none(source) is None or _name_or_none(source) != _name_or_none(target)
