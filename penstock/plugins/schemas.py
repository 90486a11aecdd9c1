"""
JSON Schema (draft 2020-12) of what plugins take and give: checked itself, and values held against it.

No schema is ever fetched: `$ref` leads into the same schema or nowhere. Patterns are those of a machine whose time
grows with the text alone, so that no plugin can keep Penstock busy with a pattern.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from penstock.errors import InputError
from penstock.pipeline.complaints import shortened, suggestion

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

Schema = Mapping[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
MANY = 20
SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})


@attrs.frozen
class Complaint:
    """Where something is wrong (`inputs.limit`), what, and the remedy."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return str(InputError(self.what, where=self.where or None, remedy=self.remedy))


def check_schema(schema: object, where: str) -> Iterator[Complaint]:
    """What is wrong with a schema itself."""
    if not isinstance(schema, dict):
        yield Complaint(where, "expected a JSON Schema", "write a mapping such as {type: string}")
        return
    broken = list(_checker().iter_errors(schema))[:MANY]
    for error in broken:
        yield Complaint(_place(where, error), shortened(error.message), "write JSON Schema, draft 2020-12")
    if not broken:
        yield from _check_words(schema, where)


def _check_words(schema: object, where: str) -> Iterator[Complaint]:
    for path, key, value in _words(schema, where):
        if key == "$schema" and value != DRAFT:
            yield Complaint(path, "another draft of JSON Schema", f"write {DRAFT}, or leave $schema out")
        elif key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            yield Complaint(path, f'"{shortened(value)}" is no part of this schema', "write #/$defs/… alone")
        elif key == "pattern" and isinstance(value, str) and not _is_pattern(value):
            yield Complaint(path, f'the pattern "{shortened(value)}" cannot be used', "leave out look-around and \\1")
        elif key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                if not _is_pattern(pattern):
                    yield Complaint(path, f'the pattern "{shortened(pattern)}" cannot be used', "write a simpler one")


def _words(value: object, where: str) -> Iterator[tuple[str, str, object]]:
    todo: list[tuple[str, object]] = [(where, value)]
    while todo:
        path, one = todo.pop()
        if isinstance(one, dict):
            for key, inner in one.items():
                yield f"{path}.{key}", str(key), inner
                if key not in ("const", "enum", "default", "examples"):
                    todo.append((f"{path}.{key}", inner))
        elif isinstance(one, list):
            todo += [(path, inner) for inner in one]


def check_value(schema: Schema, value: object, where: str) -> list[Complaint]:
    """What of a value does not fit its schema; the first ones."""
    return checker(schema)(value, where)


def checker(schema: Schema) -> Callable[[object, str], list[Complaint]]:
    """As `check_value`, made ready for many values of one schema."""
    validator = _validator(schema)

    def check(value: object, where: str) -> list[Complaint]:
        try:
            return [_in_words(error, where) for error in islice(validator.iter_errors(value), MANY)]
        except RecursionError:
            return [Complaint(where, "nested too deeply", "flatten it")]

    return check


def closed(schema: Schema) -> dict[str, Any]:
    """The schema of an object, which knows no other names than it lists unless it says so itself."""
    whole = {"type": "object", "properties": {}, **schema}
    return whole if {"additionalProperties", "unevaluatedProperties"} & set(whole) else whole | _NO_MORE


_NO_MORE = {"additionalProperties": False}


def _in_words(error: "ValidationError", where: str) -> Complaint:
    place = _place(where, error)
    names = list((error.schema.get("properties") or {}) if isinstance(error.schema, dict) else {})
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        word = next((one for one in error.instance if one not in names), "")
        return Complaint(f"{place}.{shortened(word)}", "is not known", suggestion(str(word), names))
    if error.validator == "required":
        missing = next((one for one in error.validator_value if one not in error.instance), "")
        return Complaint(f"{place}.{missing}", "is missing", "add it")
    if error.validator == "type":
        wanted = error.validator_value
        kinds = " or ".join(wanted) if isinstance(wanted, list) else str(wanted)
        return Complaint(place, f"{_shown(error.instance)} is no {kinds}", f"give a {kinds}")
    if error.validator == "enum":
        allowed = ", ".join(map(str, error.validator_value[:10]))
        return Complaint(place, f"{_shown(error.instance)} cannot stand here", f"one of {allowed}")
    return Complaint(place, shortened(error.message), "see the plugin's manifest")


def _shown(value: object) -> str:
    return f'"{shortened(value)}"' if isinstance(value, str | int | float | bool) else f"a {_KINDS.get(type(value))}"


_KINDS: Mapping[type[object], str] = {dict: "mapping", list: "list", type(None): "null"}


def _place(where: str, error: "ValidationError") -> str:
    parts: Sequence[object] = [where, *error.absolute_path] if where else list(error.absolute_path)
    return ".".join(shortened(part) for part in parts)


@cache
def _kind() -> Any:
    """Draft 2020-12, with patterns of our own and whole numbers that are whole."""
    from jsonschema import Draft202012Validator, TypeChecker
    from jsonschema.validators import extend

    def is_integer(_: TypeChecker, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    return extend(
        Draft202012Validator, {"pattern": _pattern, "patternProperties": _pattern_properties}, type_checker=types
    )


def _validator(schema: Schema) -> "Validator":
    from referencing import Registry

    # An empty registry of its own: the library would otherwise fetch what a `$ref` names.
    found: Validator = _kind()(schema, registry=Registry())
    return found


@cache
def _checker() -> "Validator":
    from jsonschema import Draft202012Validator

    found: Validator = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    return found


def _pattern(_: Any, pattern: str, value: object, __: object) -> "Iterator[ValidationError]":
    from jsonschema import ValidationError

    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f'"{shortened(value)}" does not match {pattern}')


def _pattern_properties(
    validator: Any, patterns: Mapping[str, object], value: object, __: object
) -> "Iterator[ValidationError]":
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for name, one in value.items():
                if _matches(pattern, name):
                    yield from validator.descend(one, inner, path=name, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool:
    import cel

    return bool(_matcher().execute(cel.Context({"text": text, "pattern": pattern})))


def _is_pattern(pattern: str) -> bool:
    try:
        _matches(pattern, "")
    except (ValueError, RuntimeError, TypeError):
        return False
    return True


@cache
def _matcher() -> Any:
    import cel

    return cel.compile("text.matches(pattern)")
