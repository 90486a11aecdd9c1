"""Holds licences against a policy; see docs/index.md."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from penstock import sdk

WORDS = re.compile(r"\(|\)|[^\s()]+")
SBOM = "sbom"


def main(plugin: sdk.Plugin) -> None:
    """Decide each component, tell it, and report what is refused."""
    allowed, denied = set(plugin.inputs["allowed"]), set(plugin.inputs["denied"])
    counted: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    plugin.scanned()
    for purl, licences in sorted(components(plugin).items()):
        verdict = decide(licences, allowed, denied)
        verdicts[verdict] += 1
        counted.update(licences or ["none"])
        plugin.data("licence", {"licences": licences, "verdict": verdict}, key=purl)
        if verdict == "refused":
            plugin.finding("licence-refused", f"{purl} is under {', '.join(licences)}", severity="high")
        elif verdict == "unknown" and plugin.inputs["unknown"] == "report":
            plugin.finding("licence-unknown", f"{purl} names no licence", severity="low")
    for licence, number in sorted(counted.items()):
        plugin.metric("components", number, labels={"licence": licence})
    plugin.metric("refused", verdicts["refused"])
    plugin.output("components", verdicts.total())
    plugin.output("refused", verdicts["refused"])


def components(plugin: sdk.Plugin) -> dict[str, list[str]]:
    """Package URL → licences, from a file, or from what the plugin sbom told of this commit."""
    if "sbom" in plugin.inputs:
        try:
            document = json.loads((plugin.workspace / plugin.inputs["sbom"]).read_text(encoding="utf-8"))
            return {one["purl"]: list(said_by(one)) for one in document.get("components") or () if one.get("purl")}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise sdk.BadConfiguration(f"{plugin.inputs['sbom']} is no CycloneDX document: {error}") from error
    told = {row["key"]: row["value"]["licences"] for row in plugin.query(SBOM, kind="component", commit=plugin.commit)}
    if not told:
        raise sdk.Failed("the plugin sbom told nothing of this commit; run it before, and name its step in `needs`")
    return told


def said_by(component: dict[str, Any]) -> Iterator[str]:
    """SPDX identifiers, expressions or names."""
    for one in component.get("licenses") or ():
        licence = one.get("license") or {}
        if said := one.get("expression") or licence.get("id") or licence.get("name"):
            yield said


def decide(licences: list[str], allowed: set[str], denied: set[str]) -> str:
    """`allowed` when every licence may be met; a choice (OR) by one of its sides."""
    if not licences:
        return "unknown"
    met = all(Expression(text, allowed, denied).may_be_met() for text in licences)
    return "allowed" if met else "refused"


class Expression:
    """An SPDX licence expression (annex D of SPDX 2.3): OR binds weakest, WITH is a licence of its own."""

    def __init__(self, text: str, allowed: set[str], denied: set[str]) -> None:
        self._words, self._allowed, self._denied = WORDS.findall(text), allowed, denied
        self._text, self._at = text, 0

    def may_be_met(self) -> bool:
        """What is no expression is taken as one name."""
        try:
            met = self._either()
        except IndexError:
            return self._is_allowed(self._text)
        return met if self._at == len(self._words) else self._is_allowed(self._text)

    def _either(self) -> bool:
        met = self._both()
        while self._next() == "OR":
            self._at += 1
            met = self._both() or met
        return met

    def _both(self) -> bool:
        met = self._one()
        while self._next() == "AND":
            self._at += 1
            met = self._one() and met
        return met

    def _one(self) -> bool:
        word = self._words[self._at]
        self._at += 1
        if word == "(":
            met = self._either()
            if self._words[self._at] != ")":
                raise IndexError
            self._at += 1
            return met
        if self._next() == "WITH":
            exception = self._words[self._at + 1]
            self._at += 2
            return self._is_allowed(f"{word} WITH {exception}") or (not self._denied & {word} and word in self._allowed)
        return self._is_allowed(word)

    def _next(self) -> str:
        return self._words[self._at].upper() if self._at < len(self._words) else ""

    def _is_allowed(self, name: str) -> bool:
        return name not in self._denied and (not self._allowed or name in self._allowed)


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
