"""Findings: reports of scanners become one row each, with an identity that survives edits."""

from penstock.findings.finding import (
    SEVERITIES,
    Finding,
    Quarantined,
    Report,
    RunOutcome,
    Scope,
    SeverityOverride,
    Summary,
)
from penstock.findings.sarif import ReportStream, iter_findings, open_report, read_report
from penstock.findings.table import FINDING_SCHEMA_NAMES, to_arrow

__all__ = [
    "FINDING_SCHEMA_NAMES",
    "SEVERITIES",
    "Finding",
    "Quarantined",
    "Report",
    "ReportStream",
    "RunOutcome",
    "Scope",
    "SeverityOverride",
    "Summary",
    "iter_findings",
    "open_report",
    "read_report",
    "to_arrow",
]
