"""The forges by name: a new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Final

from attrs import frozen

from penstock.errors import NotFoundError
from penstock.forges import (
    aws_codecommit,
    azure_devops,
    bitbucket_cloud,
    bitbucket_server,
    forgejo,
    gitea,
    github,
    gitlab,
)
from penstock.forges.event import GitEvent, Parsed
from penstock.forges.verify import Trust


@frozen
class Forge:
    """
    What one forge's deliveries mean and how they are believed; all four functions are pure.

    parse_all: body, headers, event name or None → at least one event, in the delivery's order.
    verify: body, headers, trust, seconds since the epoch → nothing, or AccessError.
    delivery_id: body, headers → what a repeated attempt repeats; None where the forge sent none.
    """

    name: str
    parse_all: Callable[[bytes, Mapping[str, str], str | None], tuple[Parsed, ...]]
    verify: Callable[[bytes, Mapping[str, str], Trust, float], None]
    delivery_id: Callable[[bytes, Mapping[str, str]], str | None]

    def parse(self, body: bytes, headers: Mapping[str, str], event: str | None = None) -> Parsed:
        """
        The delivery's first git event; where it holds none, the first reason for ignoring it.

        Raises: EventError for what is no event of this forge.
        """
        return leading(self.parse_all(body, headers, event))[0]


def leading(parsed: tuple[Parsed, ...]) -> tuple[Parsed, ...]:
    """The same events with git events before ignored ones, else in the delivery's order."""
    return tuple(sorted(parsed, key=lambda each: not isinstance(each, GitEvent)))


def forge_named(name: str) -> Forge:
    """Raises: NotFoundError, which lists the names there are."""
    try:
        return FORGES[name]
    except KeyError:
        known = ", ".join(FORGES)
        raise NotFoundError(f'no forge is called "{name}"', remedy=f"take one of {known}") from None


def _forge(module: ModuleType) -> Forge:
    return Forge(module.NAME, module.parse_all, module.verify, module.delivery_id)


_MODULES: Final = (
    github,
    gitlab,
    bitbucket_cloud,
    bitbucket_server,
    gitea,
    forgejo,
    azure_devops,
    aws_codecommit,
)
FORGES: Final[Mapping[str, Forge]] = MappingProxyType({m.NAME: _forge(m) for m in _MODULES})
