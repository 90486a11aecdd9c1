"""
Odd documents made regular: numbers where names belong, null where a list belongs, one thing for a list of one.

Only what msgspec refused comes here, so this may be slow; it must be right about what can be mended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from penstock.findings.model import Result

T = TypeVar("T")
_ESSENTIAL = frozenset(("ruleId", "message", "locations", "kind"))
_TEXT_KEY = {"Message": "text", "Text": "text", "ArtifactLocation": "uri", "AutomationDetails": "id"}


class Unmendable(ValueError):
    """A value that means nothing where it stands. Its text says where and what."""


def loads_loosely(raw: bytes) -> object:
    """
    JSON as some tools write it: control characters in strings, NaN, lone surrogates, bytes that are no UTF-8.

    Raises: ValueError if it is not even that; RecursionError if it is nested too deeply.
    """
    return json.loads(raw.decode("utf-8", "replace"), strict=False, parse_constant=lambda _: None)


def mend_result(raw: bytes) -> Result:
    """
    A result from its odd JSON.

    Raises: Unmendable if it is no object, if its rule, message or place mean nothing, or if it says nothing.
    """
    try:
        value = loads_loosely(raw)
    except (ValueError, RecursionError) as error:
        raise Unmendable(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unmendable(f"expected an object, got {_named(value)}")
    return convert(value, Result, _ESSENTIAL)


def mend_part(raw: bytes, kind: Any) -> Any:
    """
    A part of a run (its tool, its artifacts) from its odd JSON; what means nothing in it is left out.

    kind: a type of msgspec's. Raises: Unmendable if the whole means nothing.
    """
    try:
        value = loads_loosely(raw)
    except (ValueError, RecursionError) as error:
        raise Unmendable(f"not JSON: {error}") from error
    return msgspec.convert(_mend(value, inspect.type_info(kind), ""), kind)


def convert(value: dict[str, Any], kind: type[T], essential: frozenset[str]) -> T:
    """A struct from a mapping. Raises: Unmendable if an essential field means nothing; others are left out."""
    return msgspec.convert(_mend_struct(value, _fields(cast(Any, kind)), "", essential), kind)


@cache
def _fields(kind: Any) -> dict[str, inspect.Type]:
    info = inspect.type_info(kind)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{kind} is no struct")
    return {field.encode_name: field.type for field in info.fields}


def _mend(value: Any, info: inspect.Type, where: str) -> Any:
    if isinstance(info, inspect.UnionType):
        if value is None:
            return None
        info = next(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    mender = _MENDERS.get(type(info))
    return mender(value, info, where) if mender is not None else value


def _mend_text(value: Any, _: inspect.Type, where: str) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unmendable(f"{where}: expected text, got {_named(value)}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _mend_number(value: Any, info: inspect.Type, where: str) -> int | float:
    whole = isinstance(info, inspect.IntType)
    try:
        number = float(value)
        if isinstance(value, bool) or (whole and not number.is_integer()):
            raise ValueError
        return int(number) if whole else number
    except (ValueError, TypeError, OverflowError):
        raise Unmendable(f"{where}: expected a number, got {_named(value)}") from None


def _mend_bool(value: Any, _: inspect.Type, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    raise Unmendable(f"{where}: expected true or false, got {_named(value)}")


def _mend_list(value: Any, info: inspect.ListType, where: str) -> list[Any]:
    if isinstance(value, dict) and isinstance(_plain(info.item_type), inspect.StructType):
        value = [value]
    if not isinstance(value, list):
        raise Unmendable(f"{where}: expected a list, got {_named(value)}")
    empty: Any = {} if isinstance(_plain(info.item_type), inspect.StructType) else ""
    items = [empty if item is None else item for item in value]  # a hole keeps its index
    return [_mend(item, info.item_type, f"{where}[{number}]") for number, item in enumerate(items)]


def _mend_dict(value: Any, info: inspect.DictType, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unmendable(f"{where}: expected an object, got {_named(value)}")
    return {
        _mend_text(key, info, where): _mend(item, info.value_type, f"{where}.{key}")
        for key, item in value.items()
        if item is not None
    }


def _mend_inner(value: Any, info: inspect.StructType, where: str) -> dict[str, Any]:
    key = _TEXT_KEY.get(info.cls.__name__)
    if isinstance(value, (str, int)) and not isinstance(value, bool) and key is not None:
        value = {key: value}
    if not isinstance(value, dict):
        raise Unmendable(f"{where}: expected an object, got {_named(value)}")
    return _mend_struct(value, _fields(info.cls), where, frozenset())


def _mend_struct(
    value: dict[str, Any], fields: dict[str, inspect.Type], where: str, essential: frozenset[str]
) -> dict[str, Any]:
    mended: dict[str, Any] = {}
    for name, info in fields.items():
        item = value.get(name)
        if item is None:
            continue
        try:
            mended[name] = _mend(item, info, f"{where}.{name}".lstrip("."))
        except Unmendable:
            if name in essential:
                raise
    return mended


def _plain(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.UnionType):
        return next(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    return info


def _mend_raw(value: Any, _: inspect.Type, __: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, ensure_ascii=True).encode())


def _named(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_MENDERS: dict[type[inspect.Type], Callable[[Any, Any, str], Any]] = {
    inspect.StrType: _mend_text,
    inspect.IntType: _mend_number,
    inspect.FloatType: _mend_number,
    inspect.BoolType: _mend_bool,
    inspect.ListType: _mend_list,
    inspect.DictType: _mend_dict,
    inspect.StructType: _mend_inner,
    inspect.RawType: _mend_raw,
}
