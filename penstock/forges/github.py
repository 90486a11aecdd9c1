"""GitHub: https://docs.github.com/en/webhooks/webhook-events-and-payloads"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.errors import EventError
from penstock.forges.commits import ListedCommit, asks_to_skip, changed_files, head_message
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Number, decode, header, is_told, required
from penstock.forges.refs import (
    HEADS,
    TAGS,
    commit_or_none,
    full_ref,
    is_full_id,
    neither_branch_nor_tag,
    repository_name,
    short,
)
from penstock.forges.verify import Trust, verify_hub_signature

NAME = "github"

# "The array includes a maximum of 2048 commits" (docs of the push event, 2024); 20 on older servers.
_LIST_LIMITS = frozenset({20, 2048})

_TOLD_ELSEWHERE = {
    "create": "the push of the new ref tells the same, with its commit",
    "ping": "GitHub tries whether the hook answers",
    "merge_group": "the push to the merge queue's own branch starts its run",
}


class _User(msgspec.Struct, frozen=True):
    login: str | None = None
    name: str | None = None


class _Repository(msgspec.Struct, frozen=True):
    id: int | None = None
    full_name: str | None = None
    name: str | None = None
    owner: _User | None = None


class _Event(msgspec.Struct, frozen=True):
    repository: _Repository | None = None
    sender: _User | None = None


class _Push(_Event, frozen=True):
    ref: str | None = None
    before: str | None = None
    after: str | None = None
    created: bool | None = None
    deleted: bool | None = None
    forced: bool | None = None
    compare: str | None = None
    commits: list[ListedCommit] | None = None
    head_commit: ListedCommit | None = None
    pusher: _User | None = None


class _Deleted(_Event, frozen=True):
    ref: str | None = None
    ref_type: str | None = None


class _End(msgspec.Struct, frozen=True):
    ref: str | None = None
    sha: str | None = None
    repo: _Repository | None = None


class _PullRequest(msgspec.Struct, frozen=True):
    number: Number | None = None
    html_url: str | None = None
    title: str | None = None
    draft: bool | None = None
    merged: bool | None = None
    updated_at: str | None = None
    user: _User | None = None
    head: _End | None = None
    base: _End | None = None


class _PullRequestEvent(_Event, frozen=True):
    action: str | None = None
    number: Number | None = None
    before: str | None = None
    pull_request: _PullRequest | None = None


class _Release(msgspec.Struct, frozen=True):
    tag_name: str | None = None
    target_commitish: str | None = None
    name: str | None = None
    html_url: str | None = None
    draft: bool | None = None
    updated_at: str | None = None
    published_at: str | None = None
    author: _User | None = None


class _ReleaseEvent(_Event, frozen=True):
    action: str | None = None
    release: _Release | None = None


class _Shape(msgspec.Struct, frozen=True):
    """Just enough to tell the event where neither the caller nor a header names it."""

    ref: str | None = None
    after: str | None = None
    ref_type: str | None = None
    master_branch: str | None = None
    review: msgspec.Raw = ABSENT
    comment: msgspec.Raw = ABSENT
    thread: msgspec.Raw = ABSENT
    sender: msgspec.Raw = ABSENT
    installation: msgspec.Raw = ABSENT
    pull_request: msgspec.Raw = ABSENT
    release: msgspec.Raw = ABSENT
    zen: str | None = None


def parse_all(body: bytes, headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The one event of a delivery.

    event: `push`, `pull_request`, …; None takes it from `X-GitHub-Event`, else from the body's shape.
    Raises: EventError for what is no GitHub event.
    """
    name = event or header(headers, "X-GitHub-Event") or _event_by_shape(body)
    if name == "push":
        return (_push(decode(NAME, body, _Push)),)
    if name == "delete":
        return (_deletion(decode(NAME, body, _Deleted)),)
    if name == "pull_request":
        return (_pull_request(decode(NAME, body, _PullRequestEvent)),)
    if name == "release":
        return (_release(decode(NAME, body, _ReleaseEvent)),)
    decode(NAME, body, _Event)
    return (Ignored(_TOLD_ELSEWHERE.get(name, f"{shown(name)} events start nothing")),)


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """Raises: AccessError unless `X-Hub-Signature-256` is right under a live secret."""
    verify_hub_signature(NAME, body, header(headers, "X-Hub-Signature-256"), trust)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`X-GitHub-Delivery`, which a redelivery repeats."""
    return header(headers, "X-GitHub-Delivery")


def _event_by_shape(body: bytes) -> str:
    shape = decode(NAME, body, _Shape)
    shapes = {
        "review or comment": any(map(is_told, (shape.review, shape.comment, shape.thread))),
        "pull_request": is_told(shape.pull_request),
        "release": is_told(shape.release),
        "ping": shape.zen is not None,
        "create": bool(shape.ref and shape.ref_type and shape.master_branch),
        "delete": bool(shape.ref and shape.ref_type),
        "push": bool(shape.ref and shape.after),
        "unnamed": is_told(shape.sender) or is_told(shape.installation),
    }
    name = next((name for name, fits in shapes.items() if fits), None)
    if name is None:
        raise EventError("neither the body nor a header names an event", where=NAME, remedy="pass --event")
    return name


def _repository(event: _Event) -> str:
    repository = event.repository or _Repository()
    if repository.full_name:
        return repository_name(NAME, repository.full_name)
    return repository_name(NAME, _login(repository.owner), repository.name)


def _login(*users: _User | None) -> str | None:
    return next((u.login or u.name for u in users if u and (u.login or u.name)), None)


def _push(push: _Push) -> Parsed:
    ref = full_ref(NAME, required(NAME, push.ref, "ref"))
    repository = _repository(push)
    after = commit_or_none(NAME, required(NAME, push.after, "after"))
    before = commit_or_none(NAME, push.before)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    is_tag = ref.startswith(TAGS)
    head = push.head_commit.id if push.head_commit and is_tag else None
    gone = bool(push.deleted) or after is None
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if gone else "tag" if is_tag else "push",
        ref=ref,
        commit=None if gone else commit_or_none(NAME, head) or after,
        before=before,
        ref_object=None if gone else after,
        author=_login(push.sender, push.pusher),
        tag=short(ref) if is_tag else None,
        url=push.compare,
        forced=push.forced,
        commits_count=len(push.commits) if push.commits is not None else None,
        changed_files=_files(push),
        skip_ci=not gone and asks_to_skip(head_message(push.commits, push.head_commit, after)),
    )


def _files(push: _Push) -> tuple[str, ...] | None:
    # After a rewrite or on a new branch the listed commits are not what differs from the earlier head.
    if push.forced or push.created or not push.commits or len(push.commits) in _LIST_LIMITS:
        return None
    return changed_files(push.commits, total=len(push.commits))


def _deletion(deleted: _Deleted) -> GitEvent:
    is_tag = deleted.ref_type == "tag"
    ref = full_ref(NAME, required(NAME, deleted.ref, "ref"), TAGS if is_tag else HEADS)
    return GitEvent(
        forge=NAME,
        repository=_repository(deleted),
        kind="delete",
        ref=ref,
        author=_login(deleted.sender),
        tag=short(ref) if is_tag else None,
    )


def _pull_request(told: _PullRequestEvent) -> GitEvent:
    request = required(NAME, told.pull_request, "pull_request")
    number = required(NAME, told.number or request.number, "number")
    head = required(NAME, request.head, "pull_request.head")
    base = required(NAME, request.base, "pull_request.base")
    action = required(NAME, told.action, "action")
    return GitEvent(
        forge=NAME,
        repository=_repository(told),
        kind="pull_request",
        ref=f"refs/pull/{number}/head",
        commit=commit_or_none(NAME, required(NAME, head.sha, "pull_request.head.sha")),
        before=commit_or_none(NAME, told.before),
        author=_login(request.user, told.sender),
        pull_request=_ends(number, head, base),
        url=request.html_url,
        action="merged" if action == "closed" and request.merged else action,
        title=request.title,
        draft=bool(request.draft),
        skip_ci=asks_to_skip(request.title),
        at=request.updated_at,
    )


def _ends(number: int, head: _End, base: _End) -> PullRequest:
    return PullRequest(
        number=number,
        source=short(full_ref(NAME, required(NAME, head.ref, "pull_request.head.ref"))),
        target=short(full_ref(NAME, required(NAME, base.ref, "pull_request.base.ref"))),
        fork=_is_fork(head.repo, base.repo),
        source_repository=head.repo.full_name if head.repo else None,
        target_commit=commit_or_none(NAME, base.sha),
    )


def _is_fork(head: _Repository | None, base: _Repository | None) -> bool:
    # head.repo is null once the fork has been deleted.
    if head is None or base is None:
        return True
    if head.id is not None and base.id is not None:
        return head.id != base.id
    return head.full_name is None or head.full_name != base.full_name


def _release(told: _ReleaseEvent) -> GitEvent:
    release = required(NAME, told.release, "release")
    tag = required(NAME, release.tag_name, "release.tag_name")
    commitish = release.target_commitish or ""
    return GitEvent(
        forge=NAME,
        repository=_repository(told),
        kind="release",
        ref=full_ref(NAME, tag, TAGS),
        commit=commit_or_none(NAME, commitish) if is_full_id(commitish) else None,
        author=_login(release.author, told.sender),
        tag=tag,
        release=release.name or tag,
        url=release.html_url,
        action=required(NAME, told.action, "action"),
        title=release.name,
        draft=bool(release.draft),
        at=release.updated_at or release.published_at,
    )
