"""Findings as CSV, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from penstock.findings.finding import Finding

COLUMNS = (
    "severity", "tool", "tool_version", "category", "rule_id", "rule_name", "message", "path", "line", "column",
    "cwe", "package", "fixed_version", "suppressed", "suppression_reason", "severity_source", "help_uri", "fingerprint",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(findings: Iterable[Finding]) -> str:
    """
    A header and one row per finding, as RFC 4180 has it.

    A text that a spreadsheet would take for a formula gets an apostrophe before it: a report may come from
    an attacker, and it is somebody else who opens the file.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(one, name)) for name in COLUMNS] for one in findings)
    return out.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return " ".join(value)
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
