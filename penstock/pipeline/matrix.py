"""The matrix: a step that names `${{ matrix.x }}` runs once for each combination of values."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from penstock.errors import InputError, SpecError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.expressions import expressions_in
from penstock.pipeline.source import Source
from penstock.pipeline.spec import Matrix
from penstock.pipeline.templates import put_in_all

COMBINATIONS_LIMIT = 256
NAME_LIMIT = 63
_NAMED = re.compile(r"\bmatrix\s*\.")


@attrs.frozen
class Combinations(Sequence[Mapping[str, Any]]):
    """The combinations of a matrix, and how many of a step's run at once."""

    values: tuple[Mapping[str, Any], ...] = ()
    limit: int | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, at: Any) -> Any:
        return self.values[at]


def combinations(matrix: Matrix, source: Source) -> Combinations:
    """
    Every combination of the axes that is not excluded, then those that are included.

    Raises: SpecError when there are none, too many, or an exclusion names what is no axis.
    """
    axes = dict(matrix.__pydantic_extra__ or {})
    for axis, values in axes.items():
        if not values:
            raise SpecError(f'"{axis}" has no values', where=source.where((axis,)), remedy="give at least one")
    for at, one in enumerate(matrix.exclude):
        if unknown := [key for key in one if key not in axes]:
            where = source.where(("exclude", at))
            raise SpecError(f'"{unknown[0]}" is no axis', where=where, remedy=suggestion(unknown[0], axes))
    count = 1
    for values in axes.values():
        count *= len(values)
    if count + len(matrix.include) > COMBINATIONS_LIMIT:
        what = f"{count + len(matrix.include)} combinations are too many"
        raise SpecError(what, where=source.where(()), remedy=f"{COMBINATIONS_LIMIT} at most")
    products = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    kept = [one for one in products if not any(out.items() <= one.items() for out in matrix.exclude)]
    found = [*kept, *(dict(one) for one in matrix.include if one not in kept)]
    if not found:
        raise SpecError("the matrix has no combination", where=source.where(()), remedy="give an axis with values")
    return Combinations(tuple(found), matrix.limit)


def expand(sources: Sequence[Source], found: Sequence[Mapping[str, Any]]) -> list[Source]:
    """Each step that names the matrix, once per combination; who needs such a step needs all of it, or its own."""
    limit = found.limit if isinstance(found, Combinations) else None
    varied = {str(source.values.get("name")) for source in sources if found and _names_matrix(source.values)}
    names = {name: _names_of(name, found) for name in varied}
    expanded: list[Source] = []
    for source in sources:
        name = str(source.values.get("name"))
        if name not in varied:
            expanded.append(_needing(source, names, None))
            continue
        for at, values in enumerate(found):
            one = _put_in(source, values)
            combination = {"of": name, "values": dict(values), "limit": limit}
            own = attrs.evolve(one, values={**one.values, "name": names[name][at], "combination": combination})
            expanded.append(_needing(own, names, at))
    return expanded


def _names_matrix(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_names_matrix(one) for one in value.values())
    if isinstance(value, list):
        return any(_names_matrix(one) for one in value)
    return isinstance(value, str) and any(_NAMED.search(source) for source in expressions_in(value))


def _put_in(source: Source, values: Mapping[str, Any]) -> Source:
    document, path = source.places[0]
    try:
        return attrs.evolve(source, values=put_in_all(source.values, {"matrix": values}, document, path))
    except InputError as error:
        raise SpecError(error.what, where=source.where(()), remedy=error.remedy) from error


def _names_of(name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """`test-3-11-linux`: the step's name and its values; a number where that is not enough to tell them apart."""
    names: list[str] = []
    for values in found:
        words = (value if isinstance(value, str) else json.dumps(value) for value in values.values())
        slug = re.sub(r"[^a-z0-9_]+", "-", "-".join(words).lower()).strip("-")
        wanted = f"{name}-{slug}"[:NAME_LIMIT].rstrip("-")
        unique = wanted
        for number in itertools.count(2):
            if unique not in names:
                break
            unique = f"{wanted[: NAME_LIMIT - 4]}-{number}"
        names.append(unique)
    return names


def _needing(source: Source, names: Mapping[str, Sequence[str]], at: int | None) -> Source:
    needs = source.values.get("needs")
    if not isinstance(needs, list) or not any(isinstance(need, str) and need in names for need in needs):
        return source
    meant: list[Any] = []
    for need in needs:
        known = names.get(need) if isinstance(need, str) else None
        meant += [need] if known is None else known if at is None else [known[at]]
    return attrs.evolve(source, values={**source.values, "needs": meant})
