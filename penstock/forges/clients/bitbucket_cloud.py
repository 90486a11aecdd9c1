"""Bitbucket Cloud: build statuses and comments. https://developer.atlassian.com/cloud/bitbucket/rest/"""

import base64
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from penstock.forges.clients.values import Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_LONGEST_KEY = 40
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
    "cancelled": "STOPPED",
}


class BitbucketCloud(OnWire):
    """secret: an access token of the repository, or `user:token` for an API token of a person."""

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        self._repo = f"/repositories/{quote(place.repository, safe='/')}"
        self._wire = Wire(place.url, {"Authorization": _authorization(secret)}, link, secrets=_parts(secret))

    def show(self, status: Status, _known: str | None) -> Shown:
        """A build status; its key makes the next one take its place."""
        told = {"key": key_of(status.context), "name": status.context, "state": _STATES[status.state]}
        told |= {"url": status.url, "description": status.line}
        if status.ref.startswith("refs/heads/"):
            told["refname"] = status.ref.removeprefix("refs/heads/")
        self._wire.send("POST", f"{self._repo}/commit/{status.commit}/statuses/build", told)
        return Shown()

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A comment on the pull request."""
        comments = f"{self._repo}/pullrequests/{comment.pull_request}/comments"
        known = known or self._written_before(comments, comment)
        told = {"content": {"raw": comment.body}}

        def change(there: str) -> None:
            self._wire.send("PUT", f"{comments}/{there}", told)

        return change_or_write(known, change, lambda: str(self._wire.send("POST", comments, told)["id"]))

    def _written_before(self, comments: str, comment: Comment) -> str | None:
        path = f"{comments}?pagelen=100"
        for _ in range(_MOST_PAGES):
            page = self._wire.get(path)
            for one in page.get("values", ()):
                text = (one.get("content") or {}).get("raw") or ""
                if not one.get("deleted") and text.startswith(comment.marker):
                    return str(one["id"])
            path = page.get("next")
            if not path:
                break
        return None

    def check(self) -> str:
        """The repository, as the token sees it."""
        return f"{self._wire.get(self._repo)['full_name']} at {self._wire.host}"


def key_of(context: str) -> str:
    """At most 40 characters, the same for the same context."""
    if len(context) <= _LONGEST_KEY:
        return context
    return f"{context[:27]}-{hashlib.sha256(context.encode()).hexdigest()[:12]}"


def _authorization(secret: str) -> str:
    if ":" in secret:
        return f"Basic {base64.b64encode(secret.encode()).decode()}"
    return f"Bearer {secret}"


def _parts(secret: str) -> tuple[str, ...]:
    return (secret, secret.partition(":")[2])
