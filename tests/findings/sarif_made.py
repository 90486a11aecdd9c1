"""Small SARIF documents, made as the tests need them."""

from __future__ import annotations

import json
from typing import Any

from penstock.findings import Finding, Report, Scope, read_report


def result(
    rule: str = "R1", message: str = "something is wrong", path: str | None = "src/a.py", **more: Any
) -> dict[str, Any]:
    """A result; `line`, `column` and `snippet` go into its region, all else is taken as it is."""
    made: dict[str, Any] = {"ruleId": rule, "message": {"text": message}}
    if path is not None:
        region: dict[str, Any] = {"startLine": more.pop("line", 1)}
        if "column" in more:
            region["startColumn"] = more.pop("column")
        if "snippet" in more:
            region["snippet"] = {"text": more.pop("snippet")}
        made["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": path}, "region": region}}]
    return made | more


def run(results: list[Any], rules: list[Any] | None = None, tool: str = "scanner", **more: Any) -> dict[str, Any]:
    """A run of a tool."""
    return {"tool": {"driver": {"name": tool, "rules": rules or []}}, "results": results} | more


def document(*runs: dict[str, Any]) -> dict[str, Any]:
    """A document of runs."""
    return {"version": "2.1.0", "runs": list(runs)}


def encoded(*runs: dict[str, Any]) -> bytes:
    """A document's bytes."""
    return json.dumps(document(*runs)).encode()


def read(*results: Any, scope: Scope | None = None, **more: Any) -> Report:
    """What is read of a run with these results."""
    return read_report(encoded(run(list(results), **more)), scope=scope)


def read_one(one: dict[str, Any], scope: Scope | None = None, **more: Any) -> Finding:
    """The one finding that is read of a run with this one result."""
    report = read(one, scope=scope, **more)
    assert report.summary.findings == 1, report
    return report.findings[0]
