"""What happened in a repository, in the same words for every forge."""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["push", "tag", "pull_request", "release", "delete"]


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    The pull or merge request of an event.

    source, target: branch names without `refs/heads/`.
    fork: whether the head comes from another repository; True where the forge leaves it open, because
        a fork gets no secrets.
    """

    number: int
    source: str
    target: str
    fork: bool
    source_repository: str | None = None
    target_commit: str | None = None


class GitEvent(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that happened to one ref, pull request or release.

    repository: the forge's full name for it, without host (`owner/name`, `PROJECT/slug`, `project/name`).
    ref: always full (`refs/heads/main`); for a pull request the ref that fetches its head where there is one.
    commit: the head afterwards; None for a deletion, and where the forge does not say.
    before: the head earlier; None where there was none or the forge does not say.
    ref_object: what the ref points at: the tag object of an annotated tag, else the commit.
    author: who pushed, who opened the pull request, who made the release.
    action: GitHub's words on every forge, and `merged`; None for push and tag.
    forced: whether history was rewritten; None where only git can tell.
    commits_count: commits in the push, also where the list was cut; None where it is not said.
    changed_files: sorted; None unless the payload is certain to name all of them.
    skip_ci: the head commit's message (or the pull request's title) asks for no run.
    at: the forge's own time stamp of the pull request or release, as it was written.
    """

    forge: str
    repository: str
    kind: Kind
    ref: str
    commit: str | None = None
    before: str | None = None
    ref_object: str | None = None
    author: str | None = None
    pull_request: PullRequest | None = None
    tag: str | None = None
    release: str | None = None
    url: str | None = None
    action: str | None = None
    title: str | None = None
    draft: bool = False
    forced: bool | None = None
    commits_count: int | None = None
    changed_files: tuple[str, ...] | None = None
    skip_ci: bool = False
    at: str | None = None


class Ignored(msgspec.Struct, frozen=True):
    """A genuine delivery that is no git event of ours, and why, in one line for a reader."""

    reason: str


def shown(text: str) -> str:
    """A stranger's word as it may stand in a reason: on one line, printable, at most 80 characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:80])


Parsed: TypeAlias = GitEvent | Ignored

# A head is worth one run whether the forge called it "opened" or "updated": Bitbucket and Azure DevOps
# announce a changed title in the same words as new commits.
_HEAD_ACTIONS = frozenset({"opened", "synchronize"})


def event_key(event: GitEvent) -> str:
    """
    64 hex digits that two deliveries share when they tell of the same event, whatever their delivery ids.

    Pushes and tags: repository, ref, before and after. New heads of a pull request: number and head. All
    else of a pull request or release: its action, head and the forge's time stamp, so that closing and
    reopening twice are four events.
    """
    return hashlib.sha256("\0".join(_identity(event)).encode("utf-8", "backslashreplace")).hexdigest()


def _identity(event: GitEvent) -> tuple[str, ...]:
    place = (event.forge, event.repository, event.kind, event.ref)
    commit = event.commit or ""
    if event.kind == "pull_request":
        number = str(event.pull_request.number if event.pull_request else 0)
        if event.action in _HEAD_ACTIONS:
            return (*place, number, "head", commit)
        return (*place, number, event.action or "", commit, event.at or "")
    if event.kind == "release":
        return (*place, event.action or "", commit, event.at or "")
    if event.kind == "tag":
        # Gitea tells a new tag twice, in `create` without and in `push` with the value before.
        return (*place, event.ref_object or commit)
    return (*place, event.before or "", commit)
