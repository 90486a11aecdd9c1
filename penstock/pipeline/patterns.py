"""Patterns for branches, tags and paths: `*` and `?` stay within a part, `**` crosses `/`, a leading `!` takes back."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache


def matches(name: str, patterns: Sequence[str]) -> bool:
    """
    Whether the last pattern that fits `name` is not one that takes back.

    Only `!` patterns: everything else fits.
    """
    fits = bool(patterns) and all(pattern.startswith("!") for pattern in patterns)
    for pattern in patterns:
        if _compiled(pattern.removeprefix("!")).fullmatch(name):
            fits = not pattern.startswith("!")
    return fits


def any_matches(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of the names fits."""
    return any(matches(name, patterns) for name in names)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    words = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", pattern.removesuffix("/") + ("/**" if pattern.endswith("/") else ""))
    return re.compile("".join(_REGEX.get(word, re.escape(word)) for word in words), re.DOTALL)


_REGEX = {"**/": "(?:.*/)?", "/**": "(?:/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
