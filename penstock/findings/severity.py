"""
How bad a finding is, and which part of the report says so.

In order: this installation's override; `security-severity` of the result, then of the rule; `level` of the
result, of the invocation's configuration, of the rule; `rank`; else medium. CVSS bands as in CVSS 3.1,
section 5; a score of 0 is a scanner that did not know, so the next source decides.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import NamedTuple

from penstock.findings.finding import SEVERITY_RANK, SeverityOverride

_WORDS = {
    "critical": "critical", "crit": "critical", "blocker": "critical", "very-high": "critical", "severe": "critical",
    "high": "high", "important": "high", "major": "high",
    "medium": "medium", "moderate": "medium", "med": "medium",
    "low": "low", "minor": "low",
    "info": "info", "informational": "info", "information": "info", "negligible": "info",
}  # fmt: skip
_LEVELS = {
    "error": "high",
    "warning": "medium",
    "note": "low",
    "none": "info",
    "recommendation": "low",
    "info": "info",
    "information": "info",
    "informational": "info",
}


class Verdict(NamedTuple):
    """A severity, the part of the report that decided it, and the level in force."""

    severity: str
    source: str
    level: str | None


def of_score(score: float) -> str | None:
    """A severity by a CVSS score; None for 0, below, and what is no number."""
    if math.isnan(score) or score <= 0:
        return None
    return "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low"


def of_security_severity(value: object) -> str | None:
    """A severity by what a property bag calls `security-severity`: a number, digits, or a word."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return of_score(float(value))
    word = str(value).strip().lower()
    try:
        return of_score(float(word))
    except ValueError:
        return _WORDS.get(word.replace(" ", "-").replace("_", "-"))


def of_level(level: str | None) -> str | None:
    """A severity by a SARIF level; words that only severities have are understood too."""
    if not level:
        return None
    word = level.strip().lower()
    return _LEVELS.get(word) or _WORDS.get(word)


def of_rank(rank: float | None) -> str | None:
    """A severity by a rank from 0 to 100; -1 means that there is none."""
    return None if rank is None else of_score(rank / 10)


def overridden(tool: str, rule_id: str, overrides: tuple[SeverityOverride, ...]) -> str | None:
    """What the installation says about a rule; the first override that matches decides."""
    for override in overrides:
        matches = fnmatchcase(tool.lower(), override.tool.lower())
        if matches and fnmatchcase(rule_id.lower(), override.rule.lower()):
            return override.severity if override.severity in SEVERITY_RANK else _WORDS.get(override.severity)
    return None


class RuleSeverity:
    """What decides the severity of one rule's results, with the verdicts by level kept."""

    __slots__ = ("_config_level", "_ranks", "_rule_level", "_security", "override", "verdicts")

    def __init__(
        self,
        *,
        override: str | None = None,
        security: object = None,
        config_level: str | None = None,
        rule_level: str | None = None,
        ranks: tuple[float | None, ...] = (),
    ) -> None:
        self.override = override
        self._security = of_security_severity(security)
        self._config_level, self._rule_level, self._ranks = config_level, rule_level, ranks
        self.verdicts: dict[str | None, Verdict] = {}

    def by_level(self, level: str | None) -> Verdict:
        """The verdict on a result that has a level (or none) and says nothing more."""
        verdict = self.verdicts.get(level)
        if verdict is None:
            verdict = self.verdicts[level] = self._decide(level, None, None)
        return verdict

    def by_result(self, level: str | None, security: object, rank: float | None) -> Verdict:
        """The verdict on a result that has a `security-severity` or a rank of its own."""
        return self._decide(level, security, rank)

    def _decide(self, level: str | None, security: object, rank: float | None) -> Verdict:
        in_force = level or self._config_level or self._rule_level
        candidates = (
            (self.override, "override"),
            (of_security_severity(security), "result.security-severity"),
            (self._security, "rule.security-severity"),
            (of_level(level), "result.level"),
            (of_level(self._config_level), "configuration.level"),
            (of_level(self._rule_level), "rule.level"),
            *((of_rank(value), "rank") for value in (rank, *self._ranks)),
        )
        for severity, source in candidates:
            if severity is not None:
                return Verdict(severity, source, in_force)
        return Verdict("medium", "default", in_force)
