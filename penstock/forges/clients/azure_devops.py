"""
Azure DevOps: statuses of commits and pull requests, and threads of comments.

https://learn.microsoft.com/rest/api/azure/devops/git/ (7.1). A wrong token is not refused but answered with a page to
sign in: 203, or a redirect to another host.
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from penstock.errors import InputError
from penstock.forges.azure_devops import Resource
from penstock.forges.clients.values import Comment, Place, Shown, State, Status
from penstock.forges.clients.wire import OnWire, Wire, change_or_write

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_VERSION = "api-version=7.1"
_MOST_COMMITS = 100
_STATES: Final[Mapping[State, str]] = {
    "queued": "pending",
    "running": "pending",
    "waiting": "pending",
    "succeeded": "succeeded",
    "skipped": "succeeded",
    "failed": "failed",
    "timed_out": "failed",
    "cancelled": "error",
    "infra_error": "error",
}


class AzureDevOps(OnWire):
    """
    secret: a personal access token, or `user:token`.

    The place's address is the organization's, its repository `project/name`.
    """

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        project, slash, name = place.repository.partition("/")
        if not slash or "/" in name:
            raise InputError(f'"{place.repository}" is no repository', where="azure-devops", remedy="project/name")
        self._repo = f"/{quote(project, safe='')}/_apis/git/repositories/{quote(name, safe='')}"
        proof = base64.b64encode((secret if ":" in secret else f":{secret}").encode()).decode()
        self._wire = Wire(place.url, {"Authorization": f"Basic {proof}"}, link, secrets=(secret, proof))

    def show(self, status: Status, _known: str | None) -> Shown:
        """A status of the commit, and of the pull request: branch policies ask for the latter."""
        genre, _, name = status.context.rpartition("/")
        told = {"state": _STATES[status.state], "description": status.line, "targetUrl": status.url}
        told_of = {**told, "context": {"name": name, "genre": genre}}
        self._wire.send("POST", f"{self._repo}/commits/{status.commit}/statuses?{_VERSION}", told_of)
        if status.pull_request is not None:
            path = f"{self._repo}/pullRequests/{status.pull_request}/statuses?{_VERSION}"
            self._wire.send("POST", path, told_of)
        return Shown()

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """The first comment of a thread of its own, which is closed, so that nobody has to resolve it."""
        threads = f"{self._repo}/pullRequests/{comment.pull_request}/threads"
        known = known or self._written_before(threads, comment)

        def change(there: str) -> None:
            thread, _, number = there.partition("/")
            path = f"{threads}/{thread}/comments/{number}?{_VERSION}"
            self._wire.send("PATCH", path, {"content": comment.body})

        first = {"parentCommentId": 0, "content": comment.body, "commentType": "text"}
        told = {"comments": [first], "status": "closed"}
        return change_or_write(known, change, lambda: _id(self._wire.send("POST", f"{threads}?{_VERSION}", told)))

    def _written_before(self, threads: str, comment: Comment) -> str | None:
        for thread in self._wire.get(f"{threads}?{_VERSION}").get("value", ()):
            first: Mapping[str, Any] = next(iter(thread.get("comments") or ()), {})
            said = str(first.get("content") or "")
            if not thread.get("isDeleted") and not first.get("isDeleted") and said.startswith(comment.marker):
                return _id(thread)
        return None

    def read_again(self, resource: Resource) -> bytes:
        """A push or pull request as the forge knows it, in JSON. Raises: ForgeAway, ForgeRefused."""
        if resource.kind == "push":
            path = f"/pushes/{resource.number}?includeCommits={_MOST_COMMITS}&includeRefUpdates=true&{_VERSION}"
        else:
            path = f"/pullRequests/{resource.number}?{_VERSION}"
        return self._wire.ask("GET", f"{self._repo}{path}").body

    def check(self) -> str:
        """The repository, as the token sees it."""
        found = self._wire.get(f"{self._repo}?{_VERSION}")
        return f"{found['project']['name']}/{found['name']} at {self._wire.host}"


def _id(thread: Mapping[str, Any]) -> str:
    return f"{thread['id']}/{thread['comments'][0]['id']}"
