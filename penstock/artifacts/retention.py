"""
What is kept of artifacts and caches, and for how long.

A sweep takes records away first, each with the verdict and the known result that rest on it, in one transaction: a
later run then makes them again instead of missing them. Bytes go afterwards, when no record needs them. It may be cut
off anywhere; the next one goes on.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa

from penstock.artifacts.store import ArtifactStore
from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.pipeline.records import UNFINISHED
from penstock.state.plugin_tables import installed_plugins
from penstock.state.tables import artifacts, caches, releases, results, runs, verdicts

# Blobs are written before they are recorded: what is younger is never removed.
LEAST_GRACE = timedelta(hours=1)
LEFTOVERS_AFTER = timedelta(hours=1)
SWEEP_LOCK = 7_036_872  # an advisory lock's number: any, but always the same
_BATCH = 1_000


@attrs.frozen
class Policy:
    """
    What may go. Without limits nothing goes but bytes that no record needs.

    older_than, keep: a record goes when it is older and not among the newest `keep` of its project and key; one of the
    two alone is enough. total_bytes: beyond it the oldest records go, whatever `keep` says.
    releases: so many former releases of a service stay able to come back. cache_bytes: per project; beyond it the least
    recently used caches go. cache_unused: caches that nobody used for so long go. grace: no younger bytes are removed.
    """

    older_than: timedelta | None = None
    keep: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0)))
    total_bytes: int | None = None
    releases: int = 5
    cache_bytes: int | None = 10 * 1000**3
    cache_unused: timedelta | None = timedelta(days=30)
    grace: timedelta = timedelta(hours=24)

    def __attrs_post_init__(self) -> None:
        if self.grace < LEAST_GRACE:
            raise InputError(f"a grace period below {LEAST_GRACE} would take what runs are just storing")


@attrs.frozen
class Record:
    """One artifact on record. spared: something that lives needs it, and it stays."""

    id: int
    project: str
    key: str
    run_id: str
    step: str
    digest: str
    size_bytes: int
    created_at: datetime
    spared: bool


@attrs.frozen
class CacheRecord:
    """One cache on record."""

    project: str
    scope: str
    key: str
    digest: str
    size_bytes: int
    used_at: datetime


@attrs.frozen
class Swept:
    """What a sweep took, or would take. over_bytes: by how much what is spared exceeds the limit."""

    records: tuple[Record, ...]
    caches: tuple[CacheRecord, ...]
    blobs: int
    size_bytes: int
    leftovers: int
    over_bytes: int = 0


def sweep(
    database: sa.Engine,
    store: ArtifactStore,
    policy: Policy,
    now: datetime,
    *,
    reports: Collection[str],
    dry_run: bool = False,
) -> Swept:
    """
    Take what the policy lets go.

    reports: digests that the warehouse refers to; they stay, so that its tables can be built again.
    Raises: ConflictError when another sweep is at work, PlatformError.
    """
    with _alone(database):
        known = list_records(database, policy)
        going, over = expired(known, policy, now)
        unused = evicted(_cache_records(database), policy, now)
        if not dry_run:
            going = _forget(database, going)
            _forget_caches(database, unused)
        gone = {record.id for record in going}
        kept = {record.digest for record in known if record.id not in gone}
        kept |= {cache.digest for cache in _cache_records(database) if cache not in unused}
        kept |= _release_digests(database, policy)
        kept |= _plugin_digests(database)
        blobs, size = _remove_blobs(database, store, now - policy.grace, kept | set(reports), dry_run=dry_run)
        leftovers = 0 if dry_run else store.sweep_leftovers(now - LEFTOVERS_AFTER)
        return Swept(going, unused, blobs, size, leftovers, over)


def expired(records: Sequence[Record], policy: Policy, now: datetime) -> tuple[tuple[Record, ...], int]:
    """Those that go, oldest first, and by how many bytes the rest exceeds the limit all the same."""
    newest_first = sorted(records, key=lambda record: (record.created_at, record.id), reverse=True)
    going = [record for record in _beyond(newest_first, policy, now) if not record.spared]
    more, over = _beyond_size(newest_first, {record.id for record in going}, policy.total_bytes)
    return tuple(sorted((*going, *more), key=lambda record: (record.created_at, record.id))), over


def _beyond(newest_first: Iterable[Record], policy: Policy, now: datetime) -> Iterator[Record]:
    if policy.older_than is None and policy.keep is None:
        return
    rank: dict[tuple[str, str], int] = defaultdict(int)
    for record in newest_first:
        rank[record.project, record.key] += 1
        is_old = policy.older_than is None or now - record.created_at > policy.older_than
        if is_old and rank[record.project, record.key] > (policy.keep or 0):
            yield record


def _beyond_size(newest_first: Sequence[Record], gone: Collection[int], limit: int | None) -> tuple[list[Record], int]:
    """A blob of several records counts once, and is free only when all of them are gone."""
    left = [record for record in newest_first if record.id not in gone]
    users: dict[str, int] = defaultdict(int)
    for record in left:
        users[record.digest] += 1
    total = sum({record.digest: record.size_bytes for record in left}.values())
    going: list[Record] = []
    for record in reversed(left):
        if limit is None or total <= limit:
            break
        if not record.spared:
            going.append(record)
            users[record.digest] -= 1
            total -= 0 if users[record.digest] else record.size_bytes
    return going, max(0, total - limit) if limit is not None else 0


def evicted(records: Sequence[CacheRecord], policy: Policy, now: datetime) -> tuple[CacheRecord, ...]:
    """Caches that go: unused for long, and the least recently used of projects that have too much."""
    going = []
    sizes: dict[str, int] = defaultdict(int)
    for cache in sorted(records, key=lambda cache: cache.used_at, reverse=True):
        sizes[cache.project] += cache.size_bytes
        is_unused = policy.cache_unused is not None and now - cache.used_at > policy.cache_unused
        if is_unused or (policy.cache_bytes is not None and sizes[cache.project] > policy.cache_bytes):
            going.append(cache)
            sizes[cache.project] -= cache.size_bytes
    return tuple(going)


def list_records(database: sa.Engine, policy: Policy) -> tuple[Record, ...]:
    """Every artifact on record, and whether something that lives needs it."""
    columns = [getattr(artifacts.c, field.name) for field in attrs.fields(Record) if field.name != "spared"]
    wanted = sa.select(*columns, _is_spared(policy).label("spared")).order_by(artifacts.c.id)
    with database.connect() as connection:
        return tuple(Record(**row) for row in connection.execute(wanted).mappings())


def _is_spared(policy: Policy) -> sa.ColumnElement[bool]:
    """
    Everything of a run that a release which lives, or may come back, was made by; that very blob wherever it is; and
    everything of a commit that a run is working on.
    """
    kept = _kept_releases(policy).subquery()
    at_work = sa.exists().where(
        runs.c.state.in_(UNFINISHED),
        sa.or_(
            runs.c.id == artifacts.c.run_id,
            sa.and_(runs.c.project == artifacts.c.project, runs.c.commit == artifacts.c.commit),
        ),
    )
    of_release = sa.exists().where(
        sa.or_(
            kept.c.run_id == artifacts.c.run_id,
            sa.and_(kept.c.project == artifacts.c.project, kept.c.digest == artifacts.c.digest),
            sa.and_(kept.c.project == artifacts.c.project, kept.c.commit == artifacts.c.commit),
        )
    )
    return sa.or_(at_work, of_release)


def _kept_releases(policy: Policy) -> sa.Select[tuple[str, str, str, str]]:
    """Live, pending, and the newest former ones of each service; `rank` counts those that were live once."""
    of_service = (releases.c.environment, releases.c.project, releases.c.service)
    rank = sa.func.row_number().over(partition_by=of_service, order_by=releases.c.number.desc())
    former = sa.select(releases.c.id, rank.label("rank")).where(
        releases.c.state == "superseded", releases.c.live_at.is_not(None)
    )
    ranked = former.subquery()
    may_return = sa.select(ranked.c.id).where(ranked.c.rank <= policy.releases)
    columns = (releases.c.run_id, releases.c.project, releases.c.commit, releases.c.digest)
    return sa.select(*columns).where(sa.or_(releases.c.state.in_(("live", "pending")), releases.c.id.in_(may_return)))


def _release_digests(database: sa.Engine, policy: Policy) -> set[str]:
    kept = _kept_releases(policy).subquery()
    with database.connect() as connection:
        return set(connection.execute(sa.select(kept.c.digest)).scalars())


def _plugin_digests(database: sa.Engine) -> set[str]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(installed_plugins.c.digest)).scalars())


def _forget(database: sa.Engine, going: Sequence[Record]) -> tuple[Record, ...]:
    """Take records off, with the verdicts and results that rest on them. Returns: those that went."""
    gone: set[int] = set()
    for start in range(0, len(going), _BATCH):
        batch = going[start : start + _BATCH]
        with database.begin() as connection:
            gone |= _forget_batch(connection, batch)
    return tuple(record for record in going if record.id in gone)


def _forget_batch(connection: sa.Connection, batch: Sequence[Record]) -> set[int]:
    """A run that began meanwhile spares those of its commit."""
    at_work = sa.exists().where(
        runs.c.state.in_(UNFINISHED), runs.c.project == artifacts.c.project, runs.c.commit == artifacts.c.commit
    )
    ids = [record.id for record in batch]
    gone = connection.execute(sa.delete(artifacts).where(artifacts.c.id.in_(ids), ~at_work).returning(artifacts.c.id))
    found = set(gone.scalars())
    made_by = {(record.run_id, record.step) for record in batch if record.id in found}
    for table in (verdicts, results):
        connection.execute(sa.delete(table).where(sa.tuple_(table.c.run_id, table.c.step).in_(list(made_by))))
    return found


def _cache_records(database: sa.Engine) -> tuple[CacheRecord, ...]:
    columns = [getattr(caches.c, field.name) for field in attrs.fields(CacheRecord)]
    with database.connect() as connection:
        return tuple(CacheRecord(**row) for row in connection.execute(sa.select(*columns)).mappings())


def _forget_caches(database: sa.Engine, going: Sequence[CacheRecord]) -> None:
    """Not one that was used since."""
    with database.begin() as connection:
        for cache in going:
            names = ("project", "scope", "key", "used_at")
            connection.execute(sa.delete(caches).where(*(getattr(caches.c, n) == getattr(cache, n) for n in names)))


def _remove_blobs(
    database: sa.Engine, store: ArtifactStore, since: datetime, kept: Collection[str], *, dry_run: bool
) -> tuple[int, int]:
    """Returns: how many went, and their bytes."""
    count = size = 0
    for blob in store.blobs():
        if blob.digest in kept or blob.modified_at >= since:
            continue

        def is_needed(digest: str = blob.digest) -> bool:
            return is_recorded(database, digest)

        if dry_run or store.remove_unclaimed(blob.digest, since, is_needed):
            count, size = count + 1, size + blob.size_bytes
    return count, size


def is_recorded(database: sa.Engine, digest: str) -> bool:
    """Whether an artifact, a cache or an installed plugin is on record with that digest."""
    tables = (artifacts, caches, installed_plugins)
    found = [sa.exists().where(table.c.digest == digest) for table in tables]
    with database.connect() as connection:
        return bool(connection.execute(sa.select(sa.or_(*found))).scalar())


def remove(
    database: sa.Engine, store: ArtifactStore, record_id: int, now: datetime, *, reports: Collection[str]
) -> bool:
    """
    Take one artifact off the record. Returns: whether its bytes went too; if not, others need them or they are young.

    Raises: NotFoundError, ConflictError when a run at work or a release needs it.
    """
    policy = Policy()
    with _alone(database):
        found = [record for record in list_records(database, policy) if record.id == record_id]
        if not found:
            raise NotFoundError(
                f"no artifact has the number {record_id}", remedy="list them with `penstock artifacts list`"
            )
        if found[0].spared or not _forget(database, found):
            raise ConflictError("a release or a run at work needs it", where=f"artifact {record_id}")
        digest = found[0].digest
        if digest in reports or is_recorded(database, digest):
            return False
        return store.remove_unclaimed(digest, now - policy.grace, lambda: is_recorded(database, digest))


@contextmanager
def _alone(database: sa.Engine) -> Iterator[None]:
    with database.connect() as connection:
        if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(SWEEP_LOCK))).scalar():
            raise ConflictError("another sweep is at work", where="artifacts", remedy="wait until it is done")
        connection.commit()
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(SWEEP_LOCK)))
            connection.commit()


def sizes(records: Iterable[Record]) -> Mapping[str, int]:
    """project → bytes of its artifacts; what several records share counts once."""
    blobs: dict[str, dict[str, int]] = defaultdict(dict)
    for record in records:
        blobs[record.project][record.digest] = record.size_bytes
    return {project: sum(found.values()) for project, found in blobs.items()}
