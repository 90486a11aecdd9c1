"""Pushes to a platform that runs: what fails stays out, what differs runs as it is, what is stopped is gone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa
import yaml
from git_builder import GitRepository
from penstock_running import Penstock, Project, described, state_of, wait_for

from penstock.engines.process import RUN_MARK
from penstock.state.database import create_engine
from penstock.state.tables import routes

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]

TEST = {"name": "test", "type": "step.shell_exec", "commands": ["sh test.sh"]}
PACKAGE = {
    "name": "package",
    "type": "step.shell_exec",
    "needs": ["test"],
    "commands": ["mkdir out", "cp app.py out/"],
    "artifacts_out": [{"key": "app", "path": "out"}],
}
DEPLOY = {
    "name": "deploy",
    "type": "step.deploy",
    "needs": ["package"],
    "environment": "local",
    "artifact": "app",
    "command": ["python3", "app.py"],
    "health": {"http": "/", "interval": 1},
    "drain": "1s",
    "watch": 0,
}
APP = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{version}")
    def log_message(self, *_): ...
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
RERUN = """
mutation Rerun($run: String!) { launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }"""
ALONE = """
mutation Alone($job: String!, $assets: [AssetKeyInput!]!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "penstock", repositoryName: "__repository__", jobName: $job,
               assetSelection: $assets}
    executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on InvalidSubsetError { message } }
}"""
ASSETS = """
query Assets($run: ID!) { runOrError(runId: $run) { ... on Run { status assetMaterializations {
  partition assetKey { path }
} } } }"""
NODES = "query { assetNodes { assetKey { path } dependencyKeys { path } } }"


def pipeline(*steps: dict[str, object]) -> str:
    return str(yaml.safe_dump({"version": 1, "steps": list(steps)}))


@pytest.fixture(scope="session")
def small(home_of_all: Penstock) -> Project:
    """A project of three quick steps whose first commit is deployed."""
    home_of_all.up(*(["--no-example"] if home_of_all.home.exists() else []))
    files = {"penstock.yaml": pipeline(TEST, PACKAGE, DEPLOY), "test.sh": "echo fine\n", "app.py": app("one")}
    project = home_of_all.connect("small", files)
    commit = project.push()
    assert home_of_all.ended_run_of(commit)["state"] == "succeeded"
    return project


@pytest.fixture
def healthy(penstock: Penstock, small: Project) -> Project:
    """The project with its tree at a commit that works, pushed to the default branch or not."""
    small.tree.git("checkout", "--quiet", "-B", "main", "good")
    return small


@pytest.fixture(autouse=True, scope="session")
def _good(small: Project) -> None:
    small.tree.git("tag", "good")


def app(version: str) -> str:
    return APP.replace("{version}", version)


def address(penstock: Penstock, project: str) -> str:
    """Where a project's one service answers."""
    database = create_engine(penstock.settings)
    with database.connect() as connection:
        port = connection.execute(sa.select(routes.c.port).where(routes.c.project == project)).scalar_one()
    database.dispose()
    return f"http://127.0.0.1:{port}"


@contextmanager
def asked_all_the_time(url: str) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """Ask every 20 ms while the block runs. Gives what says: how many answers, what failed."""
    stop, failed, count = threading.Event(), list[str](), [0]

    def ask() -> None:
        while not stop.wait(0.02):
            try:
                answer = httpx.get(url, timeout=30, trust_env=False)
                count[0] += 1
                if answer.status_code != 200:
                    failed.append(str(answer.status_code))
            except httpx.HTTPError as error:
                failed.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: (count[0], failed)
    finally:
        stop.set()
        thread.join()


def text_of(url: str) -> str:
    return httpx.get(url, timeout=30, trust_env=False).text


SHOP_TEST = '''

def test_that_does_not_hold():
    """Broken by this very commit."""
    assert 1 + 1 == 3
'''


def test_broken_test_fails_the_run_names_the_test_and_the_old_release_answers(
    penstock: Penstock, small: Project
) -> None:
    """The shop's own tests: the run fails at `test`, nothing is deployed, and no request fails meanwhile."""
    shop = example(penstock)
    tests = shop.tree.root / "tests" / "test_pricing.py"
    url = address(penstock, "shop")
    before = httpx.get(f"{url}/health", trust_env=False).json()["version"]
    shop.commit({"tests/test_pricing.py": tests.read_text() + SHOP_TEST}, "Break a test")
    with asked_all_the_time(f"{url}/health") as answers:
        run = penstock.ended_run_of(shop.push(force=True))
        count, failed = answers()
    assert (run["state"], state_of(run, "test"), state_of(run, "deploy")) == ("failed", "failed", "skipped")
    assert "test_that_does_not_hold" in run["reason"]
    assert run["reason"].startswith("test: ")
    assert (count > 10, failed) == (True, [])
    assert httpx.get(f"{url}/health", trust_env=False).json()["version"] == before


def test_added_weakness_is_introduced_by_that_commit(penstock: Penstock, small: Project) -> None:
    """Below the gate: the run passes, and the finding's history names the commit and its author."""
    shop = example(penstock)
    source = shop.tree.root / "shop" / "pricing.py"
    shop.commit({"shop/pricing.py": source.read_text() + '\nCACHE = "/tmp/shop-prices"\n'}, "Keep prices")
    commit = shop.push(force=True)
    run = penstock.ended_run_of(commit)
    assert run["state"] == "succeeded", run
    rows = penstock.sql(f"FROM finding_history WHERE introduced_commit = '{commit}'")
    assert {(row["path"], row["state"], row["introduced_by"]) for row in rows} == {
        ("shop/pricing.py", "open", "Ada <ada@example.org>")
    }
    assert "B108" in {row["rule_id"] for row in rows}


def example(penstock: Penstock) -> Project:
    """The bundled example, cloned as anybody would, at the commit that it came with."""
    bare, tree = penstock.home / "repositories" / "shop.git", penstock.folder / "cloned"
    if not tree.exists():
        GitRepository(penstock.folder / "any").git("clone", "--quiet", str(bare), str(tree))
        GitRepository(tree).git("tag", "good")
    shop = Project("shop", bare, GitRepository(tree))
    shop.tree.git("reset", "--quiet", "--hard", "good")
    return shop


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (pipeline(TEST | {"type": "step.shel_exec"}), "step.shell_exec"),
        (pipeline(TEST | {"needs": ["biuld"]}), "biuld"),
        ("version: 1\nsteps:\n\t- name: x\n", "tab"),
    ],
)
def test_wrong_pipeline_is_a_failed_run_with_one_line(
    penstock: Penstock, healthy: Project, text: str, told: str
) -> None:
    """File, line and remedy are the run's reason; nothing ran."""
    healthy.commit({"penstock.yaml": text}, "Break the pipeline")
    run = penstock.ended_run_of(healthy.push("wrong", force=True))
    assert (run["state"], run["steps"]) == ("failed", [])
    assert run["reason"].startswith("penstock.yaml:")
    assert told in run["reason"]
    assert "\n" not in run["reason"]


def test_commit_without_a_pipeline_is_a_failed_run(penstock: Penstock, healthy: Project) -> None:
    """With the remedy."""
    healthy.tree.git("rm", "--quiet", "penstock.yaml")
    healthy.commit({}, "No pipeline")
    run = penstock.ended_run_of(healthy.push("none", force=True))
    assert (run["state"], "penstock init" in run["reason"]) == ("failed", True)


def materialised(penstock: Penstock, run: dict[str, object]) -> dict[str, str]:
    """Asset → partition of what Dagster recorded for a run."""
    found = penstock.graphql(ASSETS, run=run["id"])["runOrError"]["assetMaterializations"]
    return {"/".join(each["assetKey"]["path"]): each["partition"] for each in found}


def test_branch_of_another_structure_runs_as_it_is(penstock: Penstock, healthy: Project) -> None:
    """A step more and other needs, on a branch: the same asset keys at its partition, the default graph unchanged."""
    lint = {"name": "lint", "type": "step.shell_exec", "commands": ["echo neat"]}
    package = PACKAGE | {"needs": ["test", "lint"]}
    healthy.commit({"penstock.yaml": pipeline(TEST, lint, package)}, "Another shape")
    commit = healthy.push("shape", force=True)
    run = penstock.ended_run_of(commit)
    assert run["state"] == "succeeded", run
    assert {step["step"] for step in run["steps"]} == {"test", "lint", "package"}
    partition = commit[:12]
    assert materialised(penstock, run) == {
        "small/test": partition,
        "small/lint": partition,
        "small/package": partition,
    }
    assert "lint" not in graph_of(penstock, "small")


def graph_of(penstock: Penstock, project: str) -> dict[str, set[str]]:
    """Step → what it needs, as Dagster's asset graph has it."""
    nodes = penstock.graphql(NODES)["assetNodes"]
    return {
        node["assetKey"]["path"][1]: {need["path"][1] for need in node["dependencyKeys"]}
        for node in nodes
        if node["assetKey"]["path"][0] == project
    }


def test_structure_of_the_default_branch_reloads_by_itself(penstock: Penstock, small: Project) -> None:
    """A step more on main: this very push runs with it, and the asset graph shows it."""
    project = penstock.connect("growing", {"penstock.yaml": pipeline(TEST), "test.sh": "echo fine\n"})
    assert penstock.ended_run_of(project.push())["state"] == "succeeded"
    assert graph_of(penstock, "growing") == {"test": set()}
    more = {"name": "more", "type": "step.shell_exec", "needs": ["test"], "commands": ["echo more"]}
    project.commit({"penstock.yaml": pipeline(TEST, more)}, "Grow")
    run = penstock.ended_run_of(project.push())
    assert (run["state"], state_of(run, "more")) == ("succeeded", "succeeded")
    assert graph_of(penstock, "growing") == {"test": set(), "more": {"test"}}


def test_rerun_from_dagster_takes_over_what_succeeded(penstock: Penstock, small: Project) -> None:
    """Failed for a reason outside: the rerun runs the failed step and those after it, the rest is reused."""
    gate = penstock.folder / "gate"
    steps = (
        TEST | {"name": "first", "commands": ["echo made > made"], "artifacts_out": [{"key": "made", "path": "made"}]},
        TEST | {"name": "second", "needs": ["first"], "network": True, "commands": [f"test -e {visible(gate)}"]},
        TEST | {"name": "third", "needs": ["second"], "commands": ["cat made"]},
    )
    project = penstock.connect("rerun", {"penstock.yaml": pipeline(*steps)})
    run = penstock.ended_run_of(project.push())
    assert (run["state"], state_of(run, "first"), state_of(run, "third")) == ("failed", "succeeded", "skipped")
    visible(gate).touch()
    try:
        again = penstock.graphql(RERUN, run=run["id"])["launchRunReexecution"]
        assert again["__typename"] == "LaunchRunSuccess", again
        rerun = penstock.ended(again["run"]["runId"])
    finally:
        visible(gate).unlink()
    assert rerun["state"] == "succeeded", rerun
    assert rerun["trigger"] == "rerun"
    steps_of = {step["step"]: step for step in rerun["steps"]}
    assert steps_of["first"]["reused_from"] == run["id"]
    assert [steps_of[name]["reused_from"] for name in ("second", "third")] == [None, None]
    assert len(penstock.runs(rerun["commit"])) == 2


def visible(path: Path) -> Path:
    """A file that a step sees too: /tmp is its own."""
    return Path("/var/tmp") / f"penstock-{path.parent.name}-{path.name}"


def test_deployment_alone_is_refused_where_the_tests_never_passed(penstock: Penstock, healthy: Project) -> None:
    """Launched from Dagster's own pages for a commit whose tests failed: fail-closed, the former release answers."""
    healthy.commit({"test.sh": "exit 1\n", "app.py": app("bad")}, "Fail")
    commit = healthy.push("failing", force=True)
    assert penstock.ended_run_of(commit)["state"] == "failed"
    launched = penstock.graphql(
        ALONE,
        job="small",
        assets=[{"path": ["small", "deploy"]}],
        tags=[{"key": "dagster/partition", "value": commit[:12]}],
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = penstock.ended(launched["run"]["runId"])
    assert (run["state"], state_of(run, "deploy")) == ("failed", "failed")
    assert "no pass is on record for" in run["reason"]
    assert text_of(address(penstock, "small")) == "one"


def test_cancel_ends_the_processes_and_the_run(penstock: Penstock, healthy: Project) -> None:
    """Through the API: what the step started is gone, the run is cancelled, what came after never began."""
    sleeping = TEST | {"commands": ["trap '' TERM; sleep 600 & sleep 600"]}
    healthy.commit({"penstock.yaml": pipeline(sleeping, PACKAGE, DEPLOY)}, "Sleep")
    run = penstock.run_of(healthy.push("sleeping", force=True))
    penstock.step_runs(run["id"], "test")
    wait_for(lambda: len(of_run(run["id"])) >= 2, "the step's processes run")
    penstock.api("POST", f"/runs/{run['id']}/cancel")
    run = penstock.ended(run["id"])
    assert (run["state"], state_of(run, "test"), state_of(run, "package")) == ("cancelled", "cancelled", "skipped")
    assert described(of_run(run["id"])) == []
    assert not (penstock.home / "workspaces" / run["id"]).exists()


def of_run(run_id: str) -> list[psutil.Process]:
    """Every process that a run's steps started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_MARK, "").startswith(run_id):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_project_of_a_force_push_back_is_deployed_again(penstock: Penstock, healthy: Project) -> None:
    """main goes on, back by force, and on again: each time what main says is what answers."""
    url = address(penstock, "small")
    versions = {"one": healthy.tree.git("rev-parse", "good"), "two": healthy.commit({"app.py": app("two")}, "Two")}
    for version in ("two", "one", "two"):
        healthy.tree.git("checkout", "--quiet", "-B", "main", versions[version])
        healthy.push(force=True)
        wait_for(lambda wanted=version: text_of(url) == wanted, f"version {version} answers")


def test_approved_gate_goes_on_once_in_a_new_run(penstock: Penstock, healthy: Project) -> None:
    """What came after one gate does not run again when another one is answered."""
    done = {"type": "step.shell_exec", "commands": ["echo gone"]}
    gate = {"type": "step.gate", "approval": {}, "needs": ["test"]}
    steps = [TEST, {"name": "one", **gate}, {"name": "two", **gate}]
    steps += [{"name": "after-one", "needs": ["one"], **done}, {"name": "after-two", "needs": ["two"], **done}]
    healthy.commit({"penstock.yaml": pipeline(*steps)}, "Ask people")
    first = penstock.ended_run_of(healthy.push("asking", force=True))
    assert (first["state"], state_of(first, "one"), state_of(first, "after-one")) == ("waiting", "waiting", "skipped")
    said = penstock.command("approve", first["id"][:8], "one")
    assert "goes on from there" in said.stdout, said.stderr
    assert penstock.run(first["id"])["state"] == "skipped"
    gone = penstock.command("approve", first["id"][:8], "two")
    assert gone.returncode != 0
    (second,) = [run for run in penstock.runs(first["commit"]) if run["id"] != first["id"]]
    second = penstock.ended(second["id"])
    assert (second["state"], state_of(second, "after-one"), state_of(second, "two")) == (
        "waiting",
        "succeeded",
        "waiting",
    )
    said = penstock.command("reject", second["id"][:8], "two", "--why", "not today")
    assert "stays shut" in said.stdout, said.stderr
    assert len(penstock.runs(first["commit"])) == 2
    assert penstock.run(second["id"])["reason"].startswith("two: rejected by")
