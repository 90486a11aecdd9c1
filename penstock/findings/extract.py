"""
Results of one run to findings. This is the loop that runs once per result, so it is written flat:
whatever depends on the rule, the level or the file alone is looked up, and the rest is asked for only if there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.findings import cwe
from penstock.findings.collector import collector_paused
from penstock.findings.finding import Finding, Quarantined, RunOutcome, Scope
from penstock.findings.identity import Fingerprinter, tool_fingerprint
from penstock.findings.locations import PathBook
from penstock.findings.mend import Unmendable, mend_part, mend_result
from penstock.findings.messages import message_text
from penstock.findings.model import (
    Artifact,
    ArtifactLocation,
    AutomationDetails,
    Bag,
    Component,
    Invocation,
    Location,
    LogicalLocation,
    PhysicalLocation,
    Result,
    Suppression,
    Tool,
    VersionControl,
)
from penstock.findings.packages import package_of
from penstock.findings.rules import Rule, RuleBook
from penstock.findings.survey import RunSketch

_NOT_FINDINGS = frozenset(("pass", "notApplicable", "informational"))
_MAX_LINE = 2**31 - 1
_MAX_SNIPPET = 8192
_NO_PACKAGE = (None, None)
_NOTHING = Bag()
_results = msgspec.json.Decoder(list[Result]).decode
_result = msgspec.json.Decoder(Result).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Place(NamedTuple):
    """Where a result is; all None for one that is nowhere."""

    path: str | None = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    snippet: str | None = None
    logical: str | None = None


def parse_results(block: bytes) -> Sequence[Result | Unmendable]:
    """The results of a JSON array; in place of one that cannot be understood, why."""
    try:
        return _results(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_parse_one(raw) for raw in _raws(block)]


def _parse_one(raw: msgspec.Raw) -> Result | Unmendable:
    try:
        return _result(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return mend_result(bytes(raw))
    except Unmendable as error:
        return error


def is_finding(kind: str | None, baseline_state: str | None) -> bool:
    """Whether a result is a finding of this run: it is no pass, and it is still there."""
    return kind not in _NOT_FINDINGS and baseline_state != "absent"


def _read_part(raw: bytes | None, kind: Any, default: Any) -> Any:
    if raw is None:
        return default
    try:
        found = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = mend_part(raw, kind)
        except Unmendable:
            return default
    return default if found is None else found


class RunReader:
    """One run's results as findings, counted."""

    def __init__(self, sketch: RunSketch, number: int, scope: Scope, prints: Fingerprinter) -> None:
        part = sketch.parts.get
        tool: Tool = _read_part(part("tool"), Tool | None, Tool())
        driver = tool.driver or Component()
        self._invocations: list[Invocation] = _read_part(part("invocations"), list[Invocation] | None, [])
        self._logical: list[LogicalLocation] = _read_part(part("logicalLocations"), list[LogicalLocation] | None, [])
        self._taxonomies: list[Component] = _read_part(part("taxonomies"), list[Component] | None, [])
        self.tool = (driver.name or driver.full_name or "").strip() or "unknown"
        self.tool_version = driver.semantic_version or driver.version
        self.category = _category(scope, _read_part(part("automationDetails"), AutomationDetails | None, None))
        self._paths = self._path_book(sketch, scope)
        self._rules = RuleBook(
            tool=self.tool,
            driver=driver,
            extensions=tool.extensions or (),
            taxonomies=self._taxonomies,
            configured=[one for run in self._invocations for one in run.rule_configuration_overrides or ()],
            overrides=scope.overrides,
        )
        self._latest_rules, self._latest_paths = self._rules.latest, self._paths.latest
        self._identify = prints.of(self.tool, self.category).identify
        self._number = number
        self.results = self.not_findings = 0
        self.quarantined: list[Quarantined] = []

    def _path_book(self, sketch: RunSketch, scope: Scope) -> PathBook:
        part = sketch.parts.get
        provenance = _read_part(part("versionControlProvenance"), list[VersionControl] | None, [])
        return PathBook(
            bases=_read_part(part("originalUriBaseIds"), dict[str, ArtifactLocation | None] | None, {}),
            artifacts=_read_part(part("artifacts"), list[Artifact] | None, []),
            roots=scope.roots,
            hints=[one.mapped_to for one in provenance] + [one.working_directory for one in self._invocations],
        )

    def outcome(self) -> RunOutcome:
        """What the run says of itself."""
        said = [one.execution_successful for one in self._invocations if one.execution_successful is not None]
        succeeded = all(said) if said else None
        failure = self._failure() if succeeded is False else None
        return RunOutcome(self.tool, self.tool_version, self.category, self.results, succeeded, failure)

    def _failure(self) -> str | None:
        for invocation in self._invocations:
            for notification in invocation.tool_execution_notifications or ():
                if notification.level == "error" and notification.message is not None:
                    return message_text(notification.message, None, self._rules.components) or None
        return None

    def read(self, block: bytes) -> list[Finding]:
        """
        The findings of a block of results, those alike not numbered; what is no finding, or broken, is counted.
        """
        with collector_paused():
            return self._take(parse_results(block))

    def read_guess(self, block: bytes) -> list[Finding] | None:
        """As `read`; None if the block is not a whole number of results, which nothing has counted then."""
        with collector_paused():
            try:
                parsed = parse_results(block)
            except (msgspec.DecodeError, RecursionError):
                return None
            return self._take(parsed)

    def _take(self, parsed: Sequence[Result | Unmendable]) -> list[Finding]:
        findings: list[Finding] = []
        for index, result in enumerate(parsed, self.results):
            if isinstance(result, Unmendable):
                self.quarantined.append(Quarantined(self._number, index, str(result)))
            elif (result.kind is not None and result.kind in _NOT_FINDINGS) or result.baseline_state == "absent":
                self.not_findings += 1
            else:
                finding = self._finding(result)
                if finding.message or finding.rule_id:
                    findings.append(finding)
                else:
                    reason = "it has neither a rule nor a message"
                    self.quarantined.append(Quarantined(self._number, index, reason))
        self.results += len(parsed)
        return findings

    def _finding(self, result: Result) -> Finding:
        rule_id, ref, found = result.rule_id, result.rule, self._latest_rules.get(result.rule_id)
        if found is not None and found[0] == result.rule_index and (found[1] is ref or found[1] == ref):
            rule = found[2]
        else:
            rule = self._rules.rule((rule_id, result.rule_index, ref))
        bag, said = result.properties, result.message
        if bag is not None and bag == _NOTHING:
            bag = None
        if result.rank is None and (bag is None or bag.security_severity is None):
            verdict = rule.severity.verdicts.get(result.level) or rule.severity.by_level(result.level)
        else:
            security = bag.security_severity if bag is not None else None
            verdict = rule.severity.by_result(result.level, security, result.rank)
        if said is not None and said.text and said.arguments is None:
            message = said.text
        else:
            message = message_text(said, rule.descriptor, self._rules.components)
        path, line, column, end_line, snippet, logical = self._place(result, result.locations)
        weaknesses = rule.cwe
        if result.taxa is not None or (bag is not None and cwe.may_have(bag)):
            weaknesses = self._weaknesses(result, rule)
        package: tuple[str | None, str | None] = _NO_PACKAGE
        if rule.advisory or (bag is not None and _names_package(bag)) or (logical and logical.startswith("pkg:")):
            package = package_of(result, rule.descriptor, message, path) or _NO_PACKAGE
        suppressed = reason = None
        if result.suppressions:
            suppressed, reason = suppression(result.suppressions)
        own = None
        if result.fingerprints or result.partial_fingerprints:
            own = tool_fingerprint(result.fingerprints, result.partial_fingerprints)
        basis, value = self._identify(rule.id, own, path, package[0], snippet, message)
        return Finding(
            self.tool, rule.id, verdict[0], verdict[1], message, path, line, column, end_line, weaknesses,
            package[0], package[1], suppressed or False, reason, snippet, verdict[2], result.kind or "fail",
            self.category, self.tool_version, rule.name, rule.help_uri, logical, result.baseline_state, own,
            _flows(result.code_flows) if result.code_flows else None, basis, value,
        )  # fmt: skip

    def _place(self, result: Result, locations: list[Location] | None) -> Place | tuple[Any, ...]:
        if not locations:
            return self._nowhere(result)
        location = locations[0]
        physical = location.physical_location
        if physical is None or physical.artifact_location is None:
            return self._elsewhere(result, locations)
        logical = self._logical_name(location) if location.logical_locations else None
        artifact, region = physical.artifact_location, physical.region
        found = self._latest_paths.get(artifact.uri)
        path = found[1] if found is not None and found[0] == artifact else self._paths.path(artifact)
        if region is None:
            return path, None, None, None, None, logical
        line, column, end_line = region.start_line, region.start_column, region.end_line
        if line is None or not 0 < line <= _MAX_LINE or not 0 < (column or 1) <= _MAX_LINE:
            line, column = _counted(line), _counted(column)
        if end_line is not None and not 0 < end_line <= _MAX_LINE:
            end_line = None
        snippet = region.snippet.text if region.snippet is not None else None
        if snippet is None and physical.context_region is not None:
            snippet = _context(physical)
        return path, line, column, end_line, snippet[:_MAX_SNIPPET] if snippet else None, logical

    def _elsewhere(self, result: Result, locations: list[Location]) -> Place:
        """The first location that has a file, else the name of the first that has one."""
        for location in locations:
            if location.physical_location is not None and location.physical_location.artifact_location is not None:
                return Place(*self._place(result, [location]))
        names = [name for location in locations if (name := self._logical_name(location))]
        return self._nowhere(result)._replace(logical=names[0] if names else None)

    def _nowhere(self, result: Result) -> Place:
        target = result.analysis_target
        return Place() if target is None else Place(path=self._paths.path(target))

    def _logical_name(self, location: Location) -> str | None:
        for logical in location.logical_locations or ():
            named = logical
            if named.index is not None and 0 <= named.index < len(self._logical) and not named.name:
                named = self._logical[named.index]
            if name := logical.fully_qualified_name or named.fully_qualified_name or named.name:
                return name
        return None

    def _weaknesses(self, result: Result, rule: Rule) -> tuple[str, ...]:
        own = cwe.in_references(result.taxa or (), self._taxonomies) + cwe.in_bag(result.properties)
        return cwe.unique((*own, *rule.cwe)) if own else rule.cwe


def _category(scope: Scope, details: AutomationDetails | None) -> str:
    """`automationDetails.id` is category/instance; the instance names one run of many. SARIF 2.1.0, 3.17.3."""
    if scope.category is not None:
        return scope.category
    return (details.id or "").rpartition("/")[0] if details is not None else ""


def _names_package(bag: Bag) -> bool:
    return bool(bag.purl or bag.purls or bag.package or bag.package_url or bag.package_url_2 or bag.component)


def _counted(number: int | None) -> int | None:
    return number if number is not None and 0 < number <= _MAX_LINE else None


def _context(physical: PhysicalLocation) -> str | None:
    context = physical.context_region
    return context.snippet.text if context is not None and context.snippet is not None else None


def suppression(suppressions: Iterable[Suppression]) -> tuple[bool, str | None]:
    """
    Whether a result is suppressed, and why. One that is under review or rejected is not. SARIF 2.1.0, 3.35.
    """
    entries = [one for one in suppressions if one.kind or one.status or one.state or one.justification]
    states = {(one.status or one.state or "accepted").lower() for one in entries}
    if not entries or states & {"underreview", "rejected"}:
        return False, None
    reason = next((one.justification for one in entries if one.justification), None)
    return True, reason or next((one.kind for one in entries if one.kind), None)


def _flows(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode("utf-8", "replace").strip()
    return None if text in {"null", "[]"} else text
