"""
What a forge is told: commit statuses, comments on pull requests, files of releases. One client per file.

A client is thin: it puts a value into the forge's own words and sends it over a `Wire`, which keeps the rules for all
of them: addresses that may be asked, no redirect to another host, rate limits, and which failure is worth a retry.
Every call may come again: it shows the same thing twice as once.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from types import MappingProxyType
from typing import Final

import attrs

from penstock.errors import NotFoundError
from penstock.forges.clients.values import Asset, Comment, ForgeClient, Place, Shown, Status
from penstock.forges.clients.wire import ForgeAway, ForgeRefused
from penstock.webhooks.addresses import Allowed

__all__ = (
    "CLIENTS",
    "Asset",
    "Comment",
    "ForgeAway",
    "ForgeClient",
    "ForgeRefused",
    "Link",
    "Place",
    "Shown",
    "Status",
    "open_client",
)

Clock = Callable[[], datetime]

CLIENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "github": "github:GitHub",
        "gitlab": "gitlab:GitLab",
        "bitbucket-cloud": "bitbucket_cloud:BitbucketCloud",
        "bitbucket-server": "bitbucket_server:BitbucketServer",
        "gitea": "gitea:Gitea",
        "forgejo": "gitea:Gitea",
        "azure-devops": "azure_devops:AzureDevOps",
        "aws-codecommit": "codecommit:CodeCommit",
    }
)


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.frozen
class Link:
    """How a forge may be reached. allow_private: as `check_address` says. clock: UTC."""

    allow_private: Allowed = False
    timeout_s: float = 10.0
    clock: Clock = _now


def open_client(place: Place, secret: str, link: Link | None = None) -> ForgeClient:
    """
    A client for one repository; nothing is asked yet.

    secret: the token, in the form that docs/answers.md tells for the forge.
    Raises: NotFoundError for a forge that has no client, InputError for a secret of another form.
    """
    if place.forge not in CLIENTS:
        raise NotFoundError(f'no forge is called "{place.forge}"', remedy=f"take one of {', '.join(CLIENTS)}")
    file, _, name = CLIENTS[place.forge].partition(":")
    made: ForgeClient = getattr(import_module(f"{__package__}.{file}"), name)(place, secret.strip(), link or Link())
    return made
