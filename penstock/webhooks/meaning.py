"""From a forge's event to the inbox: what is kept of it, and what it moves."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import msgspec
import sqlalchemy as sa

from penstock.errors import InputError
from penstock.events import inbox
from penstock.events.inbox import EventRecord, Push, Told
from penstock.forges.event import GitEvent, Ignored, Parsed, event_key, shown
from penstock.forges.refs import HEADS, TAGS
from penstock.forges.rules import why_not_run
from penstock.state.tables import projects
from penstock.webhooks.deliveries import storable

_LONGEST_TEXT = 1000


@attrs.frozen
class Outcome:
    """What became of one event: accepted, known, removed (a head), ignored, refused. event: its number in the inbox."""

    became: Literal["accepted", "known", "removed", "ignored", "refused"]
    reason: str | None = None
    event: int | None = None
    kind: str = "ignored"
    ref: str | None = None
    commit: str | None = None


def take_in(connection: sa.Connection, project: str, parsed: Parsed, *, again: str = "") -> Outcome:
    """
    Put an event into the inbox, if the rules let it.

    again: what a person calls the repetition that they ask for; empty: an event that is known does not run again.
    """
    if isinstance(parsed, Ignored):
        return Outcome("ignored", parsed.reason)
    try:
        outcome = _take_in(connection, project, parsed, again)
    except InputError as error:
        outcome = Outcome("refused", str(error))
    return attrs.evolve(outcome, kind=parsed.kind, ref=storable(parsed.ref), commit=parsed.commit)


def _take_in(connection: sa.Connection, project: str, event: GitEvent, again: str) -> Outcome:
    if event.kind == "delete":
        return _removed(connection, project, event)
    reason = why_not_run(event)
    if reason and not _would_run(event):
        return Outcome("ignored", reason)
    if event.kind in ("push", "tag"):
        found = inbox.accept_in(connection, push_of(project, event), again=again)
    else:
        found = _accept_told(connection, project, event, again)
    if found is None:
        return Outcome("known", "told before")
    if reason:
        inbox.ignore_in(connection, found, reason)
        return Outcome("ignored", reason, found.id)
    return Outcome("accepted", found.reason if found.state == "held" else None, found.id)


def _would_run(event: GitEvent) -> bool:
    """
    Whether it is only `[skip ci]` that keeps it from running.

    Such an event is in the inbox all the same: it moves the branch, and its required checks are reported as skipped.
    """
    return event.skip_ci and why_not_run(msgspec.structs.replace(event, skip_ci=False)) is None


def push_of(project: str, event: GitEvent) -> Push:
    """A branch or tag that moved, in the inbox's words."""
    return Push(project, event.ref, str(event.commit), event.before, author=_text(event.author), about=about_of(event))


def _removed(connection: sa.Connection, project: str, event: GitEvent) -> Outcome:
    """
    Forget the head. Where the forge does not say where the ref was, polling decides, which sees whether it is gone.
    """
    polled = connection.execute(sa.select(projects.c.polled).where(projects.c.name == project)).scalar()
    if event.before is None and polled:
        return Outcome("ignored", f"{shown(event.ref)} was deleted")
    gone = inbox.forget_head(connection, project, event.ref, event.before)
    return Outcome("removed" if gone else "ignored", f"{shown(event.ref)} was deleted")


def _accept_told(connection: sa.Connection, project: str, event: GitEvent, again: str) -> EventRecord | None:
    request, author = event.pull_request, _text(event.author)
    key = f"{project}:{event.kind}:{event_key(event)}{f'#{again}' if again else ''}"
    held = None
    if request and request.fork and not inbox.is_trusted(connection, project, author):
        who = shown(author or "somebody")
        held = f"a fork's pull request, the first of {who}; look at it, then `penstock hook approve`"
    told = Told(
        project=project,
        kind="pull_request" if request else "release",
        ref=_own_ref(event),
        commit=event.commit or inbox.NOTHING,
        key=key,
        author=author,
        about=about_of(event),
        held=held,
    )
    return inbox.accept_told(connection, told)


def _own_ref(event: GitEvent) -> str:
    """
    The ref under which it runs: never a branch for a pull request.

    Some forges name the source branch, which in a fork may be called like a branch of the repository itself.
    """
    if event.pull_request and event.ref.startswith((HEADS, TAGS)):
        return f"refs/pull/{event.pull_request.number}/head"
    return event.ref


def about_of(event: GitEvent) -> dict[str, Any]:
    """What the run, its expressions and its records know of the event besides ref and commit."""
    told: dict[str, Any] = {
        "forge": event.forge,
        "repository": _text(event.repository),
        "actor": _text(event.author),
        "action": _text(event.action),
        "url": _text(event.url),
        "title": _text(event.title),
        "tag": _text(event.tag),
        "release": _text(event.release),
        "forced": event.forced,
        "commits_count": event.commits_count,
        "pull_request": _pull_request(event),
    }
    return {name: value for name, value in told.items() if value is not None}


def _pull_request(event: GitEvent) -> Mapping[str, Any] | None:
    request = event.pull_request
    if request is None:
        return None
    is_branch = event.ref.startswith(HEADS)
    return {
        "number": request.number,
        "title": _text(event.title),
        "source": _text(request.source),
        "target": _text(request.target),
        "fork": request.fork,
        "draft": event.draft,
        "source_repository": _text(request.source_repository),
        "target_commit": request.target_commit,
        "url": _text(event.url),
        # A branch is in the mirror anyway, unless it is a fork's, whose address nobody follows.
        "fetch": None if is_branch and request.fork else _text(event.ref),
    }


def _text(text: str | None) -> str | None:
    return storable(text)[:_LONGEST_TEXT] if text is not None else None
