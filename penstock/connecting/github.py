"""GitHub and GitHub Enterprise Server: https://docs.github.com/en/rest/repos/webhooks"""

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text

EVENTS = ("push", "pull_request", "release", "delete")


@attrs.frozen
class GitHubHooks:
    """Classic tokens need `repo` and `admin:repo_hook`; fine-grained ones Contents and Webhooks."""

    api: ForgeApi

    def rights(self) -> Rights:
        answer = self.api.ask("GET", self._path())
        may = part(answer.body, "permissions")
        scopes = answer.headers.get("x-oauth-scopes")
        listed = None if scopes is None else tuple(filter(None, (scope.strip() for scope in scopes.split(","))))
        hooks = may.get("admin") is True
        if listed:
            hooks = hooks and not {"admin:repo_hook", "write:repo_hook", "repo"}.isdisjoint(listed)
        return Rights(listed, hooks, may.get("push") is True)

    def list(self) -> tuple[ForgeHook, ...]:
        answer = self.api.ask("GET", f"{self._path()}/hooks?per_page=100")
        return tuple(
            ForgeHook(text(row, "id"), text(part(row, "config"), "url"), part(row).get("active") is True)
            for row in rows(answer.body)
        )

    def make(self, url: str, secret: str) -> ForgeHook:
        config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
        body = {"name": "web", "active": True, "events": list(EVENTS), "config": config}
        return ForgeHook(text(self.api.ask("POST", f"{self._path()}/hooks", body).body, "id"), url)

    def remove(self, hook_id: str) -> None:
        self.api.ask("DELETE", f"{self._path()}/hooks/{hook_id}")

    def ping(self, hook_id: str) -> bool:
        self.api.ask("POST", f"{self._path()}/hooks/{hook_id}/pings")
        return True

    def _path(self) -> str:
        return f"/repos/{self.api.repository}"
