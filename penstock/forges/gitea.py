"""
Gitea, and Forgejo, whose payloads descend from it.

https://docs.gitea.com/usage/webhooks and https://forgejo.org/docs/latest/user/webhooks/
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.forges.commits import ListedCommit, asks_to_skip, changed_files, head_message
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Count, Number, decode, header, is_told, required
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
from penstock.forges.verify import Trust, verify_hex_signature

NAME = "gitea"

# Gitea names the event both broadly (X-Gitea-Event) and narrowly (X-Gitea-Event-Type); either may come.
_PULL_REQUEST_EVENTS = frozenset(
    {
        "pull_request",
        "pull_request_assign",
        "pull_request_label",
        "pull_request_milestone",
        "pull_request_sync",
        "pull_request_review_request",
    }
)
_PULL_REQUEST_ACTIONS = {"synchronized": "synchronize", "label_updated": "labeled", "label_cleared": "unlabeled"}
_RELEASE_ACTIONS = {"updated": "edited"}
_WORK_IN_PROGRESS = ("wip:", "[wip]", "draft:", "[draft]")


class _User(msgspec.Struct, frozen=True):
    login: str | None = None
    username: str | None = None


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
    compare_url: str | None = None
    commits: list[ListedCommit] | None = None
    total_commits: Count | None = None
    head_commit: ListedCommit | None = None
    pusher: _User | None = None


class _Ref(_Event, frozen=True):
    ref: str | None = None
    ref_type: str | None = None
    sha: str | None = None


class _End(msgspec.Struct, frozen=True):
    ref: str | None = None
    label: str | None = None
    sha: str | None = None
    repo_id: int | None = None
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
    pull_request: _PullRequest | None = None


class _Release(msgspec.Struct, frozen=True):
    tag_name: str | None = None
    target_commitish: str | None = None
    name: str | None = None
    html_url: str | None = None
    draft: bool | None = None
    published_at: str | None = None
    author: _User | None = None


class _ReleaseEvent(_Event, frozen=True):
    action: str | None = None
    release: _Release | None = None


class _Shape(msgspec.Struct, frozen=True):
    """Just enough to tell the event where neither the caller nor a header names it."""

    after: str | None = None
    ref_type: str | None = None
    sha: str | None = None
    pull_request: msgspec.Raw = ABSENT
    release: msgspec.Raw = ABSENT
    review: msgspec.Raw = ABSENT
    comment: msgspec.Raw = ABSENT
    sender: msgspec.Raw = ABSENT


def parse_all(body: bytes, headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The one event of a Gitea delivery.

    event: `push`, `create`, `pull_request`, …; None takes it from `X-Gitea-Event`, else from the shape.
    Raises: EventError for what is no Gitea event.
    """
    return (parse_as(NAME, body, event or header(headers, "X-Gitea-Event")),)


def parse_as(forge: str, body: bytes, event: str | None) -> Parsed:
    """The event of a Gitea or Forgejo delivery, told as `forge`'s own."""
    name = event or _event_by_shape(forge, body)
    if name == "push":
        return _push(forge, decode(forge, body, _Push))
    if name == "create":
        return _created(forge, decode(forge, body, _Ref))
    if name == "delete":
        return _deleted(forge, decode(forge, body, _Ref))
    if name in _PULL_REQUEST_EVENTS:
        return _pull_request(forge, decode(forge, body, _PullRequestEvent))
    if name == "release":
        return _release(forge, decode(forge, body, _ReleaseEvent))
    decode(forge, body, _Event)
    return Ignored(f"{shown(name)} events start nothing")


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """Raises: AccessError unless `X-Gitea-Signature` is right under a live secret."""
    verify_hex_signature(NAME, body, header(headers, "X-Gitea-Signature"), trust)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`X-Gitea-Delivery`."""
    return header(headers, "X-Gitea-Delivery")


def _event_by_shape(forge: str, body: bytes) -> str:
    shape = decode(forge, body, _Shape)
    if is_told(shape.review) or is_told(shape.comment):
        return "review or comment"
    if is_told(shape.pull_request):
        return "pull_request"
    if is_told(shape.release):
        return "release"
    if shape.ref_type:
        return "create" if shape.sha else "delete"
    if shape.after or not is_told(shape.sender):
        return "push"
    return "unnamed"


def _repository(forge: str, event: _Event) -> str:
    repository = event.repository or _Repository()
    if repository.full_name and "/" in repository.full_name:
        return repository_name(forge, repository.full_name)
    return repository_name(forge, _login(repository.owner), repository.name)


def _login(*users: _User | None) -> str | None:
    return next((u.login or u.username for u in users if u and (u.login or u.username)), None)


def _push(forge: str, push: _Push) -> Parsed:
    ref = full_ref(forge, required(forge, push.ref, "ref"))
    repository = _repository(forge, push)
    after = commit_or_none(forge, required(forge, push.after, "after"))
    before = commit_or_none(forge, push.before)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    is_tag = ref.startswith(TAGS)
    head = push.head_commit.id if push.head_commit and is_tag else None
    commits_count = push.total_commits if push.total_commits is not None else len(push.commits or ())
    return GitEvent(
        forge=forge,
        repository=repository,
        kind="delete" if after is None else "tag" if is_tag else "push",
        ref=ref,
        commit=after and (commit_or_none(forge, head) or after),
        before=before,
        ref_object=after,
        author=_login(push.sender, push.pusher),
        tag=short(ref) if is_tag else None,
        url=push.compare_url,
        commits_count=commits_count,
        # Only a told total shows that the list was not cut.
        changed_files=changed_files(push.commits, total=push.total_commits) if before else None,
        skip_ci=after is not None and asks_to_skip(head_message(push.commits, push.head_commit, after)),
    )


def _created(forge: str, created: _Ref) -> Parsed:
    repository = _repository(forge, created)
    ref = full_ref(forge, required(forge, created.ref, "ref"), TAGS if created.ref_type == "tag" else HEADS)
    commit = commit_or_none(forge, created.sha)
    if not ref.startswith(TAGS) or commit is None:
        return Ignored("the push of the new ref tells the same, with its commits")
    return GitEvent(
        forge=forge,
        repository=repository,
        kind="tag",
        ref=ref,
        commit=commit,
        ref_object=commit,
        author=_login(created.sender),
        tag=short(ref),
    )


def _deleted(forge: str, deleted: _Ref) -> GitEvent:
    is_tag = deleted.ref_type == "tag"
    ref = full_ref(forge, required(forge, deleted.ref, "ref"), TAGS if is_tag else HEADS)
    return GitEvent(
        forge=forge,
        repository=_repository(forge, deleted),
        kind="delete",
        ref=ref,
        author=_login(deleted.sender),
        tag=short(ref) if is_tag else None,
    )


def _pull_request(forge: str, told: _PullRequestEvent) -> GitEvent:
    request = required(forge, told.pull_request, "pull_request")
    number = required(forge, told.number or request.number, "number")
    head = required(forge, request.head, "pull_request.head")
    base = required(forge, request.base, "pull_request.base")
    action = required(forge, told.action, "action")
    title = request.title or ""
    return GitEvent(
        forge=forge,
        repository=_repository(forge, told),
        kind="pull_request",
        ref=f"refs/pull/{number}/head",
        commit=commit_or_none(forge, head.sha),
        author=_login(request.user, told.sender),
        pull_request=_ends(forge, number, head, base),
        url=request.html_url,
        action="merged" if action == "closed" and request.merged else _PULL_REQUEST_ACTIONS.get(action, action),
        title=request.title,
        # Before 1.23 a draft shows in its title alone.
        draft=request.draft if request.draft is not None else title.lower().startswith(_WORK_IN_PROGRESS),
        skip_ci=asks_to_skip(request.title),
        at=request.updated_at,
    )


def _ends(forge: str, number: int, head: _End, base: _End) -> PullRequest:
    # Once the head's branch is gone `ref` is refs/pull/N/head, and `label` keeps the branch's name.
    source = head.label if (head.ref or "").startswith("refs/pull/") and head.label else head.ref
    return PullRequest(
        number=number,
        source=short(full_ref(forge, required(forge, source or head.label, "pull_request.head.ref"))),
        target=short(full_ref(forge, required(forge, base.ref or base.label, "pull_request.base.ref"))),
        fork=_is_fork(head, base),
        source_repository=head.repo.full_name if head.repo else None,
        target_commit=commit_or_none(forge, base.sha),
    )


def _is_fork(head: _End, base: _End) -> bool:
    head_id = head.repo.id if head.repo and head.repo.id is not None else head.repo_id
    base_id = base.repo.id if base.repo and base.repo.id is not None else base.repo_id
    if head_id is not None and base_id is not None:
        return head_id != base_id
    names = [end.repo.full_name if end.repo else None for end in (head, base)]
    return names[0] is None or names[0] != names[1]


def _release(forge: str, told: _ReleaseEvent) -> GitEvent:
    release = required(forge, told.release, "release")
    tag = required(forge, release.tag_name, "release.tag_name")
    # The first versions told of published releases only, without an action.
    action = told.action or "published"
    commitish = release.target_commitish or ""
    return GitEvent(
        forge=forge,
        repository=_repository(forge, told),
        kind="release",
        ref=full_ref(forge, tag, TAGS),
        commit=commitish if is_full_id(commitish) else None,
        author=_login(release.author, told.sender),
        tag=tag,
        release=release.name or tag,
        url=release.html_url,
        action=_RELEASE_ACTIONS.get(action, action),
        title=release.name,
        draft=bool(release.draft),
        at=release.published_at,
    )
