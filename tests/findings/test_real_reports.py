"""Reports that real tools wrote, from a corpus beside the repository; without it there is nothing to test."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import pytest

from penstock.errors import ReportError
from penstock.findings import SEVERITIES, open_report, read_report
from penstock.findings.write import to_sarif

SCHEMA = json.loads(Path(__file__).with_name("written.schema.json").read_text())
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "sarif"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of reports is not here")


def rows():
    """The manifest's rows: path, results, sarif_version, parse."""
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


READABLE = [row for row in rows() if row["parse"] == "ok" and row["sarif_version"] in ("2.1.0", "")]
REFUSED = [row for row in rows() if row not in READABLE]
RUN_HERE = sorted((CORPUS / "run-here").iterdir()) if CORPUS.is_dir() else []


def check(path):
    """What holds of every report: counts add up, fingerprints are unique, streaming finds the same."""
    report = read_report(path)
    counts = report.summary
    assert counts.results == counts.findings + counts.not_findings + counts.quarantined
    assert len({one.fingerprint for one in report.findings}) == counts.findings == len(report.findings)
    for one in report.findings:
        assert one.tool
        assert one.severity in SEVERITIES
        assert one.message or one.rule_id
        assert one.path is None or ("\\" not in one.path and not one.path.startswith("file:"))
        assert one.line is None or one.line > 0
    streamed = [one for batch in open_report(path).batches() for one in batch]
    assert {one.fingerprint for one in streamed} == {one.fingerprint for one in report.findings}
    jsonschema.validate(json.loads(to_sarif(report.findings)), SCHEMA)
    return report


@pytest.mark.parametrize("row", READABLE, ids=lambda row: row["path"][-60:])
def test_real_report_is_read_whole(row):
    """Every result of every readable report is taken, none is quarantined."""
    report = check(CORPUS / row["path"])
    assert (report.summary.results, report.summary.quarantined) == (int(row["results"]), 0)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row["path"][-60:])
def test_real_non_report_is_refused(row):
    """SARIF 1.0 and 2.0, JSON that is no SARIF, and what is no JSON: one line each."""
    with pytest.raises(ReportError) as caught:
        read_report(CORPUS / row["path"])
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("path", RUN_HERE, ids=lambda path: path.name)
def test_report_of_a_scanner_run_here_is_read(path):
    """bandit, gitleaks, hadolint, ruff, semgrep, Trivy and zizmor on one sample: findings, with places."""
    report = check(path)
    assert report.summary.findings > 0
    assert report.summary.quarantined == 0
    assert all(one.path and one.line for one in report.findings)
