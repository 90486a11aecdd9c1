"""Steps as assets, run in this process by Dagster with real commands."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from git_builder import GitRepository

from assets.steps import metadata_of, raise_unless_done
from definitions.catalog import build
from penstock.events import inbox
from penstock.events.dispatch import prepare
from penstock.events.inbox import Push
from penstock.pipeline import records
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.steps.context import Artifact, StepResult, Verdict
from resources.session import run_database

JUNIT = """<testsuite name="s" tests="2"><testcase name="one"/><testcase name="two">{}</testcase></testsuite>"""


def step(name: str, *commands: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "step.shell_exec", "commands": list(commands), **more}


class Shop:
    """A project whose commits are run in this process, as Dagster's own run process would."""

    def __init__(self, database: sa.Engine, settings: Settings, tree: GitRepository) -> None:
        self.database, self.settings, self.tree = database, settings, tree
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, *steps: dict[str, object], files: dict[str, str] | None = None, branch: str = "main") -> Any:
        """Push a commit with these steps and execute what it launches. Returns: Dagster's result."""
        self.tree.git("checkout", "--quiet", "-B", branch)
        text = yaml.safe_dump({"version": 1, "steps": list(steps)})
        commit = self.tree.commit({"penstock.yaml": text, **(files or {})})
        add_project(self.database, "shop", str(self.tree.root))
        inbox.accept(self.database, Push("shop", f"refs/heads/{branch}", commit))
        (event,) = inbox.claim(self.database)
        launch = prepare(self.database, self.settings, event)
        assert launch is not None
        self.instance.add_dynamic_partitions(launch.partitions, [launch.info.partition])
        job = build(self.database).get_repository_def().get_job(launch.job)
        tags = dict(launch.tags)
        return job.execute_in_process(
            instance=self.instance,
            partition_key=launch.info.partition,
            tags=tags,
            raise_on_error=False,
        )


@pytest.fixture
def shop(
    database: sa.Engine,
    settings: Settings,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    make_repository: Callable[..., GitRepository],
) -> Iterator[Shop]:
    """The project, with this process reading the test's settings."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    run_database.cache_clear()
    made = Shop(database, settings, make_repository("shop", {"readme": "x"}))
    yield made
    made.instance.dispose()
    run_database.cache_clear()


def materialised(result: Any) -> dict[str, dict[str, object]]:
    """Step → metadata of what was materialised."""
    events = [event for event in result.all_events if event.is_step_materialization]
    found = (event.step_materialization_data.materialization for event in events)
    return {one.asset_key.path[-1]: {name: value.value for name, value in one.metadata.items()} for one in found}


def checks(result: Any) -> dict[str, tuple[bool, dict[str, object]]]:
    """Step → whether its check passed, and the evidence."""
    events = [event for event in result.all_events if event.event_type_value == "ASSET_CHECK_EVALUATION"]
    return {
        event.event_specific_data.asset_key.path[-1]: (
            event.event_specific_data.passed,
            {name: value.value for name, value in event.event_specific_data.metadata.items()},
        )
        for event in events
    }


def logged(shop: Shop, result: Any) -> str:
    """Everything that the run's log says in words."""
    return "\n".join(entry.user_message for entry in shop.instance.all_logs(result.run_id))


@pytest.mark.parametrize("branch", ["main", "feature"])
def test_run_of_a_commit_materialises_its_steps(shop: Shop, branch: str) -> None:
    """As assets of the default branch, and as events about the same assets for another structure."""
    if branch == "feature":
        shop.run(step("other", "true"))
    made = step("build", "echo bytes > out", artifacts_out=[{"key": "app", "path": "out"}])
    result = shop.run(made, step("use", "cat out", needs=["build"]), branch=branch)
    assert result.success
    found = materialised(result)
    assert set(found) == {"build", "use"}
    assert found["build"]["state"] == "succeeded"
    assert str(found["build"]["artifact/app"]).startswith("sha256:")
    assert len(shop.instance.get_materialized_partitions(dg.AssetKey(["shop", "use"]))) == 1


def test_output_of_a_step_is_in_the_runs_log(shop: Shop) -> None:
    """What it printed and what Penstock said, the last 200 lines in one event."""
    result = shop.run(step("chatty", "for i in $(seq 1 500); do echo line-$i; done"))
    text = logged(shop, result)
    assert "line-500" in text
    assert "line-301" in text
    assert "line-299\n" not in text


@pytest.mark.parametrize("branch", ["main", "feature"])
def test_failed_tests_fail_the_check_and_what_needs_it_never_begins(shop: Shop, branch: str) -> None:
    """The evidence names the test; no asset, and none of what comes after."""
    if branch == "feature":
        shop.run(step("other", "true"))
    junit = {"junit.xml": JUNIT.format('<failure message="no"/>')}
    result = shop.run(
        step("test", "exit 1", reports={"junit": "junit.xml"}),
        step("ship", "true", needs=["test"]),
        files=junit,
        branch=branch,
    )
    assert not result.success
    assert materialised(result) == {}
    passed, evidence = checks(result)["test"]
    assert (passed, evidence["failed"], evidence["failing"]) == (False, 1, "two")
    steps = {record.step: record.state for record in records.list_steps(shop.database, result.run_id)}
    assert (steps["test"], steps["ship"]) == ("failed", "queued")


def test_passed_tests_are_the_checks_evidence(shop: Shop) -> None:
    """Their number, and the summary."""
    report = {"junit.xml": JUNIT.format("")}
    result = shop.run(step("test", "true", reports={"junit": "junit.xml"}), files=report)
    passed, evidence = checks(result)["test"]
    assert (passed, evidence["tests"], evidence["summary"]) == (True, 2, "2 tests passed")


def test_steps_beside_a_failed_one_go_on(shop: Shop) -> None:
    """Only what needs it is held back."""
    result = shop.run(step("bad", "exit 3"), step("good", "true"), step("after", "true", needs=["good"]))
    assert not result.success
    assert set(materialised(result)) == {"good", "after"}


def test_records_name_the_push(shop: Shop) -> None:
    """Ref, trigger and author of the run are the event's; the event knows its run."""
    result = shop.run(step("one", "true"))
    run = records.load_run(shop.database, result.run_id)
    assert (run.info.ref, run.info.trigger, run.info.author) == ("refs/heads/main", "push", "Ada <ada@example.org>")
    (event,) = inbox.list_events(shop.database)
    assert (event.state, event.run_id) == ("started", result.run_id)


def test_second_run_of_one_event_is_refused(shop: Shop) -> None:
    """However two came to be launched for it, only one runs."""
    first = shop.run(step("one", "true"))
    (event,) = inbox.list_events(shop.database)
    launch = prepare(shop.database, shop.settings, event)
    assert launch is not None
    job = build(shop.database).get_repository_def().get_job(launch.job)
    second = job.execute_in_process(
        instance=shop.instance, partition_key=launch.info.partition, tags=dict(launch.tags), raise_on_error=False
    )
    assert (first.success, second.success) == (True, False)
    assert len(records.list_runs(shop.database)) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled", "timed_out", "infra_error"])
def test_every_state_but_done_fails_the_step(state: Any) -> None:
    """With state and reason; Dagster tries none of them again by itself."""
    with pytest.raises(dg.Failure) as failure:
        raise_unless_done(StepResult(state, reason="because"))
    assert failure.value.description == f"{state}: because"
    assert not failure.value.allow_retries


@pytest.mark.parametrize("state", ["succeeded", "skipped"])
def test_done_fails_nothing(state: Any) -> None:
    """Skipped neither."""
    raise_unless_done(StepResult(state))


def test_metadata_tells_verdict_artifacts_outputs_and_cost() -> None:
    """Addresses can be clicked."""
    result = StepResult(
        "succeeded",
        verdict=Verdict("tests", passed=True, summary="3 tests passed", evidence={"tests": 3}),
        artifacts=(Artifact(key="app", path="out", kind="file", digest="ab", size_bytes=7),),
        outputs={"url": "http://127.0.0.1:1", "release": "4"},
        metrics={"code_lines": 1200.0},
        cpu_s=0.5,
    )
    assert metadata_of(result) == {
        "state": "succeeded",
        "tests": 3,
        "summary": "3 tests passed",
        "artifact/app": "sha256:ab (7 bytes)",
        "output/url": dg.MetadataValue.url("http://127.0.0.1:1"),
        "output/release": "4",
        "metric/code_lines": 1200.0,
        "cpu_s": 0.5,
    }


@pytest.mark.parametrize("branch", ["main", "feature"])
def test_step_that_is_not_needed_lets_the_rest_go_on(shop: Shop, branch: str) -> None:
    """Dagster would skip what comes after an asset that yields nothing; its check is not failed either."""
    if branch == "feature":
        shop.run(step("other", "true"))
    result = shop.run(
        step("test", "true", reports={"junit": "junit.xml"}, when={"tag": "v*"}),
        step("ship", "true", needs=["test"]),
        branch=branch,
    )
    assert result.success
    found = materialised(result)
    assert (found["test"]["state"], found["ship"]["state"]) == ("skipped", "succeeded")
    assert checks(result)["test"][0]


@pytest.mark.parametrize("branch", ["main", "feature"])
def test_failure_that_is_allowed_is_seen_and_stops_nothing(shop: Shop, branch: str) -> None:
    """The check has failed, as a warning, which Dagster does not block on."""
    if branch == "feature":
        shop.run(step("other", "true"))
    result = shop.run(
        step("test", "exit 1", reports={"junit": "junit.xml"}, continue_on_error=True),
        step("ship", "true", needs=["test"]),
        files={"junit.xml": JUNIT.format('<failure message="no"/>')},
        branch=branch,
    )
    assert result.success
    assert materialised(result)["ship"]["state"] == "succeeded"
    assert not checks(result)["test"][0]
    records.finish_run(shop.database, result.run_id)
    assert records.load_run(shop.database, result.run_id).state == "succeeded"


def test_gate_that_waits_ends_the_run(shop: Shop) -> None:
    """Nothing after it begins, and no process waits for the person."""
    gate = {"name": "release", "type": "step.gate", "approval": {}, "needs": ["build"]}
    result = shop.run(step("build", "true"), gate, step("ship", "true", needs=["release"]))
    assert not result.success
    assert set(materialised(result)) == {"build"}
    records.finish_run(shop.database, result.run_id)
    assert records.load_run(shop.database, result.run_id).state == "waiting"
