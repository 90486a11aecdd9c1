"""
What the "Post Webhooks for Bitbucket" add-on sends from Bitbucket Server and Data Center.

Events are named as in the Cloud (`repo:push`, `pullrequest:created`); the members are the add-on's own.
"""

from __future__ import annotations

import msgspec

from penstock.forges.commits import asks_to_skip
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest
from penstock.forges.payload import Number, decode, number_in, required
from penstock.forges.refs import HEADS, TAGS, commit_or_none, full_ref, repository_name, short

ACTIONS = {
    "pullrequest:created": "opened",
    "pullrequest:updated": "synchronize",
    "pullrequest:reopened": "reopened",
    "pullrequest:fulfilled": "merged",
    "pullrequest:rejected": "closed",
}


class _Project(msgspec.Struct, frozen=True):
    key: str | None = None


class _Repository(msgspec.Struct, frozen=True):
    slug: str | None = None
    project: _Project | None = None


class _User(msgspec.Struct, frozen=True):
    username: str | None = None


class _Commit(msgspec.Struct, frozen=True):
    hash: str | None = None
    commitMessage: str | None = None  # noqa: N815


class _Ref(msgspec.Struct, frozen=True):
    type: str | None = None
    name: str | None = None
    target: _Commit | None = None


class _Change(msgspec.Struct, frozen=True):
    new: _Ref | None = None
    old: _Ref | None = None


class _Changes(msgspec.Struct, frozen=True):
    changes: list[_Change] | None = None


class _Push(msgspec.Struct, frozen=True):
    repository: _Repository | None = None
    actor: _User | None = None
    push: _Changes | None = None


class _Branch(msgspec.Struct, frozen=True):
    name: str | None = None


class _End(msgspec.Struct, frozen=True):
    branch: _Branch | None = None
    commit: _Commit | None = None
    repository: _Repository | None = None


class _PullRequest(msgspec.Struct, frozen=True):
    id: str | Number | None = None
    title: str | None = None
    link: str | None = None
    authorLogin: str | None = None  # noqa: N815
    fromRef: _End | None = None  # noqa: N815
    toRef: _End | None = None  # noqa: N815


class _PullRequestEvent(msgspec.Struct, frozen=True):
    pullrequest: _PullRequest | None = None
    repository: _Repository | None = None


def parse_push(forge: str, body: bytes) -> tuple[Parsed, ...]:
    """The refs that a `repo:push` changed, in its order. Raises: EventError."""
    told = decode(forge, body, _Push)
    repository = _repository(forge, told.repository)
    changes = told.push.changes if told.push else None
    author = told.actor.username if told.actor else None
    events = tuple(_change(forge, repository, author, change) for change in changes or ())
    return events or (Ignored("the push changed no ref"),)


def parse_pull_request(forge: str, body: bytes, event: str) -> GitEvent:
    """What a `pullrequest:…` event of `ACTIONS` tells. Raises: EventError."""
    told = decode(forge, body, _PullRequestEvent)
    request = required(forge, told.pullrequest, "pullrequest")
    source = required(forge, request.fromRef, "pullrequest.fromRef")
    target = required(forge, request.toRef, "pullrequest.toRef")
    number = number_in(forge, request.id, "pullrequest.id")
    return GitEvent(
        forge=forge,
        repository=_repository(forge, target.repository or told.repository),
        kind="pull_request",
        ref=f"refs/pull-requests/{number}/from",
        commit=commit_or_none(forge, source.commit.hash if source.commit else None),
        author=request.authorLogin,
        pull_request=PullRequest(
            number=number,
            source=_branch(forge, source, "pullrequest.fromRef.branch.name"),
            target=_branch(forge, target, "pullrequest.toRef.branch.name"),
            fork=source.repository is None or source.repository != target.repository,
            target_commit=commit_or_none(forge, target.commit.hash if target.commit else None),
        ),
        url=request.link,
        action=ACTIONS[event],
        title=request.title,
        skip_ci=asks_to_skip(request.title),
    )


def _repository(forge: str, repository: _Repository | None) -> str:
    known = repository or _Repository()
    return repository_name(forge, known.project.key if known.project else None, known.slug)


def _change(forge: str, repository: str, author: str | None, change: _Change) -> GitEvent:
    named = required(forge, change.new or change.old, "push.changes[].new or old")
    is_tag = named.type == "tag"
    ref = full_ref(forge, required(forge, named.name, "push.changes[] name"), TAGS if is_tag else HEADS)
    commit = commit_or_none(forge, _hash(change.new))
    if change.new is not None:
        required(forge, commit, "push.changes[].new.target.hash")
    return GitEvent(
        forge=forge,
        repository=repository,
        kind="delete" if commit is None else "tag" if is_tag else "push",
        ref=ref,
        commit=commit,
        before=commit_or_none(forge, _hash(change.old)),
        ref_object=commit,
        author=author,
        tag=short(ref) if is_tag else None,
        skip_ci=bool(change.new and change.new.target and asks_to_skip(change.new.target.commitMessage)),
    )


def _hash(ref: _Ref | None) -> str | None:
    return ref.target.hash if ref and ref.target else None


def _branch(forge: str, end: _End, name: str) -> str:
    return short(full_ref(forge, required(forge, end.branch.name if end.branch else None, name)))
