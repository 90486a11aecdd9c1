"""What a sweep takes, and above all what it does not."""

import itertools
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.artifacts import ArtifactStore, open_store
from penstock.artifacts.retention import CacheRecord, Policy, Record, evicted, expired, remove, sweep
from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.state.tables import artifacts, caches, releases, results, runs, verdicts

DAY = timedelta(days=1)
NOW = datetime.now(UTC) + 100 * DAY  # whatever a test stores now is long past the grace period then
MONTH = Policy(older_than=30 * DAY)
_numbers = itertools.count(1)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


Recorded = Callable[..., Any]


@pytest.fixture
def made(database: sa.Engine, store: ArtifactStore) -> Recorded:
    """made(data, age, …) → an artifact, stored and on record; its row's values."""

    def make(data: bytes | str, age: timedelta = 60 * DAY, **values: Any) -> dict[str, Any]:
        raw = data.encode() if isinstance(data, str) else data
        blob = store.put_bytes(raw)
        number = next(_numbers)
        row = {"project": "shop", "commit": f"{number:040x}", "ref": "refs/heads/main", "run_id": f"run-{number}"}
        row |= {"step": "build", "key": "dist", "path": "dist", "kind": "file", "created_at": NOW - age}
        row |= {"digest": blob.digest, "size_bytes": blob.size_bytes, **values}
        with database.begin() as connection:
            row["id"] = connection.execute(sa.insert(artifacts).values(row).returning(artifacts.c.id)).scalar_one()
        return row

    return make


def add_run(database: sa.Engine, row: dict[str, Any], state: str, run_id: str | None = None) -> None:
    """A run of the artifact's commit."""
    of = {name: row[name] for name in ("project", "commit", "ref")}
    more = {"trigger": "push", "graph": {}, "graph_hash": "g", "structure_hash": "s"}
    with database.begin() as connection:
        connection.execute(sa.insert(runs).values(id=run_id or row["run_id"], state=state, **of, **more))


def add_release(database: sa.Engine, row: dict[str, Any], state: str, number: int = 1, **values: Any) -> None:
    """A release of the artifact."""
    of = {name: row[name] for name in ("project", "commit", "digest", "run_id")}
    more = {"environment": "production", "service": "web", "graph_hash": "g", "configuration": {}}
    live = {"live_at": NOW - 50 * DAY} if state in ("live", "superseded") else {}
    with database.begin() as connection:
        added = {"id": os.urandom(8).hex(), "state": state, "number": number, **of, **more, **live, **values}
        connection.execute(sa.insert(releases).values(added))


def on_record(database: sa.Engine) -> set[int]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(artifacts.c.id)).scalars())


def swept(database: sa.Engine, store: ArtifactStore, policy: Policy = MONTH, **values: Any) -> Any:
    return sweep(database, store, policy, NOW, reports=values.pop("reports", ()), **values)


def test_old_artifacts_go_with_their_bytes(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """By age."""
    old, young = made("old", 31 * DAY), made("young", 29 * DAY)
    done = swept(database, store)
    assert ([record.id for record in done.records], done.blobs, done.size_bytes) == ([old["id"]], 1, 3)
    assert on_record(database) == {young["id"]}
    assert (store.has(old["digest"]), store.has(young["digest"])) == (False, True)


def test_newest_of_a_key_stay(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """However old; alone, `keep` takes all others. Projects and keys count apart."""
    rows = [made(f"{day}", day * DAY) for day in (40, 50, 60)]
    other, foreign = made("other", key="docs"), made("foreign", project="blog")
    swept(database, store, Policy(older_than=30 * DAY, keep=2))
    assert on_record(database) == {rows[0]["id"], rows[1]["id"], other["id"], foreign["id"]}
    swept(database, store, Policy(keep=1))
    assert on_record(database) == {rows[0]["id"], other["id"], foreign["id"]}


def test_total_size_takes_the_oldest(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Until the rest fits; what is spared stays and is told."""
    oldest, middle, newest = (made(os.urandom(1000), day * DAY) for day in (3, 2, 1))
    swept(database, store, Policy(total_bytes=2000))
    assert on_record(database) == {middle["id"], newest["id"]}
    add_release(database, middle, "live")
    done = swept(database, store, Policy(total_bytes=500))
    assert on_record(database) == {middle["id"]}
    assert done.over_bytes == 500
    assert not store.has(oldest["digest"])


def test_without_limits_only_orphans_go(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Bytes of which there is no record: of a run that was killed before it could say so."""
    kept, orphan = made("kept", 5000 * DAY), store.put_bytes(b"orphan")
    done = swept(database, store, Policy())
    assert (done.records, done.blobs) == ((), 1)
    assert (store.has(kept["digest"]), store.has(orphan.digest)) == (True, False)


def test_dry_run_changes_nothing(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """And says what would go."""
    row = made("old")
    done = swept(database, store, dry_run=True)
    assert ([record.id for record in done.records], done.blobs) == ([row["id"]], 1)
    assert on_record(database) == {row["id"]}
    assert store.has(row["digest"])


@pytest.mark.parametrize("state", ["live", "pending", "superseded"])
def test_what_a_release_needs_stays(database: sa.Engine, store: ArtifactStore, made: Recorded, state: str):
    """Also what else its commit made: reports, images' descriptions, test results."""
    row = made("app")
    beside = made("report", commit=row["commit"], run_id=row["run_id"], step="scan", key="scan.sarif")
    add_release(database, row, state)
    gone = made("gone")
    swept(database, store)
    assert on_record(database) == {row["id"], beside["id"]}
    assert not store.has(gone["digest"])


def test_former_releases_can_come_back(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """So many as the policy says, of each service; a release that failed keeps nothing."""
    rows = [made(f"{number}") for number in range(5)]
    for number, row in enumerate(rows[:4], start=1):
        add_release(database, row, "superseded" if number < 4 else "live", number)
    add_release(database, rows[4], "failed", 5)
    swept(database, store, Policy(older_than=30 * DAY, releases=2))
    assert on_record(database) == {rows[1]["id"], rows[2]["id"], rows[3]["id"]}


def test_blob_of_a_release_stays_without_its_record(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Whoever took the record off by hand."""
    row = made("app")
    add_release(database, row, "live")
    with database.begin() as connection:
        connection.execute(sa.delete(artifacts))
    swept(database, store)
    assert store.has(row["digest"])


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_a_run_at_work_needs_stays(database: sa.Engine, store: ArtifactStore, made: Recorded, state: str):
    """Its own, and what earlier runs of its commit made, which it takes over."""
    own, earlier, other = made("own"), made("earlier"), made("other")
    add_run(database, own, state)
    add_run(database, earlier, "succeeded")
    add_run(database, earlier, state, "rerun")
    swept(database, store)
    assert on_record(database) == {own["id"], earlier["id"]}
    assert not store.has(other["digest"])


def test_reports_that_the_warehouse_refers_to_stay(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """The tables can be built again from them, also when nobody else remembers."""
    row = made("sarif")
    swept(database, store, reports={row["digest"]})
    assert on_record(database) == set()
    assert store.has(row["digest"])


def test_shared_blob_stays_until_the_last_record_is_gone(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Two runs made the same."""
    first, second = made("same", 60 * DAY), made("same", 10 * DAY)
    swept(database, store)
    assert on_record(database) == {second["id"]}
    assert store.has(first["digest"])
    swept(database, store, Policy(older_than=5 * DAY))
    assert not store.has(first["digest"])


def test_blob_of_a_cache_stays(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """An artifact and a cache may be the same bytes."""
    row = made("same")
    add_cache(database, store, ("shop", "k"), b"same", NOW)
    swept(database, store)
    assert store.has(row["digest"])


def test_young_bytes_stay(database: sa.Engine, store: ArtifactStore):
    """Whoever stored them may be about to record them."""
    blob = store.put_bytes(b"just now")
    sweep(database, store, MONTH, datetime.now(UTC), reports=())
    assert store.has(blob.digest)
    with pytest.raises(InputError, match="grace"):
        Policy(grace=timedelta(minutes=5))


def test_verdict_and_result_go_with_the_artifact(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """So a later run of the commit makes it again instead of missing it."""
    row, kept = made("old"), made("young", DAY)
    for made_by in (row, kept):
        add_run(database, made_by, "succeeded")
        key = {"project": "shop", "run_id": made_by["run_id"], "step": "build"}
        with database.begin() as connection:
            more = {"commit": made_by["commit"], "graph_hash": "g", "passed": True, "evidence": {}}
            connection.execute(sa.insert(verdicts).values(**key, **more))
            connection.execute(sa.insert(results).values(**key, key=made_by["run_id"]))
    swept(database, store)
    with database.connect() as connection:
        for table in (verdicts, results):
            assert connection.execute(sa.select(table.c.run_id)).scalars().all() == [kept["run_id"]]


def test_two_sweeps_at_once(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """The second is told to wait; afterwards it can."""
    made("old")
    refused: list[Exception] = []

    class Slow:
        def __contains__(self, _: object) -> bool:
            return False

        def __iter__(self) -> Any:
            try:
                swept(database, store)
            except ConflictError as error:
                refused.append(error)
            return iter(())

    sweep(database, store, MONTH, NOW, reports=Slow())  # type: ignore[arg-type]
    assert len(refused) == 1
    swept(database, store)


def test_writers_and_sweeps_at_once(database: sa.Engine, store: ArtifactStore, made: Recorded, tmp_path: Path):
    """Artifacts that are stored anew, while sweeps take the same bytes, can be read when they are on record."""
    contents = [f"shared {number}" for number in range(6)]
    for content in contents:
        path = tmp_path / "store" / "sha256"
        blob = store.put_bytes(content.encode())
        os.utime(path / blob.digest[:2] / blob.digest[2:], (0, 0))
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            sweep(database, store, MONTH, datetime.now(UTC), reports=())

    sweeper = threading.Thread(target=take)
    sweeper.start()
    try:
        rows = [made(content, DAY) for _ in range(3) for content in contents]
    finally:
        stop.set()
        sweeper.join()
    assert all(store.has(row["digest"]) for row in rows)


# The rules alone, on any records

RECORDS = st.lists(
    st.builds(
        Record,
        id=st.just(0),
        project=st.sampled_from(["shop", "blog"]),
        key=st.sampled_from(["dist", "docs"]),
        run_id=st.just("r"),
        step=st.just("s"),
        digest=st.sampled_from("abcdef"),
        size_bytes=st.just(0),
        created_at=st.integers(0, 100).map(lambda days: NOW - days * DAY),
        spared=st.booleans(),
    ),
    max_size=30,
).map(lambda found: [attrs.evolve(r, id=i, size_bytes=ord(r.digest)) for i, r in enumerate(found)])
POLICIES = st.builds(
    Policy,
    older_than=st.none() | st.integers(0, 100).map(lambda days: days * DAY),
    keep=st.none() | st.integers(0, 5),
    total_bytes=st.none() | st.integers(0, 600),
)


@settings(deadline=None)
@given(RECORDS, POLICIES)
def test_rules_of_retention(records: list[Record], policy: Policy):
    """Nothing spared goes; nothing within the limits goes; what stays fits, or what is spared alone is too much."""
    going, over = expired(records, policy, NOW)
    staying = [record for record in records if record not in going]
    assert not any(record.spared for record in going)
    if policy == Policy():
        assert not going
    if policy.total_bytes is None:
        for record in going:
            newer = [
                r
                for r in records
                if (r.project, r.key) == (record.project, record.key) and r.created_at >= record.created_at
            ]
            assert len(newer) > (policy.keep or 0)
            assert policy.older_than is None or NOW - record.created_at > policy.older_than
    else:
        size = sum({record.digest: record.size_bytes for record in staying}.values())
        assert size - over <= policy.total_bytes
        assert not over or all(record.spared for record in staying)


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_should_be_kept_can_be_read(sweeping: Callable[..., None], data: st.DataObject):
    """After any sweeps, in any order with new artifacts: every record that is left has its bytes."""
    sweeping(data)


@pytest.fixture(scope="module")
def sweeping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """One history: artifacts come, some shared, some released, some of runs at work; sweeps in between."""
    server = request.getfixturevalue("postgres")
    return lambda data: _history(server, tmp_path_factory.mktemp("history"), data)


def _history(server: Any, folder: Path, data: st.DataObject) -> None:
    import psycopg
    from real_parts import server_url

    from penstock.settings import load_settings
    from penstock.state.database import create_engine

    name = f"history_{next(_numbers)}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE penstock_template")
        env = {"PENSTOCK_HOME": str(folder), "PENSTOCK_DATABASE_URL": server_url(server, name)}
        database, store = create_engine(load_settings(env)), open_store(str(folder / "store"))
        try:
            _live(database, store, data)
        finally:
            database.dispose()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _live(database: sa.Engine, store: ArtifactStore, data: st.DataObject) -> None:
    make = made.__wrapped__(database, store)  # type: ignore[attr-defined]
    protected: set[int] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        for _ in range(data.draw(st.integers(0, 4))):
            row = make(data.draw(st.sampled_from("abcd")), data.draw(st.integers(0, 90)) * DAY)
            fate = data.draw(st.sampled_from(["plain", "running", "live"]))
            if fate == "running":
                add_run(database, row, "running")
            if fate == "live":
                add_release(database, row, "live", row["id"])
            if fate != "plain":
                protected.add(row["id"])
        sweep(database, store, data.draw(POLICIES), NOW, reports=())
        with database.connect() as connection:
            left = connection.execute(sa.select(artifacts.c.id, artifacts.c.digest)).all()
        assert protected <= {row.id for row in left}
        for row in left:
            assert b"".join(store.read(row.digest))
        assert {blob.digest for blob in store.blobs()} == {row.digest for row in left}


# By hand


def test_removed_by_hand(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Record and bytes, unless others share them."""
    first, second = made("same"), made("same")
    assert not remove(database, store, first["id"], NOW, reports=())
    assert store.has(first["digest"])
    assert remove(database, store, second["id"], NOW, reports=())
    assert not store.has(first["digest"])


def test_what_lives_is_not_removed_by_hand(database: sa.Engine, store: ArtifactStore, made: Recorded):
    """Nor what is not there."""
    row = made("app")
    add_release(database, row, "live")
    with pytest.raises(ConflictError, match="a release or a run at work needs it"):
        remove(database, store, row["id"], NOW, reports=())
    with pytest.raises(NotFoundError, match="no artifact has the number"):
        remove(database, store, row["id"] + 1000, NOW, reports=())
    assert on_record(database) == {row["id"]}


# Caches


def add_cache(
    database: sa.Engine, store: ArtifactStore, named: tuple[str, str], data: bytes, used_at: datetime
) -> None:
    blob = store.put_bytes(data)
    row = {"project": named[0], "scope": "main", "key": named[1], "digest": blob.digest, "size_bytes": blob.size_bytes}
    with database.begin() as connection:
        connection.execute(sa.insert(caches).values(**row, used_at=used_at))


def test_least_used_caches_go(database: sa.Engine, store: ArtifactStore):
    """Beyond the size that a project may have, and those that nobody used for long."""
    for project, key, days in (
        ("shop", "a", 1),
        ("shop", "b", 2),
        ("shop", "c", 3),
        ("blog", "d", 4),
        ("blog", "e", 40),
    ):
        add_cache(database, store, (project, key), key.encode() * 1000, NOW - days * DAY)
    done = swept(database, store, Policy(cache_bytes=2000))
    assert sorted(cache.key for cache in done.caches) == ["c", "e"]
    with database.connect() as connection:
        assert sorted(connection.execute(sa.select(caches.c.key)).scalars()) == ["a", "b", "d"]
    assert len(list(store.blobs())) == 3


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), max_size=20), st.integers(0, 200))
def test_rules_of_eviction(found: list[tuple[int, int]], limit: int):
    """What stays fits, and a cache used later never goes in favour of a smaller one used earlier of its own size."""
    records = [CacheRecord("p", "s", str(i), str(i), size, NOW - days * DAY) for i, (size, days) in enumerate(found)]
    policy = Policy(cache_bytes=limit, cache_unused=None)
    going = evicted(records, policy, NOW)
    assert sum(record.size_bytes for record in records if record not in going) <= limit
    assert sum(record.size_bytes for record in records) > limit or not going
