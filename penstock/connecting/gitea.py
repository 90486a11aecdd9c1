"""Gitea and Forgejo: https://docs.gitea.com/api/ and /api/swagger on every server."""

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text

EVENTS = ("push", "create", "delete", "pull_request", "pull_request_sync", "release")


@attrs.frozen
class GiteaHooks:
    """Tokens need `write:repository`; the user must administer the repository."""

    api: ForgeApi

    def rights(self) -> Rights:
        may = part(self.api.ask("GET", self._path()).body, "permissions")
        return Rights(None, may.get("admin") is True, may.get("push") is True)

    def list(self) -> tuple[ForgeHook, ...]:
        answer = self.api.ask("GET", f"{self._path()}/hooks?limit=50")
        return tuple(
            ForgeHook(text(row, "id"), text(part(row, "config"), "url"), part(row).get("active") is True)
            for row in rows(answer.body)
        )

    def make(self, url: str, secret: str) -> ForgeHook:
        config = {"url": url, "content_type": "json", "secret": secret}
        body = {"type": self.api.forge, "active": True, "events": list(EVENTS), "config": config}
        return ForgeHook(text(self.api.ask("POST", f"{self._path()}/hooks", body).body, "id"), url)

    def remove(self, hook_id: str) -> None:
        self.api.ask("DELETE", f"{self._path()}/hooks/{hook_id}")

    def ping(self, hook_id: str) -> bool:
        self.api.ask("POST", f"{self._path()}/hooks/{hook_id}/tests")
        return True

    def _path(self) -> str:
        return f"/repos/{self.api.repository}"
