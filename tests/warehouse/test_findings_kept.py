"""`penstock findings list | import | suppress | unsuppress | blame` and `penstock warehouse`, as at a terminal."""

import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg
import pytest

from penstock.artifacts.store import open_store
from penstock.pipeline import records
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.steps.context import Artifact, RunInfo, StepResult
from penstock.warehouse import Warehouse, connect, warehouse_location

COMMAND = [sys.executable, "-c", "from penstock.cli import main; main()"]
DEADLINE_S = 180


def sarif(*lines: int, tool: str = "bandit", rule: str = "B602", succeeded: bool | None = None) -> str:
    """A report with a result per line of app.py."""
    results = [
        {
            "ruleId": rule,
            "level": "error",
            "message": {"text": f"shell=True in call {'abcdefgh'[number]}"},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": "app.py"}, "region": {"startLine": line}}}],
        }
        for number, line in enumerate(lines)
    ]
    run = {"tool": {"driver": {"name": tool}}, "results": results}
    if succeeded is not None:
        run["invocations"] = [{"executionSuccessful": succeeded}]
    return json.dumps({"version": "2.1.0", "runs": [run]})


def git(folder: Path, *words: str) -> str:
    """Run git there."""
    identity = ["-c", "user.name=Ana", "-c", "user.email=ana@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two commits; the second adds a line."""
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "-q", "-b", "main")
    (folder / "app.py").write_text("import os\nrun(shell=True)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    (folder / "app.py").write_text("import os\nrun(shell=True)\nrun(also, shell=True)\n")
    git(folder, "commit", "-q", "-am", "Second")
    return folder


class Terminal:
    """A home of its own, and the command in it."""

    def __init__(self, home: Path, url: str, folder: Path) -> None:
        self.mine = {"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": url, "COLUMNS": "160"}
        self.folder = folder
        self.settings = load_settings(self.mine)

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `penstock …` to its end, which must have this exit code."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=os.environ | self.mine,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    def listed(self, *words: str) -> list[dict]:
        """What `findings list --json` says."""
        return json.loads(self.run("findings", "list", "--json", *words).stdout)

    def rows(self, query: str) -> list[tuple]:
        """The answer of the warehouse itself."""
        with hosted_database(self.settings):
            lake = connect(warehouse_location(self.settings), read_only=True)
            try:
                return lake.sql(query).fetchall()
            finally:
                lake.close()


@pytest.fixture
def terminal(catalog_url: str, tmp_path: Path, repository: Path):
    """A terminal whose database is empty."""
    name = f"kept_{os.urandom(4).hex()}"
    with psycopg.connect(catalog_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = catalog_url.replace("/postgres?", f"/{name}?")
    assert url != catalog_url
    yield Terminal(tmp_path / "home", url, repository)
    with psycopg.connect(catalog_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def imported(terminal: Terminal, tmp_path: Path, commit: str, *lines: int, branch: str = "main") -> str:
    """Import a report of these lines; what was printed."""
    report = tmp_path / "report.sarif"
    report.write_text(sarif(*lines))
    words = ["--project", "shop", "--commit", commit, "--branch", branch, "--category", "sast"]
    return terminal.run("findings", "import", str(report), *words).stdout


def test_imported_findings_live_and_are_listed(terminal, tmp_path, repository):
    """Imported twice counts once; what the next commit no longer has is fixed; git tells time and author."""
    first, second = git(repository, "rev-parse", "HEAD~1"), git(repository, "rev-parse", "HEAD")
    assert "bandit sast: 2 findings" in imported(terminal, tmp_path, first, 2, 3)
    assert "was imported before" in imported(terminal, tmp_path, first, 2, 3)
    found = terminal.listed("--project", "shop", "--branch", "main", "--severity", "high", "--tool", "Bandit")
    assert [(one["path"], one["line"], one["introduced_by"]) for one in found] == [
        ("app.py", 2, "Ana"),
        ("app.py", 3, "Ana"),
    ]
    imported(terminal, tmp_path, second, 2)
    assert len(terminal.listed()) == 1
    assert [one["fixed_commit"] for one in terminal.listed("--state", "fixed")] == [second]
    assert terminal.listed("--severity", "low") == terminal.listed("--project", "other") == []
    assert terminal.listed("--since", "2999-01-01") == []
    rows = list(csv.DictReader(io.StringIO(terminal.run("findings", "list", "--state", "all", "--csv").stdout)))
    assert {row["state"] for row in rows} == {"open", "fixed"}
    assert "app.py:2" in terminal.run("findings", "list").stdout


def test_suppression_by_command(terminal, tmp_path, repository):
    """Suppressed with a reason by first digits, listed as such, opened again."""
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD"), 2)
    mark = terminal.listed()[0]["fingerprint"]
    words = ["--project", "shop", "--reason", "only in tests", "--until", "90d", "--by", "ana"]
    assert "open on 1 branches" in terminal.run("findings", "suppress", mark[:8], *words).stdout
    assert terminal.listed() == []
    assert terminal.listed("--state", "suppressed")[0]["suppressed_by"] == "ana"
    terminal.run("findings", "unsuppress", mark[:8], "--project", "shop")
    assert [one["fingerprint"] for one in terminal.listed()] == [mark]
    done = terminal.run("findings", "unsuppress", mark, "--project", "shop", code=2)
    assert "nobody suppressed" in done.stderr


def test_blame_names_the_commit_that_wrote_the_line(terminal, tmp_path, repository):
    """A finding is older than the scan that shows it: git knows who wrote the line."""
    first, second = git(repository, "rev-parse", "HEAD~1"), git(repository, "rev-parse", "HEAD")
    imported(terminal, tmp_path, second, 2, 3)
    found = {one["line"]: one["fingerprint"] for one in terminal.listed()}
    said = {
        line: json.loads(terminal.run("findings", "blame", mark, "-p", "shop").stdout) for line, mark in found.items()
    }
    assert (said[2]["commit"], said[3]["commit"], said[2]["author"]) == (first, second, "Ana")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["import", "no-such.sarif", "-p", "shop", "--commit", "HEAD"], 2),
        (["import", "app.py", "-p", "shop", "--commit", "HEAD"], 2),
        (["import", "app.py", "-p", "shop", "--commit", "abcdef123456"], 2),
        (["import", "app.py", "-p", "shop", "--commit", "--output=x"], 2),
        (["list", "--severity", "worst"], 2),
        (["list", "--state", "gone"], 2),
        (["list", "--since", "yesterday"], 2),
        (["list", "--json", "--csv"], 2),
        (["suppress", "12", "-p", "shop", "--reason", "x"], 2),
        (["suppress", "1234567890", "-p", "shop", "--reason", "x", "--until", "soon"], 2),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_wrong_words_are_one_line(terminal, words, code):
    """Whatever is wrong with what was typed is one line that says so, and nothing is recorded."""
    done = terminal.run("findings", *words, code=code)
    assert done.stderr.startswith("penstock: ")
    assert len(done.stderr.splitlines()) == 1


def test_report_of_a_failed_scan_is_not_imported(terminal, tmp_path, repository):
    """A scanner that failed found nothing out: its report fixes nothing."""
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD~1"), 2)
    (tmp_path / "failed.sarif").write_text(sarif(succeeded=False))
    words = ["import", str(tmp_path / "failed.sarif"), "-p", "shop", "--commit", "HEAD", "--category", "sast"]
    assert "did not finish" in terminal.run("findings", *words, code=2).stderr
    assert len(terminal.listed()) == 1


def test_export_holds_every_table(terminal, tmp_path, repository):
    """Each table and view is a Parquet file that plain DuckDB reads; doing it again replaces them."""
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD"), 2, 3)
    target = tmp_path / "tables"
    for _ in range(2):
        terminal.run("warehouse", "export", "parquet", str(target))
    assert duckdb.sql(f"SELECT count(*) FROM '{target}/findings.parquet'").fetchone() == (2,)
    assert duckdb.sql(f"SELECT DISTINCT state FROM '{target}/finding_history.parquet'").fetchall() == [("open",)]
    assert not [path for path in target.iterdir() if path.suffix != ".parquet"]
    done = terminal.run("warehouse", "export", "parquet", str(repository / "app.py"), code=2)
    assert "this is a file" in done.stderr


def test_retention_keeps_what_is_open(terminal, tmp_path, repository):
    """Old rows go, but never those of the newest scan of a branch; without --keep-days nothing goes."""
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD~1"), 2, 3)
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD"), 2)
    with hosted_database(terminal.settings), Warehouse(warehouse_location(terminal.settings)) as warehouse:
        warehouse.write(lambda lake: lake.execute("UPDATE findings SET scanned_at = scanned_at - INTERVAL 50 DAY"))
    assert terminal.run("warehouse", "compact").stdout.startswith("0 rows removed")
    assert terminal.run("warehouse", "compact", "--keep-days", "30").stdout.startswith("2 rows removed")
    assert len(terminal.listed()) == 1
    assert terminal.rows("SELECT count(*) FROM findings") == [(1,)]


def test_rebuild_changes_nothing_that_was_right(terminal, tmp_path, repository):
    """Tables built again are the tables that were there: imported findings, their history, decisions."""
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD~1"), 2, 3)
    imported(terminal, tmp_path, git(repository, "rev-parse", "HEAD"), 2)
    mark = terminal.listed()[0]["fingerprint"]
    terminal.run("findings", "suppress", mark, "-p", "shop", "--reason", "x", "--by", "ana")
    before = terminal.listed("--state", "all")
    for _ in range(2):
        terminal.run("warehouse", "rebuild")
    assert [one["state"] for one in terminal.listed("--state", "all")] == [one["state"] for one in before]
    assert {one["fingerprint"] for one in terminal.listed("--state", "all")} == {one["fingerprint"] for one in before}


def test_imported_reports_are_archived_and_read_again(terminal, tmp_path, repository):
    """With the table of findings lost, they come back from the archive: also where roots and category were said."""
    report = tmp_path / "report.sarif"
    report.write_text(sarif(2, 3).replace('"app.py"', '"/ci/build/app.py"'))
    words = ["-p", "shop", "--commit", git(repository, "rev-parse", "HEAD"), "--root", "/ci/build"]
    terminal.run("findings", "import", str(report), *words)
    terminal.run("findings", "import", str(report), *words, "--category", "again")
    shown = "SELECT fingerprint, path, category FROM findings ORDER BY ALL"
    before = terminal.rows(shown)
    assert len(before) == 4
    assert {path for _, path, _ in before} == {"app.py"}
    with hosted_database(terminal.settings), Warehouse(warehouse_location(terminal.settings)) as warehouse:
        warehouse.write(lambda lake: lake.execute("DELETE FROM findings"))
        warehouse.write(lambda lake: lake.execute("DELETE FROM finding_events"))
    assert "2 scans and 4 findings" in terminal.run("warehouse", "rebuild").stdout
    assert terminal.rows(shown) == before
    assert len(terminal.listed()) == 4


def test_components_are_read_again_from_the_archive(terminal):
    """Lists that steps put out come back with the runs that made them; a list that is gone costs nothing."""
    bill = {"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "six", "version": "1.16"}]}
    info = scanned_run(terminal, 1, 2)
    blob = open_store(terminal.settings.artifacts_path).put_bytes(json.dumps(bill).encode())
    lists = [
        Artifact("deps.cdx.json", ".penstock/deps.cdx.json", "file", blob.digest, blob.size_bytes),
    ]
    with hosted_database(terminal.settings) as database:
        records.finish_step(database, info, "deps", StepResult("succeeded", artifacts=tuple(lists)))
        gone = Artifact("old.cdx.json", ".penstock/old.cdx.json", "file", "0" * 64, 1)
        records.finish_step(database, info, "old", StepResult("succeeded", artifacts=(gone,)))
    for _ in range(2):
        assert "1 lists of components" in terminal.run("warehouse", "rebuild").stdout
    assert terminal.rows("SELECT project, commit, step, source, name, version FROM components") == [
        ("shop", info.commit, "deps", "checkout", "six", "1.16")
    ]


def test_connect_needs_no_words(terminal):
    """Anybody with Python reads the home's warehouse; a home without one is said, and nothing is made there."""
    scanned_run(terminal, 1, 2, 3)
    terminal.run("warehouse", "rebuild")
    program = "from penstock.warehouse import connect; print(connect().sql('SELECT count(*) FROM findings').fetchone())"
    assert python(terminal, program).stdout.strip() == "(2,)"
    write = python(terminal, "from penstock.warehouse import connect; connect().sql('DELETE FROM findings')")
    assert "read-only" in write.stderr
    home = terminal.settings.home.parent / "none"
    away = {"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": ""}
    assert "there is no warehouse yet" in python(terminal, program, away).stderr
    assert not home.exists()


def python(terminal: Terminal, program: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the terminal's environment."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | terminal.mine | (env or {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def scanned_run(terminal: Terminal, number: int, *lines: int) -> RunInfo:
    """A run as the state database has it after its scan, whose report is archived; nothing is in the warehouse."""
    info = RunInfo(
        id=f"{number:032x}",
        project="shop",
        commit=f"{number:040x}",
        ref="refs/heads/main",
        graph_hash="g",
        structure_hash="s",
        author="ana",
        committed_at=datetime(2026, 3, number, tzinfo=UTC),
    )
    blob = open_store(terminal.settings.artifacts_path).put_bytes(sarif(*lines).encode())
    made = Artifact("sast.sarif", ".penstock/sast.sarif", "file", blob.digest, blob.size_bytes)
    with hosted_database(terminal.settings) as database:
        records.create_failed_run(database, info, "as it was")
        records.finish_step(database, info, "sast", StepResult("succeeded", artifacts=(made,)))
    return info


def test_lost_tables_are_built_again_from_the_archive(terminal):
    """With nothing but the state database and the archived reports, findings and their history come back."""
    for number, lines in ((1, (2, 3)), (2, (2,))):
        scanned_run(terminal, number, *lines)
    said = terminal.run("warehouse", "rebuild")
    assert "2 runs, 2 scans and 3 findings" in said.stdout
    assert "2 of 2 runs" in said.stderr
    (one,) = terminal.listed("--project", "shop")
    assert (one["introduced_commit"], one["introduced_by"], one["category"]) == (f"{1:040x}", "ana", "sast")
    assert [each["fixed_commit"] for each in terminal.listed("--state", "fixed")] == [f"{2:040x}"]
    assert terminal.rows("SELECT count(*) FROM runs") == [(2,)]


def test_rebuild_keeps_what_the_archive_lost(terminal):
    """A report that is gone is told, and what the tables had of it stays."""
    scanned_run(terminal, 1, 2, 3)
    terminal.run("warehouse", "rebuild")
    store = open_store(terminal.settings.artifacts_path)
    for stored in list(store.blobs()):
        store.delete(stored.digest)
    said = terminal.run("warehouse", "rebuild").stdout
    assert "1 reports are no longer in the archive" in said
    assert len(terminal.listed()) == 2
