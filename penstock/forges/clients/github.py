"""
GitHub, and GitHub Enterprise Server: checks for an app, commit statuses for a person's token.

Only apps may write check runs: https://docs.github.com/rest/checks/runs (2026-03).
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from penstock.forges.clients.github_app import App
from penstock.forges.clients.values import Asset, Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import ForgeRefused, OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_PAGE = 100
_MOST_PAGES = 20
HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
_STATUSES: Final[Mapping[State, str]] = {
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
_CONCLUSIONS: Final[Mapping[State, str]] = {
    "succeeded": "success",
    "skipped": "skipped",
    "failed": "failure",
    "timed_out": "timed_out",
    "cancelled": "cancelled",
    "infra_error": "failure",
    "waiting": "action_required",
}


class GitHub(OnWire):
    """secret: a token, or JSON with `app_id` and `private_key` (PEM) of a GitHub App that is installed there."""

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        self._place, self._link = place, link
        self._repo = f"/repos/{quote(place.repository, safe='/')}"
        self._app = App.of(secret)
        self._token = secret
        secrets = (secret, self._app.private_key if self._app else "")
        self._wire = Wire(place.url, self._proof, link, secrets=secrets)

    def show(self, status: Status, known: str | None) -> Shown:
        """A check run of its own for each run, or a commit status."""
        return self._check_run(status, known) if self._app else self._status(status)

    def _status(self, status: Status) -> Shown:
        told = {"state": _STATUSES[status.state], "target_url": status.url, "description": status.line}
        self._wire.send("POST", f"{self._repo}/statuses/{status.commit}", {**told, "context": status.context})
        return Shown()

    def _check_run(self, status: Status, known: str | None) -> Shown:
        told = _check_run(status)
        known = known or self._made_before(status)
        if known:
            try:
                self._wire.send("PATCH", f"{self._repo}/check-runs/{known}", told)
            except ForgeRefused as error:
                if error.status != 404:
                    raise
            else:
                return Shown(known)
        made = self._wire.send("POST", f"{self._repo}/check-runs", {**told, "head_sha": status.commit})
        return Shown(str(made["id"]))

    def _made_before(self, status: Status) -> str | None:
        """The check run whose creation was answered with silence."""
        path = f"{self._repo}/commits/{status.commit}/check-runs"
        found = self._wire.get(path, check_name=status.context, filter="all", per_page=_PAGE)["check_runs"]
        return next((str(one["id"]) for one in found if one.get("external_id") == status.external_id), None)

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A comment in the pull request's conversation."""
        known = known or self._written_before(comment)
        path = f"{self._repo}/issues/{comment.pull_request}/comments"

        def change(there: str) -> None:
            self._wire.send("PATCH", f"{self._repo}/issues/comments/{there}", {"body": comment.body})

        return change_or_write(known, change, lambda: str(self._wire.send("POST", path, {"body": comment.body})["id"]))

    def _written_before(self, comment: Comment) -> str | None:
        for page in range(1, _MOST_PAGES + 1):
            path = f"{self._repo}/issues/{comment.pull_request}/comments"
            found = self._wire.get(path, per_page=_PAGE, page=page)
            for one in found:
                if str(one.get("body") or "").startswith(comment.marker):
                    return str(one["id"])
            if len(found) < _PAGE:
                break
        return None

    def attach(self, asset: Asset) -> Shown:
        """A file of the tag's release; the release is made if there is none."""
        release = self._release(asset.tag)
        there = next((one for one in release["assets"] if one["name"] == asset.name), None)
        if there and there.get("state") == "uploaded" and there["size"] == asset.size_bytes:
            return Shown(str(there["id"]))
        if there:  # an upload that was cut off leaves a name that cannot be used again
            self._wire.ask("DELETE", f"{self._repo}/releases/assets/{there['id']}")
        uploads = self._uploads(str(release["upload_url"]))
        try:
            return Shown(_upload(uploads, asset))
        finally:
            uploads.close()

    def _uploads(self, upload_url: str) -> Wire:
        """github.com takes files at a host of its own; another one does not get the token."""
        url = upload_url.partition("{")[0]
        ours, theirs = str(urlsplit(self._place.url).hostname), str(urlsplit(url).hostname)
        if theirs != ours and (ours, theirs) != ("api.github.com", "uploads.github.com"):
            raise ForgeRefused(f"it wants the file at {theirs}, where its token must not go", where=ours, status=310)
        return Wire(url, self._proof, self._link, secrets=(self._token,))

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

    def _proof(self, *_: object) -> Mapping[str, str]:
        token = self._app.token(self._place, self._link) if self._app else self._token
        return {**HEADERS, "Authorization": f"Bearer {token}"}


def _upload(wire: Wire, asset: Asset) -> str:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(asset.size_bytes)}
    pieces: Iterator[bytes] = asset.read()
    return str(wire.ask("POST", "", pieces, headers, params={"name": asset.name}).value()["id"])


def _check_run(status: Status) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": status.context,
        "details_url": status.url,
        "external_id": status.external_id,
        "output": {"title": status.line, "summary": f"{status.line}\n\n[Log and results]({status.url})"},
    }
    if status.started_at:
        told["started_at"] = _time(status.started_at)
    if conclusion := _CONCLUSIONS.get(status.state):
        ended = {"completed_at": _time(status.finished_at)} if status.finished_at else {}
        return {**told, **ended, "status": "completed", "conclusion": conclusion}
    return {**told, "status": "queued" if status.state == "queued" else "in_progress"}


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
