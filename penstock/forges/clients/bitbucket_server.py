"""
Bitbucket Data Center: build statuses (7.4 and later) and comments.

https://developer.atlassian.com/server/bitbucket/rest/
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from penstock.errors import InputError
from penstock.forges.clients.values import Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import ForgeRefused, OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_MOST_PAGES = 20
_STATES: Final[Mapping[State, str]] = {
    "queued": "INPROGRESS",
    "waiting": "INPROGRESS",
    "running": "INPROGRESS",
    "succeeded": "SUCCESSFUL",
    "skipped": "SUCCESSFUL",
    "failed": "FAILED",
    "timed_out": "FAILED",
    "infra_error": "FAILED",
    "cancelled": "CANCELLED",
}


class BitbucketServer(OnWire):
    """secret: an HTTP access token. The place's address ends with /rest, its repository is `PROJECT/slug`."""

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        project, slash, slug = place.repository.partition("/")
        if not slash or "/" in slug:
            raise InputError(f'"{place.repository}" is no repository', where="bitbucket-server", remedy="PROJECT/slug")
        self._repo = f"/api/1.0/projects/{quote(project, safe='~')}/repos/{quote(slug, safe='')}"
        self._wire = Wire(place.url, {"Authorization": f"Bearer {secret}"}, link, secrets=(secret,))

    def show(self, status: Status, _known: str | None) -> Shown:
        """A build status; its key makes the next one take its place."""
        told: dict[str, Any] = {"key": status.context, "name": status.context, "state": _STATES[status.state]}
        told |= {"url": status.url, "description": status.line, "buildNumber": status.external_id}
        if status.ref.startswith("refs/"):
            told["ref"] = f"refs/heads/{status.source}" if status.source else status.ref
        if status.started_at and status.finished_at:
            told["duration"] = max(0, int((status.finished_at - status.started_at).total_seconds() * 1000))
        self._wire.send("POST", f"{self._repo}/commits/{status.commit}/builds", told)
        return Shown()

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A comment on the pull request. Who changes one says which version of it they know."""
        comments = f"{self._repo}/pull-requests/{comment.pull_request}/comments"
        there = self._named(comments, known) or self._written_before(comment)

        def change(number: str) -> None:
            version = there["version"] if there else 0
            self._wire.send("PUT", f"{comments}/{number}", {"text": comment.body, "version": version})

        named = str(there["id"]) if there else None
        return change_or_write(
            named, change, lambda: str(self._wire.send("POST", comments, {"text": comment.body})["id"])
        )

    def _named(self, comments: str, known: str | None) -> Mapping[str, Any] | None:
        if not known:
            return None
        try:
            found: Mapping[str, Any] = self._wire.get(f"{comments}/{known}")
        except ForgeRefused as error:
            if error.status != 404:
                raise
            return None
        return found

    def _written_before(self, comment: Comment) -> Mapping[str, Any] | None:
        """Comments are listed among everything that happened to the pull request."""
        path, start = f"{self._repo}/pull-requests/{comment.pull_request}/activities", 0
        for _ in range(_MOST_PAGES):
            page = self._wire.get(path, limit=100, start=start)
            for one in page.get("values", ()):
                found = one.get("comment") if one.get("action") == "COMMENTED" else None
                if found and str(found.get("text") or "").startswith(comment.marker):
                    return dict(found)
            if page.get("isLastPage", True):
                break
            start = page["nextPageStart"]
        return None

    def check(self) -> str:
        """The repository, as the token sees it."""
        found = self._wire.get(self._repo)
        return f"{found['project']['key']}/{found['slug']} at {self._wire.host}"
