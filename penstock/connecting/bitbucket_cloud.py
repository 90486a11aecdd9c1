"""Bitbucket Cloud: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-repositories/"""

from urllib.parse import quote

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text

EVENTS = ("repo:push", "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled", "pullrequest:rejected")


@attrs.frozen
class BitbucketCloudHooks:
    """A repository access token needs the scopes `repository` (`repository:write` to commit) and `webhook`."""

    api: ForgeApi

    def rights(self) -> Rights:
        answer = self.api.ask("GET", self._path())
        told = answer.headers.get("x-oauth-scopes")
        if told is None:
            return Rights()
        scopes = tuple(filter(None, (scope.strip() for scope in told.split(","))))
        return Rights(scopes, "webhook" in scopes, "repository:write" in scopes)

    def list(self) -> tuple[ForgeHook, ...]:
        answer = self.api.ask("GET", f"{self._path()}/hooks?pagelen=100")
        return tuple(
            ForgeHook(text(row, "uuid"), text(row, "url"), part(row).get("active") is True)
            for row in rows(answer.body, "values")
        )

    def make(self, url: str, secret: str) -> ForgeHook:
        body = {"description": "Penstock", "url": url, "active": True, "secret": secret, "events": list(EVENTS)}
        return ForgeHook(text(self.api.ask("POST", f"{self._path()}/hooks", body).body, "uuid"), url)

    def remove(self, hook_id: str) -> None:
        self.api.ask("DELETE", f"{self._path()}/hooks/{quote(hook_id, safe='')}")

    def ping(self, hook_id: str) -> bool:  # noqa: ARG002 - the forge cannot
        return False

    def _path(self) -> str:
        return f"/repositories/{self.api.repository}"
