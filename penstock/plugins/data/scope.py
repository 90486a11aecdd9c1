"""Who told something, and how much of it was taken."""

import unicodedata

import attrs

from penstock.errors import InputError

LONGEST = 400


def _name(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not value or len(value) > LONGEST or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise InputError("this is no name: 1 to 400 printable characters", where=f"plugin data: {attribute.name}")


@attrs.frozen
class Scope:
    """
    One plugin in one step of one run: what its token is bound to, and whose rows it writes.

    tenant, project: the only ones whose rows it can read. commit: the full hash.
    Raises: InputError for a name that is empty, too long or not printable.
    """

    tenant: str = attrs.field(validator=_name)
    project: str = attrs.field(validator=_name)
    run_id: str = attrs.field(validator=_name)
    step: str = attrs.field(validator=_name)
    commit: str = attrs.field(validator=_name)
    plugin: str = attrs.field(validator=_name)
    environment: str | None = attrs.field(default=None, validator=attrs.validators.optional(_name))


@attrs.frozen
class Taken:
    """
    What became of the lines that were sent.

    accepted: they are in PostgreSQL, on disk. rejected: they are not, each for one of the `reasons` (the first ones).
    is_cut: a limit of the step was reached, and what came after it was not read; the last reason says which.
    """

    accepted: int
    rejected: int = 0
    reasons: tuple[str, ...] = ()
    is_cut: bool = False
