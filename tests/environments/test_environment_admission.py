"""Deployments under an environment's rules: real runs on a real platform, with the keeper, Caddy and the vault."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.deploy.plan import Service
from penstock.deploy.releases import live_releases, service_url
from penstock.environments import store, waiting
from penstock.environments.model import Environment, NamedRules
from penstock.people.audit import list_changes
from penstock.pipeline import records
from penstock.pipeline.approvals import answer, find_request
from penstock.pipeline.log import utc_now
from penstock.pipeline.records import RunRecord, StepRecord
from penstock.pipeline.session import open_services
from penstock.platform.dagster import DagsterClient
from penstock.state.environment_tables import deployment_waits
from penstock.vault import SHARED, open_vault
from tests.deploy.conftest import Platform, running_platform
from tests.pipeline.run_sessions import Runner, step

SERVICE = (Path(__file__).parents[1] / "deploy" / "app" / "service.py").read_text()
SECRET = "correct-horse-battery-staple"
LONG = {"name": "long", "begins": "2026-01-01", "ends": "2999-01-01"}
BUILD = step("build", "mkdir app && cp service.py app/", more="artifacts_out:\n  - {key: app, path: app}")
AWAY = DagsterClient.at("http://127.0.0.1:1")


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """One for all tests of this file; each has an environment of its own."""
    with running_platform() as running:
        open_vault(running.settings).write(SHARED, "db-password", SECRET.encode())
        yield running


@attrs.frozen
class Bench:
    """Runs pipelines of a project that deploys."""

    platform: Platform
    runner: Runner

    @property
    def database(self) -> sa.Engine:
        return self.platform.engine

    def environment(self, name: str, **rules: Any) -> Environment:
        with self.database.begin() as connection:
            return store.add(connection, NamedRules.model_validate({"name": name, **rules}), "ada")

    def deploy(
        self, environment: str, command: str = "python3 service.py", *, more: str = "", **facts: Any
    ) -> tuple[RunRecord, StepRecord]:
        """Build and deploy; a text more in the file is another commit."""
        pipeline = BUILD + deploying(environment, command, more)
        run, steps = self.runner.run(pipeline, facts=facts, **{"service.py": SERVICE})
        return run, steps["deploy"]

    def again(self, **facts: Any) -> tuple[RunRecord, StepRecord]:
        """The same commit, with what had passed."""
        run, steps = self.runner.run(only={"deploy"}, facts=facts)
        return run, steps["deploy"]

    def waits(self, environment: str) -> list[tuple[str, datetime | None]]:
        with self.database.connect() as connection:
            return [(wait.run_id, wait.look_at) for wait in waiting.list_waits(connection, environment)]

    def step(self, run: RunRecord) -> tuple[str, str]:
        """How a run and its deployment stand now."""
        found = {one.step: one for one in records.list_steps(self.database, run.info.id)}["deploy"]
        return records.load_run(self.database, run.info.id).state, f"{found.state}: {found.reason}"


def deploying(environment: str, command: str, more: str = "", name: str = "deploy") -> str:
    fields = {
        "name": name, "type": "step.deploy", "needs": ["build"], "environment": environment, "service": environment,
        "artifact": "app", "command": command, "health": {"http": "/health", "interval": "1s", "healthy_after": 1},
        "env": {"VERSION": "the step's", "ONLY_STEP": more or "yes"}, "watch": "0s",
    }  # fmt: skip
    return f"  - {json.dumps(fields)}\n"


@pytest.fixture
def bench(platform: Platform, make_repository: Callable[..., GitRepository]) -> Bench:
    services = open_services(platform.settings, platform.engine, platform_up=True)
    return Bench(platform, Runner(make_repository(), services))


def test_variables_and_secrets_reach_the_service_and_nothing_else(bench: Bench):
    """The platform's win over the step's; the secret's value is in the process alone."""
    env = {"VERSION": "the platform's", "COLOUR": "blue"}
    bench.environment("granting", env=env, secret_env={"DB_PASSWORD": "db-password"})
    run, deployed = bench.deploy("granting")
    assert deployed.state == "succeeded", deployed.reason
    url = service_url(bench.database, Service("shop", "granting", "granting"))
    with urllib.request.urlopen(f"{url}/environment", timeout=20) as response:
        seen = json.load(response)
    assert (seen["VERSION"], seen["COLOUR"], seen["ONLY_STEP"]) == ("the platform's", "blue", "yes")
    assert seen["DB_PASSWORD"] == SECRET
    (live,) = [one for one in live_releases(bench.database) if one.service.environment == "granting"]
    assert live.configuration.secret_env == {"DB_PASSWORD": "db-password"}
    with bench.database.connect() as connection:
        kept = str(connection.execute(sa.text("SELECT to_jsonb(r) FROM releases r")).all())
        kept += str(connection.execute(sa.text("SELECT to_jsonb(a) FROM audit a")).all())
    assert SECRET not in kept
    assert SECRET not in str(bench.runner.log(run, "deploy", own=True))


def test_secret_that_a_service_prints_is_in_no_log_of_the_step(bench: Bench):
    """A release that crashes shows its last lines, without the secret in them."""
    bench.environment("telling", secret_env={"DB_PASSWORD": "db-password"})
    run, deployed = bench.deploy("telling", 'echo "the word is $DB_PASSWORD"; exit 3')
    assert deployed.state == "failed"
    assert "the word is ***" in str(deployed.reason)
    log = (*bench.runner.log(run, "deploy"), *bench.runner.log(run, "deploy", own=True))
    assert "the word is ***" in str(log)
    assert SECRET not in str(log) + str(deployed.reason)


def test_secret_that_is_not_there_is_said_before_anything_begins(bench: Bench):
    bench.environment("lacking", secret_env={"X": "absent"})
    _, deployed = bench.deploy("lacking")
    assert deployed.state == "failed"
    assert 'has no secret "absent"' in str(deployed.reason)


def test_environment_comes_to_be_with_its_first_deployment_unless_only_known_ones_may(bench: Bench):
    """Made by Penstock, and in the audit; where only known ones may, it is refused with what to do."""
    _, deployed = bench.deploy("newcomer")
    assert deployed.state == "succeeded", deployed.reason
    with bench.database.connect() as connection:
        made = store.get_environment(connection, "newcomer")
        (change,) = list_changes(connection, subject="newcomer")
    assert (made.created_by, made.rules.production, change.action) == ("Penstock", False, "environment.add")
    strict = attrs.evolve(bench.runner.services.settings, environments="known")
    runner = attrs.evolve(bench.runner, services=attrs.evolve(bench.runner.services, settings=strict))
    _, deployed = attrs.evolve(bench, runner=runner).deploy("unheard-of")
    assert deployed.state == "failed"
    assert "make it with `penstock environment add unheard-of`" in str(deployed.reason)
    _, deployed = attrs.evolve(bench, runner=runner).deploy("newcomer")
    assert deployed.state == "succeeded", deployed.reason


def test_what_the_rules_refuse_fails_with_every_reason(bench: Bench):
    """And nothing of it is started."""
    bench.environment("strict", projects="web", refs={"tags": "v*"}, target={"name": "docker"})
    run, deployed = bench.deploy("strict")
    assert (run.state, deployed.state) == ("failed", "failed")
    for words in ("takes no deployments of shop", "from the branch main", "the step asks for process"):
        assert words in str(deployed.reason)
    assert [one for one in live_releases(bench.database) if one.service.environment == "strict"] == []


def test_image_that_is_not_pinned_gets_no_secrets_and_no_engine_is_asked(bench: Bench):
    """As for the secrets that a step names."""
    bench.environment("loose", secret_env={"DB_PASSWORD": "db-password"})
    fields = {"name": "deploy", "type": "step.deploy", "environment": "loose", "target": "docker"}
    _, steps = bench.runner.run(f"  - {json.dumps({**fields, 'image': 'shop:1', 'port': 80})}\n")
    assert "run pinned images only" in str(steps["deploy"].reason)


def test_engine_elsewhere_is_refused_in_words(bench: Bench):
    """Services run on the engine of this Penstock."""
    bench.environment("far", target={"name": "docker", "docker": {"host": "tcp://far.example:2376"}})
    fields = {"name": "deploy", "type": "step.deploy", "environment": "far", "target": "docker"}
    _, steps = bench.runner.run(f"  - {json.dumps({**fields, 'image': 'shop:1', 'port': 80})}\n")
    assert "far is on the engine tcp://far.example:2376, and this Penstock runs services on" in str(
        steps["deploy"].reason
    )


def test_fork_reaches_no_environment_with_secrets(bench: Bench):
    bench.environment("guarded", secret_env={"DB_PASSWORD": "db-password"})
    about = {"pull_request": {"number": 1, "target": "main", "fork": True}}
    _, deployed = bench.deploy("guarded", about=about)
    assert "guarded takes no deployments from a pull request to main from a fork" in str(deployed.reason)


def test_frozen_deployment_waits_until_the_freeze_ends_or_is_lifted(bench: Bench):
    """The run has ended and says until when; who is on the list lifts it, and the same run's rest goes on."""
    now = datetime.now(UTC)
    span = {"begins": f"{now - timedelta(days=1):%Y-%m-%d}", "ends": f"{now + timedelta(days=2):%Y-%m-%d}"}
    bench.environment("frozen", freezes=[{"name": "audit", "users": "grace", **span}])
    run, deployed = bench.deploy("frozen")
    assert (run.state, deployed.state) == ("waiting", "waiting")
    assert f"waits until {span['ends']} 00:00 UTC: frozen is frozen: audit" in str(deployed.reason)
    ends = datetime.fromisoformat(span["ends"]).replace(tzinfo=UTC)
    assert bench.waits("frozen") == [(run.info.id, ends)]
    assert waiting.look(bench.database, AWAY, utc_now()) == 0
    with bench.database.begin() as connection:
        assert store.lift(connection, "frozen", "audit", "grace", why="the shop is down").until == ends
    assert bench.waits("frozen")[0][1] <= utc_now(), "it is looked at again"
    waiting.look(bench.database, AWAY, utc_now())
    assert bench.waits("frozen")[0][0] == run.info.id, "Dagster is away: it is tried again"
    _, deployed = bench.again()
    assert deployed.state == "succeeded", deployed.reason
    assert bench.waits("frozen") == []
    assert bench.step(run)[0] == "skipped"


def test_what_still_may_not_be_is_not_begun_again(bench: Bench):
    """A look that comes too early puts the time right, in the run's words too; what is refused by then fails."""
    bench.environment("moving", freezes=[{**LONG, "ends": "2998-01-01"}])
    run, _ = bench.deploy("moving")
    with bench.database.begin() as connection:
        rules = NamedRules.model_validate({"name": "moving", "freezes": [LONG]}).rules()
        changed = store.change(connection, "moving", rules, "ada", version=1)
    assert waiting.look(bench.database, AWAY, utc_now()) == 0
    assert bench.waits("moving") == [(run.info.id, datetime(2999, 1, 1, tzinfo=UTC))]
    assert "waits until 2999-01-01 00:00 UTC" in bench.step(run)[1]
    with bench.database.begin() as connection:
        rules = NamedRules.model_validate({"name": "moving", "projects": "web"}).rules()
        store.change(connection, "moving", rules, "ada", version=changed.version)
    assert waiting.look(bench.database, AWAY, utc_now()) == 1
    state, told = bench.step(run)
    assert (state, told) == ("failed", "failed: moving takes no deployments of shop; it takes web")
    assert bench.waits("moving") == []


def test_held_environment_takes_the_newest_when_it_is_let_go(bench: Bench):
    """What was asked for before it gives way: it would bring back what is older."""
    bench.environment("held")
    with bench.database.begin() as connection:
        store.hold(connection, "held", "ada", "the last one was rolled back")
    first, deployed = bench.deploy("held")
    assert deployed.state == "waiting"
    assert "held is held by ada: the last one was rolled back" in str(deployed.reason)
    second, _ = bench.deploy("held", more="newer")
    assert bench.waits("held") == [(second.info.id, None)]
    state, told = bench.step(first)
    assert state == "cancelled"
    assert f"run {second.info.id[:8]} of commit {second.info.partition} is deployed in its place" in told
    assert waiting.look(bench.database, AWAY, utc_now()) == 0
    with bench.database.begin() as connection:
        store.let_go(connection, "held", "grace")
    assert bench.waits("held")[0][1] <= utc_now()
    _, deployed = bench.again()
    assert deployed.state == "succeeded", deployed.reason
    assert bench.step(second) == ("skipped", f"skipped: goes on in run {bench_newest(bench)}")


def bench_newest(bench: Bench) -> str:
    return records.list_runs(bench.database, limit=1)[0].info.id[:8]


def test_deployment_that_waits_can_be_dropped(bench: Bench):
    bench.environment("dropping")
    with bench.database.begin() as connection:
        store.hold(connection, "dropping", "ada", "")
    run, _ = bench.deploy("dropping")
    waiting.drop(bench.database, "dropping", run.info.id[:8], "grace")
    assert bench.step(run) == ("cancelled", "cancelled: cancelled by grace")
    assert bench.waits("dropping") == []


def test_what_was_left_while_its_step_was_ending_is_closed(bench: Bench):
    """A newer deployment came between the wait and the end of its step: the round sees to it."""
    bench.environment("racing", freezes=[LONG])
    first, _ = bench.deploy("racing")
    newer, _ = bench.deploy("racing", more="newer")
    with bench.database.begin() as connection:  # as the first run's own process would write it, too late
        connection.execute(
            sa.text("UPDATE steps SET state = 'waiting' WHERE run_id = :run AND step = 'deploy'"),
            {"run": first.info.id},
        )
        connection.execute(sa.text("UPDATE runs SET state = 'waiting' WHERE id = :run"), {"run": first.info.id})
    assert waiting.look(bench.database, AWAY, utc_now()) == 1
    assert bench.step(first)[0] == "cancelled"
    assert bench.step(newer)[0] == "waiting"


def test_commit_soaks_in_one_environment_before_the_next(bench: Bench):
    """Refused where it never was; waits while it soaks; open when it has soaked, by the release's own time."""
    bench.environment("first-stop")
    bench.environment("next-stop", order={"after": "first-stop", "soak": "1h"})
    pipeline = BUILD + deploying("first-stop", "python3 service.py", name="stage")
    pipeline += deploying("next-stop", "python3 service.py").replace('["build"]', '["stage"]')
    _, steps = bench.runner.run(BUILD + deploying("next-stop", "python3 service.py"), **{"service.py": SERVICE})
    assert "has not been live in first-stop" in str(steps["deploy"].reason)
    run, steps = bench.runner.run(pipeline.replace('"service": "next-stop"', '"service": "first-stop"'))
    assert steps["stage"].state == "succeeded", steps["stage"].reason
    assert "this commit has been well in first-stop for" in str(steps["deploy"].reason)
    ((run_id, at),) = bench.waits("next-stop")
    assert at is not None
    assert run_id == run.info.id
    assert timedelta(minutes=58) < at - utc_now() <= timedelta(minutes=60)
    with bench.database.begin() as connection:
        earlier = "UPDATE releases SET live_at = live_at - interval '2 hours' WHERE environment = 'first-stop'"
        connection.execute(sa.text(earlier))
        connection.execute(sa.text("UPDATE instances SET started_at = started_at - interval '2 hours'"))
    _, steps = bench.runner.run(only={"deploy"})
    assert steps["deploy"].state == "succeeded", steps["deploy"].reason


def test_people_are_asked_and_a_condition_may_stand_in_for_them(bench: Bench):
    """An approval of the very thing; then the rest goes on, and other rules are asked again."""
    bench.environment("asking", approval={"users": ["grace"], "auto": 'env("first-place").live && tests.passed'})
    run, deployed = bench.deploy("asking")
    assert run.state == "waiting"
    assert "waits for one person to approve: penstock approve" in str(deployed.reason)
    assert "asks people: env(" in str(bench.runner.log(run, "deploy", own=True))
    request = find_request(bench.database, run.info.id, "deploy")
    assert answer(bench.database, request.id, "grace", approved=True, how="cli").state == "approved"
    _, deployed = bench.again()
    assert deployed.state == "succeeded", deployed.reason
    bench.environment("trusting", approval={"auto": "steps.build.state == 'succeeded'"})
    run, deployed = bench.deploy("trusting")
    assert deployed.state == "succeeded", deployed.reason
    assert "trusting asks nobody" in str(bench.runner.log(run, "deploy", own=True))


def test_no_wait_is_left_in_the_table_without_its_run(bench: Bench):
    """Runs that retention removes take their waits along."""
    bench.environment("gone", freezes=[LONG])
    run, _ = bench.deploy("gone")
    with bench.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM runs WHERE id = :run"), {"run": run.info.id})
        left = sa.select(deployment_waits).where(deployment_waits.c.run_id == run.info.id)
        assert connection.execute(left).all() == []
