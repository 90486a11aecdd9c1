"""What the commits listed in a push say: which files they touch and whether they ask for no run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

# The spellings that GitHub and GitLab document, in any letter case, plus our own.
_SKIP = re.compile(r"\[(?:skip[ -](?:ci|actions|penstock)|(?:ci|actions|penstock)[ -]skip|no[ -]ci)\]", re.IGNORECASE)
_SKIP_TRAILER = re.compile(r"^skip-checks:\s*true\s*$", re.IGNORECASE | re.MULTILINE)


class ListedCommit(msgspec.Struct, frozen=True):
    """A commit as GitHub, GitLab, Gitea and Forgejo list it in a push."""

    id: str | None = None
    message: str | None = None
    added: list[str] | None = None
    modified: list[str] | None = None
    removed: list[str] | None = None


def asks_to_skip(*texts: str | None) -> bool:
    """Whether a commit message or title says `[skip ci]` in one of its spellings."""
    return any(text and (_SKIP.search(text) or _SKIP_TRAILER.search(text)) for text in texts)


def head_message(commits: Sequence[ListedCommit] | None, head: ListedCommit | None, commit: str | None) -> str | None:
    """The message of the pushed head: from `head`, else from the list by its id, else unknown."""
    if head is not None and head.message:
        return head.message
    return next((c.message for c in commits or () if c.id and c.id == commit), None)


def changed_files(commits: Sequence[ListedCommit] | None, *, total: int | None) -> tuple[str, ...] | None:
    """
    All files that the commits touch, sorted; None unless the list is complete.

    total: how many commits the push has; a shorter list was cut by the forge.
    """
    if not commits or total is None or len(commits) < total:
        return None
    listed = [(c.added, c.modified, c.removed) for c in commits]
    if any(part is None for parts in listed for part in parts):
        return None
    return tuple(sorted({path for parts in listed for part in parts for path in part or ()}))
