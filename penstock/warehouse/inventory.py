"""
Who runs what: the questions of the page Components, each a function from a connection of `connect` to a DataFrame.

Versions are compared in Python, as their ecosystem orders them (`penstock.components.versions`): SQL finds the versions
that there are, and gets back those that are asked for. None as a parameter means "all". Times are UTC.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from penstock.components import parse_question
from penstock.warehouse.queries import _frame

if TYPE_CHECKING:
    import pandas as pd

_NAMED = """
    lower(name) = $name
    OR lower(concat_ws('/', namespace, name)) = $name
    OR lower(concat_ws(':', namespace, name)) = $name
    OR starts_with(lower(purl), $name || '@')
"""

_ASKED = "SELECT unnest($ecosystems::VARCHAR[]) AS ecosystem, unnest($versions::VARCHAR[]) AS version"

# A release runs an image when its digest is that of the image's list; lists of other images of its commit are not its
# own. What was listed of the checkout is taken for part of everything that was built from it.
_RUNS = """
    (components.image_digest IS NULL OR releases.artifact_digest IS NULL
        OR replace(components.image_digest, 'sha256:', '') = replace(releases.artifact_digest, 'sha256:', '')
        OR (releases.project, releases.commit, replace(releases.artifact_digest, 'sha256:', '')) NOT IN (
            SELECT (project, commit, replace(image_digest, 'sha256:', '')) FROM sboms WHERE image_digest IS NOT NULL))
"""


def component_names(
    connection: duckdb.DuckDBPyConnection, *, words: str = "", project: str | None = None, limit: int = 500
) -> "pd.DataFrame":
    """
    One row per component that a live release or a branch's newest list has and whose name holds `words`, those of most
    projects first: `ecosystem`, `namespace`, `name`, `versions`, `projects`, `live` (projects in which it is live).
    """
    return _frame(
        connection,
        """
        WITH newest AS (
            SELECT project, step, source, arg_max(commit, (committed_at, listed_at)) AS commit, false AS live
            FROM sboms WHERE $project IS NULL OR project = $project GROUP BY project, branch, step, source
        ), live AS (
            SELECT DISTINCT project, commit FROM releases
            WHERE state = 'live' AND ended_at IS NULL AND ($project IS NULL OR project = $project)
        ), shown AS (
            SELECT * FROM components
            WHERE commit IN (SELECT commit FROM newest UNION SELECT commit FROM live)
                AND contains(lower(concat_ws('/', namespace, name)), lower($words))
        )
        SELECT ecosystem, namespace, name, count(DISTINCT version) AS versions, count(DISTINCT project) AS projects,
            count(DISTINCT project) FILTER ((project, commit) IN (SELECT (project, commit) FROM live)) AS live
        FROM shown
        GROUP BY ecosystem, namespace, name ORDER BY live DESC, projects DESC, name, ecosystem LIMIT $limit
        """,
        words=words,
        project=project,
        limit=limit,
    )


def component_versions(connection: duckdb.DuckDBPyConnection, *, asked: str) -> "pd.DataFrame":
    """
    One row per version that was ever listed of the component, the latest of each ecosystem first: `ecosystem`,
    `namespace`, `name`, `version`, `purl`, `projects`, `commits`, and `asked`: whether the question is about it.

    asked: such as `log4j-core < 2.17.1`; a name is that of the component, with or without its namespace (divided by
    `/` or `:`), or a purl without version. Raises: InputError when it is none.
    """
    from penstock.components.versions import version_key

    question = parse_question(asked)
    found = _frame(
        connection,
        f"""
        SELECT ecosystem, namespace, name, version, min(purl) AS purl, count(DISTINCT project) AS projects,
            count(DISTINCT commit) AS commits
        FROM components WHERE {_NAMED}
        GROUP BY ALL
        """,
        name=question.name.lower(),
    )
    pairs = list(zip(found["ecosystem"], found["version"], strict=True))
    marked = found.assign(asked=[question.versions.holds(*each) for each in pairs])
    # Keys of different ecosystems cannot be compared with each other.
    order = [
        at
        for ecosystem in sorted(set(found["ecosystem"]))
        for at in sorted(
            (at for at, (kind, _) in enumerate(pairs) if kind == ecosystem),
            key=lambda at: version_key(*pairs[at]),
            reverse=True,
        )
    ]
    return marked.iloc[order].reset_index(drop=True)


def component_releases(connection: duckdb.DuckDBPyConnection, *, asked: str, live_only: bool = True) -> "pd.DataFrame":
    """
    Where the component runs: one row per live release, source and version, environments in order: `environment`,
    `project`, `service`, `number`, `commit`, `live_at`, `state`, `source`, `path`, `direct`, `ecosystem`, `name`,
    `version`, `licences`; since which commit (`since_commit`, `since_at`, `since_by`: the first of an unbroken row of
    listed commits of that branch that have it) and what mends it: `fixed_commit`, `fixed_at` (the first listed commit
    of the branch after it without), `fixed_release`, `fixed_environment` (the first release of the service after this
    one whose commit was listed and has it not).

    live_only: False also lists what was live before, newest first. Raises: InputError for what is no question.
    """
    return _frame(
        connection,
        f"""
        WITH asked AS ({_ASKED}), components AS MATERIALIZED (
            SELECT * FROM components WHERE ({_NAMED})
                AND (ecosystem, version) IN (SELECT (ecosystem, version) FROM asked)
        ), listed AS (
            SELECT sboms.*, components.commit IS NOT NULL AS has_it
            FROM sboms LEFT JOIN (SELECT DISTINCT project, commit, step, source FROM components) AS components
                USING (project, commit, step, source)
            WHERE project IN (SELECT project FROM components)
        ), turns AS (
            SELECT *, count(*) FILTER (NOT has_it) OVER life AS gone_before
            FROM listed WINDOW life AS (
                PARTITION BY project, branch, step, source ORDER BY committed_at, listed_at
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        ), spells AS (
            SELECT project, branch, step, source, gone_before,
                arg_min(commit, (committed_at, listed_at)) FILTER (has_it) AS since_commit,
                min(committed_at) FILTER (has_it) AS since_at
            FROM turns GROUP BY ALL
        ), mended AS (
            SELECT project, branch, step, source, gone_before - 1 AS gone_before,
                arg_min(commit, (committed_at, listed_at)) AS fixed_commit, min(committed_at) AS fixed_at
            FROM turns WHERE NOT has_it GROUP BY ALL
        ), here AS (
            SELECT turns.project, turns.commit, turns.step, turns.source, since_commit, since_at, fixed_commit, fixed_at
            FROM turns
            JOIN spells USING (project, branch, step, source, gone_before)
            LEFT JOIN mended USING (project, branch, step, source, gone_before)
            WHERE has_it
            QUALIFY row_number() OVER (
                PARTITION BY turns.project, turns.commit, turns.step, turns.source ORDER BY since_at) = 1
        ), clean AS (
            SELECT project, commit FROM listed GROUP BY project, commit HAVING NOT bool_or(has_it)
        ), runs_it AS (
            SELECT releases.environment, releases.project, releases.service, releases.number, releases.commit,
                releases.live_at, releases.ended_at, releases.state, components.step, components.source,
                components.path, components.direct, components.ecosystem, components.namespace, components.name,
                components.version, components.licences
            FROM releases JOIN components USING (project, commit)
            WHERE releases.live_at IS NOT NULL AND {_RUNS}
                AND (NOT $live_only OR (releases.state = 'live' AND releases.ended_at IS NULL))
        ), without AS (
            SELECT runs_it.project, runs_it.environment, runs_it.service, runs_it.number,
                arg_min(releases.number, releases.created_at) AS fixed_release,
                arg_min(releases.environment, releases.created_at) AS fixed_environment
            FROM (SELECT DISTINCT project, environment, service, number, live_at FROM runs_it) AS runs_it
            JOIN releases ON releases.project = runs_it.project AND releases.service = runs_it.service
                AND releases.live_at > runs_it.live_at
            JOIN clean ON clean.project = releases.project AND clean.commit = releases.commit
            GROUP BY ALL
        )
        SELECT runs_it.* EXCLUDE (step), since_commit, since_at, commits.author AS since_by, fixed_commit, fixed_at,
            fixed_release, fixed_environment
        FROM runs_it
        LEFT JOIN here USING (project, commit, step, source)
        LEFT JOIN without USING (project, environment, service, number)
        LEFT JOIN commits ON commits.project = runs_it.project AND commits.commit = since_commit
        ORDER BY live_at DESC, environment, runs_it.project, runs_it.service, source, version
        """,
        **_parameters(connection, asked),
        live_only=live_only,
    )


def component_branches(
    connection: duckdb.DuckDBPyConnection,
    *,
    asked: str,
    branches: Sequence[str] | None = None,
    limit: int = 1000,
) -> "pd.DataFrame":
    """
    In which code it is: one row per branch, source and version whose newest list has it: `project`, `branch`, `source`,
    `commit`, `committed_at`, `ecosystem`, `namespace`, `name`, `version`, `path`, `direct`.

    branches: only those called so. Raises: InputError for what is no question.
    """
    return _frame(
        connection,
        f"""
        WITH asked AS ({_ASKED}), newest AS (
            SELECT project, branch, step, source, arg_max(commit, (committed_at, listed_at)) AS commit,
                max(committed_at) AS committed_at
            FROM sboms WHERE $branches IS NULL OR list_contains($branches, branch)
            GROUP BY project, branch, step, source
        ), found AS MATERIALIZED (
            SELECT * FROM components WHERE ({_NAMED})
                AND (ecosystem, version) IN (SELECT (ecosystem, version) FROM asked)
        )
        SELECT project, branch, source, commit, committed_at, ecosystem, namespace, name, version, path, direct
        FROM found JOIN newest USING (project, step, source, commit)
        ORDER BY committed_at DESC, project, branch, source LIMIT $limit
        """,
        **_parameters(connection, asked),
        branches=None if branches is None else list(branches),
        limit=limit,
    )


def _parameters(connection: duckdb.DuckDBPyConnection, asked: str) -> Mapping[str, Any]:
    """The parameters of `_ASKED` and `_NAMED`: the versions that the question is about."""
    versions = component_versions(connection, asked=asked)
    wanted = versions[versions["asked"].astype(bool)]
    about = {name: list(wanted[column]) for name, column in (("ecosystems", "ecosystem"), ("versions", "version"))}
    return {"name": parse_question(asked).name.lower(), **about}


def coverage_of_runs(
    connection: duckdb.DuckDBPyConnection, *, project: str | None = None, days: int = 90
) -> "pd.DataFrame":
    """
    One row per run and step of the last `days` days that measured coverage, oldest first: `project`, `run_id`,
    `commit`, `branch`, `step`, `measured_at`, `files`, `lines`, `lines_covered`, `branches`, `branches_covered`,
    `percent`.
    """
    return _frame(
        connection,
        """
        SELECT coverage.project, run_id, coverage.commit,
            regexp_replace(any_value(runs.ref), '^refs/heads/', '') AS branch,
            step, max(measured_at) AS measured_at, count(*) AS files, sum(lines)::BIGINT AS lines,
            sum(lines_covered)::BIGINT AS lines_covered, sum(branches)::BIGINT AS branches,
            sum(branches_covered)::BIGINT AS branches_covered,
            floor(10000 * sum(lines_covered) / nullif(sum(lines), 0)) / 100 AS percent
        FROM coverage LEFT JOIN runs USING (run_id)
        WHERE ($project IS NULL OR coverage.project = $project) AND measured_at >= now() - to_days($days::INT)
        GROUP BY coverage.project, run_id, coverage.commit, step ORDER BY measured_at
        """,
        project=project,
        days=days,
    )
