"""Findings as SARIF 2.1.0, built with sarif-om, so that other tools can read what Penstock knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import attr
import msgspec
import sarif_om as om

from penstock import __version__
from penstock.findings.finding import Finding

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "none"}
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
_KINDS = frozenset(("fail", "open", "review"))
_BASELINES = frozenset(("new", "unchanged", "updated"))
_URL = re.compile(r"https?://[^\s<>\"{}|\\^`]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s<>\"{}|\\^`]*")
_FINGERPRINT = "penstock/v1"


def to_sarif(findings: Sequence[Finding]) -> bytes:
    """
    A SARIF 2.1.0 document: one run per tool, version and category, in the order in which they come.

    Severities survive reading it again: a level as SARIF has it, and a `security-severity` in the middle of
    the severity's band. Code flows are left out.
    """
    groups: dict[tuple[str, str | None, str], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.tool, one.tool_version, one.category), []).append(one)
    runs = [_run(some) for some in groups.values()]
    log = om.SarifLog(version="2.1.0", schema_uri=SCHEMA_URI, runs=runs)
    return msgspec.json.format(msgspec.json.encode(_plain(log)), indent=1)


def _run(findings: Sequence[Finding]) -> Any:
    first = findings[0]
    by_rule: dict[str, list[Finding]] = {}
    for one in findings:
        by_rule.setdefault(one.rule_id, []).append(one)
    by_rule.pop("", None)
    places = {rule_id: place for place, rule_id in enumerate(by_rule)}
    driver = om.ToolComponent(
        name=first.tool,
        version=first.tool_version,
        rules=[_rule(rule_id, some) for rule_id, some in by_rule.items()],
    )
    details = om.RunAutomationDetails(id=f"{first.category}/") if first.category else None
    return om.Run(
        tool=om.Tool(driver=driver),
        automation_details=details,
        results=[_result(one, places.get(one.rule_id)) for one in findings],
        column_kind="unicodeCodePoints",
        properties={"penstock/version": __version__},
    )


def _rule(rule_id: str, findings: Sequence[Finding]) -> Any:
    named = next((one.rule_name for one in findings if one.rule_name), None)
    helped = next((one.help_uri for one in findings if one.help_uri and _URL.fullmatch(one.help_uri)), None)
    weaknesses = [name for name in findings[0].cwe if all(name in one.cwe for one in findings)]
    tags = [f"external/cwe/cwe-{int(name.removeprefix('CWE-')):03}" for name in weaknesses]
    return om.ReportingDescriptor(
        id=rule_id, name=named, help_uri=helped, properties={"tags": ["security", *tags]} if tags else None
    )


def _result(one: Finding, rule_index: int | None) -> Any:
    return om.Result(
        message=om.Message(text=one.message),
        rule_id=one.rule_id or None,
        rule_index=-1 if rule_index is None else rule_index,
        level=_LEVELS[one.severity],
        kind=one.kind if one.kind in _KINDS else "fail",
        locations=_locations(one),
        fingerprints={_FINGERPRINT: one.fingerprint} if one.fingerprint else None,
        partial_fingerprints=_own(one.tool_fingerprint),
        suppressions=[_suppression(one)] if one.suppressed else None,
        baseline_state=one.baseline_state if one.baseline_state in _BASELINES else None,
        properties=_properties(one),
    )


def _own(fingerprint: str | None) -> dict[str, str] | None:
    if fingerprint is None:
        return None
    key, _, value = fingerprint.removeprefix("partial/").partition(":")
    return {key: value}


def _suppression(one: Finding) -> Any:
    kind = "inSource" if one.suppression_reason == "inSource" else "external"
    return om.Suppression(kind=kind, justification=one.suppression_reason)


def _properties(one: Finding) -> dict[str, object]:
    said = {
        "security-severity": _SCORES.get(one.severity),
        "cwe": list(one.cwe) or None,
        "purl": one.package,
        "fixedVersion": one.fixed_version,
        "penstock/severity-source": one.severity_source,
    }
    return {key: value for key, value in said.items() if value is not None}


def _locations(one: Finding) -> list[Any] | None:
    logical = [om.LogicalLocation(fully_qualified_name=one.logical_location)] if one.logical_location else None
    if one.path is None:
        return [om.Location(logical_locations=logical)] if logical else None
    physical = om.PhysicalLocation(artifact_location=_artifact(one.path), region=_region(one))
    return [om.Location(physical_location=physical, logical_locations=logical)]


def _artifact(path: str) -> Any:
    if _SCHEME.fullmatch(path):
        return om.ArtifactLocation(uri=path)
    if path.startswith("/"):
        return om.ArtifactLocation(uri="file://" + quote(path))
    if path[1:3] == ":/":
        return om.ArtifactLocation(uri="file:///" + quote(path, safe="/:"))
    return om.ArtifactLocation(uri=quote(path), uri_base_id="%SRCROOT%")


def _region(one: Finding) -> Any:
    snippet = om.ArtifactContent(text=one.snippet) if one.snippet else None
    if one.line is None:
        return None
    end_line = one.end_line if one.end_line is not None and one.end_line >= one.line else None
    return om.Region(start_line=one.line, start_column=one.column, end_line=end_line, snippet=snippet)


def _plain(value: Any) -> Any:
    """JSON values of sarif-om's objects: the schema's names, without what is absent or the default."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not attr.has(type(value)):
        return value
    return {
        field.metadata["schema_property_name"]: _plain(item)
        for field in attr.fields(type(value))
        if (item := getattr(value, field.name)) is not None and not _is_default(field, item)
    }


def _is_default(field: Any, value: object) -> bool:
    if field.default is attr.NOTHING or field.name in {"level", "kind", "column_kind"}:
        return False
    default = field.default.factory() if isinstance(field.default, attr.Factory) else field.default  # type: ignore[arg-type]
    return bool(value == default)
