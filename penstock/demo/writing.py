"""
Write made-up history in bulk, where Penstock would have written it run by run: warehouse and state.

What is made up is marked: names of projects begin with `demo-`, their address is below `demo.invalid` (a domain that
cannot exist, RFC 2606), and every run was started by "generated".
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import duckdb
import pyarrow as pa
import sqlalchemy as sa

from penstock.demo.history import History, Scale, live
from penstock.demo.lives import Life, digest
from penstock.demo.making import Inventory, stay_row, take_stock
from penstock.demo.words import Tool
from penstock.errors import ConflictError
from penstock.settings import Settings
from penstock.state import tables
from penstock.warehouse import Warehouse
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.maintain import flush
from penstock.warehouse.rows import Release, Row, Run, Scan, Step, to_table

PREFIX = "demo-"
ADDRESS = "https://demo.invalid/"
OF_PROJECTS = (
    *("commits", "runs", "steps", "scans", "findings", "finding_events", "test_results", "releases", "artifacts"),
    *("plugin_metrics", "plugin_data", "ingest_errors", "sboms", "components", "images", "coverage"),
)
"""Tables of the warehouse with a column `project`."""


@attrs.frozen
class Written:
    """How many rows of what."""

    projects: int
    commits: int
    runs: int
    findings: int
    events: int
    tests: int
    releases: int


def write_demo(
    settings: Settings,
    database: sa.Engine,
    scale: Scale,
    *,
    until: datetime | None = None,
    force: bool = False,
    on_project: Callable[[str], None] = lambda _: None,
) -> Written:
    """
    Made-up history of `scale` into the home of `settings`, in place of what was made up there before.

    until: when it ends; default: the beginning of this day, in UTC. The same `scale` and `until` make the same rows.
    force: also beside real projects. on_project: called after each.
    Raises: ConflictError when the home has real projects, or one under a name that would be made up.
    """
    until = until or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    names = scale.names(PREFIX)
    with Warehouse(warehouse_location(settings)) as warehouse:
        warehouse.create()
        old = _made_up_before(database)
        _refuse_real(warehouse, database, old, names, force=force)
        _remove(warehouse, database, old)
        counts = []
        for name in names:
            counts.append(_write_project(warehouse, database, live(name, scale, until), scale.seed))
            on_project(name)
        flush(warehouse)
    return Written(len(names), *(sum(each) for each in zip(*counts, strict=True)))


def _made_up_before(database: sa.Engine) -> list[str]:
    query = sa.select(tables.projects.c.name).where(tables.projects.c.url.startswith(ADDRESS))
    with database.connect() as connection:
        return list(connection.execute(query).scalars())


def _refuse_real(
    warehouse: Warehouse, database: sa.Engine, old: Sequence[str], names: Sequence[str], *, force: bool
) -> None:
    with database.connect() as connection:
        known = set(connection.execute(sa.select(tables.projects.c.name)).scalars())
        known |= set(connection.execute(sa.select(tables.runs.c.project).distinct()).scalars())
    known |= set(warehouse.alone(_projects_of_lake))
    real = sorted(known - set(old))
    if taken := sorted(set(real) & set(names)):
        raise ConflictError(f'"{taken[0]}" is a real project here', remedy="choose another PENSTOCK_HOME")
    if real and not force:
        raise ConflictError(
            f"this PENSTOCK_HOME has real projects ({', '.join(real[:3])}{' …' if real[3:] else ''})",
            where=str(warehouse.location.data_path),
            remedy="name a home of its own, as in PENSTOCK_HOME=.penstock-demo, or say --force",
        )


def _projects_of_lake(lake: duckdb.DuckDBPyConnection) -> list[str]:
    named = " UNION ".join(f"SELECT project FROM {table}" for table in ("runs", "scans", "releases"))
    return [name for (name,) in lake.execute(named).fetchall()]


def _remove(warehouse: Warehouse, database: sa.Engine, names: Sequence[str]) -> None:
    if not names:
        return

    def delete(lake: duckdb.DuckDBPyConnection) -> None:
        for table in OF_PROJECTS:
            lake.execute(f"DELETE FROM {table} WHERE project IN (SELECT unnest(?))", [list(names)])

    warehouse.write(delete)
    with database.begin() as connection:
        for table in (tables.releases, tables.runs):
            connection.execute(sa.delete(table).where(table.c.project.in_(names)))
        connection.execute(sa.delete(tables.projects).where(tables.projects.c.name.in_(names)))


def _write_project(warehouse: Warehouse, database: sa.Engine, history: History, seed: int) -> tuple[int, ...]:
    # State first: its addresses are what tells made-up projects from real ones if this is interrupted.
    _write_state(database, history)
    events = [event for population in history.populations.values() for event in population.events]
    events += [event for fork in history.forks for event in fork.events]
    stock = take_stock(history, seed)
    found = warehouse.write(lambda lake: _fill(lake, history, events, stock))
    kinds = [type(row).__name__ for row in history.rows]
    tests = kinds.count("TestResult")
    return kinds.count("Commit"), len(history.runs), found, len(events), tests, len(history.releases)


def _fill(lake: duckdb.DuckDBPyConnection, history: History, events: Sequence[dict[str, Any]], stock: Inventory) -> int:
    by_kind: dict[type[Row], list[Row]] = {}
    for row in [*history.rows, *(one for _, one in stock.lists), *stock.images, *stock.coverage]:
        by_kind.setdefault(type(row), []).append(row)
    for kind, rows in by_kind.items():
        _insert(lake, kind.TABLE, to_table(rows))
    if events:
        _insert(lake, "finding_events", pa.Table.from_pylist(events, schema=_events_schema()))
    if stock.lists:
        _insert_components(lake, stock)
    return _insert_findings(lake, history)


def _insert(lake: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    lake.register("incoming_rows", rows)
    lake.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming_rows")
    lake.unregister("incoming_rows")


def _events_schema() -> pa.Schema:
    text = [
        *("project", "branch", "fingerprint", "tool", "category", "event", "state", "commit", "author"),
        *("last_seen_commit", "run_id", "rule_id", "severity", "path", "suppression_reason"),
    ]
    others = [("seq", pa.int64()), ("baseline", pa.bool_()), ("committed_at", pa.timestamp("us", "UTC"))]
    return pa.schema([*((name, pa.string()) for name in text), *others])


_FINDINGS = """
INSERT INTO findings BY NAME
WITH seen AS (
    SELECT demo_scans.*, demo_present.life, demo_present.suppressed
    FROM demo_present JOIN demo_scans
        ON demo_scans.tool = demo_present.tool
        AND demo_scans.number BETWEEN demo_present.first AND demo_present.last
    WHERE demo_present.scan IS NULL
    UNION ALL
    SELECT demo_scans.*, demo_present.life, demo_present.suppressed
    FROM demo_present JOIN demo_scans ON demo_scans.id = demo_present.scan
)
SELECT seen.* EXCLUDE (id, number, life), demo_lives.* EXCLUDE (life, suppression_reason),
    CASE WHEN seen.suppressed THEN demo_lives.suppression_reason END AS suppression_reason
FROM seen JOIN demo_lives USING (life)
ORDER BY scanned_at
"""


def _insert_findings(lake: duckdb.DuckDBPyConnection, history: History) -> int:
    """Each scan's findings, joined from their lives: a million rows are never made one by one."""
    every = {life.fingerprint: (life, p.tool) for p in history.populations.values() for life in p.lives}
    every |= {life.fingerprint: (life, fork.tool) for fork in history.forks for life in fork.brought}
    named = {
        "demo_lives": pa.Table.from_pylist([_life_row(life, tool) for life, tool in every.values()]),
        "demo_present": pa.Table.from_pylist(list(_present_rows(history)), schema=_PRESENT),
        "demo_scans": pa.Table.from_pylist(
            [_scan_row(at, each.scan, each.number) for at, each in enumerate(history.presences)]
        ),
    }
    if not all(table.num_rows for table in named.values()):
        return 0
    for name, table in named.items():
        lake.register(name, table)
    row = lake.execute(_FINDINGS).fetchone()
    for name in named:
        lake.unregister(name)
    return int(row[0]) if row else 0


_COMPONENTS = """
INSERT INTO components BY NAME
SELECT demo_lists.* EXCLUDE (number), demo_stays.* EXCLUDE (first, last, source)
FROM demo_lists JOIN demo_stays
    ON demo_lists.source = demo_stays.source AND demo_lists.number BETWEEN demo_stays.first AND demo_stays.last
ORDER BY listed_at, name
"""


def _insert_components(lake: duckdb.DuckDBPyConnection, stock: Inventory) -> None:
    """Each list's components, joined from how long they stayed."""
    same = ("project", "commit", "run_id", "step", "source", "image_digest", "listed_at")
    lists = [{name: getattr(one, name) for name in same} | {"number": number} for number, one in stock.lists]
    kinds = {"listed_at": pa.timestamp("us", "UTC"), "number": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in lists[0]])
    lake.register("demo_lists", pa.Table.from_pylist(lists, schema=schema))
    lake.register("demo_stays", pa.Table.from_pylist([dict(stay_row(stay)) for stay in stock.stays]))
    lake.execute(_COMPONENTS)
    for name in ("demo_lists", "demo_stays"):
        lake.unregister(name)


_PRESENT = pa.schema(
    [
        ("tool", pa.string()),
        ("life", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("scan", pa.int64()),
        ("suppressed", pa.bool_()),
    ]
)


def _present_rows(history: History) -> Iterable[dict[str, Any]]:
    for population in history.populations.values():
        for life in population.lives:
            for first, last, suppressed in life.present:
                end = population.scans if last is None else last
                yield _present(population.tool, life, suppressed) | {"first": first, "last": end}
    for at, presence in enumerate(history.presences):
        for life, suppressed in presence.seen:
            yield {"life": life.fingerprint, "suppressed": suppressed, "scan": at}


def _present(tool: Tool, life: Life, suppressed: bool) -> dict[str, Any]:
    return {"tool": tool.name, "life": life.fingerprint, "suppressed": suppressed}


def _scan_row(at: int, scan: Scan, number: int) -> dict[str, Any]:
    same = ("project", "commit", "run_id", "step", "scanned_at", "tool", "tool_version", "category")
    return {name: getattr(scan, name) for name in same} | {"id": at, "number": number}


def _life_row(life: Life, tool: Tool) -> dict[str, Any]:
    rule = life.rule
    slug = rule.id.lower() if tool.category == "sast" else rule.id
    snippet = f"    value = read(request, {life.line})\n    store.save(value)\n" if life.line else None
    return {
        "life": life.fingerprint,
        "fingerprint": life.fingerprint,
        "rule_id": rule.id,
        "severity": rule.severity,
        "severity_source": "security-severity" if rule.package else "level",
        "message": rule.message,
        "path": life.path,
        "line": life.line,
        "cwe": [rule.cwe],
        "package": rule.package,
        "fixed_version": rule.fixed_version,
        "suppression_reason": life.reason,
        "snippet": snippet,
        "level": "error" if rule.severity in ("critical", "high") else "warning",
        "kind": "fail",
        "help_uri": f"{tool.help_base}{slug}",
        "identity": "package" if rule.package else "snippet",
    }


def _write_state(database: sa.Engine, history: History) -> None:
    """What the pages of runs and deployments read; nothing that a platform would act on."""
    project = {"name": history.name, "url": f"{ADDRESS}{history.name}.git", "default_branch": "main", "polled": False}
    with database.begin() as connection:
        connection.execute(sa.insert(tables.projects).values(project))
        for table, rows in (
            (tables.runs, [_state_run(history, run) for run in history.runs]),
            (tables.steps, [_state_step(step) for step in history.steps]),
            (tables.releases, [_state_release(each) for each in history.releases]),
        ):
            if rows:
                connection.execute(sa.insert(table), rows)


def _state_run(history: History, run: Run) -> dict[str, Any]:
    same = ("project", "commit", "ref", "trigger", "event", "author", "graph_hash", "structure_hash", "state", "reason")
    row = {name: getattr(run, name) for name in (*same, "queued_at", "started_at", "finished_at")}
    title = history.titles[run.commit]
    return row | {"id": run.run_id, "title": title, "graph": {}, "ingested_at": run.finished_at}


def _state_step(step: Step) -> dict[str, Any]:
    same = ("run_id", "step", "type", "state", "reason", "exit_code", "reused_from", "queued_at", "started_at")
    row = {name: getattr(step, name) for name in (*same, "finished_at", "cpu_s", "memory_peak_bytes")}
    return row | {"produced": {"text": "", "outputs": {}}}


def _state_release(release: Release) -> dict[str, Any]:
    same = ("project", "environment", "service", "number", "commit", "run_id", "graph_hash", "state", "reason")
    row = {name: getattr(release, name) for name in (*same, "created_at", "live_at", "ended_at")}
    own = digest(release.project, release.environment, release.number)[:16]
    return row | {"id": own, "digest": release.artifact_digest, "configuration": {}}
