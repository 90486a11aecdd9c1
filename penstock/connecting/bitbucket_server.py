"""Bitbucket Data Center: https://developer.atlassian.com/server/bitbucket/rest/ (webhooks of a repository)"""

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text
from penstock.errors import InputError

EVENTS = (
    *("repo:refs_changed", "pr:opened", "pr:from_ref_updated", "pr:modified"),
    *("pr:merged", "pr:declined", "pr:deleted"),
)


@attrs.frozen
class BitbucketServerHooks:
    """An HTTP access token needs `repository admin`."""

    api: ForgeApi

    def rights(self) -> Rights:
        self.api.ask("GET", self._path())
        return Rights()

    def list(self) -> tuple[ForgeHook, ...]:
        answer = self.api.ask("GET", f"{self._path()}/webhooks?limit=100")
        return tuple(
            ForgeHook(text(row, "id"), text(row, "url"), part(row).get("active") is True)
            for row in rows(answer.body, "values")
        )

    def make(self, url: str, secret: str) -> ForgeHook:
        body = {"name": "Penstock", "url": url, "active": True, "events": list(EVENTS)}
        told = {**body, "configuration": {"secret": secret}}
        return ForgeHook(text(self.api.ask("POST", f"{self._path()}/webhooks", told).body, "id"), url)

    def remove(self, hook_id: str) -> None:
        self.api.ask("DELETE", f"{self._path()}/webhooks/{hook_id}")

    def ping(self, hook_id: str) -> bool:  # noqa: ARG002 - the forge cannot
        return False

    def _path(self) -> str:
        project, slash, slug = self.api.repository.rpartition("/")
        if not slash:
            raise InputError("the address names no project", where=self.api.repository, remedy="use …/scm/PROJECT/slug")
        return f"/projects/{project.rpartition('/')[2]}/repos/{slug}"
