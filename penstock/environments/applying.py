"""Environments as a YAML file: read, written, and put into force."""

from collections.abc import Iterable

import attrs
import sqlalchemy as sa
import yaml
from pydantic import ValidationError

from penstock.environments.model import Environment, NamedRules, written_out
from penstock.environments.store import Outcome, put
from penstock.errors import SpecError
from penstock.pipeline.complaints import in_words, suggestion
from penstock.pipeline.document import Document, read_document

KEY = "environments"


@attrs.frozen
class Applied:
    """What came of one environment of a file."""

    environment: Environment
    outcome: Outcome


def read_environments(data: bytes, file: str) -> tuple[NamedRules, ...]:
    """
    The environments of a YAML file with `environments:`, a list.

    data: UTF-8. file: what errors call it. Raises: SpecError for the first thing that is wrong: line, what, remedy.
    """
    document = read_document(data, file)
    values = document.values()
    if unknown := sorted(values.keys() - {KEY}):
        raise SpecError(
            f'"{unknown[0][:60]}" is not known here',
            where=document.where((unknown[0],)),
            remedy=suggestion(unknown[0], [KEY]),
        )
    listed = values.get(KEY)
    if not isinstance(listed, list) or not listed:
        raise SpecError(
            "there are no environments", where=document.where((KEY,)), remedy=f"list at least one under `{KEY}:`"
        )
    found = tuple(_read(document, at, one) for at, one in enumerate(listed))
    for at, one in enumerate(found):
        if one.name in {other.name for other in found[:at]}:
            raise SpecError(f'"{one.name}" is here twice', where=document.where((KEY, at)), remedy="keep one")
    return found


def _read(document: Document, at: int, values: object) -> NamedRules:
    try:
        return NamedRules.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        what, remedy = in_words(first, NamedRules)
        inner = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
        raise SpecError(what, where=document.where((KEY, at, *inner)), remedy=remedy) from error


def write_environments(found: Iterable[Environment]) -> str:
    """The same as `read_environments` reads; what is as by default is left out."""
    written = [{"name": one.name, **written_out(one.rules)} for one in found]
    text: str = yaml.safe_dump({KEY: written}, sort_keys=False, allow_unicode=True)
    return text


def apply_environments(connection: sa.Connection, wanted: Iterable[NamedRules], by: str) -> tuple[Applied, ...]:
    """
    Make or change each, all or none; those that the file does not name stay.

    Raises: InputError for an order that cannot be.
    """
    left, done = list(wanted), list[Applied]()
    while left:
        ready = _next(left)
        left.remove(ready)
        environment, outcome = put(connection, ready, by)
        done.append(Applied(environment, outcome))
    return tuple(done)


def _next(left: list[NamedRules]) -> NamedRules:
    """One whose predecessors are not still to come; of a circle, any."""
    names = {one.name for one in left}
    return next((one for one in left if not names & set(one.order.after)), left[0])
