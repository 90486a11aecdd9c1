"""
AWS CodeCommit: repository triggers through SNS, and EventBridge events through SQS or SNS.

https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html
https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-notify-sns.html
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.errors import AccessError, EventError
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Number, decode, number_in, required
from penstock.forges.refs import HEADS, TAGS, commit_or_none, full_ref, neither_branch_nor_tag, repository_name, short
from penstock.forges.sns import Message, verify_message
from penstock.forges.verify import Trust

NAME = "aws-codecommit"

_ACTIONS = {"pullRequestCreated": "opened", "pullRequestSourceBranchUpdated": "synchronize"}
_PULL_REQUEST_EVENTS = frozenset({*_ACTIONS, "pullRequestStatusChanged", "pullRequestMergeStatusUpdated"})
_REFERENCE_EVENTS = frozenset({"referenceCreated", "referenceUpdated", "referenceDeleted"})


class _Reference(msgspec.Struct, frozen=True):
    commit: str | None = None
    ref: str | None = None
    deleted: bool | None = None


class _References(msgspec.Struct, frozen=True):
    references: list[_Reference] | None = None


class _Record(msgspec.Struct, frozen=True):
    codecommit: _References | None = None
    eventId: str | None = None  # noqa: N815
    eventName: str | None = None  # noqa: N815
    eventSourceARN: str | None = None  # noqa: N815
    userIdentityARN: str | None = None  # noqa: N815


class _Detail(msgspec.Struct, frozen=True):
    event: str | None = None
    repositoryName: str | None = None  # noqa: N815
    repositoryNames: list[str] | None = None  # noqa: N815
    referenceType: str | None = None  # noqa: N815
    referenceName: str | None = None  # noqa: N815
    referenceFullName: str | None = None  # noqa: N815
    commitId: str | None = None  # noqa: N815
    oldCommitId: str | None = None  # noqa: N815
    callerUserArn: str | None = None  # noqa: N815
    author: str | None = None
    title: str | None = None
    pullRequestId: str | Number | None = None  # noqa: N815
    pullRequestStatus: str | None = None  # noqa: N815
    isMerged: str | bool | None = None  # noqa: N815
    sourceReference: str | None = None  # noqa: N815
    destinationReference: str | None = None  # noqa: N815
    sourceCommit: str | None = None  # noqa: N815
    destinationCommit: str | None = None  # noqa: N815


class _Message(msgspec.Struct, frozen=True):
    """What an SNS message holds, or what SQS hands over: a trigger's records or one EventBridge event."""

    Records: list[_Record] | None = None
    Event: str | None = None
    id: str | None = None
    source: str | None = None
    detail_type: str | None = msgspec.field(default=None, name="detail-type")
    time: str | None = None
    resources: list[str] | None = None
    detail: msgspec.Raw = ABSENT


def parse_all(body: bytes, _headers: Mapping[str, str], _event: str | None = None) -> tuple[Parsed, ...]:
    """
    The events of a delivery, in its order: a trigger tells every reference that changed.

    The body decides between an SNS envelope, a trigger's records and an EventBridge event.
    Raises: EventError for what is none of them.
    """
    envelope = decode(NAME, body, Message)
    if envelope.Type is None:
        return _message(decode(NAME, body, _Message))
    if envelope.Type != "Notification":
        return (Ignored(f"SNS {shown(envelope.Type)}; not an event of the repository"),)
    text = required(NAME, envelope.Message, "Message")
    return _message(decode(NAME, text.encode("utf-8", "replace"), _Message))


def verify(body: bytes, _headers: Mapping[str, str], trust: Trust, now_s: float) -> None:
    """
    Raises: AccessError unless this is an SNS message of the pinned topic with a right signature.

    EventBridge events are unsigned: they are believed when read from our own SQS queue, and refused here.
    """
    try:
        envelope = decode(NAME, body, Message)
    except EventError as fault:
        raise AccessError("the delivery is no SNS message", where=NAME) from fault
    verify_message(NAME, envelope, trust, now_s)


def delivery_id(body: bytes, _headers: Mapping[str, str]) -> str | None:
    """SNS's `MessageId`, else EventBridge's `id`. Raises: EventError for what is not JSON."""
    envelope = decode(NAME, body, Message)
    if envelope.MessageId:
        return envelope.MessageId
    message = decode(NAME, body, _Message)
    return message.id or next((r.eventId for r in message.Records or () if r.eventId), None)


def _message(message: _Message) -> tuple[Parsed, ...]:
    if message.Records is not None:
        events = tuple(event for record in message.Records for event in _record(record))
        return events or (Ignored("the trigger names no reference"),)
    if message.source == "aws.codecommit" or message.detail_type:
        return (_bridge_event(message),)
    if message.Event == "s3:TestEvent" or (message.Event or "").endswith("TestEvent"):
        return (Ignored("a test event"),)
    raise EventError("the body is neither a trigger's records nor an EventBridge event", where=NAME)


def _record(record: _Record) -> tuple[Parsed, ...]:
    repository = repository_name(NAME, (record.eventSourceARN or "").rpartition(":")[2])
    told = required(NAME, record.codecommit, "Records[].codecommit")
    return tuple(_reference(repository, record.userIdentityARN, each) for each in told.references or ())


def _reference(repository: str, user: str | None, reference: _Reference) -> Parsed:
    ref = full_ref(NAME, required(NAME, reference.ref, "references[].ref"))
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    commit = commit_or_none(NAME, reference.commit)
    if reference.deleted:
        return _moved(repository, ref, user, None, commit)
    return _moved(repository, ref, user, required(NAME, commit, "references[].commit"), None)


def _moved(repository: str, ref: str, user: str | None, commit: str | None, before: str | None) -> GitEvent:
    is_tag = ref.startswith(TAGS)
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if commit is None else "tag" if is_tag else "push",
        ref=ref,
        commit=commit,
        before=before,
        ref_object=commit,
        author=_user(user),
        tag=short(ref) if is_tag else None,
    )


def _bridge_event(message: _Message) -> Parsed:
    detail = decode(NAME, required(NAME, bytes(message.detail), "detail"), _Detail)
    name = detail.event or message.detail_type or "unnamed"
    if name in _REFERENCE_EVENTS:
        return _reference_event(detail, message.resources)
    if name in _PULL_REQUEST_EVENTS:
        return _pull_request(detail, message)
    return Ignored(f"{shown(name)} events start nothing")


def _reference_event(detail: _Detail, resources: list[str] | None) -> Parsed:
    name = required(NAME, detail.referenceFullName or detail.referenceName, "detail.referenceFullName")
    ref = full_ref(NAME, name, TAGS if detail.referenceType == "tag" else HEADS)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    repository = _repository(detail, resources)
    before = commit_or_none(NAME, detail.oldCommitId)
    if detail.event == "referenceDeleted":
        return _moved(repository, ref, detail.callerUserArn, None, before)
    commit = commit_or_none(NAME, required(NAME, detail.commitId, "detail.commitId"))
    return _moved(repository, ref, detail.callerUserArn, commit, before)


def _repository(detail: _Detail, resources: list[str] | None) -> str:
    names = [detail.repositoryName, *(detail.repositoryNames or ())]
    arns = [arn.rpartition(":")[2] for arn in resources or ()]
    return repository_name(NAME, next((name for name in (*names, *arns) if name), None))


def _user(arn: str | None) -> str | None:
    # arn:aws:iam::123456789012:user/mary or arn:aws:sts::123456789012:assumed-role/Admin/mary
    return arn.rpartition("/")[2] or arn if arn else None


def _pull_request(detail: _Detail, message: _Message) -> GitEvent:
    number = number_in(NAME, detail.pullRequestId, "detail.pullRequestId")
    source = full_ref(NAME, required(NAME, detail.sourceReference, "detail.sourceReference"))
    target = full_ref(NAME, required(NAME, detail.destinationReference, "detail.destinationReference"))
    return GitEvent(
        forge=NAME,
        repository=_repository(detail, message.resources),
        kind="pull_request",
        ref=source,
        commit=commit_or_none(NAME, detail.sourceCommit),
        author=_user(detail.author or detail.callerUserArn),
        pull_request=PullRequest(
            number=number,
            source=short(source),
            target=short(target),
            # CodeCommit has no forks: source and target are branches of one repository.
            fork=False,
            target_commit=commit_or_none(NAME, detail.destinationCommit),
        ),
        action=_action(detail),
        title=detail.title,
        at=message.time,
    )


def _action(detail: _Detail) -> str:
    if str(detail.isMerged).lower() == "true":
        return "merged"
    closed = (detail.pullRequestStatus or "").lower() == "closed"
    return "closed" if closed else _ACTIONS.get(detail.event or "", "edited")
