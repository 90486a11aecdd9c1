"""The SDK: a plugin's own process, run for real, and what it leaves."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from dagster_pipes import DagsterPipesError, encode_param, open_dagster_pipes

import penstock.sdk
from penstock.findings import Scope, read_report
from penstock.plugins.beginning import bring_sdk
from penstock.plugins.manifest import Manifest
from penstock.plugins.pipes import pipes_env, read_messages
from penstock.sdk.sarif import LEVELS, Finding, sarif_of

ROOT = Path(__file__).parents[2]
HEAD = "from penstock import sdk\nwith sdk.plugin() as plugin:\n"


@attrs.frozen
class Done:
    """What a plugin left."""

    ci: Path
    code: int
    output: str

    def json(self, name: str) -> Any:
        return json.loads((self.ci / name).read_text())

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.ci / name).read_text().splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run(body, **variables): a plugin in a Python without anything but a copy of the SDK."""

    def run_body(body: str, head: str = HEAD, **env: str) -> Done:
        ci, code = tmp_path / "ci", tmp_path / "code"
        for folder in (ci / "results", ci / "secrets", ci / "artifacts", tmp_path / "workspace", code):
            folder.mkdir(parents=True, exist_ok=True)
        given = {
            "contract": 1,
            "plugin": {"name": "probe", "version": "1.2.3"},
            "inputs": {"n": 3, "deep": {"a": [None]}},
            **{"project": "shop", "commit": "c" * 40, "ref": "refs/heads/main", "run": "r", "step": "s"},
            **{"event": {"name": "push"}, "environment": None, "workspace": str(tmp_path / "workspace")},
        }
        (ci / "input.json").write_text(json.dumps(given))
        (ci / "secrets" / "KEY").write_text("opensesame")
        bring_sdk(code)
        indented = "".join(f"    {line}\n" for line in body.splitlines()) if head else body
        (code / "plugin.py").write_text(head + indented)
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(code / "plugin.py")],
            env={"PENSTOCK_CI_DIR": str(ci), "PATH": os.environ["PATH"], **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(ci, done.returncode, done.stdout + done.stderr)

    return run_body


def test_it_imports_the_standard_library_alone() -> None:
    """Every import of every file; so a copy of it is all that a plugin needs."""
    folder = Path(penstock.sdk.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.startswith("penstock.sdk") or name.partition(".")[0] in sys.stdlib_module_names, name


def test_importing_it_is_light() -> None:
    """`from penstock import sdk` loads nothing else of Penstock's, and none of its libraries."""
    code = "import sys; from penstock import sdk; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    assert not {"attrs", "attr", "pydantic", "duckdb", "sqlalchemy", "typer"} & loaded
    code = "import sys; from penstock import sdk; print(*[n for n in sys.modules if n.startswith('penstock')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(name == "penstock" or name.startswith("penstock.sdk") for name in done.stdout.split())


def test_what_it_is_given_and_what_it_leaves(run: Run) -> None:
    """Inputs keep their types; outputs, metrics, data and findings are files as the contract has them."""
    done = run(
        """assert plugin.inputs == {"n": 3, "deep": {"a": [None]}}
assert (plugin.project, plugin.commit[0], plugin.step, plugin.environment) == ("shop", "c", "s", None)
assert dict(plugin.secrets) == {"KEY": "opensesame"} and "opensesame" not in repr(plugin.secrets)
with plugin.group("Two  lines\\nof title"):
    plugin.log("inside")
plugin.progress(0.5, "half")
plugin.metric("lines", 12, labels={"language": "go"})
plugin.metric("share", 0.5, unit="1", kind="gauge")
plugin.data("thing", {"id": 1}, key="one")
plugin.finding("R1", "wrong", path="src/a b.py", line=3, severity="high")
plugin.output("count", 12)"""
    )
    assert done.code == 0, done.output
    assert "::group::Two lines of title\ninside\n::endgroup::\n::progress::50 half" in done.output
    assert done.json("output.json") == {"count": 12}
    assert done.lines("metrics.jsonl") == [
        {"name": "lines", "value": 12, "labels": {"language": "go"}},
        {"name": "share", "value": 0.5, "unit": "1", "kind": "gauge"},
    ]
    assert done.lines("data.jsonl") == [{"kind": "thing", "value": {"id": 1}, "key": "one"}]
    report = read_report((done.ci / "results" / "probe.sarif").read_bytes(), scope=Scope(), where="report")
    (found,) = report.findings
    assert (found.rule_id, found.path, found.line, found.severity) == ("R1", "src/a b.py", 3, "high")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise sdk.Failed('not well')", 1, "not well"),
        ("raise sdk.TryAgain('it is away')", 75, "it is away"),
        ("raise sdk.BadConfiguration('mend n')", 78, "mend n"),
        ("plugin.output('a', 1); 1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", 3, ""),
        ("plugin.metric('m', float('nan'))", 1, "is no finite number"),
        ("plugin.metric('m', True)", 1, "is no finite number"),
        ("plugin.finding('R', 'x', severity='bad')", 1, "is no severity"),
        ("plugin.finding('R', 'x', path='../x')", 1, "is outside of the checkout"),
        ("plugin.finding('R', 'x', path='/etc/passwd')", 1, "is outside of the checkout"),
        ("plugin.finding('R', 'x', path='a', line=0)", 1, "lines count from 1"),
        ("list(plugin.query('other', kind='x'))", 78, "name whom it reads in plugin.yaml"),
        ("plugin.secrets['OTHER']", 1, "KeyError"),
    ],
)
def test_how_it_ends_is_said_by_exit_code_and_last_words(run: Run, body: str, code: int, words: str) -> None:
    """What was found before is written all the same."""
    done = run(body)
    assert done.code == code, done.output
    assert words in done.output


def test_no_input_is_a_bad_configuration(run: Run) -> None:
    """One line, no traceback."""
    done = run("", head="", PENSTOCK_CI_DIR="/nowhere")
    assert done.code == 0
    body = "from penstock import sdk\ntry:\n    sdk.plugin()\nexcept sdk.BadConfiguration as error:\n    print(error)\n"
    assert "cannot read /nowhere/input.json" in run(body, head="", PENSTOCK_CI_DIR="/nowhere").output


def test_a_stop_is_seen_and_what_was_found_is_written(run: Run) -> None:
    """SIGTERM sets `cancelled`; the block goes on to its orderly end."""
    done = run(
        """import os, signal
plugin.metric("m", 1)
os.kill(os.getpid(), signal.SIGTERM)
assert plugin.wait(30) and plugin.cancelled"""
    )
    assert (done.code, done.output.strip()) == (1, "stopped")
    assert done.lines("metrics.jsonl") == [{"name": "m", "value": 1}]


@pytest.mark.parametrize("severity", list(LEVELS))
def test_sarif_is_the_same_with_and_without_the_library(severity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sarif-om builds what plain values say too, and both pass SARIF's own rules."""
    findings = [
        Finding("R1", "a", severity, "a b.py", 1, 2, "Rule one", "https://example.org/r1", "print"),
        Finding("R2", "b", severity, "c.py"),
        Finding("R1", "c", severity),
    ]
    built = json.loads(sarif_of(findings, "probe", "1.0.0"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    plain = json.loads(sarif_of(findings, "probe", "1.0.0"))
    assert built == plain
    report = read_report(json.dumps(plain).encode(), scope=Scope(), where="report")
    assert [finding.severity for finding in report.findings] == [severity] * 3
    assert report.summary.quarantined == 0


def test_under_dagster_its_metrics_are_metadata_of_the_asset(run: Run, tmp_path: Path) -> None:
    """With the variables of Dagster Pipes it reports as `dagster_pipes` itself would."""
    messages = tmp_path / "messages"
    context = {"asset_keys": ["shop/report"], "run_id": "r", "extras": {}}
    env = {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(messages)}),
    }
    assert run("plugin.metric('lines', 12)\nplugin.metric('share', 0.5)", **env).code == 0
    said = [json.loads(line) for line in messages.read_text().splitlines()]
    assert [one["method"] for one in said] == ["opened", "report_asset_materialization", "closed"]
    assert said[1]["params"]["asset_key"] == "shop/report"
    assert said[1]["params"]["metadata"]["lines"] == {"raw_value": 12, "type": "int"}


def test_a_plugin_written_with_dagster_pipes_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library finds our variables, and what it writes becomes metrics, data and lines of the log."""
    for name, value in pipes_env(str(tmp_path), "run-1", {"inputs": {"n": 3}}).items():
        monkeypatch.setenv(name, value)
    with open_dagster_pipes() as pipes:
        assert (pipes.run_id, pipes.extras) == ("run-1", {"inputs": {"n": 3}})
        pipes.log.info("hello")
        pipes.report_custom_message({"kind": "thing", "value": {"id": 1}})
        pipes.report_asset_materialization(metadata={"lines": 12, "other": "text"}, asset_key="x")
        pipes.report_asset_check("fine", passed=True, asset_key="x")
        with pytest.raises(DagsterPipesError):
            pipes.report_asset_materialization(asset_key="x")
    manifest = Manifest.model_validate(
        {"name": "a", "version": "1.0.0", "kind": "other", "summary": "s", "maintainer": "m", "licence": "MIT"}
        | {"image": "a", "metrics": {"lines": {"type": "integer"}}}
    )
    told: list[str] = []
    lines = (tmp_path / "pipes.jsonl").read_bytes().splitlines()
    read = read_messages([*lines, b"{broken"], manifest, told.append)
    assert read.metrics == (b'{"name":"lines","value":12}',)
    assert read.data == (b'{"kind":"thing","value":{"id":1}}',)
    assert told[0] == "info: hello"
    assert "check fine: passed" in told
    assert "pipes.jsonl: line 7 is no message of Dagster Pipes" in told
