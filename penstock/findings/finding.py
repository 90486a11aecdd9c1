"""The values of this package: a finding, a report of findings, and the scope that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from attrs import field, frozen

SEVERITIES = ("critical", "high", "medium", "low", "info")
"""Worst first."""

SEVERITY_RANK = {name: rank for rank, name in enumerate(SEVERITIES)}
"""Severity → 0 (critical) … 4 (info)."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """
    One thing that a scanner found wrong.

    path: relative to the repository where that can be known, with forward slashes; None without a location.
    line, column, end_line: from 1; None where the report has none.
    severity: one of SEVERITIES; severity_source says which part of the report decided it.
    level: the level in force (error, warning, note, none), None where the report leaves it to the default.
    cwe: names such as "CWE-79", ascending as reported, without repeats.
    package: a purl; fixed_version: as the scanner wrote it.
    tool_fingerprint: `key:value` as the tool gave it, whether trusted or not.
    code_flows: the raw JSON of `codeFlows`, None without.
    identity: what the fingerprint stands on: package, tool, snippet or message.
    fingerprint: `fp v1`, 32 hexadecimal digits, unique within a report.
    """

    tool: str
    rule_id: str
    severity: str = "medium"
    severity_source: str = "default"
    message: str = ""
    path: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    cwe: tuple[str, ...] = ()
    package: str | None = None
    fixed_version: str | None = None
    suppressed: bool = False
    suppression_reason: str | None = None
    snippet: str | None = None
    level: str | None = None
    kind: str = "fail"
    category: str = ""
    tool_version: str | None = None
    rule_name: str | None = None
    help_uri: str | None = None
    logical_location: str | None = None
    baseline_state: str | None = None
    tool_fingerprint: str | None = None
    code_flows: str | None = None
    identity: str = "message"
    fingerprint: str = ""


class FindingLine(msgspec.Struct, frozen=True, gc=False):
    """A finding as `penstock findings read --json` prints it; fields as in Finding."""

    tool: str
    rule_id: str
    severity: str
    severity_source: str
    message: str
    path: str | None
    line: int | None
    column: int | None
    cwe: tuple[str, ...]
    package: str | None
    fingerprint: str
    suppressed: bool

    @classmethod
    def of(cls, one: Finding) -> FindingLine:
        """The line of a finding."""
        return cls(
            one.tool, one.rule_id, one.severity, one.severity_source, one.message, one.path, one.line, one.column,
            one.cwe, one.package, one.fingerprint, one.suppressed,
        )  # fmt: skip


@frozen
class SeverityOverride:
    """What this installation says about a rule. tool and rule are glob patterns, without regard to case."""

    severity: str
    tool: str = "*"
    rule: str = "*"


@frozen
class Scope:
    """
    Where a report belongs; all of it but `roots` and `overrides` is part of every fingerprint.

    category: None takes it from the run's `automationDetails.id`; two reports of one tool about different
        things (two images, two languages) need two categories.
    roots: absolute directories in which the repository was checked out when the scanner ran.
    overrides: the first that matches decides the severity, before anything in the report.
    """

    tenant: str = "default"
    repository: str = ""
    category: str | None = None
    roots: tuple[str, ...] = ()
    overrides: tuple[SeverityOverride, ...] = ()


@frozen
class Quarantined:
    """A result that could not be understood. run and index count from 0."""

    run: int
    index: int
    reason: str


@frozen
class RunOutcome:
    """What one run of a tool says of itself. succeeded: None where it does not say."""

    tool: str
    tool_version: str | None
    category: str
    results: int
    succeeded: bool | None
    failure: str | None = None


@frozen
class Summary:
    """Counts over a report: results = findings + not_findings + quarantined."""

    results: int = 0
    findings: int = 0
    not_findings: int = 0
    quarantined: int = 0
    suppressed: int = 0
    severities: dict[str, int] = field(factory=lambda: dict.fromkeys(SEVERITIES, 0))

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.results + other.results,
            self.findings + other.findings,
            self.not_findings + other.not_findings,
            self.quarantined + other.quarantined,
            self.suppressed + other.suppressed,
            {name: self.severities[name] + other.severities[name] for name in SEVERITIES},
        )


@frozen
class Report:
    """A report read to its end. findings are in the order of the file."""

    findings: tuple[Finding, ...]
    summary: Summary
    quarantined: tuple[Quarantined, ...]
    runs: tuple[RunOutcome, ...]


def count_severities(findings: Iterable[Finding]) -> dict[str, int]:
    """Findings per severity, every severity present, worst first."""
    counts = Counter([finding.severity for finding in findings])
    return {name: counts[name] for name in SEVERITIES}
