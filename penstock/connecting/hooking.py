"""Hooks at a forge: one Protocol, a file for each API, and the registry."""

import base64
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol

import attrs

from penstock.connecting.asking import open_api
from penstock.connecting.detect import Place
from penstock.errors import InputError
from penstock.forges.clients import Link
from penstock.forges.clients import Place as ClientPlace
from penstock.forges.clients.github import HEADERS
from penstock.forges.clients.github_app import App

_FILES = {
    "github": "github:GitHubHooks",
    "gitlab": "gitlab:GitLabHooks",
    "gitea": "gitea:GiteaHooks",
    "forgejo": "gitea:GiteaHooks",
    "bitbucket-cloud": "bitbucket_cloud:BitbucketCloudHooks",
    "bitbucket-server": "bitbucket_server:BitbucketServerHooks",
    "azure-devops": "azure_devops:AzureHooks",
}


@attrs.frozen
class ForgeHook:
    """A hook as the forge knows it. active: whether it sends."""

    id: str
    url: str
    active: bool = True


@attrs.frozen
class Rights:
    """What a token may. scopes: None where the forge does not tell them. hooks, push: None where it leaves it open."""

    scopes: tuple[str, ...] | None = None
    hooks: bool | None = None
    push: bool | None = None

    def told(self) -> str:
        """In one line."""
        parts = [f"scopes {', '.join(self.scopes) or 'none'}"] if self.scopes is not None else []
        for what, may in (("make hooks", self.hooks), ("push", self.push)):
            if may is not None:
                parts.append(f"may {'' if may else 'not '}{what}")
        return "; ".join(parts) or "it is believed; the forge does not tell what it may"


class ForgeHooks(Protocol):
    """
    A forge's API for the hooks of one repository.

    All methods raise ForgeRefused where the token may not or there is nothing, ForgeAway when it is worth trying again.
    """

    def rights(self) -> Rights:
        """What the token may do with the repository."""

    def list(self) -> tuple[ForgeHook, ...]:
        """Every hook of the repository, Penstock's or not."""

    def make(self, url: str, secret: str) -> ForgeHook:
        """Let the forge tell `url` of pushes, tags, pull requests and releases."""

    def remove(self, hook_id: str) -> None:
        """Take it away."""

    def ping(self, hook_id: str) -> bool:
        """Let the forge send a trial delivery. Returns: False where it cannot."""


def hooks_at(place: Place, token: str, link: Link) -> ForgeHooks | None:
    """None where Penstock makes no hooks through the forge's API. Raises: InputError for what is no token."""
    if place.forge not in _FILES:
        return None
    app = App.of(token) if place.forge == "github" else None
    if app is None and not (token.isascii() and token.isprintable()):  # it becomes a header
        raise InputError("the login's password cannot be a token", where=place.forge, remedy="give the API its own")
    headers = _app_headers(app, place, link) if app else _headers(place.forge, token)
    api = open_api(place, headers, token, link)
    if api is None:
        return None
    file, _, name = _FILES[place.forge].partition(":")
    made: ForgeHooks = getattr(import_module(f"penstock.connecting.{file}"), name)(api)
    return made


def _app_headers(app: App, place: Place, link: Link) -> Callable[[str, str, bytes], Mapping[str, str]]:
    """A GitHub app's: a token of an hour, asked for when the first request is made."""
    at = ClientPlace(place.forge, str(place.api_url), str(place.repository))
    return lambda *_: {**HEADERS, "Authorization": f"Bearer {app.token(at, link)}"}


def _headers(forge: str, token: str) -> Mapping[str, str]:
    """The token in the forge's own way; `user:token` is basic authentication where a forge has such tokens."""
    accept = HEADERS if forge == "github" else {"Accept": "application/json"}
    if forge == "azure-devops" or (forge.startswith("bitbucket") and ":" in token):
        pair = token if ":" in token else f":{token}"
        return {**accept, "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    alone = token.partition(":")[2] if ":" in token else token
    if forge == "gitlab":
        return {**accept, "PRIVATE-TOKEN": alone}
    return {**accept, "Authorization": f"{'token' if forge in ('gitea', 'forgejo') else 'Bearer'} {alone}"}
