"""Gitea and Forgejo: commit statuses, comments, files of releases. https://docs.gitea.com/api/"""

import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from penstock.forges.clients.values import Asset, Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import ForgeRefused, OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_PAGE = 50  # what both give at most by default
_MOST_PAGES = 40
_STATES: Final[Mapping[State, str]] = {
    "queued": "pending",
    "running": "pending",
    "waiting": "pending",
    "succeeded": "success",
    "skipped": "success",
    "failed": "failure",
    "timed_out": "failure",
    "cancelled": "error",
    "infra_error": "error",
}


class Gitea(OnWire):
    """secret: an access token. The place's address ends with /api/v1."""

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        self._repo = f"/repos/{quote(place.repository, safe='/')}"
        self._wire = Wire(place.url, {"Authorization": f"token {secret}"}, link, secrets=(secret,))

    def show(self, status: Status, _known: str | None) -> Shown:
        """A status under the context's name; the newest one is shown."""
        told = {"state": _STATES[status.state], "context": status.context, "target_url": status.url}
        self._wire.send("POST", f"{self._repo}/statuses/{status.commit}", {**told, "description": status.line})
        return Shown()

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A comment in the pull request's conversation."""
        known = known or self._written_before(comment)
        path = f"{self._repo}/issues/{comment.pull_request}/comments"

        def change(there: str) -> None:
            self._wire.send("PATCH", f"{self._repo}/issues/comments/{there}", {"body": comment.body})

        return change_or_write(known, change, lambda: str(self._wire.send("POST", path, {"body": comment.body})["id"]))

    def _written_before(self, comment: Comment) -> str | None:
        """An issue's comments come all at once; a server that pages them all the same repeats its last page."""
        first: object = None
        for page in range(1, _MOST_PAGES + 1):
            path = f"{self._repo}/issues/{comment.pull_request}/comments"
            found = self._wire.get(path, limit=_PAGE, page=page)
            if not found or found[0]["id"] == first:
                break
            for one in found:
                if str(one.get("body") or "").startswith(comment.marker):
                    return str(one["id"])
            first = found[0]["id"]
        return None

    def attach(self, asset: Asset) -> Shown:
        """A file of the tag's release; the release is made if there is none."""
        release = self._release(asset.tag)
        for there in release.get("assets") or ():
            if there["name"] == asset.name and there["size"] == asset.size_bytes:
                return Shown(str(there["id"]))
        boundary = uuid.uuid4().hex
        head, tail = _form(boundary, asset.name)
        length = len(head) + asset.size_bytes + len(tail)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
        path = f"{self._repo}/releases/{release['id']}/assets"
        made = self._wire.ask("POST", path, _around(head, asset, tail), headers, params={"name": asset.name})
        return Shown(str(made.value()["id"]))

    def _release(self, tag: str) -> Any:
        try:
            return self._wire.get(f"{self._repo}/releases/tags/{quote(tag, safe='')}")
        except ForgeRefused as error:
            if error.status != 404:
                raise
        return self._wire.send("POST", f"{self._repo}/releases", {"tag_name": tag, "name": tag})

    def check(self) -> str:
        """The repository, as the token sees it."""
        return f"{self._wire.get(self._repo)['full_name']} at {self._wire.host}"


def _form(boundary: str, name: str) -> tuple[bytes, bytes]:
    """What stands before and after the file in multipart/form-data."""
    said = quote(name, safe=" ().,+-_")
    disposition = f'Content-Disposition: form-data; name="attachment"; filename="{said}"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


def _around(head: bytes, asset: Asset, tail: bytes) -> Iterator[bytes]:
    yield head
    yield from asset.read()
    yield tail
