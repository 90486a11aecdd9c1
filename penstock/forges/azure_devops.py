"""Azure DevOps service hooks: https://learn.microsoft.com/azure/devops/service-hooks/events"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from attrs import frozen

from penstock.errors import AccessError
from penstock.forges.commits import asks_to_skip
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Number, decode, is_told, required
from penstock.forges.refs import TAGS, commit_or_none, full_ref, neither_branch_nor_tag, repository_name, short
from penstock.forges.verify import Trust, verify_basic

NAME = "azure-devops"

_DETAILS = "resource; set the subscription's resource details to All"
_PUSH = "git.push"
# The documentation's "pull request merge attempted" is git.pullrequest.merged whether or not it succeeded.
_PULL_REQUESTS = frozenset({"git.pullrequest.created", "git.pullrequest.updated", "git.pullrequest.merged"})
_CLOSED_STATES = {"completed": "merged", "abandoned": "closed"}
_ACTIONS = {"git.pullrequest.created": "opened", "git.pullrequest.updated": "synchronize"}


class _Identity(msgspec.Struct, frozen=True):
    uniqueName: str | None = None  # noqa: N815
    displayName: str | None = None  # noqa: N815


class _Project(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None


class _Repository(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None
    project: _Project | None = None
    webUrl: str | None = None  # noqa: N815
    remoteUrl: str | None = None  # noqa: N815


class _Commit(msgspec.Struct, frozen=True):
    commitId: str | None = None  # noqa: N815
    comment: str | None = None


class _RefUpdate(msgspec.Struct, frozen=True):
    name: str | None = None
    oldObjectId: str | None = None  # noqa: N815
    newObjectId: str | None = None  # noqa: N815


class _Numbers(msgspec.Struct, frozen=True):
    pushId: Number | None = None  # noqa: N815
    pullRequestId: Number | None = None  # noqa: N815


class _Push(msgspec.Struct, frozen=True):
    commits: list[_Commit] | None = None
    refUpdates: list[_RefUpdate] | None = None  # noqa: N815
    repository: _Repository | None = None
    pushedBy: _Identity | None = None  # noqa: N815


class _Fork(msgspec.Struct, frozen=True):
    repository: _Repository | None = None


class _PullRequest(msgspec.Struct, frozen=True):
    repository: _Repository | None = None
    pullRequestId: Number | None = None  # noqa: N815
    status: str | None = None
    createdBy: _Identity | None = None  # noqa: N815
    title: str | None = None
    isDraft: bool | None = None  # noqa: N815
    sourceRefName: str | None = None  # noqa: N815
    targetRefName: str | None = None  # noqa: N815
    lastMergeSourceCommit: _Commit | None = None  # noqa: N815
    lastMergeTargetCommit: _Commit | None = None  # noqa: N815
    forkSource: _Fork | None = None  # noqa: N815


class _Container(msgspec.Struct, frozen=True):
    id: str | None = None


class _Containers(msgspec.Struct, frozen=True):
    project: _Container | None = None


class _Envelope(msgspec.Struct, frozen=True):
    id: str | None = None
    eventType: str | None = None  # noqa: N815
    subscriptionId: str | None = None  # noqa: N815
    createdDate: str | None = None  # noqa: N815
    resource: msgspec.Raw = ABSENT
    resourceContainers: _Containers | None = None  # noqa: N815


@frozen
class Resource:
    """What an unsigned delivery is about, as the API knows it: a push or a pull request of the connected repository."""

    kind: Literal["push", "pull_request"]
    number: int


@frozen
class Origin:
    """Where a delivery says it comes from; unsigned, so it is compared with what was set up and then re-read."""

    subscription_id: str | None
    project_id: str | None


def parse_all(body: bytes, _headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The events of a delivery, in its order: a push tells every ref that it changed.

    event: only for a body without `eventType`.
    Raises: EventError for what is no service hook of Azure DevOps.
    """
    told = decode(NAME, body, _Envelope)
    return _meaning(told, _name(told, event), lambda: _resource(told))


def resource_of(body: bytes) -> Resource | None:
    """
    What to read again before the delivery is trusted; None where it starts nothing, whatever the API would say.

    Raises: EventError for what is no service hook, or does not say which push or pull request it is about.
    """
    told = decode(NAME, body, _Envelope)
    name = _name(told, None)
    if name != _PUSH and name not in _PULL_REQUESTS:
        return None
    numbers = decode(NAME, _resource(told), _Numbers)
    if name == _PUSH:
        return Resource("push", int(required(NAME, numbers.pushId, "resource.pushId")))
    return Resource("pull_request", int(required(NAME, numbers.pullRequestId, "resource.pullRequestId")))


def parse_reread(body: bytes, resource: bytes) -> tuple[Parsed, ...]:
    """
    The events of a delivery, of which nothing is taken but its kind and time: the rest is what the API answered.

    resource: the answer, which has the form that deliveries have. Raises: EventError.
    """
    told = decode(NAME, body, _Envelope)
    return _meaning(told, _name(told, None), lambda: resource)


def _name(told: _Envelope, event: str | None) -> str:
    return required(NAME, told.eventType or (event if is_told(told.resource) else None), "eventType")


def _meaning(told: _Envelope, name: str, resource: Callable[[], bytes]) -> tuple[Parsed, ...]:
    if name == _PUSH:
        return _pushes(decode(NAME, resource(), _Push))
    if name in _PULL_REQUESTS:
        return (_pull_request(decode(NAME, resource(), _PullRequest), name, told.createdDate),)
    return (Ignored(f"{shown(name)} events start nothing"),)


def verify(_body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """
    Raises: AccessError unless the basic authentication is right.

    The body is not signed: ask `verify_origin` next, and read `resource_of` again before anything runs.
    """
    verify_basic(NAME, headers, trust)


def origin(body: bytes) -> Origin:
    """The subscription and project that the body names. Raises: EventError."""
    told = decode(NAME, body, _Envelope)
    project = told.resourceContainers.project if told.resourceContainers else None
    return Origin(told.subscriptionId, project.id if project else None)


def verify_origin(body: bytes, expected: Origin) -> None:
    """
    Raises: AccessError unless body and `expected` name the same subscription and project.

    A None in `expected` is not compared.
    """
    said = origin(body)
    pairs = {
        "subscription": (expected.subscription_id, said.subscription_id),
        "project": (expected.project_id, said.project_id),
    }
    for what, (wanted, given) in pairs.items():
        if wanted is not None and wanted != given:
            raise AccessError(
                f"the delivery is of {what} {given}, not {wanted}",
                where=NAME,
                remedy="connect the repository again if its hook was made anew",
            )


def delivery_id(body: bytes, _headers: Mapping[str, str]) -> str | None:
    """The body's `id`, the same on every attempt. Raises: EventError for what is not JSON."""
    return decode(NAME, body, _Envelope).id


def _resource(told: _Envelope) -> bytes:
    return required(NAME, bytes(told.resource) if is_told(told.resource) else None, _DETAILS)


def _repository(repository: _Repository | None) -> str:
    known = required(NAME, repository, "resource.repository")
    return repository_name(NAME, known.project.name if known.project else None, known.name)


def _who(identity: _Identity | None) -> str | None:
    return (identity.uniqueName or identity.displayName) if identity else None


def _pushes(push: _Push) -> tuple[Parsed, ...]:
    repository = _repository(push.repository)
    updates = required(NAME, push.refUpdates, "resource.refUpdates")
    return tuple(_update(repository, push, update) for update in updates) or (Ignored("the push changed no ref"),)


def _update(repository: str, push: _Push, update: _RefUpdate) -> Parsed:
    ref = full_ref(NAME, required(NAME, update.name, "resource.refUpdates[].name"))
    after = commit_or_none(NAME, required(NAME, update.newObjectId, "resource.refUpdates[].newObjectId"))
    before = commit_or_none(NAME, update.oldObjectId)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    is_tag = ref.startswith(TAGS)
    head = next((c for c in push.commits or () if c.commitId == after), None)
    alone = len(push.refUpdates or ()) == 1 and push.commits is not None
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if after is None else "tag" if is_tag else "push",
        ref=ref,
        commit=after,
        before=before,
        ref_object=after,
        author=_who(push.pushedBy),
        tag=short(ref) if is_tag else None,
        url=push.repository.remoteUrl if push.repository else None,
        commits_count=len(push.commits or ()) if alone else None,
        skip_ci=bool(head and (asks_to_skip(head.comment) or "***NO_CI***" in (head.comment or ""))),
    )


def _pull_request(request: _PullRequest, name: str, at: str | None) -> GitEvent:
    number = required(NAME, request.pullRequestId, "resource.pullRequestId")
    repository = required(NAME, request.repository, "resource.repository")
    head, base = request.lastMergeSourceCommit, request.lastMergeTargetCommit
    fork = request.forkSource.repository if request.forkSource else None
    return GitEvent(
        forge=NAME,
        repository=_repository(repository),
        kind="pull_request",
        # Azure DevOps has a ref for the merge only; the head is fetched by its branch.
        ref=full_ref(NAME, required(NAME, request.sourceRefName, "resource.sourceRefName")),
        commit=commit_or_none(NAME, head.commitId if head else None),
        author=_who(request.createdBy),
        pull_request=PullRequest(
            number=number,
            source=short(full_ref(NAME, required(NAME, request.sourceRefName, "resource.sourceRefName"))),
            target=short(full_ref(NAME, required(NAME, request.targetRefName, "resource.targetRefName"))),
            fork=request.forkSource is not None,
            source_repository=_repository(fork) if fork and fork.project and fork.name else None,
            target_commit=commit_or_none(NAME, base.commitId if base else None),
        ),
        url=_url(repository, number),
        action=_CLOSED_STATES.get(request.status or "", _ACTIONS.get(name, "edited")),
        title=request.title,
        draft=bool(request.isDraft),
        skip_ci=asks_to_skip(head.comment if head else None, request.title),
        at=at,
    )


def _url(repository: _Repository, number: int) -> str | None:
    address = repository.webUrl or repository.remoteUrl
    return f"{address}/pullrequest/{number}" if address else None
