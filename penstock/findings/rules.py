"""
Which rule a result is about. SARIF gives five ways to say it, and tools use all of them, sometimes wrongly.

`rule.guid`, then the index (`rule.index`, `ruleIndex`) within the component that `rule.toolComponent` names,
then the id, then the id with its last parts dropped (`CA1000/1` is a case of `CA1000`). An index whose rule
has another id loses to the id, if any rule has that id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.findings import cwe
from penstock.findings.finding import SeverityOverride
from penstock.findings.messages import rule_text
from penstock.findings.model import (
    Component,
    ComponentRef,
    Configuration,
    ConfigurationOverride,
    Descriptor,
    DescriptorRef,
)
from penstock.findings.packages import is_advisory
from penstock.findings.severity import RuleSeverity, overridden

RuleKey = tuple[str | None, int | None, DescriptorRef | None]


class Rule:
    """What a run says of one rule, worked out once for all its results."""

    __slots__ = ("advisory", "cwe", "descriptor", "help_uri", "id", "name", "severity", "text")

    def __init__(
        self, rule_id: str, descriptor: Descriptor | None, severity: RuleSeverity, weaknesses: tuple[str, ...]
    ) -> None:
        self.id, self.descriptor, self.severity, self.cwe = rule_id, descriptor, severity, weaknesses
        self.name = descriptor.name if descriptor is not None else None
        self.help_uri = descriptor.help_uri if descriptor is not None else None
        self.text = rule_text(descriptor)
        self.advisory = is_advisory(rule_id, descriptor)


class RuleBook:
    """The rules of one run."""

    def __init__(
        self,
        *,
        tool: str,
        driver: Component,
        extensions: Sequence[Component] = (),
        taxonomies: Sequence[Component] = (),
        configured: Sequence[ConfigurationOverride] = (),
        overrides: tuple[SeverityOverride, ...] = (),
    ) -> None:
        self._tool, self._taxonomies, self._overrides = tool, taxonomies, overrides
        self.components = [driver, *extensions]
        self._by_id = [_index(component) for component in self.components]
        self._configured = {id(found): one.configuration for one in configured if (found := self._configured_rule(one))}
        self.latest: dict[str | None, tuple[int | None, DescriptorRef | None, Rule]] = {}
        self._rules: dict[RuleKey, Rule] = {}

    def rule(self, key: RuleKey) -> Rule:
        """
        The rule that `(ruleId, ruleIndex, rule)` of a result mean; one without a descriptor if none is known.

        `latest` has it under its id afterwards, with the rest of the key: to compare costs less than to hash.
        """
        found = self._rules.get(key)
        if found is None:
            found = self._rules[key] = self._make(*key)
        self.latest[key[0]] = key[1], key[2], found
        return found

    def _make(self, rule_id: str | None, index: int | None, ref: DescriptorRef | None) -> Rule:
        name = rule_id or (ref.id if ref is not None else None)
        descriptor = self._find(name, index, ref)
        shown = name or (descriptor.id if descriptor is not None else None) or ""
        severity = self._severity(shown, descriptor)
        weaknesses = cwe.of_rule(descriptor or Descriptor(id=shown), self._taxonomies)
        return Rule(shown, descriptor, severity, weaknesses)

    def _find(self, name: str | None, index: int | None, ref: DescriptorRef | None) -> Descriptor | None:
        component = self._component(ref.tool_component if ref is not None else None)
        if ref is not None and ref.guid is not None and (found := self._by_guid(ref.guid, component)) is not None:
            return found
        if ref is not None and ref.index is not None and ref.index >= 0:
            index = ref.index
        rules = self.components[component].rules or ()
        found = rules[index] if index is not None and 0 <= index < len(rules) else None
        if found is not None and (name is None or found.id is None or _is_case_of(name, found.id)):
            return found
        return (self._by_name(name, component) if name is not None else None) or found

    def _by_name(self, name: str, component: int) -> Descriptor | None:
        tables = [self._by_id[component], *self._by_id]
        while name:
            for table in tables:
                if name in table:
                    return table[name]
            name = name.rpartition("/")[0]
        return None

    def _by_guid(self, guid: str, component: int) -> Descriptor | None:
        for place in (self.components[component], *self.components):
            for rule in place.rules or ():
                if rule.guid is not None and rule.guid.lower() == guid.lower():
                    return rule
        return None

    def _component(self, ref: ComponentRef | None) -> int:
        """The place of a component: 0 is the driver, extension n is n + 1."""
        if ref is None:
            return 0
        if ref.index is not None and 0 <= ref.index < len(self.components) - 1:
            return ref.index + 1
        for place, component in enumerate(self.components):
            if ref.guid is not None and ref.guid == component.guid:
                return place
            if ref.name is not None and ref.name == component.name:
                return place
        return 0

    def _configured_rule(self, override: ConfigurationOverride) -> Descriptor | None:
        ref = override.descriptor
        return None if ref is None else self._find(ref.id, ref.index, ref)

    def _severity(self, rule_id: str, descriptor: Descriptor | None) -> RuleSeverity:
        configured = self._configured.get(id(descriptor)) or Configuration()
        default = (descriptor.default_configuration if descriptor is not None else None) or Configuration()
        bag = descriptor.properties if descriptor is not None else None
        return RuleSeverity(
            override=overridden(self._tool, rule_id, self._overrides) if self._overrides else None,
            security=bag.security_severity if bag is not None else None,
            config_level=configured.level,
            rule_level=default.level,
            ranks=(configured.rank, default.rank),
        )


def _index(component: Component) -> Mapping[str, Descriptor]:
    """Rules by id; of two with one id the first, and former ids where nothing else has them."""
    table: dict[str, Descriptor] = {}
    for rule in component.rules or ():
        if rule.id is not None:
            table.setdefault(rule.id, rule)
    for rule in component.rules or ():
        for former in rule.deprecated_ids or ():
            table.setdefault(former, rule)
    return table


def _is_case_of(name: str, rule_id: str) -> bool:
    return name == rule_id or name.startswith(rule_id + "/")
