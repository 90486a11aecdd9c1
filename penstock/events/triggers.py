"""Whether an event starts a run: the triggers of the pipeline at that commit, and what its author asked for."""

from collections.abc import Callable, Sequence

from penstock.events.inbox import EventRecord
from penstock.forges.commits import asks_to_skip
from penstock.pipeline.patterns import any_matches, matches
from penstock.pipeline.spec import Filter, Triggers


def why_no_run(
    triggers: Triggers, event: EventRecord, message: str, changed: Callable[[], Sequence[str] | None]
) -> str:
    """
    Why the event starts no run; empty when it does.

    message: of the commit. changed: the files that differ from the commit before; None when that is not known.
    """
    if event.kind == "manual":
        return ""
    # Tags and releases run all the same: tagging is a decision of its own.
    if event.kind in ("push", "pull_request") and asks_to_skip(message):
        return "the commit's message says [skip ci]"
    trigger = getattr(triggers, event.kind, None)
    if not trigger:
        return f"the pipeline has no trigger `on: {event.kind}`"
    return _filtered(trigger, event, changed) if isinstance(trigger, Filter) else ""


def _filtered(given: Filter, event: EventRecord, changed: Callable[[], Sequence[str] | None]) -> str:
    pull_request = event.about.get("pull_request") or {}
    branch = pull_request.get("target") or event.ref.removeprefix("refs/heads/")
    tag = event.ref.removeprefix("refs/tags/")
    if given.branches and not event.ref.startswith("refs/tags/") and not matches(branch, given.branches):
        return f"branch {branch} is not among {', '.join(given.branches)}"
    if given.tags and event.ref.startswith("refs/tags/") and not matches(tag, given.tags):
        return f"tag {tag} is not among {', '.join(given.tags)}"
    if given.paths:
        files = changed()
        if files is not None and not any_matches(files, given.paths):
            return f"no changed file is among {', '.join(given.paths)}"
    return ""
