"""Components, images and coverage in the warehouse, and the questions about them."""

from typing import Any

import duckdb
import pytest
from lake_rows import at, commit, release

from penstock.errors import InputError
from penstock.warehouse import (
    ComponentList,
    Coverage,
    Image,
    ListedComponent,
    Sbom,
    Warehouse,
    inventory,
)

LOG4J = ("maven", "org.apache.logging.log4j", "log4j-core")
EXPRESS = ("npm", None, "express")


def component(number: int, of: tuple[str, str | None, str], version: str, **fields: Any) -> ListedComponent:
    """A component of the commit of that number."""
    ecosystem, namespace, name = of
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "run_id": f"r{number}",
        "step": "deps",
        "source": "checkout",
        "ecosystem": ecosystem,
        "namespace": namespace,
        "name": name,
        "version": version,
        "kind": "library",
        "purl": f"pkg:{ecosystem}/{namespace}/{name}@{version}".replace("None/", ""),
        "listed_at": at(number),
        "licences": ("Apache-2.0",),
        "path": "pom.xml",
        "direct": True,
    }
    return ListedComponent(**(values | fields))


def listed(number: int, *found: tuple[tuple[str, str | None, str], str], **fields: Any) -> ComponentList:
    """The list of the commit of that number."""
    values: dict[str, Any] = {
        "project": "shop",
        "commit": f"c{number}",
        "branch": "main",
        "run_id": f"r{number}",
        "step": "deps",
        "source": "checkout",
        "committed_at": at(number),
        "listed_at": at(number + 0.5),
        "components": len(found),
    }
    sbom = Sbom(**(values | fields))
    same = {name: getattr(sbom, name) for name in ("project", "commit", "run_id", "step", "source", "image_digest")}
    return ComponentList(sbom=sbom, components=[component(number, *each, **same) for each in found])


@pytest.fixture
def shop(warehouse: Warehouse, reader: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """log4j-core comes with c2, is mended on main with c5; production runs c3, staging got c5."""
    versions = {1: None, 2: "2.14.1", 3: "2.14.1", 4: "2.16.0", 5: "2.17.1"}
    lists = [
        listed(number, (EXPRESS, "4.17.1"), *([(LOG4J, version)] if version else []))
        for number, version in versions.items()
    ]
    releases = [
        release(1, state="superseded", ended_at=at(6)),
        release(2, commit="c3"),
        release(1, environment="staging", commit="c3", state="superseded", ended_at=at(8)),
        release(2, environment="staging", commit="c5", created_at=at(7), live_at=at(8)),
    ]
    warehouse.record(*(commit(number) for number in versions), *lists, *releases)
    return reader


def test_who_runs_it_since_when_and_what_mends_it(shop: duckdb.DuckDBPyConnection):
    """The live release, the commit that brought it with its author, the commit and the release that mend it."""
    (row,) = inventory.component_releases(shop, asked="log4j-core < 2.17.1").itertuples()
    assert (row.environment, row.service, row.number, row.version) == ("production", "web", 2, "2.14.1")
    assert (row.since_commit, row.since_by, row.fixed_commit) == ("c2", "author2", "c5")
    assert (row.fixed_release, row.fixed_environment) == (2, "staging")
    assert (row.path, row.direct, list(row.licences)) == ("pom.xml", True, ["Apache-2.0"])


@pytest.mark.parametrize(
    ("asked", "versions"),
    [
        ("log4j-core", ["2.17.1", "2.14.1"]),
        ("LOG4J-CORE >= 2.17", ["2.17.1"]),
        ("org.apache.logging.log4j:log4j-core < 2.15", ["2.14.1"]),
        ("pkg:maven/org.apache.logging.log4j/log4j-core 2.14.1", ["2.14.1"]),
        ("log4j-core < 2", []),
        ("log4j", []),
        ("x' OR '1'='1", []),
    ],
)
def test_question_finds_its_versions(shop: duckdb.DuckDBPyConnection, asked: str, versions: list[str]):
    """By name, with a group or as a purl; a part of a name is another name."""
    assert sorted(inventory.component_releases(shop, asked=asked)["version"], reverse=True) == versions


def test_former_releases_are_shown_when_asked_for(shop: duckdb.DuckDBPyConnection):
    """Newest first."""
    found = inventory.component_releases(shop, asked="log4j-core < 2.17.1", live_only=False)
    assert set(zip(found["environment"], found["number"], strict=True)) == {("production", 2), ("staging", 1)}


def test_versions_are_in_their_ecosystem_s_order(shop: duckdb.DuckDBPyConnection):
    """The latest first, with whether the question is about them."""
    found = inventory.component_versions(shop, asked="log4j-core < 2.17.1")
    assert list(found["version"]) == ["2.17.1", "2.16.0", "2.14.1"]
    assert list(found["asked"]) == [False, True, True]
    assert list(found["commits"]) == [1, 1, 2]


def test_code_is_what_the_newest_list_of_a_branch_says(shop: duckdb.DuckDBPyConnection, warehouse: Warehouse):
    """Main has mended it, a branch has not."""
    assert inventory.component_branches(shop, asked="log4j-core < 2.17.1").empty
    warehouse.record(listed(4, (LOG4J, "2.16.0"), branch="topic"))
    found = inventory.component_branches(shop, asked="log4j-core < 2.17.1")
    assert list(zip(found["branch"], found["commit"], strict=True)) == [("topic", "c4")]
    assert inventory.component_branches(shop, asked="log4j-core < 2.17.1", branches=["main"]).empty


def test_what_came_back_is_there_since_it_came_back(warehouse: Warehouse, reader: duckdb.DuckDBPyConnection):
    """The unbroken row of commits up to the release counts, and a later fix."""
    there = {1: True, 2: False, 3: True, 4: True, 5: False, 6: True}
    lists = [listed(number, *([(LOG4J, "2.14.1")] if has_it else [])) for number, has_it in there.items()]
    warehouse.record(*(commit(number) for number in there), *lists, release(1, commit="c4"))
    (row,) = inventory.component_releases(reader, asked="log4j-core").itertuples()
    assert (row.since_commit, row.fixed_commit) == ("c3", "c5")


def test_release_runs_its_own_image_only(warehouse: Warehouse, reader: duckdb.DuckDBPyConnection):
    """Of two images of a commit, a service has the components of the one whose digest it runs."""
    for name, digest, version in (("web", "a" * 64, "2.14.1"), ("job", "b" * 64, "2.17.1")):
        of_image = {"source": name, "step": f"scan-{name}", "image_digest": f"sha256:{digest}"}
        warehouse.record(listed(1, (LOG4J, version), **of_image))
    warehouse.record(
        release(1, service="web", artifact_digest="a" * 64),
        release(1, service="job", artifact_digest=f"sha256:{'b' * 64}"),
        release(1, service="other", artifact_digest="c" * 64),
    )
    found = inventory.component_releases(reader, asked="log4j-core < 2.17.1")
    assert set(found["service"]) == {"web", "other"}


def test_newer_list_of_a_commit_replaces_the_older(warehouse: Warehouse, reader: duckdb.DuckDBPyConnection):
    """Also one that names nothing; another step's list stays."""
    warehouse.record(listed(1, (LOG4J, "2.14.1")), listed(1, (EXPRESS, "4.17.1"), step="image", source="shop"))
    warehouse.record(listed(1, (LOG4J, "2.16.0"), run_id="again"))
    rows = "SELECT step, version FROM components ORDER BY step"
    assert reader.sql(rows).fetchall() == [("deps", "2.16.0"), ("image", "4.17.1")]
    warehouse.record(listed(1))
    assert reader.sql(rows).fetchall() == [("image", "4.17.1")]
    assert reader.sql("SELECT count(*) FROM sboms").fetchall() == [(2,)]


def test_names_are_searched_by_a_part(shop: duckdb.DuckDBPyConnection):
    """With how many projects and live releases have them."""
    (row,) = inventory.component_names(shop, words="LOG4J").itertuples()
    assert (row.ecosystem, row.name, row.projects, row.live, row.versions) == ("maven", "log4j-core", 1, 1, 2)
    assert len(inventory.component_names(shop)) == 2
    assert inventory.component_names(shop, words="%").empty


@pytest.mark.parametrize("question", ["component_versions", "component_releases", "component_branches"])
def test_what_is_no_question_is_refused(reader: duckdb.DuckDBPyConnection, question: str):
    """One line, before anything is asked; and an empty warehouse has no rows."""
    ask = getattr(inventory, question)
    with pytest.raises(InputError, match="no component is named"):
        ask(reader, asked="< 1")
    assert ask(reader, asked="log4j-core < 2").empty


def test_images_and_coverage_are_kept(warehouse: Warehouse, reader: duckdb.DuckDBPyConnection):
    """Written again they are replaced; coverage is summed by run."""
    of = {"project": "shop", "commit": "c1", "run_id": "r1"}
    image = Image(
        **of, step="build", name="shop:1", image_id="sha256:1", size_bytes=9, layers=3, platform="linux/amd64"
    )
    files = [
        Coverage(**of, step="test", path="a.py", lines=3, lines_covered=3, measured_at=at(1)),
        Coverage(**of, step="test", path="b.py", lines=3, lines_covered=1, branches=2, measured_at=at(1)),
    ]
    for _ in range(2):
        warehouse.record(image, *files)
    assert reader.sql("SELECT layers, size_bytes FROM images").fetchall() == [(3, 9)]
    (row,) = inventory.coverage_of_runs(reader, days=36_500).itertuples()
    assert (row.files, row.lines, row.lines_covered, row.branches, row.percent) == (2, 6, 4, 2, 66.66)
