"""What somebody who is asked to approve wants to know: the checks, what was built, and what it changes where."""

from collections.abc import Mapping, Sequence

import attrs
import duckdb
import sqlalchemy as sa

from penstock.errors import NotFoundError, PlatformError
from penstock.pipeline import records
from penstock.pipeline.approval_rows import Request
from penstock.pipeline.plan import Graph
from penstock.settings import Settings
from penstock.sources.git import Repository
from penstock.sources.projects import get_project
from penstock.state.tables import releases
from penstock.steps.context import Artifact
from penstock.warehouse import connect
from penstock.warehouse.home import warehouse_location

SEVERITIES = ("critical", "high", "medium", "low", "info")
CHANGES_SHOWN = 20

# What only one of two commits has, of the scanners that have read both.
_DIFFERENCE = """
WITH of_both AS (
    SELECT tool, category FROM scans WHERE project = $project AND commit = $here AND state = 'succeeded'
    INTERSECT
    SELECT tool, category FROM scans WHERE project = $project AND commit = $there AND state = 'succeeded'
), here AS (
    SELECT DISTINCT fingerprint, severity FROM findings SEMI JOIN of_both USING (tool, category)
    WHERE project = $project AND commit = $here AND NOT coalesce(suppressed, false)
), there AS (
    SELECT DISTINCT fingerprint, severity FROM findings SEMI JOIN of_both USING (tool, category)
    WHERE project = $project AND commit = $there AND NOT coalesce(suppressed, false)
)
SELECT 'introduced' AS change, severity, count(*) AS number FROM here ANTI JOIN there USING (fingerprint) GROUP BY ALL
UNION ALL
SELECT 'fixed', severity, count(*) FROM there ANTI JOIN here USING (fingerprint) GROUP BY ALL
UNION ALL
SELECT 'read by both', NULL, count(*) FROM of_both
"""


@attrs.frozen
class Check:
    """What a step upstream decided. findings: severity → how many; None where it is no scan."""

    step: str
    passed: bool
    summary: str
    findings: Mapping[str, int] | None = None


@attrs.frozen
class Made:
    """What was built: an artifact by its SHA-256, or an image by its digest."""

    step: str
    name: str
    digest: str


@attrs.frozen
class Against:
    """
    What it changes in an environment, against what is live there.

    commit: what is live; None where nothing is. changes: first lines of the commits between, newest first, at most
    CHANGES_SHOWN; count: of all of them, None when the commit that is live is not in the repository any more.
    introduced, fixed: severity → findings; None when no scanner has read both commits.
    """

    environment: str
    service: str | None = None
    number: int | None = None
    commit: str | None = None
    changes: tuple[str, ...] = ()
    count: int | None = None
    introduced: Mapping[str, int] | None = None
    fixed: Mapping[str, int] | None = None


@attrs.frozen
class Evidence:
    """Everything that there is to know before one approves."""

    checks: tuple[Check, ...]
    made: tuple[Made, ...]
    against: tuple[Against, ...]


def evidence_of(database: sa.Engine, settings: Settings, request: Request) -> Evidence:
    """
    As it is now. What cannot be known any more is left out.

    Raises: PlatformError when the database does not answer; NotFoundError for a run whose graph is gone.
    """
    run = records.load_run(database, request.run_id)
    graph = records.load_graph(database, request.run_id)
    upstream = [step.name for step in graph.steps if step.name in graph.upstream(request.step)]
    decided = records.verdicts_of(database, run.info, upstream)
    passed = records.passed_steps(database, run.info)
    made = [Made(name, one.key, one.digest) for name, one in _made(database, passed, upstream)]
    return Evidence(
        checks=tuple(_check(name, *decided[name]) for name in upstream if name in decided),
        made=tuple(made) + _images(database, passed, upstream),
        against=tuple(_against(database, settings, request, name) for name in environments_after(graph, request.step)),
    )


def _check(step: str, passed: bool, evidence: Mapping[str, object]) -> Check:
    counts = {name: int(str(evidence[name])) for name in SEVERITIES if name in evidence}
    return Check(step, passed, str(evidence.get("summary") or ""), counts if "critical" in evidence else None)


def _made(database: sa.Engine, passed: Mapping[str, str], upstream: Sequence[str]) -> Sequence[tuple[str, Artifact]]:
    return [
        (name, made)
        for name in upstream
        if name in passed
        for made in records.artifacts_of(database, [(passed[name], name)])
    ]


def _images(database: sa.Engine, passed: Mapping[str, str], upstream: Sequence[str]) -> tuple[Made, ...]:
    outcomes = {run: records.outcomes(database, run) for run in set(passed.values())}
    outputs = {name: outcomes[passed[name]].get(name, ("", {}))[1] for name in upstream if name in passed}
    return tuple(
        Made(name, told.get("image", name), told["digest"]) for name, told in outputs.items() if told.get("digest")
    )


def environments_after(graph: Graph, step: str) -> tuple[str, ...]:
    """The environments that the step itself, or steps that need it, deploy to; those with expressions left out."""
    found = {
        str(getattr(one, "environment", "")): None
        for one in graph.steps
        if one.kind == "deployment" and (one.name == step or step in graph.upstream(one.name))
    }
    return tuple(name for name in found if name and "${{" not in name)


def _against(database: sa.Engine, settings: Settings, request: Request, environment: str) -> Against:
    wanted = sa.select(releases).where(
        releases.c.project == request.project, releases.c.environment == environment, releases.c.state == "live"
    )
    with database.connect() as connection:
        live = connection.execute(wanted.order_by(releases.c.live_at.desc()).limit(1)).mappings().first()
    if live is None:
        return Against(environment)
    introduced, fixed = _difference(settings, request.project, request.commit, live["commit"])
    changes = _commits_between(database, settings, request, live["commit"])
    return Against(
        environment=environment,
        service=live["service"],
        number=live["number"],
        commit=live["commit"],
        changes=(changes or ())[:CHANGES_SHOWN],
        count=None if changes is None else len(changes),
        introduced=introduced,
        fixed=fixed,
    )


def _commits_between(database: sa.Engine, settings: Settings, request: Request, live: str) -> tuple[str, ...] | None:
    try:
        repository: Repository = get_project(database, request.project).repository(settings)
        told = repository.run("log", "--format=%h %s", "--max-count=500", f"{live}..{request.commit}", "--")
    except (NotFoundError, PlatformError):
        return None
    return tuple(line for line in told.decode("utf-8", "replace").splitlines() if line)


def _difference(
    settings: Settings, project: str, here: str, there: str
) -> tuple[Mapping[str, int] | None, Mapping[str, int] | None]:
    try:
        lake = connect(warehouse_location(settings), read_only=True)
    except (NotFoundError, PlatformError):
        return None, None
    try:
        rows = lake.execute(_DIFFERENCE, {"project": project, "here": here, "there": there}).fetchall()
    except duckdb.Error:  # there is a catalog, and no table yet
        return None, None
    finally:
        lake.close()
    if not any(change == "read by both" and number for change, _, number in rows):
        return None, None
    introduced, fixed = (
        {str(severity or "info"): int(number) for what, severity, number in rows if what == change}
        for change in ("introduced", "fixed")
    )
    return introduced, fixed


def in_words(counts: Mapping[str, int] | None) -> str:
    """`1 critical, 3 low`; `none`; or that nobody knows."""
    if counts is None:
        return "not known"
    return ", ".join(f"{counts[name]} {name}" for name in SEVERITIES if counts.get(name)) or "none"
