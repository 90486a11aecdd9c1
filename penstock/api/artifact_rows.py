"""What is on record of artifacts: found, added, and who still needs one."""

import uuid
from collections.abc import Mapping
from typing import Any

import attrs
import sqlalchemy as sa

from penstock.api.access import record_in
from penstock.api.models import ArtifactOut, ArtifactQuery
from penstock.api.paging import read_cursor, write_cursor
from penstock.artifacts.retention import Policy, list_records
from penstock.errors import NotFoundError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.records import UNFINISHED
from penstock.state.tables import artifacts, releases, runs

# Of an artifact that no step put out: it is of no run.
SENT_RUN, SENT_STEP = "sent:", "sent"
_SERVING = ("pending", "live")


@attrs.frozen
class SentArtifact:
    """An artifact that somebody sent, whose bytes are in the store."""

    project: str
    commit: str
    ref: str
    key: str
    path: str
    digest: str
    size_bytes: int


def find(database: sa.Engine, query: ArtifactQuery) -> tuple[tuple[ArtifactOut, ...], str | None]:
    """
    One page, newest first, and the cursor of the next one; None when this is the last.

    Raises: InputError for a cursor that is none.
    """
    wanted = (
        sa.select(artifacts).where(*_conditions(query)).order_by(artifacts.c.created_at.desc(), artifacts.c.id.desc())
    )
    with database.connect() as connection:
        rows = connection.execute(wanted.limit(query.limit + 1)).mappings().all()
    page = rows[: query.limit]
    more = len(rows) > query.limit
    return tuple(map(_told, page)), write_cursor(page[-1]["created_at"], str(page[-1]["id"])) if more else None


def _conditions(query: ArtifactQuery) -> list[sa.ColumnElement[bool]]:
    equal = {
        artifacts.c.project: query.project,
        artifacts.c.ref: query.ref,
        artifacts.c.run_id: query.run,
        artifacts.c.step: query.step,
        artifacts.c.key: query.key,
        artifacts.c.digest: query.digest,
        artifacts.c.published: query.published,
    }
    found = [column == value for column, value in equal.items() if value is not None]
    if query.commit is not None:
        found.append(artifacts.c.commit.startswith(query.commit, autoescape=True))
    return [*found, _after(query.cursor)] if query.cursor is not None else found


def _after(cursor: str) -> sa.ColumnElement[bool]:
    at, key = read_cursor(cursor)
    number = int(key) if key.isascii() and key.isdecimal() and len(key) < 19 else 0
    return sa.tuple_(artifacts.c.created_at, artifacts.c.id) < sa.tuple_(
        sa.literal(at), sa.literal(number, sa.BigInteger)
    )


def of_run(database: sa.Engine, run_id: str) -> tuple[ArtifactOut, ...]:
    """Everything that a run put out, oldest first."""
    wanted = sa.select(artifacts).where(artifacts.c.run_id == run_id).order_by(artifacts.c.id)
    with database.connect() as connection:
        return tuple(_told(row) for row in connection.execute(wanted).mappings())


def of_step(database: sa.Engine, run_id: str, step: str, key: str) -> ArtifactOut:
    """Raises: NotFoundError with the nearest key."""
    found = {made.key: made for made in of_run(database, run_id) if made.step == step}
    if key not in found:
        what = f'step "{step}" of run "{run_id}" put out no "{key}"'
        raise NotFoundError(what, remedy=suggestion(key, found) if found else "see GET /api/v1/artifacts")
    return found[key]


def add(database: sa.Engine, sent: SentArtifact, actor: str) -> tuple[ArtifactOut, bool]:
    """
    Put an artifact that was sent on record, published, and in the audit.

    Returns: also whether it is new; the same one sent again is the one that is there.
    """
    values = attrs.asdict(sent)
    same = [artifacts.c.run_id.startswith(SENT_RUN), *(artifacts.c[name] == value for name, value in values.items())]
    new = {"run_id": f"{SENT_RUN}{uuid.uuid4()}", "step": SENT_STEP, "kind": "file", "published": True}
    with database.begin() as connection:
        if known := connection.execute(sa.select(artifacts).where(*same).limit(1)).mappings().first():
            return _told(known), False
        row = sa.insert(artifacts).values(**values, **new).returning(*artifacts.c)
        made = _told(connection.execute(row).mappings().one())
        record_in(connection, actor, "artifact.write", sent.digest, project=sent.project, key=sent.key)
    return made, True


def _told(row: Mapping[Any, Any]) -> ArtifactOut:
    values = {name: row[name] for name in ArtifactOut.model_fields}
    if values["run_id"].startswith(SENT_RUN):
        values |= {"run_id": None, "step": None}
    return ArtifactOut(**values)


def record_ids(database: sa.Engine, digest: str) -> tuple[int, ...]:
    """
    The records of an artifact.

    Raises: NotFoundError when it has none.
    """
    wanted = sa.select(artifacts.c.id).where(artifacts.c.digest == digest).order_by(artifacts.c.id)
    with database.connect() as connection:
        found = tuple(connection.execute(wanted).scalars())
    if not found:
        raise NotFoundError(f"no artifact {digest[:12]}… is on record", remedy="see GET /api/v1/artifacts")
    return found


def who_needs(database: sa.Engine, digest: str) -> str | None:
    """
    Why an artifact must stay: a release that serves, is about to or may come back, or a run that is not over.

    A run may take over what an earlier run of its commit put out.
    """
    serving = sa.select(releases).where(releases.c.digest == digest, releases.c.state.in_(_SERVING)).limit(1)
    same_commit = sa.and_(runs.c.project == artifacts.c.project, runs.c.commit == artifacts.c.commit)
    reading = sa.select(runs.c.id).join(artifacts, sa.or_(runs.c.id == artifacts.c.run_id, same_commit))
    reading = reading.where(artifacts.c.digest == digest, runs.c.state.in_(UNFINISHED)).limit(1)
    with database.connect() as connection:
        if release := connection.execute(serving).mappings().first():
            place = f"{release['project']}/{release['service']} in {release['environment']}"
            return f"{release['state']} release {release['number']} of {place} is made of it"
        if run := connection.execute(reading).scalar():
            return f"run {run} is not over and may need it"
    spared = any(record.digest == digest and record.spared for record in list_records(database, Policy()))
    return "a release that may come back needs it" if spared else None
