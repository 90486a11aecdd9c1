"""GitLab: https://docs.gitlab.com/user/project/integrations/webhook_events/"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from penstock.forges.commits import ListedCommit, asks_to_skip, changed_files, head_message
from penstock.forges.event import GitEvent, Ignored, Parsed, PullRequest, shown
from penstock.forges.payload import ABSENT, Count, Number, decode, header, required
from penstock.forges.refs import (
    TAGS,
    commit_or_none,
    full_ref,
    neither_branch_nor_tag,
    repository_name,
    short,
)
from penstock.forges.verify import Trust, verify_gitlab

NAME = "gitlab"

_PULL_REQUEST_ACTIONS = {"open": "opened", "reopen": "reopened", "close": "closed", "merge": "merged"}
_RELEASE_ACTIONS = {"create": "published", "update": "edited", "delete": "deleted"}
_STATES = {"merged": "merged", "closed": "closed", "locked": "edited"}


class _Project(msgspec.Struct, frozen=True):
    id: int | None = None
    path_with_namespace: str | None = None
    web_url: str | None = None
    homepage: str | None = None
    git_http_url: str | None = None
    http_url: str | None = None


class _User(msgspec.Struct, frozen=True):
    username: str | None = None
    name: str | None = None


class _Kind(msgspec.Struct, frozen=True):
    """Webhooks say `object_kind`, system hooks `event_name`; system hooks of merge requests both."""

    object_kind: str | None = None
    event_name: str | None = None


class _Push(msgspec.Struct, frozen=True):
    ref: str | None = None
    before: str | None = None
    after: str | None = None
    checkout_sha: str | None = None
    user_username: str | None = None
    user_name: str | None = None
    project: _Project | None = None
    repository: _Project | None = None
    commits: list[ListedCommit] | None = None
    total_commits_count: Count | None = None
    # An empty list where there are none, an object where there are.
    push_options: msgspec.Raw = ABSENT


class _PushOptions(msgspec.Struct, frozen=True):
    ci: dict[str, object] | None = None


class _MergeRequest(msgspec.Struct, frozen=True):
    iid: Number | None = None
    action: str | None = None
    state: str | None = None
    title: str | None = None
    url: str | None = None
    draft: bool | None = None
    work_in_progress: bool | None = None
    oldrev: str | None = None
    updated_at: str | None = None
    source_branch: str | None = None
    target_branch: str | None = None
    source_project_id: int | None = None
    target_project_id: int | None = None
    source: _Project | None = None
    target: _Project | None = None
    last_commit: ListedCommit | None = None


class _Change(msgspec.Struct, frozen=True):
    previous: object = None
    current: object = None


class _Changes(msgspec.Struct, frozen=True):
    draft: _Change | None = None
    work_in_progress: _Change | None = None


class _MergeRequestEvent(msgspec.Struct, frozen=True):
    object_attributes: _MergeRequest | None = None
    project: _Project | None = None
    repository: _Project | None = None
    user: _User | None = None
    changes: _Changes | None = None


class _LooseEvent(msgspec.Struct, frozen=True):
    object_attributes: dict[str, msgspec.Raw]


class _Release(msgspec.Struct, frozen=True):
    action: str | None = None
    tag: str | None = None
    name: str | None = None
    url: str | None = None
    released_at: str | None = None
    commit: ListedCommit | None = None
    project: _Project | None = None
    repository: _Project | None = None


def parse_all(body: bytes, _headers: Mapping[str, str], _event: str | None = None) -> tuple[Parsed, ...]:
    """
    The one event of a delivery; the body says which, also under `System Hook`.

    Raises: EventError for what is no GitLab event.
    """
    told = decode(NAME, body, _Kind)
    kind = required(NAME, told.object_kind or told.event_name, "object_kind or event_name")
    if kind in ("push", "tag_push"):
        return (_push(decode(NAME, body, _Push)),)
    if kind == "merge_request":
        return (_merge_request(_told_merge_request(body)),)
    if kind == "release":
        return (_release(decode(NAME, body, _Release)),)
    return (Ignored(f"{shown(kind)} events start nothing"),)


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, now_s: float) -> None:
    """Raises: AccessError unless the signing or secret token, whichever is configured, is right."""
    verify_gitlab(NAME, body, headers, trust, now_s)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`webhook-id`, which is signed, else `Idempotency-Key`, else the older `X-Gitlab-Event-UUID`."""
    names = ("webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID")
    return next((value for name in names if (value := header(headers, name))), None)


def _repository(*projects: _Project | None) -> str:
    known = [p for p in projects if p is not None]
    path = next((p.path_with_namespace for p in known if p.path_with_namespace), None)
    # Before GitLab 8.5 only addresses are told.
    addresses = [a for p in known for a in (p.web_url, p.git_http_url, p.http_url, p.homepage) if a]
    return repository_name(NAME, path or next(filter(None, map(_path_of, addresses)), None))


def _path_of(address: str) -> str | None:
    try:
        return urlsplit(address).path.strip("/").removesuffix(".git") or None
    except ValueError:
        return None


def _push(push: _Push) -> Parsed:
    ref = full_ref(NAME, required(NAME, push.ref, "ref"))
    repository = _repository(push.project, push.repository)
    after = commit_or_none(NAME, required(NAME, push.after, "after"))
    before = commit_or_none(NAME, push.before)
    if passed_over := neither_branch_nor_tag(ref):
        return passed_over
    is_tag = ref.startswith(TAGS)
    commits_count = push.total_commits_count if push.total_commits_count is not None else _length(push.commits)
    return GitEvent(
        forge=NAME,
        repository=repository,
        kind="delete" if after is None else "tag" if is_tag else "push",
        ref=ref,
        # For an annotated tag `after` is the tag object and `checkout_sha` the commit.
        commit=after and (commit_or_none(NAME, push.checkout_sha) or after),
        before=before,
        ref_object=after,
        author=push.user_username or push.user_name,
        tag=short(ref) if is_tag else None,
        url=push.project.web_url if push.project else None,
        commits_count=commits_count,
        changed_files=changed_files(push.commits, total=commits_count) if before else None,
        skip_ci=after is not None and _asks_to_skip(push, after),
    )


def _length(commits: list[ListedCommit] | None) -> int | None:
    return len(commits) if commits is not None else None


def _asks_to_skip(push: _Push, after: str) -> bool:
    if bytes(push.push_options).startswith(b"{"):
        options = decode(NAME, bytes(push.push_options), _PushOptions)
        if options.ci and options.ci.get("skip"):
            return True
    return asks_to_skip(head_message(push.commits, None, push.checkout_sha or after))


def _told_merge_request(body: bytes) -> _MergeRequestEvent:
    told = decode(NAME, body, _MergeRequestEvent)
    if told.object_attributes is None or told.object_attributes.iid is not None:
        return told
    # Samples of group hooks from 2016 write member names with a blank behind them ("iid ").
    loose = decode(NAME, body, _LooseEvent).object_attributes
    trimmed = msgspec.json.encode({name.strip(): value for name, value in loose.items()})
    return msgspec.structs.replace(told, object_attributes=decode(NAME, trimmed, _MergeRequest))


def _merge_request(told: _MergeRequestEvent) -> GitEvent:
    request = required(NAME, told.object_attributes, "object_attributes")
    number = required(NAME, request.iid, "object_attributes.iid")
    head = request.last_commit
    return GitEvent(
        forge=NAME,
        repository=_repository(request.target, told.project, told.repository),
        kind="pull_request",
        ref=f"refs/merge-requests/{number}/head",
        commit=commit_or_none(NAME, head.id if head else None),
        before=commit_or_none(NAME, request.oldrev),
        author=(told.user.username or told.user.name) if told.user else None,
        pull_request=PullRequest(
            number=number,
            source=short(full_ref(NAME, required(NAME, request.source_branch, "object_attributes.source_branch"))),
            target=short(full_ref(NAME, required(NAME, request.target_branch, "object_attributes.target_branch"))),
            fork=_is_fork(request),
            source_repository=request.source.path_with_namespace if request.source else None,
        ),
        url=request.url,
        action=_action(request, told.changes),
        title=request.title,
        draft=bool(request.draft or request.work_in_progress),
        skip_ci=asks_to_skip(head.message if head else None, request.title),
        at=request.updated_at,
    )


def _is_fork(request: _MergeRequest) -> bool:
    if request.source_project_id is not None and request.target_project_id is not None:
        return request.source_project_id != request.target_project_id
    if request.source is None or request.target is None:
        return True
    return request.source != request.target


def _action(request: _MergeRequest, changes: _Changes | None) -> str:
    if request.action in (None, "update"):
        if request.action is None or request.oldrev:
            # Without an action GitLab tells a state only; a head that has run does not run again.
            return _STATES.get(request.state or "", "synchronize")
        return "ready_for_review" if _left_draft(changes) else "edited"
    return _PULL_REQUEST_ACTIONS.get(request.action, request.action)


def _left_draft(changes: _Changes | None) -> bool:
    told = (changes.draft, changes.work_in_progress) if changes else ()
    return any(change is not None and change.current is False for change in told)


def _release(release: _Release) -> GitEvent:
    tag = required(NAME, release.tag, "tag")
    action = required(NAME, release.action, "action")
    return GitEvent(
        forge=NAME,
        repository=_repository(release.project, release.repository),
        kind="release",
        ref=full_ref(NAME, tag, TAGS),
        commit=commit_or_none(NAME, release.commit.id if release.commit else None),
        tag=tag,
        release=release.name or tag,
        url=release.url,
        action=_RELEASE_ACTIONS.get(action, action),
        title=release.name,
        at=release.released_at,
    )
