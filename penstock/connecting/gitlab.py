"""GitLab, gitlab.com or one's own: https://docs.gitlab.com/api/project_webhooks/"""

from urllib.parse import quote

import attrs

from penstock.connecting.asking import ForgeApi
from penstock.connecting.hooking import ForgeHook, Rights
from penstock.connecting.values import part, rows, text
from penstock.forges.clients import ForgeRefused

EVENTS = ("push_events", "tag_push_events", "merge_requests_events", "releases_events")
_MAINTAINER, _DEVELOPER = 40, 30


@attrs.frozen
class GitLabHooks:
    """Tokens need the scope `api` and the role Maintainer."""

    api: ForgeApi

    def rights(self) -> Rights:
        permissions = part(self.api.ask("GET", self._path()).body, "permissions")
        levels = [part(permissions, name).get("access_level") for name in ("project_access", "group_access")]
        level = max((one for one in levels if isinstance(one, int)), default=0)
        scopes = self._scopes()
        whole = scopes is None or "api" in scopes
        push = level >= _DEVELOPER and (whole or "write_repository" in (scopes or ()))
        return Rights(scopes, level >= _MAINTAINER and whole, push)

    def _scopes(self) -> tuple[str, ...] | None:
        """None for tokens that cannot look at themselves, such as OAuth's."""
        try:
            answer = self.api.ask("GET", "/personal_access_tokens/self")
        except ForgeRefused:
            return None
        return tuple(str(scope) for scope in rows(answer.body, "scopes"))

    def list(self) -> tuple[ForgeHook, ...]:
        answer = self.api.ask("GET", f"{self._path()}/hooks?per_page=100")
        # `alert_status` is `disabled` after deliveries have failed for long.
        return tuple(
            ForgeHook(text(row, "id"), text(row, "url"), part(row).get("alert_status") in (None, "executable"))
            for row in rows(answer.body)
        )

    def make(self, url: str, secret: str) -> ForgeHook:
        body = {"url": url, "token": secret, "enable_ssl_verification": True, **dict.fromkeys(EVENTS, True)}
        return ForgeHook(text(self.api.ask("POST", f"{self._path()}/hooks", body).body, "id"), url)

    def remove(self, hook_id: str) -> None:
        self.api.ask("DELETE", f"{self._path()}/hooks/{hook_id}")

    def ping(self, hook_id: str) -> bool:
        self.api.ask("POST", f"{self._path()}/hooks/{hook_id}/test/push_events")
        return True

    def _path(self) -> str:
        return f"/projects/{quote(self.api.repository, safe='')}"
