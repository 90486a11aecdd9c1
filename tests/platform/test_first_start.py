"""`penstock up` on a fresh home, what it shows and leaves, and how it starts again."""

import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from penstock_running import STOP_LIMIT_S, Penstock, described, wait_for, words

from penstock.state.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]

STEPS = ("test", "compile", "scan-semgrep", "scan-bandit", "package", "publish", "fetch", "deploy")
MATERIALISED = """
query Shown($key: AssetKeyInput!, $partition: String!) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 5, partitions: [$partition]) { runId partition metadataEntries { label } }
} } }"""
CHECKED = """
query Checked($key: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $check, limit: 5) {
    status runId evaluation { metadataEntries { label ... on TextMetadataEntry { text } } }
  }
}"""
PRINTED = """
query Printed($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
  __typename ... on LogMessageEvent { message stepKey }
} } } }"""


def head(penstock: Penstock) -> str:
    ref = penstock.home / "repositories" / "shop.git" / "refs" / "heads" / "main"
    return ref.read_text().strip()


def test_first_start_ends_with_a_table_of_steps_and_the_addresses(penstock: Penstock) -> None:
    """Each step with its state, what it produced, then where everything answers."""
    said = penstock.output.read_text()
    for step in STEPS:
        assert any(line.startswith(step) and "succeeded" in line for line in said.splitlines()), said
    for url in (penstock.settings.api_url, penstock.settings.dagster_url, penstock.settings.dashboards_url):
        assert url in said


def test_deployed_example_answers(penstock: Penstock) -> None:
    """At the address that the table of addresses names, and it is the commit that was pushed."""
    url = f"http://127.0.0.1:{penstock.settings.ports['apps']}"
    assert url in penstock.output.read_text()
    well = httpx.get(f"{url}/health", trust_env=False, timeout=30).json()
    assert well == {"status": "ok", "version": head(penstock), "products": well["products"]}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_materialised_asset_of_the_commit(penstock: Penstock, step: str) -> None:
    """Dagster's own GraphQL knows the asset at the commit's partition."""
    partition = head(penstock)[:12]
    found = penstock.graphql(MATERIALISED, key={"path": ["shop", step]}, partition=partition)
    assert [each["partition"] for each in found["assetOrError"]["assetMaterializations"]] == [partition]


@pytest.mark.parametrize(
    ("step", "check", "told"),
    [
        ("test", "tests", "tests passed"),
        ("scan-semgrep", "findings", "none at or above high"),
        ("scan-bandit", "findings", "none at or above high"),
        ("deploy", "healthy", "release 1"),
    ],
)
def test_gates_are_asset_checks_with_evidence(penstock: Penstock, step: str, check: str, told: str) -> None:
    """The verdict is there, passed, with its summary as metadata."""
    found = penstock.graphql(CHECKED, key={"path": ["shop", step]}, check=check)["assetCheckExecutions"]
    assert [each["status"] for each in found] == ["SUCCEEDED"]
    evidence = {entry["label"]: entry.get("text") for entry in found[0]["evaluation"]["metadataEntries"]}
    assert told in evidence["summary"]


def test_output_of_a_step_can_be_read_in_dagster(penstock: Penstock) -> None:
    """What the tests printed is an event of their step."""
    (run,) = penstock.runs(head(penstock))
    events = penstock.graphql(PRINTED, run=run["id"])["logsForRun"]["events"]
    printed = [event["message"] for event in events if event["__typename"] == "LogMessageEvent"]
    assert any("pytest -q" in text and "passed" in text for text in printed)


def test_findings_can_be_counted_by_sql(penstock: Penstock) -> None:
    """Both scanners' findings of the commit are rows."""
    rows = penstock.sql(f"SELECT tool, count(*) AS n FROM findings WHERE commit = '{head(penstock)}' GROUP BY tool")
    assert {row["tool"].lower() for row in rows} == {"semgrep oss", "bandit"}
    assert all(row["n"] > 0 for row in rows)


def test_no_process_shows_a_secret(penstock: Penstock) -> None:
    """The token stands in no command and in no environment."""
    assert len(penstock.living()) > 10
    assert not showing(penstock, penstock.token)


def showing(penstock: Penstock, secret: str) -> list[str]:
    """Processes of the platform, without the command that started it, in whose listing a secret stands."""
    found = []
    for process in penstock.living():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.NoSuchProcess:
            continue
        if any(secret in text for text in told) and process.pid != (penstock.process and penstock.process.pid):
            found.append(process)
    return described(found)


def test_nobody_else_can_read_what_penstock_keeps(penstock: Penstock) -> None:
    """The home can be passed through (the database has a user of its own); no folder in it can."""
    home = penstock.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o711
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    open_folders = [path.name for path in home.iterdir() if path.is_dir() and path.stat().st_mode & 0o077]
    assert open_folders == []
    telling = [path.name for path in home.iterdir() if path.is_file() and path.stat().st_mode & 0o077]
    assert {name for name in telling if (home / name).stat().st_size > 2} == set()


def test_second_command_uses_the_platform_that_runs(penstock: Penstock) -> None:
    """It says so, and stops nothing."""
    done = penstock.command("up", "--once", "--no-example")
    assert done.returncode == 0, done.stderr
    assert "runs already" in done.stdout
    assert penstock.api("GET", "/health")["status"] == "ok"


def test_taken_port_is_told_in_one_line_with_the_remedy(home_of_all: Penstock) -> None:
    """Which variable, which port, by whom, and what to do; nothing is started."""
    other = Penstock()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", other.settings.ports["dagster"]))
        taken.listen()
        done = other.command("up", "--once")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("penstock: PENSTOCK_DAGSTER_PORT: port")
    assert f"(pid {os.getpid()}); stop that, or set PENSTOCK_DAGSTER_PORT" in line
    assert not described(other.living())
    shutil.rmtree(other.folder)


def test_ctrl_c_leaves_no_process(penstock: Penstock) -> None:
    """Neither of the platform nor of what it deployed."""
    assert penstock.down() == 0
    assert "stopped" in penstock.output.read_text()
    assert described(penstock.living()) == []


def test_once_again_reuses_what_is_there_and_exits_0(home_of_all: Penstock) -> None:
    """The example's next commit runs, the table is printed, all is stopped; the token is the same."""
    if home_of_all.process is not None and home_of_all.process.poll() is None:
        home_of_all.down()
    token = home_of_all.token
    before = head(home_of_all)
    done = home_of_all.command("up", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 tests passed" in done.stdout
    assert head(home_of_all) != before
    assert home_of_all.token == token
    assert described(home_of_all.living()) == []


def test_external_database_in_a_long_home_and_its_password_in_no_listing(postgres: EmbeddedPostgres) -> None:
    """Sockets find a place though the path is too long for them; SIGTERM stops all as Ctrl-C does."""
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE external")
    secret = "a-very-secret-word"
    url = f"postgresql://postgres:{secret}@/external?host={postgres.socket_dir}"
    long = Path("/tmp") / f"pp{os.getpid()}" / ("long-" * 18)
    long.mkdir(parents=True)
    external = Penstock(long, PENSTOCK_DATABASE_URL=url)
    try:
        external.up("--no-example")
        assert not (external.home / "postgres").exists()
        assert stat.S_IMODE((external.home / "database.url").stat().st_mode) == 0o600
        assert showing(external, secret) == []
        assert "definitions.warm" in words(external.part("definitions.warm"))
        assert external.process is not None
        external.remember()
        external.process.send_signal(signal.SIGTERM)
        assert external.process.wait(STOP_LIMIT_S) == 0
        wait_for(lambda: not external.living(), "no process is left", limit_s=10)
    finally:
        shutil.rmtree(long.parent)
