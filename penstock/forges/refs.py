"""Refs, commits and repository names: made full, and refused where git would refuse them."""

from __future__ import annotations

import re

from penstock.errors import EventError
from penstock.forges.event import Ignored

HEADS = "refs/heads/"
TAGS = "refs/tags/"

# The rules of `git check-ref-format` that matter to us: no blanks or controls, nothing that makes it a
# refspec, a range or a revision expression.
_FORBIDDEN_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|/$|\.lock$|\.$")
_COMMIT = re.compile(r"[0-9A-Za-z]{4,64}")
_FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ZEROS = re.compile(r"0+")
_FORBIDDEN_IN_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_REF_CHARS = 1024


def full_ref(forge: str, name: str, prefix: str = HEADS) -> str:
    """
    `refs/heads/main` for `main` under `prefix`; full refs pass as they are.

    Raises: EventError where git would refuse the name.
    """
    ref = name if name.startswith("refs/") else prefix + name
    if len(ref) > _MAX_REF_CHARS or _FORBIDDEN_IN_REF.search(ref) or ref in (HEADS, TAGS):
        raise EventError(f"{ref[:80]!r} is no ref that git would take", where=forge)
    return ref


def short(ref: str) -> str:
    """The branch's or tag's own name."""
    return ref.removeprefix(HEADS).removeprefix(TAGS)


def commit_or_none(forge: str, commit: str | None) -> str | None:
    """
    The commit; None for the all-zero id by which git writes "no object".

    Letters and digits rather than hex alone: it is enough to be safe on a command line, and the
    forges' own documentation writes ids such as `26a8f2EXAMPLE`.
    Raises: EventError for anything else.
    """
    if not commit or _ZEROS.fullmatch(commit):
        return None
    if not _COMMIT.fullmatch(commit):
        raise EventError(f"{commit[:80]!r} is no commit id", where=forge)
    return commit


def is_full_id(text: str) -> bool:
    """Whether `text` is a whole SHA-1 or SHA-256 id, as against a branch's name."""
    return _FULL_ID.fullmatch(text) is not None


def repository_name(forge: str, *parts: str | None) -> str:
    """
    The parts joined by `/`.

    Raises: EventError where one is missing or holds control characters.
    """
    if not all(parts):
        raise EventError("the body names no repository", where=forge)
    name = "/".join(part for part in parts if part)
    if len(name) > 512 or _FORBIDDEN_IN_NAME.search(name):
        raise EventError(f"{name[:80]!r} is no repository name", where=forge)
    return name


def neither_branch_nor_tag(ref: str) -> Ignored | None:
    """Why a push to `refs/notes/…` and the like is passed over; None for branches and tags."""
    if ref.startswith((HEADS, TAGS)):
        return None
    return Ignored(f"{ref} is neither a branch nor a tag")
