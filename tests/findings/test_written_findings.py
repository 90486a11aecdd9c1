"""What is written: SARIF that its schema accepts and that reads back the same, CSV that is safe to open, Arrow."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.findings import FINDING_SCHEMA_NAMES, SEVERITIES, Finding, read_report, to_arrow
from penstock.findings.sheet import to_csv
from penstock.findings.write import to_sarif

OWN = Path(__file__).with_name("written.schema.json")
FULL = os.environ.get("PENSTOCK_SARIF_SCHEMA")
"""The whole schema of SARIF 2.1.0, where somebody has it; written.schema.json is the part that we use, stricter."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.none() | st.sampled_from(
    [
        "src/a.py",
        "a b/é.py",
        "alpine:3.18",
        "C:/code/a.cs",
        "/etc/passwd",
        "https://example.com/a.js",
        "../x",
        "100%.txt",
    ]
)
FINDINGS = st.lists(
    st.builds(
        Finding,
        tool=st.sampled_from(["a", "b"]),
        rule_id=st.sampled_from(["R1", "R/2", ""]),
        severity=st.sampled_from(SEVERITIES),
        message=TEXT.filter(str.strip),
        path=PATHS,
        line=st.none() | st.integers(1, 2**31 - 1),
        column=st.none() | st.integers(1, 500),
        end_line=st.none() | st.integers(1, 500),
        cwe=st.sampled_from([(), ("CWE-79",), ("CWE-79", "CWE-20")]),
        package=st.none() | st.just("pkg:npm/a@1"),
        fixed_version=st.none() | st.just("2"),
        suppressed=st.booleans(),
        suppression_reason=st.none() | TEXT,
        snippet=st.none() | TEXT.filter(bool),
        kind=st.sampled_from(["fail", "review", "odd"]),
        category=st.sampled_from(["", "image/web"]),
        tool_version=st.none() | st.just("1.0"),
        rule_name=st.none() | TEXT,
        help_uri=st.sampled_from([None, "https://example.com/rule", "not a uri"]),
        logical_location=st.none() | TEXT.filter(bool),
        baseline_state=st.sampled_from([None, "new", "odd"]),
        tool_fingerprint=st.sampled_from([None, "v1:0123456789", "partial/h:0123:456789"]),
        fingerprint=st.uuids().map(lambda one: one.hex),
    ),
    max_size=5,
)


def schemas():
    """Our own schema, and the whole one where it is to be had."""
    return [json.loads(path.read_text()) for path in (OWN, *([Path(FULL)] if FULL else []))]


@given(FINDINGS)
def test_written_sarif_passes_its_schema(findings):
    """Whatever the findings hold, the document is SARIF 2.1.0."""
    written = json.loads(to_sarif(findings))
    for schema in schemas():
        jsonschema.validate(written, schema, format_checker=jsonschema.FormatChecker())


@given(FINDINGS)
def test_written_sarif_reads_back(findings):
    """Severity, place, rule, package, suppression and the rest come back as they were."""

    def told(one: Finding, kind: str):
        return (
            one.tool, one.rule_id, one.severity, one.message, one.path, one.line if one.path else None, set(one.cwe),
            one.package, one.fixed_version if one.package else None, one.suppressed, kind, one.category,
            one.tool_version,
        )  # fmt: skip

    again = read_report(to_sarif(findings)).findings
    made = [told(one, "review" if one.kind == "review" else "fail") for one in findings]
    assert sorted(map(repr, (told(one, one.kind) for one in again))) == sorted(map(repr, made))


@given(FINDINGS)
def test_csv_holds_every_finding(findings):
    """A header and a row for each, whatever commas, quotes and line ends the texts have."""
    rows = list(csv.DictReader(io.StringIO(to_csv(findings), newline="")))
    assert [row["fingerprint"] for row in rows] == [one.fingerprint for one in findings]
    assert [row["severity"] for row in rows] == [one.severity for one in findings]


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_csv_starts_no_formula(text):
    """A report may come from an attacker, and a spreadsheet runs what looks like a formula."""
    rows = list(csv.DictReader(io.StringIO(to_csv([Finding("t", "r", message=text)]), newline="")))
    assert rows[0]["message"] == "'" + text


@given(FINDINGS)
def test_arrow_table_holds_every_finding(findings):
    """One row per finding with all its fields, and constant columns first."""
    table = to_arrow(findings, {"commit": pa.scalar("c1"), "attempt": pa.scalar(2, pa.int32())})
    assert table.column_names == ["commit", "attempt", *FINDING_SCHEMA_NAMES]
    assert table.num_rows == len(findings)
    assert table.column("fingerprint").to_pylist() == [one.fingerprint for one in findings]
    assert table.column("cwe").to_pylist() == [list(one.cwe) for one in findings]
    assert table.column("attempt").to_pylist() == [2] * len(findings)


def test_arrow_table_of_nothing_has_its_columns():
    """A report without findings is a table without rows, of the same types."""
    assert to_arrow([]).schema == to_arrow([Finding("t", "r")]).schema
