"""What a forge answered, taken apart: anything may be missing or of another type."""

from collections.abc import Mapping
from typing import Any

from penstock.errors import PlatformError


def part(body: Any, name: str | None = None) -> Mapping[str, Any]:
    """An object, or the one it holds under a name; empty where there is none."""
    found = body if name is None else part(body).get(name)
    return found if isinstance(found, dict) else {}


def rows(body: Any, name: str | None = None) -> list[Any]:
    """A list, or the one that an object holds under a name; empty where there is none."""
    found = body if name is None else part(body).get(name)
    return found if isinstance(found, list) else []


def text(body: Any, name: str) -> str:
    """
    A text or number as text.

    Raises: PlatformError when the answer lacks it.
    """
    found = part(body).get(name)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise PlatformError(f"the forge's answer has no {name}", remedy="see that the address is that of its API")
    return str(found)
