"""Findings as SARIF 2.1.0: built with sarif-om where it is installed, else as plain values. Both give the same."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "none"}
# What GitHub and others read as severity; CVSS's own ranges begin at these.
SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0", "info": "0.0"}


@dataclass(frozen=True)
class Finding:
    """One finding. path: relative to the checkout. line: from 1; None where it is about the whole file."""

    rule: str
    message: str
    severity: str
    path: str | None = None
    line: int | None = None
    end_line: int | None = None
    rule_name: str | None = None
    help_uri: str | None = None
    fingerprint: str | None = None


def sarif_of(findings: list[Finding], tool: str, version: str) -> str:
    """The whole document, for a file."""
    if importlib.util.find_spec("sarif_om") is None:
        return json.dumps(_plain(findings, tool, version), indent=1)
    return json.dumps(_as_values(_log(findings, tool, version)), indent=1)


def _rules(findings: list[Finding]) -> dict[str, Finding]:
    """Each rule once, as its first finding tells it, in the order in which they came."""
    rules: dict[str, Finding] = {}
    for finding in findings:
        rules.setdefault(finding.rule, finding)
    return rules


def _plain(findings: list[Finding], tool: str, version: str) -> dict[str, Any]:
    rules = _rules(findings)
    places = {rule: at for at, rule in enumerate(rules)}
    driver = {"name": tool, "version": version, "rules": [_plain_rule(finding) for finding in rules.values()]}
    results = [_plain_result(finding, places[finding.rule]) for finding in findings]
    run = {"tool": {"driver": driver}, "results": results, "invocations": [{"executionSuccessful": True}]}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _plain_rule(finding: Finding) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": finding.rule}
    if finding.rule_name:
        rule["shortDescription"] = {"text": finding.rule_name}
    if finding.help_uri:
        rule["helpUri"] = finding.help_uri
    return rule


def _plain_result(finding: Finding, rule_index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": LEVELS[finding.severity],
        "message": {"text": finding.message},
        "properties": {"security-severity": SCORES[finding.severity]},
    }
    if finding.path is not None:
        physical: dict[str, Any] = {"artifactLocation": {"uri": quote(finding.path)}}
        if finding.line is not None:
            region = {"startLine": finding.line}
            physical["region"] = region if finding.end_line is None else {**region, "endLine": finding.end_line}
        result["locations"] = [{"physicalLocation": physical}]
    if finding.fingerprint is not None:
        result["partialFingerprints"] = {"primary/v1": finding.fingerprint}
    return result


def _log(findings: list[Finding], tool: str, version: str) -> Any:
    om = importlib.import_module("sarif_om")
    rules = _rules(findings)
    places = {rule: at for at, rule in enumerate(rules)}
    driver = om.ToolComponent(name=tool, version=version, rules=[_om_rule(om, one) for one in rules.values()])
    run = om.Run(
        tool=om.Tool(driver=driver),
        results=[_om_result(om, finding, places[finding.rule]) for finding in findings],
        invocations=[om.Invocation(execution_successful=True)],
    )
    return om.SarifLog(version="2.1.0", schema_uri=SCHEMA, runs=[run])


def _om_rule(om: Any, finding: Finding) -> Any:
    text = om.MultiformatMessageString(text=finding.rule_name) if finding.rule_name else None
    return om.ReportingDescriptor(id=finding.rule, short_description=text, help_uri=finding.help_uri)


def _om_result(om: Any, finding: Finding, rule_index: int) -> Any:
    locations = None
    if finding.path is not None:
        region = om.Region(start_line=finding.line, end_line=finding.end_line) if finding.line is not None else None
        where = om.ArtifactLocation(uri=quote(finding.path))
        locations = [om.Location(physical_location=om.PhysicalLocation(artifact_location=where, region=region))]
    return om.Result(
        rule_id=finding.rule,
        rule_index=rule_index,
        level=LEVELS[finding.severity],
        message=om.Message(text=finding.message),
        locations=locations,
        partial_fingerprints={"primary/v1": finding.fingerprint} if finding.fingerprint is not None else None,
        properties={"security-severity": SCORES[finding.severity]},
    )


def _as_values(value: Any) -> Any:
    """The library's objects as JSON, by the names that it keeps in each attribute; what has its default is left out."""
    if isinstance(value, (list, tuple)):
        return [_as_values(one) for one in value]
    if isinstance(value, dict):
        return {name: _as_values(one) for name, one in value.items()}
    fields = getattr(type(value), "__attrs_attrs__", None)
    if fields is None:
        return value
    found = {}
    for field in fields:
        one = getattr(value, field.name)
        # What a result says of itself must stand there although it is the library's default.
        default = field.default.factory() if hasattr(field.default, "factory") else field.default
        if one is not None and (one != default or field.name in ("level", "rule_index", "version")):
            found[field.metadata.get("schema_property_name", field.name)] = _as_values(one)
    return found
