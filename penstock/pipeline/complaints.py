"""Pydantic's findings about a penstock.yaml, said in the file's own words: what is wrong, and the remedy."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from penstock.pipeline.spec import PATTERNS_IN_WORDS

SHOWN = 60

_LIST = ("expected a list", "write [a, b], or one per line after a dash")
_MAPPING = ("expected a mapping", "write `key: value` lines")
_WHOLE = ("expected a whole number", "write one without quotes, such as 3")
_KINDS = {
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "string_type": ("expected a text", 'put it in quotes, such as "5"'),
    "bool_type": ("expected true or false", "write true or false"),
    "bool_parsing": ("expected true or false", "write true or false"),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": ("expected a number", "write one without quotes, such as 1.5"),
    "float_parsing": ("expected a number", "write one without quotes, such as 1.5"),
    "missing": ("is missing", "add it"),
}


def shortened(text: object) -> str:
    """What somebody wrote, fit for one line of a message: printable, and not longer than a line."""
    words = _printable(str(text)[: SHOWN + 1])
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean "build"?`, or the list of what there is."""
    names = list(known)
    close = difflib.get_close_matches(word[: 2 * SHOWN], names, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there are: {', '.join(names[:10]) or 'none'}{more}"


def in_words(error: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str | None]:
    """
    What is wrong and what to do about it.

    error: one of pydantic's `errors()` of `model`.
    """
    kind, limits = error["type"], error.get("ctx", {})
    if kind in _KINDS:
        what, remedy = _KINDS[kind]
        return (f'"{error["loc"][-1]}" is missing' if kind == "missing" else what), remedy
    if kind == "extra_forbidden":
        word = str(error["loc"][-1])
        return f'"{shortened(word)}" is not known here', suggestion(word, _names_at(model, error["loc"][:-1]))
    if kind == "literal_error":
        return f'"{shortened(error["input"])}" cannot stand here', f"write {limits['expected']}"
    if kind == "string_pattern_mismatch":
        pattern = limits["pattern"]
        what = f'"{shortened(error["input"])}" cannot stand here'
        return what, PATTERNS_IN_WORDS.get(pattern, f"write what matches {pattern}")
    return _bounds(kind, limits) or _own_words(error["msg"])


def _bounds(kind: str, limits: Mapping[str, Any]) -> tuple[str, str] | None:
    if kind == "too_short":
        return "the list is empty", f"give at least {limits['min_length']}"
    if kind == "too_long":
        return f"the list is longer than {limits['max_length']}", "split it"
    for name, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if name in limits:
            return "the number is out of bounds", f"give {words} {limits[name]:g}"
    return None


def _own_words(message: str) -> tuple[str, str | None]:
    """A validator of ours has said the remedy too."""
    what, _, remedy = _printable(message.removeprefix("Value error, ")).rpartition("; ")
    return (what[:1].lower() + what[1:], remedy) if what else (remedy[:1].lower() + remedy[1:], "mend it")


def _names_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The fields of the model that stands at `path` below `model`."""
    for part in path:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        nested = _model_in(field.annotation) if field else None
        model = nested or model
    return [field.alias or name for name, field in model.model_fields.items() if name != "combination"]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
