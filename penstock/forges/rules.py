"""Which events start a run at all, before a pipeline's own triggers are asked."""

from __future__ import annotations

from penstock.forges.event import GitEvent, shown

RUNNING_PULL_REQUEST_ACTIONS = frozenset({"opened", "synchronize", "reopened", "ready_for_review"})


def why_not_run(event: GitEvent) -> str | None:
    """
    The reason for which `event` starts nothing, in one line; None where the triggers decide.

    `[skip ci]` comes last, so that a caller who sees it knows that a run would have started and can
    report its required checks as skipped.
    """
    return _why_kind_does_not_run(event) or (
        "[skip ci] is asked for" if event.skip_ci and event.kind in ("push", "pull_request") else None
    )


def _why_kind_does_not_run(event: GitEvent) -> str | None:
    if event.kind == "delete":
        return f"{event.ref} was deleted"
    if event.kind == "release":
        return None if event.action == "published" else f"release {shown(event.action or '')}; only published ones run"
    if event.kind == "pull_request" and event.action not in RUNNING_PULL_REQUEST_ACTIONS:
        return f"pull request {shown(event.action or '')}; no new commit to run"
    if event.commit is None:
        return "the forge names no commit"
    if event.commit == event.before:
        return f"{event.ref} did not move"
    return None
