"""What a proposal is made from, and how a step of it is written."""

import json
import tomllib
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

import attrs


@attrs.frozen
class Listing:
    """
    The files of a repository.

    paths: all of them, relative to the root. read_text: path → text; an unreadable file is "".
    """

    paths: frozenset[str]
    read_text: Callable[[str], str]

    def read(self, path: str) -> str:
        """The text of a file; "" when there is none."""
        return self.read_text(path) if path in self.paths else ""

    def first(self, *names: str) -> str | None:
        """The first of these paths that is there."""
        return next((name for name in names if name in self.paths), None)

    def any_named(self, *patterns: str) -> bool:
        """Whether a file, in whatever folder, has a name like one of these patterns."""
        return any(fnmatch(PurePosixPath(path).name, pattern) for path in self.paths for pattern in patterns)

    def with_suffix(self, suffix: str) -> bool:
        """Whether there is a file with this suffix."""
        return any(path.endswith(suffix) for path in self.paths)

    def toml(self, path: str) -> Mapping[str, Any]:
        """A TOML file; empty when there is none or it is wrong."""
        try:
            return tomllib.loads(self.read(path))
        except tomllib.TOMLDecodeError:
            return {}

    def json(self, path: str) -> Mapping[str, Any]:
        """A JSON object; empty when there is none or it is wrong."""
        try:
            value = json.loads(self.read(path) or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@attrs.frozen
class ProposedStep:
    """A step to write. says: the comment above it. lines: what stands below its name, indented from there."""

    name: str
    says: tuple[str, ...]
    lines: tuple[str, ...]


def render(step: ProposedStep) -> str:
    """The step as YAML, with its comment."""
    comment = [f"  # {line}" for line in step.says]
    return "\n".join([*comment, f"  - name: {step.name}", *(f"    {line}" for line in step.lines), ""])


def table(value: object) -> Mapping[str, Any]:
    """`value` if it is a table, else an empty one: somebody's configuration may hold anything."""
    return value if isinstance(value, Mapping) else {}


def quoted(text: str) -> str:
    """A YAML scalar on one line that means exactly `text`."""
    starts_plain = text[:1].isalpha() or text.startswith(". ")
    plain = starts_plain and ": " not in text and " #" not in text and not text.endswith(":")
    return text if plain and "\n" not in text else json.dumps(text, ensure_ascii=False)
