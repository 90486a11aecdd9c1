"""Rows with everything filled in that a test does not care about."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.findings import Finding
from penstock.warehouse import Artifact, Commit, Release, Run, Scan, Step, TestResult

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """A moment, in minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def finding(fingerprint: str, **fields: Any) -> Finding:
    """A finding of bandit."""
    values = {
        "tool": "bandit",
        "rule_id": "B602",
        "severity": "high",
        "message": "shell=True",
        "path": "shop/app.py",
        "line": 7,
        "cwe": ("CWE-78",),
        "category": "sast",
    }
    return Finding(fingerprint=fingerprint, **(values | fields))


def findings(fingerprints: Iterable[str], **fields: Any) -> list[Finding]:
    """One finding per fingerprint."""
    return [finding(each, **fields) for each in fingerprints]


def scan(number: int, **fields: Any) -> Scan:
    """The scan of the commit of that number, by bandit on main, with a report of its own."""
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "branch": "main",
        "run_id": f"r{number}",
        "step": "sast",
        "tool": "bandit",
        "category": "sast",
        "state": "succeeded",
        "committed_at": at(number),
        "scanned_at": at(number + 0.5),
        "report_sha256": f"{number:064x}",
        "author": f"author{number}",
    }
    return Scan(**(values | fields))


def run(number: int, **fields: Any) -> Run:
    """The run of the commit of that number."""
    values: dict[str, Any] = {
        "run_id": f"r{number}",
        "project": "shop",
        "commit": f"c{number}",
        "ref": "refs/heads/main",
        "state": "succeeded",
        "queued_at": at(number),
        "started_at": at(number + 0.1),
        "finished_at": at(number + 0.9),
        "duration_s": 48.0,
    }
    return Run(**(values | fields))


def commit(number: int, **fields: Any) -> Commit:
    """The commit of that number."""
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "ref": "refs/heads/main",
        "author": f"author{number}",
        "message": f"Change {number}\n\nwhy",
        "committed_at": at(number),
    }
    return Commit(**(values | fields))


def step(number: int, name: str, **fields: Any) -> Step:
    """A step of the run of that number."""
    values: dict[str, Any] = {
        "run_id": f"r{number}",
        "project": "shop",
        "commit": f"c{number}",
        "step": name,
        "state": "succeeded",
        "queued_at": at(number),
        "started_at": at(number + 0.2),
        "finished_at": at(number + 0.4),
        "seconds": 12.0,
    }
    return Step(**(values | fields))


def outcome(number: int, name: str, **fields: Any) -> TestResult:
    """A test of the run of that number."""
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "run_id": f"r{number}",
        "step": "test",
        "suite": "tests.test_app",
        "name": name,
        "state": "passed",
        "seconds": 0.01,
    }
    return TestResult(**(values | fields))


def release(number: int, **fields: Any) -> Release:
    """A release of the commit of that number to production."""
    values: dict[str, Any] = {
        "project": "shop",
        "environment": "production",
        "service": "web",
        "number": number,
        "commit": f"c{number}",
        "state": "live",
        "created_at": at(number),
        "live_at": at(number + 1),
    }
    return Release(**(values | fields))


def artifact(number: int, name: str, **fields: Any) -> Artifact:
    """Something that the run of that number built."""
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "run_id": f"r{number}",
        "step": "build",
        "name": name,
        "digest": f"sha256:{number:064x}",
        "size_bytes": 1024,
    }
    return Artifact(**(values | fields))
