"""What the tests of webhooks say of payloads and deliveries."""

import json
import time
from typing import Any

import forge_payloads as made
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.webhooks.deliveries import Delivery, get_delivery

Json = dict[str, Any]
LIMIT_S = 60.0


def with_commits(payload: Json, shop: GitRepository, *, before: str = "HEAD~1", after: str = "HEAD") -> Json:
    """The payload about commits that the repository has."""
    old, new = shop.git("rev-parse", before), shop.git("rev-parse", after)
    text = json.dumps(payload).replace(made.A, old).replace(made.B, new)
    return json.loads(text.replace(f'"{made.A[:12]}"', f'"{old[:12]}"').replace(f'"{made.B[:12]}"', f'"{new[:12]}"'))


def settled(database: sa.Engine, number: int) -> Delivery:
    """The delivery, once it has been worked on."""
    deadline = time.monotonic() + LIMIT_S
    while (found := get_delivery(database, number)).state == "received":
        assert time.monotonic() < deadline, f"delivery {number} is not worked on: {found.reason}"
        time.sleep(0.02)
    return found
