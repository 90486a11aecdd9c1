"""Whether findings stop a pipeline: thresholds, and the reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from penstock.errors import InputError
from penstock.findings.finding import SEVERITIES, SEVERITY_RANK, Finding, count_severities


def _severity(_: object, attribute: object, value: str | None) -> None:
    if value is not None and value not in SEVERITY_RANK:
        name = getattr(attribute, "name", "severity")
        raise InputError(f"no severity is called {value!r}", where=name, remedy=f"use one of {', '.join(SEVERITIES)}")


def _limits(_: object, attribute: object, value: Mapping[str, int]) -> None:
    for name, limit in value.items():
        _severity(None, attribute, name)
        if limit < 0:
            raise InputError(f"{limit} is no number of findings", where=f"limits.{name}", remedy="use 0 or more")


@frozen
class Policy:
    """
    When findings fail a gate.

    fail_on_severity: one finding as bad as this, or worse, fails; None lets severity alone pass.
    limits: how many findings of a severity are let pass, counted by exactly that severity.
    new_only: count only what the change introduced.
    fixable_only: count packages only where a version mends them; code is always counted.
    ignored_rules, ignored_paths: exact rule ids; path prefixes up to a slash.
    """

    fail_on_severity: str | None = field(default="high", validator=_severity)
    limits: Mapping[str, int] = field(factory=dict, validator=_limits)
    new_only: bool = False
    fixable_only: bool = False
    count_suppressed: bool = False
    ignored_rules: frozenset[str] = frozenset()
    ignored_paths: tuple[str, ...] = ()


@frozen
class Verdict:
    """passed, the reasons if not, the counts that decided, and the findings that failed it, worst first."""

    passed: bool
    reasons: tuple[str, ...]
    counts: Mapping[str, int]
    offenders: tuple[Finding, ...]


def judge(policy: Policy, findings: Sequence[Finding], introduced: frozenset[str] | None = None) -> Verdict:
    """
    Hold findings against a policy.

    introduced: fingerprints of what the change brought. Raises: InputError if the policy needs them.
    """
    if policy.new_only and introduced is None:
        remedy = "scan the base commit first, or count all findings"
        raise InputError("only new findings count, but it is not known which are new", where="new_only", remedy=remedy)
    counted = [one for one in findings if _counts(policy, one, introduced)]
    counts = count_severities(counted)
    reasons: list[str] = []
    failing: set[str] = set()
    if policy.fail_on_severity is not None:
        worst = SEVERITIES[: SEVERITY_RANK[policy.fail_on_severity] + 1]
        failing = {name for name in worst if counts[name]}
        reasons += [f"{counts[name]} {name}" for name in worst if counts[name]]
    for name, limit in policy.limits.items():
        if counts[name] > limit:
            failing.add(name)
            reasons.append(f"{counts[name]} {name}, {limit} allowed")
    offenders = [one for one in counted if one.severity in failing]
    offenders.sort(key=lambda one: SEVERITY_RANK[one.severity])
    return Verdict(not reasons, tuple(reasons), counts, tuple(offenders))


def _counts(policy: Policy, one: Finding, introduced: frozenset[str] | None) -> bool:
    if one.suppressed and not policy.count_suppressed:
        return False
    if policy.new_only and introduced is not None and one.fingerprint not in introduced:
        return False
    if policy.fixable_only and one.package is not None and one.fixed_version is None:
        return False
    return one.rule_id not in policy.ignored_rules and not _ignored(one.path, policy.ignored_paths)


def _ignored(path: str | None, prefixes: Sequence[str]) -> bool:
    if path is None:
        return False
    return any(path == prefix.rstrip("/") or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
