"""Azure DevOps: https://learn.microsoft.com/rest/api/azure/devops/hooks/subscriptions, one for each kind of event."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text

EVENTS = ("git.push", "git.pullrequest.created", "git.pullrequest.updated", "git.pullrequest.merged")
USER = "penstock"
_VERSION = "api-version=7.1"


@attrs.frozen
class AzureHooks:
    """A personal access token needs Code (read) and the right to make service hooks: project administrators."""

    api: ForgeApi

    def rights(self) -> Rights:
        self._repository()
        return Rights()

    def list(self) -> tuple[ForgeHook, ...]:
        """One for each address, its id the ids of all its subscriptions."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows(self.api.ask("GET", f"/_apis/hooks/subscriptions?{_VERSION}").body, "value"):
            url = part(row, "consumerInputs").get("url")
            if isinstance(url, str):
                found.setdefault(url, []).append(row)
        return tuple(_one(url, each) for url, each in found.items())

    def make(self, url: str, secret: str) -> ForgeHook:
        repository = self._repository()
        made: list[str] = []
        try:
            for event in EVENTS:
                body = _subscription(event, repository, url, secret)
                answer = self.api.ask("POST", f"/_apis/hooks/subscriptions?{_VERSION}", body)
                made.append(text(answer.body, "id"))
        except BaseException:
            self.remove(",".join(made))
            raise
        return ForgeHook(",".join(made), url)

    def remove(self, hook_id: str) -> None:
        for one in filter(None, hook_id.split(",")):
            self.api.ask("DELETE", f"/_apis/hooks/subscriptions/{quote(one)}?{_VERSION}")

    def ping(self, hook_id: str) -> bool:  # noqa: ARG002 - the forge cannot
        return False

    def _repository(self) -> Mapping[str, Any]:
        project, _, name = self.api.repository.partition("/")
        path = f"/{quote(_plain(project))}/_apis/git/repositories/{quote(_plain(name))}?{_VERSION}"
        return part(self.api.ask("GET", path).body)


def _plain(word: str) -> str:
    """A part of an address without its percent signs, so that quoting it again is right."""
    return unquote(word)


def _one(url: str, subscriptions: list[Mapping[str, Any]]) -> ForgeHook:
    active = all(part(row).get("status") == "enabled" for row in subscriptions)
    return ForgeHook(",".join(text(row, "id") for row in subscriptions), url, active)


def _subscription(event: str, repository: Mapping[str, Any], url: str, secret: str) -> dict[str, Any]:
    return {
        "publisherId": "tfs",
        "eventType": event,
        "resourceVersion": "1.0",
        "consumerId": "webHooks",
        "consumerActionId": "httpRequest",
        "publisherInputs": {
            "projectId": text(part(repository, "project"), "id"),
            "repository": text(repository, "id"),
        },
        "consumerInputs": {
            "url": url,
            "basicAuthUsername": USER,
            "basicAuthPassword": secret,
            "resourceDetailsToSend": "all",
            "messagesToSend": "none",
            "detailedMessagesToSend": "none",
        },
    }
