"""Bitbucket Cloud: https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.forges.commits import asks_to_skip
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Number, decode, header, is_told, required
from penstock.forges.refs import HEADS, TAGS, commit_or_none, full_ref, repository_name, short
from penstock.forges.verify import Trust, verify_hub_signature

NAME = "bitbucket-cloud"

_ACTIONS = {
    "pullrequest:created": "opened",
    # Bitbucket says "updated" for new commits and for a new title alike; see event_key.
    "pullrequest:updated": "synchronize",
    "pullrequest:push": "synchronize",
    "pullrequest:fulfilled": "merged",
    "pullrequest:rejected": "closed",
}
_STATES = {"MERGED": "merged", "DECLINED": "closed", "SUPERSEDED": "closed"}
_REF_TYPES = {"branch": HEADS, "tag": TAGS, "annotated_tag": TAGS}


class _User(msgspec.Struct, frozen=True):
    nickname: str | None = None
    username: str | None = None
    display_name: str | None = None


class _Repository(msgspec.Struct, frozen=True):
    full_name: str | None = None
    uuid: str | None = None
    scm: str | None = None


class _Link(msgspec.Struct, frozen=True):
    href: str | None = None


class _Links(msgspec.Struct, frozen=True):
    html: _Link | None = None


class _Commit(msgspec.Struct, frozen=True):
    hash: str | None = None
    message: str | None = None


class _Ref(msgspec.Struct, frozen=True):
    type: str | None = None
    name: str | None = None
    target: _Commit | None = None


class _Change(msgspec.Struct, frozen=True):
    new: _Ref | None = None
    old: _Ref | None = None
    forced: bool | None = None
    truncated: bool | None = None
    commits: list[_Commit] | None = None
    links: _Links | None = None


class _Changes(msgspec.Struct, frozen=True):
    changes: list[_Change] | None = None


class _Push(msgspec.Struct, frozen=True):
    push: _Changes | None = None
    repository: _Repository | None = None
    actor: _User | None = None


class _Branch(msgspec.Struct, frozen=True):
    name: str | None = None


class _End(msgspec.Struct, frozen=True):
    branch: _Branch | None = None
    commit: _Commit | None = None
    repository: _Repository | None = None


class _PullRequest(msgspec.Struct, frozen=True):
    id: Number | None = None
    title: str | None = None
    state: str | None = None
    draft: bool | None = None
    updated_on: str | None = None
    author: _User | None = None
    source: _End | None = None
    destination: _End | None = None
    links: _Links | None = None


class _PullRequestEvent(msgspec.Struct, frozen=True):
    pullrequest: _PullRequest | None = None
    repository: _Repository | None = None
    actor: _User | None = None


class _Shape(msgspec.Struct, frozen=True):
    """Just enough to tell the event where neither the caller nor a header names it."""

    push: msgspec.Raw = ABSENT
    pullrequest: _PullRequest | None = None
    comment: msgspec.Raw = ABSENT
    approval: msgspec.Raw = ABSENT
    commit_status: msgspec.Raw = ABSENT
    actor: msgspec.Raw = ABSENT
    changes_request: msgspec.Raw = ABSENT


def parse_all(body: bytes, headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The events of a delivery, in its order: a push tells every ref that it changed.

    event: `repo:push`, `pullrequest:created`, …; None takes it from `X-Event-Key`, else from the shape.
    Raises: EventError for what is no Bitbucket Cloud event.
    """
    name = event or header(headers, "X-Event-Key") or _event_by_shape(body)
    if name == "repo:push":
        return _pushes(decode(NAME, body, _Push))
    if name in _ACTIONS:
        return (_pull_request(decode(NAME, body, _PullRequestEvent), _ACTIONS[name]),)
    decode(NAME, body, _Shape)
    return (Ignored(f"{shown(name)} events start nothing"),)


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """Raises: AccessError unless `X-Hub-Signature` is right under a live secret."""
    verify_hub_signature(NAME, body, header(headers, "X-Hub-Signature"), trust)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`X-Request-UUID`, the same on every attempt."""
    return header(headers, "X-Request-UUID")


def _event_by_shape(body: bytes) -> str:
    shape = decode(NAME, body, _Shape)
    if is_told(shape.push):
        return "repo:push"
    if any(map(is_told, (shape.comment, shape.approval, shape.changes_request, shape.commit_status))):
        return "comment, approval or commit status"
    if is_told(shape.actor) and shape.pullrequest is None:
        return "unnamed"
    request = required(NAME, shape.pullrequest, "push or pullrequest; pass --event")
    action = _STATES.get(request.state or "", "synchronize")
    return next(key for key, value in _ACTIONS.items() if value == action)


def _who(*users: _User | None) -> str | None:
    names = (u.nickname or u.username or u.display_name for u in users if u)
    return next((name for name in names if name), None)


def _pushes(push: _Push) -> tuple[Parsed, ...]:
    told = required(NAME, push.push, "push")
    repository = push.repository or _Repository()
    name = repository_name(NAME, repository.full_name)
    if repository.scm not in (None, "git"):
        return (Ignored(f"a {shown(repository.scm)} repository, not git"),)
    changes = tuple(_change(name, push.actor, change) for change in told.changes or ())
    return changes or (Ignored("the push changed no ref"),)


def _change(repository: str, actor: _User | None, change: _Change) -> Parsed:
    named = required(NAME, change.new or change.old, "push.changes[].new or old")
    if named.type is not None and named.type not in _REF_TYPES:
        return Ignored(f"a {shown(named.type)}, not a branch or tag")
    prefix = _REF_TYPES[named.type or "branch"]
    ref = full_ref(NAME, required(NAME, named.name, "push.changes[] name"), prefix)
    commit = commit_or_none(NAME, _hash(change.new))
    if change.new is not None:
        required(NAME, commit, "push.changes[].new.target.hash")
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if commit is None else "tag" if prefix == TAGS else "push",
        ref=ref,
        commit=commit,
        before=commit_or_none(NAME, _hash(change.old)),
        ref_object=commit,
        author=_who(actor),
        tag=short(ref) if prefix == TAGS else None,
        url=change.links.html.href if change.links and change.links.html else None,
        forced=change.forced,
        # At most five commits are listed; `truncated` tells that there are more, not how many.
        commits_count=len(change.commits) if change.commits is not None and change.truncated is False else None,
        skip_ci=bool(change.new and change.new.target and asks_to_skip(change.new.target.message)),
    )


def _hash(ref: _Ref | None) -> str | None:
    return ref.target.hash if ref and ref.target else None


def _pull_request(told: _PullRequestEvent, action: str) -> GitEvent:
    request = required(NAME, told.pullrequest, "pullrequest")
    number = required(NAME, request.id, "pullrequest.id")
    source = required(NAME, request.source, "pullrequest.source")
    target = required(NAME, request.destination, "pullrequest.destination")
    source_branch = _branch(source, "pullrequest.source.branch.name")
    repository = target.repository or told.repository or _Repository()
    return GitEvent(
        forge=NAME,
        repository=repository_name(NAME, repository.full_name or _full_name(told.repository)),
        kind="pull_request",
        # Bitbucket Cloud offers no ref for a pull request; the branch is fetched from the source repository.
        ref=HEADS + source_branch,
        commit=commit_or_none(NAME, source.commit.hash if source.commit else None),
        author=_who(request.author, told.actor),
        pull_request=PullRequest(
            number=number,
            source=source_branch,
            target=_branch(target, "pullrequest.destination.branch.name"),
            fork=_is_fork(source.repository, repository),
            source_repository=_full_name(source.repository),
            target_commit=commit_or_none(NAME, target.commit.hash if target.commit else None),
        ),
        url=request.links.html.href if request.links and request.links.html else None,
        action=action,
        title=request.title,
        draft=bool(request.draft),
        skip_ci=asks_to_skip(request.title),
        at=request.updated_on,
    )


def _full_name(repository: _Repository | None) -> str | None:
    return repository.full_name if repository else None


def _branch(end: _End, name: str) -> str:
    return short(full_ref(NAME, required(NAME, end.branch.name if end.branch else None, name)))


def _is_fork(source: _Repository | None, target: _Repository) -> bool:
    # The source's repository is null once the fork has been deleted.
    if source is None:
        return True
    if source.uuid and target.uuid:
        return source.uuid != target.uuid
    return source.full_name is None or source.full_name != target.full_name
