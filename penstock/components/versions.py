"""
Which of two versions is the later one, as their ecosystem orders them.

`version_key` gives a key to compare with others of the same ecosystem; any text has one.

- pypi: PEP 440, by the library `packaging`; what it refuses comes before all it knows.
- npm, cargo, golang, nuget, pub, hex, swift, gem, composer: Semantic Versioning; any number of numeric parts, a leading
  `v` and the build (`+…`) left out, a part that is no number begins the pre-release, which comes before the release.
- deb: dpkg's order (`~` before everything, letters before other characters, epochs first).
- rpm: rpm's order (`~` before, `^` after, numbers after letters, epochs first).
- maven and all others: Maven's order: alpha < beta < milestone < rc < snapshot < release < sp < other words < numbers;
  trailing zeros say nothing. Unlike Maven, a hyphen divides as a dot does.

Sources: https://peps.python.org/pep-0440/, https://semver.org/#spec-item-11, deb-version(7), rpm-version(7),
https://maven.apache.org/pom.html#version-order-specification
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

Key = tuple[Any, ...]

_LONGEST = 200
_PARTS = re.compile(r"\d+|[a-z]+|\*")
_RPM_PARTS = re.compile(r"\d+|[A-Za-z]+|~|\^")
_DEB_PARTS = re.compile(r"(\D*)(\d*)")
_WORDS = {
    "dev": -7, "pre": -6, "preview": -6, "alpha": -5, "a": -5, "beta": -4, "b": -4, "milestone": -3, "m": -3,
    "rc": -2, "cr": -2, "snapshot": -1, "ga": 0, "final": 0, "release": 0, "sp": 1, "p": 1,
}  # fmt: skip
_RELEASE, _OTHER_WORD, _NUMBER = 0, 2, 3


@lru_cache(maxsize=100_000)
def version_key(ecosystem: str, version: str) -> Key:
    """What a version is compared by; only keys of one ecosystem can be compared with each other."""
    return _ORDERS.get(ecosystem, _maven)(version.strip()[:_LONGEST])


def _number(text: str) -> int:
    return int(text) if text else 0


def _pypi(version: str) -> Key:
    from packaging.version import InvalidVersion, Version

    try:
        return (1, Version(version))
    except InvalidVersion:
        return (0, _maven(version))


def _semantic(version: str) -> Key:
    text = version.removeprefix("v").removeprefix("V").partition("+")[0]
    head, hyphen, rest = text.partition("-")
    numbers: list[int] = []
    parts = head.split(".")
    while parts and _digits(parts[0]):
        numbers.append(int(parts.pop(0)))
    before = [one for one in (*parts, *(rest.split(".") if hyphen else ())) if one]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return (tuple(numbers), 0 if before else 1, tuple(_identifier(one) for one in before))


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _identifier(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if _digits(text) else (1, 0, text)


def _maven(version: str) -> Key:
    tokens: list[tuple[int, int, str]] = []
    words = _PARTS.findall(version.lower().removeprefix("v"))
    for at, word in enumerate(words):
        if _digits(word):
            tokens.append((_NUMBER, int(word), ""))
            continue
        short = len(word) == 1 and not (at + 1 < len(words) and _digits(words[at + 1]))
        rank = _OTHER_WORD if short else _WORDS.get(word, _OTHER_WORD)
        _drop_zeros(tokens)
        if rank != _RELEASE:
            tokens.append((rank, 0, word if rank == _OTHER_WORD else ""))
    _drop_zeros(tokens)
    return (*tokens, (_RELEASE, 0, ""))  # the end counts as a release: what follows it elsewhere is before or after


def _drop_zeros(tokens: list[tuple[int, int, str]]) -> None:
    while tokens and tokens[-1] == (_NUMBER, 0, ""):
        tokens.pop()


def _with_epoch(version: str, order: Callable[[str], Key]) -> Key:
    epoch, colon, rest = version.partition(":")
    if not (colon and _digits(epoch)):
        epoch, rest = "", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (_number(epoch), order(upstream), order(revision))


def _debian(version: str) -> Key:
    return _with_epoch(version, lambda text: tuple(_debian_parts(text)))


def _debian_parts(text: str) -> Iterator[tuple[tuple[int, ...], int]]:
    for word, digits in _DEB_PARTS.findall(text):
        yield (*(_debian_rank(char) for char in word), 0), _number(digits) if _digits(digits) else 0
    yield (0,), 0


def _debian_rank(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isascii() and char.isalpha() else ord(char) + 0x110000


def _rpm(version: str) -> Key:
    return _with_epoch(version, lambda text: (*(_rpm_part(one) for one in _RPM_PARTS.findall(text)), (0, 0, "")))


def _rpm_part(text: str) -> tuple[int, int, str]:
    if text in "~^":
        return (-1 if text == "~" else 1, 0, "")
    return (3, int(text), "") if _digits(text) else (2, 0, text)


_SEMANTIC = ("npm", "cargo", "golang", "nuget", "pub", "hex", "swift", "gem", "composer", "cocoapods")
_ORDERS: Mapping[str, Callable[[str], Key]] = {
    **dict.fromkeys(_SEMANTIC, _semantic),
    "pypi": _pypi,
    "deb": _debian,
    "rpm": _rpm,
}
