"""Forgejo: Gitea's payloads under headers of its own. https://forgejo.org/docs/latest/user/webhooks/"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.forges import gitea
from penstock.forges.event import Parsed
from penstock.forges.payload import header
from penstock.forges.verify import Trust, verify_hex_signature

NAME = "forgejo"


def parse_all(body: bytes, headers: Mapping[str, str], event: str | None = None) -> tuple[Parsed, ...]:
    """
    The one event of a delivery.

    event: None takes it from `X-Forgejo-Event`, else `X-Gitea-Event`, else from the body's shape.
    Raises: EventError for what is no Forgejo event.
    """
    name = event or header(headers, "X-Forgejo-Event") or header(headers, "X-Gitea-Event")
    return (gitea.parse_as(NAME, body, name),)


def verify(body: bytes, headers: Mapping[str, str], trust: Trust, _now_s: float) -> None:
    """
    Raises: AccessError unless `X-Forgejo-Signature` is right.

    `X-Gitea-Signature` counts only where Forgejo's own header is absent altogether: one that is empty or
    wrong is not rescued by the other.
    """
    own = any(name.lower() == "x-forgejo-signature" for name in headers)
    verify_hex_signature(NAME, body, header(headers, f"X-{'Forgejo' if own else 'Gitea'}-Signature"), trust)


def delivery_id(_body: bytes, headers: Mapping[str, str]) -> str | None:
    """`X-Forgejo-Delivery`, else `X-Gitea-Delivery`."""
    return header(headers, "X-Forgejo-Delivery") or header(headers, "X-Gitea-Delivery")
