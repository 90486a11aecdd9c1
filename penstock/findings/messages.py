"""What a finding says, from a text or from a rule's message strings with arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.findings.model import Component, Descriptor, Message, Text

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(\d{1,4})\}")


def fill(template: str, arguments: Sequence[str]) -> str:
    """Put arguments for {0}, {1}, …; `{{` and `}}` are braces. A place without an argument stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        number = int(match[1])
        return arguments[number] if number < len(arguments) else match[0]

    return _PLACEHOLDER.sub(value, template)


def message_text(message: Message | None, rule: Descriptor | None, components: Sequence[Component]) -> str:
    """The message of a result; what the rule says of itself where the result says nothing. SARIF 2.1.0, 3.11."""
    if message is not None:
        found = _own_text(message, rule, components)
        if found:
            return found
    return rule_text(rule)


def _own_text(message: Message, rule: Descriptor | None, components: Sequence[Component]) -> str | None:
    arguments = message.arguments or ()
    if message.text:
        return fill(message.text, arguments) if arguments else message.text
    if message.id is not None:
        named = _named_text(message.id, rule, components)
        if named:
            return fill(named, arguments)
    if message.markdown:
        return fill(message.markdown, arguments) if arguments else message.markdown
    return " ".join(arguments) or None


def _named_text(name: str, rule: Descriptor | None, components: Sequence[Component]) -> str | None:
    tables = [rule.message_strings if rule else None, *(one.global_message_strings for one in components)]
    for table in tables:
        if table and (found := table.get(name)) is not None:
            return found.text or found.markdown
    return None


def rule_text(rule: Descriptor | None) -> str:
    """What a rule says of itself, in a line; "" if nothing."""
    if rule is None:
        return ""
    for text in (rule.short_description, rule.full_description, rule.help):
        if found := plain(text):
            return found
    return rule.name or rule.id or ""


def plain(text: Text | None) -> str | None:
    """The text of a multiformat string."""
    return None if text is None else (text.text or text.markdown or None)
