"""
Environments as rows: made, changed, held, let go and removed, each with its row in the audit, both or neither.

Who changes one says which version they have seen; of two who have seen the same one, the second is refused.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert

from penstock.environments.differing import difference
from penstock.environments.model import Environment, Freeze, Hold, NamedRules, Rules, default_rules, written_out
from penstock.environments.rules import Lifted
from penstock.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from penstock.people.audit import record_in
from penstock.people.groups import members_of
from penstock.pipeline.complaints import in_words, suggestion
from penstock.pipeline.log import utc_now
from penstock.state.environment_tables import OTHER, PRODUCTION, deployment_waits, environments, freeze_overrides
from penstock.state.tables import releases

OURSELVES = "Penstock"
_table = environments


class OutdatedError(ConflictError):
    """Somebody has changed it since it was read."""


@attrs.frozen
class Wanted:
    """Which environments. Each that is not None must hold. after: the name at which the page before ended."""

    group: str | None = None
    production: bool | None = None
    target: str | None = None
    prefix: str | None = None
    after: str | None = None
    limit: int = 1000


def list_environments(connection: sa.Connection, wanted: Wanted | None = None) -> tuple[Environment, ...]:
    """By name."""
    wanted = wanted or Wanted()
    kind = None if wanted.production is None else PRODUCTION if wanted.production else OTHER
    given = [
        _table.c.group == wanted.group if wanted.group is not None else None,
        _table.c.type == kind if kind else None,
        _table.c.target == wanted.target if wanted.target is not None else None,
        _table.c.name.startswith(wanted.prefix, autoescape=True) if wanted.prefix else None,
        _table.c.name > wanted.after if wanted.after else None,
    ]
    query = sa.select(_table).where(*(one for one in given if one is not None)).order_by(_table.c.name)
    return tuple(_environment(row) for row in connection.execute(query.limit(wanted.limit)).mappings())


def find_environment(connection: sa.Connection, name: str) -> Environment | None:
    """None when there is none of that name."""
    row = connection.execute(sa.select(_table).where(_table.c.name == name)).mappings().first()
    return None if row is None else _environment(row)


def get_environment(connection: sa.Connection, name: str) -> Environment:
    """Raises: NotFoundError."""
    if found := find_environment(connection, name):
        return found
    raise _unknown(connection, name)


def add(connection: sa.Connection, new: NamedRules, by: str) -> Environment:
    """Raises: ConflictError when there is one of that name; InputError for an order that cannot be."""
    made = _insert(connection, new.name, new.rules(), by)
    if made is None:
        raise ConflictError(f'there is an environment "{new.name}" already', remedy="change it, or take another name")
    _check_order(connection, new.name, new.rules())
    record_in(connection, by, "environment.add", new.name, rules=written_out(new.rules()), version=1)
    return made


def ensure(connection: sa.Connection, name: str) -> Environment:
    """The environment; one that nobody has made is made with what everybody would expect of its name."""
    if found := find_environment(connection, name):
        return found
    if made := _insert(connection, name, default_rules(name), OURSELVES):
        record_in(connection, OURSELVES, "environment.add", name, why="its first deployment", version=1)
        return made
    return get_environment(connection, name)


def _insert(connection: sa.Connection, name: str, rules: Rules, by: str) -> Environment | None:
    row = insert(_table).values(name=name, rules=rules.model_dump(mode="json"), created_by=by, changed_by=by)
    made = connection.execute(row.on_conflict_do_nothing().returning(*_table.c)).mappings().first()
    return None if made is None else _environment(made)


def change(connection: sa.Connection, name: str, rules: Rules, by: str, *, version: int | None) -> Environment:
    """
    Replace the rules; what waits there is looked at again. The same rules again are no change.

    version: the one that was read; None whatever it is.
    Raises: NotFoundError, OutdatedError, InputError.
    """
    before = _locked(connection, name, version)
    if before.rules == rules:
        return before
    _check_order(connection, name, rules)
    after = _write(connection, before, by, rules=rules.model_dump(mode="json"))
    told = difference(before.rules.model_dump(mode="json"), rules.model_dump(mode="json"))
    record_in(connection, by, "environment.edit", name, change=told, version=after.version)
    look_again(connection, name)
    return after


def remove(connection: sa.Connection, name: str, by: str, *, version: int | None) -> None:
    """
    Forget the rules. What was released there stays on record.

    Raises: NotFoundError, OutdatedError; ConflictError while a release is live or on its way there, or another
    environment comes after it.
    """
    before = _locked(connection, name, version)
    live = sa.select(releases.c.project, releases.c.service, releases.c.number, releases.c.state).where(
        releases.c.environment == name, releases.c.state.in_(("live", "pending"))
    )
    if row := connection.execute(live.limit(1)).first():
        what = f"release {row.number} of {row.project}/{row.service} is {row.state} there"
        raise ConflictError(what, where=f"environment {name}", remedy="stop what runs there first")
    followers = [one.name for one in list_environments(connection) if name in one.rules.order.after]
    if followers:
        raise ConflictError(f"{followers[0]} comes after it", where=f"environment {name}", remedy="change that first")
    connection.execute(sa.delete(_table).where(_table.c.name == name))
    record_in(connection, by, "environment.remove", name, rules=written_out(before.rules), version=before.version)


def hold(connection: sa.Connection, name: str, by: str, why: str, *, version: int | None = None) -> Environment:
    """No run deploys there until it is let go. Raises: NotFoundError, OutdatedError; ConflictError when it is held."""
    before = _locked(connection, name, version)
    if before.hold:
        raise ConflictError(f"it is held by {before.hold.by} already", where=f"environment {name}")
    after = _write(connection, before, by, held_by=by, held_why=_line(why, "why"), held_at=utc_now())
    record_in(connection, by, "environment.hold", name, why=why, version=after.version)
    return after


def let_go(connection: sa.Connection, name: str, by: str, *, version: int | None = None) -> Environment:
    """What waits there goes on. Raises: NotFoundError, OutdatedError; ConflictError when it is not held."""
    before = _locked(connection, name, version)
    if before.hold is None:
        raise ConflictError("nobody holds it", where=f"environment {name}")
    after = _write(connection, before, by, held_by=None, held_why="", held_at=None)
    record_in(connection, by, "environment.release", name, held_by=before.hold.by, version=after.version)
    look_again(connection, name)
    return after


def lift(connection: sa.Connection, name: str, freeze: str, by: str, *, why: str) -> Lifted:
    """
    Lift a freeze until it would end by itself, this once.

    Raises: NotFoundError; ForbiddenError for who is not on its list; ConflictError when it does not hold now;
    InputError without a reason.
    """
    environment = get_environment(connection, name)
    found = _freeze(environment, freeze)
    where = f"freeze {freeze} of {name}"
    if not _line(why, "why").strip():
        raise InputError("a reason is missing", where=where, remedy="say why; it is kept")
    if by not in found.users and not any(by in members for members in members_of(connection, found.groups).values()):
        listed = [*found.users, *(f"the group {group}" for group in found.groups)]
        remedy = f"ask {' or '.join(listed)}" if listed else "nobody is on its list; change the environment's rules"
        raise ForbiddenError(f'"{by}" may not lift it', where=where, remedy=remedy)
    until = found.holds_until(utc_now())
    if until is None:
        raise ConflictError("it does not hold now", where=where, remedy="there is nothing to lift")
    row = {"environment": name, "freeze": freeze, "person": by, "why": why, "until": until}
    connection.execute(sa.insert(freeze_overrides).values(row))
    record_in(connection, by, "environment.lift", name, freeze=freeze, why=why, until=until.isoformat())
    look_again(connection, name)
    return Lifted(freeze, until)


def lifted(connection: sa.Connection, name: str, now: datetime) -> tuple[Lifted, ...]:
    """The freezes of an environment that are lifted at the moment."""
    wanted = sa.select(freeze_overrides.c.freeze, freeze_overrides.c.until).where(
        freeze_overrides.c.environment == name, freeze_overrides.c.until > now
    )
    return tuple(Lifted(row.freeze, row.until) for row in connection.execute(wanted.order_by(freeze_overrides.c.id)))


def look_again(connection: sa.Connection, name: str) -> None:
    """What waits there is asked about anew: its reason may be gone."""
    waits = (deployment_waits.c.environment == name, deployment_waits.c.went_on_in.is_(None))
    connection.execute(sa.update(deployment_waits).where(*waits).values(look_at=sa.func.now()))


def checked(values: object, *, where: str, model: type[Rules] = NamedRules) -> Any:
    """
    Plain values as rules. Returns: a `model`.

    Raises: InputError that says where, what and the remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        what, remedy = in_words(first, model)
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(what, where=f"{where}: {place}" if place else where, remedy=remedy) from error


def _freeze(environment: Environment, name: str) -> Freeze:
    found = environment.rules.freeze(name)
    if found is None:
        remedy = suggestion(name, [one.name for one in environment.rules.freezes])
        raise NotFoundError(f'{environment.name} has no freeze "{name[:60]}"', remedy=remedy)
    return found


def _locked(connection: sa.Connection, name: str, version: int | None) -> Environment:
    row = connection.execute(sa.select(_table).where(_table.c.name == name).with_for_update()).mappings().first()
    if row is None:
        raise _unknown(connection, name)
    if version is not None and row["version"] != version:
        what = f"it is at version {row['version']} by now, changed by {row['changed_by']}, not at {version}"
        raise OutdatedError(what, where=f"environment {name}", remedy="look at it again")
    return _environment(row)


def _unknown(connection: sa.Connection, name: str) -> NotFoundError:
    known = connection.execute(sa.select(_table.c.name).order_by(_table.c.name)).scalars().all()
    return NotFoundError(f'no environment is called "{name[:80]}"', remedy=suggestion(name, known))


def _write(connection: sa.Connection, before: Environment, by: str, **values: Any) -> Environment:
    changed = {"version": before.version + 1, "changed_by": by, "changed_at": utc_now()}
    update = sa.update(_table).where(_table.c.name == before.name).values(**values, **changed)
    return _environment(connection.execute(update.returning(*_table.c)).mappings().one())


def _check_order(connection: sa.Connection, name: str, rules: Rules) -> None:
    """Raises: InputError for a predecessor that is not there, or a circle."""
    after = {one.name: one.rules.order.after for one in list_environments(connection)} | {name: rules.order.after}
    for predecessor in rules.order.after:
        if predecessor not in after:
            remedy = suggestion(predecessor, sorted(after.keys() - {name}))
            raise InputError(f'no environment is called "{predecessor}"', where=f"{name}: order.after", remedy=remedy)
    seen, ahead = set[str](), list(rules.order.after)
    while ahead:
        if (one := ahead.pop()) == name:
            remedy = "no environment can come after itself"
            raise InputError("the order goes round in a circle", where=f"{name}: order.after", remedy=remedy)
        if one not in seen:
            seen.add(one)
            ahead += after.get(one, ())


def _line(text: str, where: str) -> str:
    if len(text) > 500 or any(not character.isprintable() for character in text):
        raise InputError("this is no line of text", where=where, remedy="write at most 500 printable characters")
    return text


def _environment(row: Mapping[Any, Any]) -> Environment:
    held = Hold(row["held_by"], row["held_why"], row["held_at"]) if row["held_by"] else None
    names = ("name", "version", "created_by", "created_at", "changed_by", "changed_at")
    return Environment(rules=Rules.model_validate(row["rules"]), hold=held, **{name: row[name] for name in names})


Outcome = Literal["added", "changed", "unchanged"]


def put(connection: sa.Connection, new: NamedRules, by: str) -> tuple[Environment, Outcome]:
    """Make it, or bring it to these rules. Raises: as `add` and `change`."""
    before = find_environment(connection, new.name)
    if before is None:
        return add(connection, new, by), "added"
    after = change(connection, new.name, new.rules(), by, version=None)
    return after, "unchanged" if after.version == before.version else "changed"
