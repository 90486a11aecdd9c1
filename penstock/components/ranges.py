"""What somebody asks of components: `log4j-core < 2.17.1`, `django >=4.2, <4.2.8 || ==5.0`."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from penstock.components.versions import version_key
from penstock.errors import InputError

EXAMPLE = "log4j-core < 2.17.1"
_LIMITS = re.compile(r"(<=|>=|==|!=|=|<|>)?\s*([^\s,<>=!|]+)\s*,?\s*")
_QUESTION = re.compile(r"\s*([^\s<>=!|,]+)\s*(.*)", re.DOTALL)
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


@attrs.frozen
class VersionRange:
    """Versions between limits. alternatives: of one all (sign, version) hold; none at all is every version."""

    alternatives: tuple[tuple[tuple[str, str], ...], ...] = ()

    def holds(self, ecosystem: str, version: str) -> bool:
        """Whether a version lies within, by the order of its ecosystem. No version lies within limits."""
        if not self.alternatives:
            return True
        if not version:
            return False
        key = version_key(ecosystem, version)
        return any(
            all(_SIGNS[sign](key, version_key(ecosystem, limit)) for sign, limit in limits)
            for limits in self.alternatives
        )


@attrs.frozen
class Question:
    """A component by its name, as whoever asks writes it, and which of its versions."""

    name: str
    versions: VersionRange = VersionRange()


def parse_question(text: str) -> Question:
    """
    A name, and limits of versions divided by commas or spaces; `||` begins an alternative. A name alone: all versions.

    Raises: InputError for anything else.
    """
    found = _QUESTION.fullmatch(text[:1000])
    if found is None:
        raise InputError("no component is named", where=text.strip()[:60] or None, remedy=f"write {EXAMPLE}")
    return Question(found[1], parse_range(found[2]))


def parse_range(text: str) -> VersionRange:
    """
    `<2.17.1`, `>=2.0 <2.12.4 || >=2.13,<2.17.1`, `2.14.0`; empty or `*` is every version.

    Raises: InputError for anything else.
    """
    if text.strip() in ("", "*"):
        return VersionRange()
    return VersionRange(tuple(_limits(part) for part in text.split("||")))


def _limits(text: str) -> tuple[tuple[str, str], ...]:
    found, at = [], len(text) - len(text.lstrip())
    while at < len(text):
        limit = _LIMITS.match(text, at)
        if limit is None:
            break
        found.append((limit[1] or "=", limit[2]))
        at = limit.end()
    if not found or at < len(text):
        raise InputError(f'"{text.strip()[:60]}" is no range of versions', remedy=f"write it as in {EXAMPLE}")
    return tuple(found)
