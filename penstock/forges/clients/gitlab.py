"""GitLab: commit statuses, notes on merge requests, links of releases. https://docs.gitlab.com/api/commits/"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from penstock.forges.clients.values import Asset, Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import ForgeRefused, OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_PAGE = 100
_MOST_PAGES = 20
_PACKAGE = "penstock-release"
# A pipeline that was skipped does not satisfy "pipelines must succeed": what was rightly left out is a success.
_STATES: Final[Mapping[State, str]] = {
    "queued": "pending",
    "waiting": "pending",
    "running": "running",
    "succeeded": "success",
    "skipped": "success",
    "failed": "failed",
    "timed_out": "failed",
    "infra_error": "failed",
    "cancelled": "canceled",
}


class GitLab(OnWire):
    """secret: a personal, group or project access token."""

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        self._project = f"/projects/{quote(place.repository, safe='')}"
        self._wire = Wire(place.url, {"PRIVATE-TOKEN": secret}, link, secrets=(secret,))

    def show(self, status: Status, _known: str | None) -> Shown:
        """A status under the context's name, which GitLab shows as a job of an external pipeline."""
        told = {"state": _STATES[status.state], "name": status.context, "target_url": status.url}
        told["description"] = status.line
        if branch := _branch(status):
            told["ref"] = branch
        try:
            self._wire.send("POST", f"{self._project}/statuses/{status.commit}", told)
        except ForgeRefused as error:
            # It is shown already: GitLab takes no state twice.
            if error.status != 400 or "cannot transition status" not in str(error).lower():
                raise
            self._confirm(status)
        return Shown()

    def _confirm(self, status: Status) -> None:
        """Raises: ForgeRefused when GitLab shows another state and does not let it change."""
        path = f"{self._project}/repository/commits/{status.commit}/statuses"
        found = self._wire.get(path, name=status.context, per_page=_PAGE)
        shown = {one["status"] for one in found if one["name"] == status.context}
        if _STATES[status.state] not in shown:
            told = f"it shows {', '.join(sorted(shown)) or 'nothing'} and will not show {_STATES[status.state]}"
            raise ForgeRefused(told, where=self._wire.host, status=400)

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A note on the merge request."""
        notes = f"{self._project}/merge_requests/{comment.pull_request}/notes"
        known = known or self._written_before(notes, comment)

        def change(there: str) -> None:
            self._wire.send("PUT", f"{notes}/{there}", {"body": comment.body})

        return change_or_write(known, change, lambda: str(self._wire.send("POST", notes, {"body": comment.body})["id"]))

    def _written_before(self, notes: str, comment: Comment) -> str | None:
        for page in range(1, _MOST_PAGES + 1):
            found = self._wire.get(notes, per_page=_PAGE, page=page, sort="asc", order_by="created_at")
            for one in found:
                if not one.get("system") and str(one.get("body") or "").startswith(comment.marker):
                    return str(one["id"])
            if len(found) < _PAGE:
                break
        return None

    def attach(self, asset: Asset) -> Shown:
        """A file in the project's package registry, linked from the tag's release, which is made if there is none."""
        release = self._release(asset.tag)
        there = (one for one in release.get("assets", {}).get("links", ()) if one["name"] == asset.name)
        if linked := next(there, None):
            return Shown(str(linked["id"]))
        version, name = quote(asset.tag.replace("/", "-"), safe=""), quote(asset.name.replace("/", "-"), safe="")
        path = f"{self._project}/packages/generic/{_PACKAGE}/{version}/{name}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(asset.size_bytes)}
        self._wire.ask("PUT", path, asset.read(), headers)
        links = f"{self._project}/releases/{quote(asset.tag, safe='')}/assets/links"
        told = {"name": asset.name, "url": f"{self._wire.url}{path}", "link_type": "package"}
        return Shown(str(self._wire.send("POST", links, told)["id"]))

    def _release(self, tag: str) -> Any:
        try:
            return self._wire.get(f"{self._project}/releases/{quote(tag, safe='')}")
        except ForgeRefused as error:
            if error.status not in (403, 404):  # GitLab answers 403 for a release that is not there
                raise
        return self._wire.send("POST", f"{self._project}/releases", {"tag_name": tag, "name": tag})

    def check(self) -> str:
        """The project, as the token sees it."""
        return f"{self._wire.get(self._project)['path_with_namespace']} at {self._wire.host}"


def _branch(status: Status) -> str | None:
    """The branch or tag whose pipeline the status is of; GitLab finds it itself for a merge request from a fork."""
    if status.pull_request is not None:
        return status.source
    return status.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
