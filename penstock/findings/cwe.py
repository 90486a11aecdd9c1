"""Weaknesses (CWE) as tools write them: tags, properties, taxa, relationships."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from penstock.findings.model import Bag, Component, Descriptor, DescriptorRef

_NAMED = re.compile(r"cwe[-_ :/]{0,2}0*([1-9]\d{0,5})(?!\d)", re.IGNORECASE)
_BARE = re.compile(r"0*([1-9]\d{0,5})(?!\d)")


def in_text(text: str) -> list[str]:
    """Names such as CWE-79 that a text mentions as `CWE-79`, `cwe/cwe-079`, `CWE 79`."""
    return [f"CWE-{number}" for number in _NAMED.findall(text)]


def in_value(value: object, depth: int = 3) -> list[str]:
    """The weaknesses in a property that is about weaknesses, so that a bare 79 counts."""
    if isinstance(value, bool) or value is None or depth == 0:
        return []
    if isinstance(value, (int, str)):
        text = str(value).strip()
        bare = _BARE.fullmatch(text)
        return [f"CWE-{bare[1]}"] if bare else in_text(text)
    if isinstance(value, dict):
        value = [value.get("cweId") or value.get("id") or value.get("cwe")]
    return [name for item in value for name in in_value(item, depth - 1)] if isinstance(value, list) else []


def in_tags(tags: object) -> list[str]:
    """The weaknesses among tags, which may be a list, or names with values."""
    items: Iterable[object] = ()
    if isinstance(tags, list):
        items = tags
    elif isinstance(tags, dict):
        items = [f"{key} {value}" for key, value in tags.items()]
    elif isinstance(tags, str):
        items = [tags]
    return [name for tag in items if isinstance(tag, str) for name in in_text(tag)]


def may_have(bag: Bag) -> bool:
    """Whether a property bag is worth looking into; cheap, because every result with properties is asked."""
    if bag.cwe is not None or bag.cwes is not None or bag.cwe_id is not None:
        return True
    tags = bag.tags
    if not isinstance(tags, list):
        return bool(tags)
    for tag in tags:  # noqa: SIM110  a generator costs twice the loop
        if isinstance(tag, str) and ("cwe" in tag or "CWE" in tag):
            return True
    return False


def in_bag(bag: Bag | None) -> list[str]:
    """The weaknesses in a property bag."""
    if bag is None or not may_have(bag):
        return []
    named = [name for value in (bag.cwe, bag.cwes, bag.cwe_id) for name in in_value(value)]
    return named + (in_tags(bag.tags) if bag.tags else [])


def in_references(references: Iterable[DescriptorRef | None], taxonomies: Sequence[Component]) -> list[str]:
    """The weaknesses that references (taxa of a result, targets of a rule) name in the CWE taxonomy."""
    return [name for ref in references if ref is not None for name in _in_reference(ref, taxonomies)]


def _in_reference(ref: DescriptorRef, taxonomies: Sequence[Component]) -> list[str]:
    component = ref.tool_component
    taxonomy = _taxonomy(ref, taxonomies)
    name = (component.name if component else None) or (taxonomy.name if taxonomy else None)
    identifier = ref.id
    if identifier is None and taxonomy is not None and ref.index is not None and taxonomy.taxa:
        identifier = taxonomy.taxa[ref.index].id if 0 <= ref.index < len(taxonomy.taxa) else None
    if name is not None and "cwe" in name.lower():
        return in_value(identifier)
    return in_text(identifier or "")


def _taxonomy(ref: DescriptorRef, taxonomies: Sequence[Component]) -> Component | None:
    component = ref.tool_component
    if component is None:
        return None
    if component.index is not None and 0 <= component.index < len(taxonomies):
        return taxonomies[component.index]
    for taxonomy in taxonomies:
        if component.guid is not None and component.guid == taxonomy.guid:
            return taxonomy
        if component.name is not None and component.name == taxonomy.name:
            return taxonomy
    return None


def of_rule(rule: Descriptor, taxonomies: Sequence[Component]) -> tuple[str, ...]:
    """The weaknesses of a rule: by its relationships, properties and tags, else by its own name."""
    targets = [relationship.target for relationship in rule.relationships or ()]
    found = in_references(targets, taxonomies) + in_bag(rule.properties)
    return unique(found or in_text(rule.id or ""))


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names without repeats, in order."""
    return tuple(dict.fromkeys(names))
