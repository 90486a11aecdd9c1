"""Definitions made from the state database: what Dagster is shown of the projects."""

from collections.abc import Callable

import attrs
import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from git_builder import GitRepository

from definitions.catalog import build, current_version, load, run_ended
from penstock.events import inbox
from penstock.events.dispatch import TAG_STRUCTURE, Launch, prepare
from penstock.events.inbox import Push
from penstock.pipeline import records
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.steps.context import StepResult

TEST = {
    "name": "unit-test",
    "type": "step.shell_exec",
    "commands": ["true"],
    "artifacts_out": [{"key": "app", "path": "."}],
    "reports": {"junit": "junit.xml"},
}
SCAN = {"name": "scan", "type": "step.scan_sast", "scanner": "bandit"}
DEPLOY = {
    "name": "deploy",
    "type": "step.deploy",
    "needs": ["unit-test", "scan"],
    "environment": "local",
    "artifact": "app",
    "command": ["true"],
}
Prepared = Callable[..., Launch]


def pipeline(*steps: dict[str, object]) -> str:
    return str(yaml.safe_dump({"version": 1, "steps": list(steps)}))


@pytest.fixture
def pushed(
    database: sa.Engine, settings: Settings, make_repository: Callable[..., GitRepository]
) -> Callable[..., Launch]:
    """pushed(steps, branch, project) → what is to run for a commit with these steps."""
    trees: dict[str, GitRepository] = {}

    def push(*steps: dict[str, object], branch: str = "main", project: str = "my-shop") -> Launch:
        known = project in trees
        tree = trees.setdefault(project, make_repository(project)) if not known else trees[project]
        tree.git("checkout", "--quiet", "-B", branch)
        commit = tree.commit({"penstock.yaml": pipeline(*steps)})
        if not known:
            add_project(database, project, str(tree.root))
        inbox.accept(database, Push(project, f"refs/heads/{branch}", commit))
        (event,) = inbox.claim(database)
        launch = prepare(database, settings, event)
        assert launch is not None
        return launch

    return push


@pytest.fixture
def here(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads the test's settings."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def test_without_a_project_there_are_the_warehouse_and_the_sensors(database: sa.Engine) -> None:
    """A fresh home loads."""
    repository = build(database).get_repository_def()
    assert repository.has_sensor_def("git_events")
    assert repository.has_sensor_def("run_records")
    assert {key.path[0] for key in repository.assets_defs_by_key} == {"warehouse"}


def test_each_step_is_an_asset_partitioned_by_commit(database: sa.Engine, pushed: Prepared) -> None:
    """Its key is project and step, its dependencies are its needs, its kind is what its type makes."""
    pushed(TEST, SCAN, DEPLOY)
    assets = build(database).get_repository_def().asset_graph
    deploy = assets.get(dg.AssetKey(["my-shop", "deploy"]))
    assert {tuple(key.path) for key in deploy.parent_keys} == {("my-shop", "unit-test"), ("my-shop", "scan")}
    assert deploy.partitions_def == dg.DynamicPartitionsDefinition(name="my-shop/commits")
    assert [assets.get(dg.AssetKey(["my-shop", name])).kinds for name in ("unit-test", "scan", "deploy")] == [
        {"build"},
        {"report"},
        {"deployment"},
    ]


def test_gates_are_blocking_checks(database: sa.Engine, pushed: Prepared) -> None:
    """Tests, findings and health."""
    pushed(TEST, SCAN, DEPLOY)
    graph = build(database).get_repository_def().asset_graph
    checks = {(key.asset_key.path[-1], key.name): graph.get_check_spec(key).blocking for key in graph.asset_check_keys}
    assert checks == {("unit-test", "tests"): True, ("scan", "findings"): True, ("deploy", "healthy"): True}


def test_job_of_the_default_branch_says_its_structure(database: sa.Engine, pushed: Prepared) -> None:
    """So that whoever launches it knows which shape Dagster has loaded."""
    launch = pushed(TEST)
    job = build(database).get_repository_def().get_job("my_shop")
    assert (launch.job, job.tags[TAG_STRUCTURE]) == ("my_shop", launch.info.structure_hash)


def test_other_structure_is_a_job_of_its_own(database: sa.Engine, pushed: Prepared) -> None:
    """Its plan has the branch's steps under the names that the default branch's have; the assets stay."""
    pushed(TEST)
    branch = pushed(TEST, SCAN, branch="feature")
    repository = build(database).get_repository_def()
    job = repository.get_job(branch.job)
    assert branch.job.startswith("my_shop__")
    assert {node.name for node in job.graph.nodes} == {"my_shop__unit_test", "my_shop__scan"}
    assert dg.AssetKey(["my-shop", "scan"]) not in repository.assets_defs_by_key


def test_newest_structure_of_the_default_branch_is_the_graph(database: sa.Engine, pushed: Prepared) -> None:
    """The former one stays as a job, for its branches."""
    former = pushed(TEST)
    newer = pushed(TEST, SCAN)
    repository = build(database).get_repository_def()
    assert repository.get_job("my_shop").tags[TAG_STRUCTURE] == newer.info.structure_hash
    assert repository.has_job(f"my_shop__{former.info.structure_hash[:10]}")


def test_commands_do_not_change_the_structure(database: sa.Engine, pushed: Prepared, here: None) -> None:
    """Another image, other commands: nothing is loaded anew."""
    first = pushed(TEST)
    version = current_version()
    second = pushed(TEST | {"commands": ["false"]})
    assert first.info.graph_hash != second.info.graph_hash
    assert (first.info.structure_hash, version) == (second.info.structure_hash, current_version())


def test_version_changes_with_the_structures(database: sa.Engine, pushed: Prepared, here: None) -> None:
    """A new one, on a branch or as the default, makes the run server load again."""
    versions = [current_version()]
    for steps, branch in (((TEST,), "main"), ((TEST, SCAN), "feature"), ((TEST, SCAN), "main")):
        pushed(*steps, branch=branch)
        versions.append(current_version())
    assert len(set(versions)) == 4


def test_two_projects_with_the_same_steps_are_kept_apart(database: sa.Engine, pushed: Prepared, here: None) -> None:
    """Each has its job and its partitions."""
    pushed(TEST)
    pushed(TEST, project="other")
    _, repository = load()
    assert {"my_shop", "other"} <= {job.name for job in repository.get_all_jobs()}


def test_end_of_a_run_closes_its_records(database: sa.Engine, pushed: Prepared, here: None) -> None:
    """Once, however often it is told; what was cut off says why; the workspace is gone."""
    launch = pushed(TEST)
    info = attrs.evolve(launch.info, id="run-1")
    records.create_run(database, info, launch.graph, event_key=launch.event_key)
    records.start_run(database, "run-1")
    records.start_step(database, "run-1", "unit-test")
    run_ended("run-1", "FAILURE", "run process was killed by signal 9 (Killed)")
    run_ended("run-1", "SUCCESS", "")
    run = records.load_run(database, "run-1")
    assert (run.state, run.reason) == ("infra_error", "unit-test: run process was killed by signal 9 (Killed)")
    assert run.ingested


def test_end_of_an_unknown_run_is_no_error(database: sa.Engine, here: None) -> None:
    """The warehouse's upkeep is a run too, and none of ours."""
    run_ended("unknown", "SUCCESS", "")


def test_step_that_was_told_to_stop_when_its_process_was_lost_is_not_called_cancelled(
    database: sa.Engine, pushed: Prepared, here: None
) -> None:
    """Nobody cancelled: the run and the step say what broke."""
    launch = pushed(TEST)
    info = attrs.evolve(launch.info, id="run-2")
    records.create_run(database, info, launch.graph)
    records.start_run(database, "run-2")
    records.start_step(database, "run-2", "unit-test")
    records.finish_step(database, info, "unit-test", StepResult("cancelled", reason="the run was cancelled"))
    run_ended("run-2", "FAILURE", "the run process was lost")
    (step,) = records.list_steps(database, "run-2")
    assert (step.state, step.reason) == ("infra_error", "the run process was lost")
    assert records.load_run(database, "run-2").state == "infra_error"
