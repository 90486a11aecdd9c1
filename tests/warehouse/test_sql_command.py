"""`penstock sql`, as somebody at a terminal sees it."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from lake_rows import at, finding, run, scan

from penstock.cli.sql import print_answer
from penstock.errors import InputError
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.warehouse import Warehouse
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.sql import Answer

DEADLINE_S = 60
COMMAND = [sys.executable, "-c", "from penstock.cli import main; main()", "sql"]


@pytest.fixture(scope="module")
def environment(catalog_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Penstock with one run and two findings."""
    home = tmp_path_factory.mktemp("sql") / "home"
    mine = {"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": catalog_url, "COLUMNS": "120"}
    settings = load_settings(mine)
    with hosted_database(settings), Warehouse(warehouse_location(settings)) as warehouse:
        warehouse.record_run(run(1))
        warehouse.record_scan(scan(1), [finding("a"), finding("b", severity="low", message="[red]no[/red] \x1b[31m")])
    return os.environ | mine


def penstock_sql(environment: dict[str, str], *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_table_is_printed(environment):
    """Names above, numbers to the right; what a scanner wrote is neither markup nor a command to the terminal."""
    done = penstock_sql(environment, "SELECT severity, message FROM findings ORDER BY fingerprint")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0].split() == ["severity", "message"]
    assert "[red]no[/red]" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_and_csv_are_for_programs(environment):
    """Types survive in JSON; times are ISO 8601; a limit is told on standard error."""
    query = "SELECT run_id, queued_at, duration_s, NULL AS nothing FROM runs"
    done = penstock_sql(environment, query, "--json")
    assert json.loads(done.stdout) == [
        {"run_id": "r1", "queued_at": at(1).isoformat(), "duration_s": 48.0, "nothing": None}
    ]
    done = penstock_sql(environment, "SELECT fingerprint, cwe FROM findings ORDER BY 1", "--csv", "--limit", "1")
    assert list(csv.reader(io.StringIO(done.stdout))) == [["fingerprint", "cwe"], ["a", '["CWE-78"]']]
    assert "only the first 1 rows" in done.stderr


def test_without_a_query_the_tables_are_listed(environment):
    """With what a row of each is."""
    done = penstock_sql(environment)
    assert done.returncode == 0, done.stderr
    assert "finding_history" in done.stdout
    assert "One row per run." in done.stdout


def test_a_query_may_come_from_standard_input(environment):
    """For what is longer than a line."""
    assert json.loads(penstock_sql(environment, "-", "--json", typed="SELECT 1\nAS one").stdout) == [{"one": 1}]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["FROM findngs"], 2, 'penstock: SQL: no table is called "findngs"; did you mean "findings"?'),
        (["SELEC"], 2, "penstock: SQL line 1: syntax error"),
        (["DROP TABLE runs"], 2, "penstock: SQL: only reading is possible here; write one SELECT"),
        (["FROM read_text('/etc/passwd')"], 2, 'penstock: SQL: the table function "read_text" is not allowed'),
        (["SELECT 1", "--json", "--csv"], 2, "penstock: --json and --csv exclude each other; choose one"),
        (["SELECT 1 AS a, 2 AS a", "--json"], 2, 'penstock: SQL: two columns are called "a"'),
        (["SELECT count(*) FROM range(1000000) a, range(1000000) b", "--timeout", "0.2"], 4, "longer than 0.2 s"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(environment, arguments, code, said):
    """No traceback, nothing on standard output."""
    done = penstock_sql(environment, *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_before_the_first_run_it_says_what_to_do(environment, catalog_url: str, tmp_path: Path):
    """A warehouse that is not there is no traceback either."""
    with psycopg.connect(catalog_url, autocommit=True) as server:
        server.execute("CREATE DATABASE untouched")
    url = catalog_url.replace("/postgres?", "/untouched?")
    elsewhere = {"PENSTOCK_HOME": str(tmp_path / "home"), "PENSTOCK_DATABASE_URL": url}
    done = penstock_sql(environment | elsewhere, "SELECT 1")
    assert done.returncode == 2
    assert done.stderr.strip() == "penstock: there is no warehouse yet; run a pipeline first: penstock run"


def test_control_c_stops_a_long_query(environment):
    """At once, with the exit code of an interrupt and no traceback."""
    query = "SELECT count(*) FROM range(100000000) a, range(100000000) b"
    with subprocess.Popen(
        [*COMMAND, query], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + DEADLINE_S
        while _cpu_s(process.pid) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "Traceback" not in said


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_values_of_all_kinds_can_be_printed():
    """Lists, maps, bytes and durations become text."""
    answer = Answer(("a", "b", "c"), (([1, None], {"k": "v"}, b"\xff"),), is_cut=False)
    for options in ({}, {"as_json": True}, {"as_csv": True}):
        out = io.StringIO()
        print_answer(answer, out, **options)
        assert "k" in out.getvalue()


def test_no_rows_is_an_empty_answer():
    """JSON stays an array, CSV keeps its header."""
    answer = Answer(("a",), (), is_cut=False)
    out = io.StringIO()
    print_answer(answer, out, as_json=True)
    print_answer(answer, out, as_csv=True)
    assert out.getvalue() == "[]\na\n"


def test_two_columns_of_one_name_are_no_json():
    """One of them would be lost."""
    with pytest.raises(InputError, match="rename one with AS"):
        print_answer(Answer(("a", "a"), ((1, 2),), is_cut=False), io.StringIO(), as_json=True)
