"""Every command: help with examples, wrong usage on one line, quick to start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import COMMAND, Penstock
from git_builder import PIPELINE

from penstock.cli.registry import COMMANDS

GROUPS: dict[str, tuple[str, ...]] = {
    "project": ("add", "list", "show", "edit", "test", "remove"),
    "secret": ("set", "list", "remove", "check"),
    "user": ("add", "list", "show", "edit", "remove"),
    "group": ("add", "list", "remove"),
    "token": ("create", "list", "revoke"),
    "environment": (
        *("add", "list", "show", "edit", "remove", "test", "hold", "release", "lift", "drop", "export", "apply"),
    ),
    "plugin": ("new", "check", "label", "test", "sdk", "install", "uninstall", "list"),
    "template": ("add", "list"),
    "warehouse": ("rebuild", "compact"),
    "findings": (),
    "events": (),
}
SLOW = {"sqlalchemy", "rich", "duckdb", "pyarrow", "psycopg", "fastapi", "httpx", "dagster", "streamlit", "obstore"}


def paths() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [(), *((name,) for name in COMMANDS)]
    return [*found, *((group, name) for group, names in GROUPS.items() for name in names)]


@pytest.mark.parametrize("words", [path for path in paths() if path not in {("findings",), ("events",)}], ids=" ".join)
def test_help_has_examples(bare_penstock: Penstock, words: tuple[str, ...]):
    """For the command and for each of its own commands, by -h too."""
    done = bare_penstock(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    _, told, examples = done.stdout.partition("Examples:")
    assert told
    lines = [line.strip() for line in examples.split("╭")[0].splitlines() if line.strip()]
    assert lines
    assert all(line.startswith("penstock ") for line in lines)


def test_list_of_commands_has_a_line_for_each(bare_penstock: Penstock):
    """And no command's module is loaded for it."""
    shown = bare_penstock("-h").stdout
    for name, command in COMMANDS.items():
        assert f"│ {name} " in shown
        assert command.summary in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_is_how_the_commands_own_help_begins(name: str):
    """The registry and the command do not tell two stories."""
    told = " ".join((COMMANDS[name].load(name).help or "").split())
    assert told.startswith(COMMANDS[name].summary.rstrip("."))


@pytest.mark.parametrize(
    ("words", "what", "where"),
    [
        (("rnu",), "no such command 'rnu'. Did you mean 'run'", "penstock --help"),
        (("--quick",), "no such option: --quick", "penstock --help"),
        (("run", "--quick"), "no such option: --quick", "penstock run --help"),
        (("run", "--parallel", "x"), "invalid value for '--parallel'", "penstock run --help"),
        (("run", "--parallel", "0"), "invalid value for '--parallel'", "penstock run --help"),
        (("run", "--commit"), "requires an argument", "penstock --help"),
        (("check", "a", "b"), "unexpected extra argument", "penstock check --help"),
        (("project", "add"), "missing argument", "penstock project add --help"),
        (("project", "nope"), "no such command 'nope'", "penstock project --help"),
        (("logs",), "missing argument", "penstock logs --help"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(bare_penstock: Penstock, words: tuple[str, ...], what: str, where: str):
    """Exit code 2."""
    done = bare_penstock(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("penstock: ")
    assert done.stderr.count("\n") == 1
    assert what in done.stderr
    assert done.stderr.endswith(f"; see `{where}`\n")


@pytest.mark.parametrize("words", [(), ("project",)])
def test_no_words_show_the_help(bare_penstock: Penstock, words: tuple[str, ...]):
    """And exit with 2: nothing was done."""
    done = bare_penstock(*words)
    assert done.returncode == 2
    assert "Commands" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["check", "."]])
def test_quick_commands_load_nothing_slow(tmp_path: Path, words: list[str]):
    """What costs tenths of seconds to import is for the commands that use it."""
    (tmp_path / "penstock.yaml").write_text(PIPELINE)
    code = f"""
import sys
sys.argv = ["penstock", *{words!r}]
from penstock.cli import main
try:
    main()
finally:
    print(*sorted({SLOW!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stderr.split()) <= ({"rich"} if words == ["--help"] else set())


def test_interrupt_while_modules_load_is_no_traceback(tmp_path: Path):
    """Ctrl-C at any moment after the start: exit code 130, nothing printed."""
    code = """
import os, signal, sys
from penstock.cli import main
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "penstock.cli.registry":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_closed_pipe_is_no_traceback(tmp_path: Path):
    """`penstock --help | head -1`."""
    (tmp_path / "penstock.yaml").write_text(PIPELINE)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([str(COMMAND), "check"], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (1, -signal.SIGPIPE)


def test_check_prints_the_steps_in_order(bare_penstock: Penstock):
    """With the graph's hash; as JSON for other programs."""
    (bare_penstock.cwd / "penstock.yaml").write_text(PIPELINE)
    done = bare_penstock("check")
    assert done.returncode == 0
    assert "1 steps" in done.stdout
    assert "  hello  step.shell_exec" in done.stdout
    assert '"name": "hello"' in bare_penstock("check", "penstock.yaml", "--json").stdout


def _unknown_step(folder: Path) -> None:
    (folder / "penstock.yaml").write_text(PIPELINE.replace("shell_exec", "shell"))


def _large(folder: Path) -> None:
    with (folder / "penstock.yaml").open("wb") as file:
        file.truncate(50 * 1024 * 1024)


def _binary(folder: Path) -> None:
    (folder / "penstock.yaml").write_bytes(os.urandom(4096))


def _folder(folder: Path) -> None:
    (folder / "penstock.yaml").mkdir()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda _folder: None, "penstock.yaml: cannot read it: No such file or directory; write one with"),
        (_unknown_step, 'penstock.yaml:4: steps.hello.type: there is no step type "step.shell"; did you mean'),
        (_large, "penstock.yaml: 52 MB is too large; keep it below 1 MB"),
        (_binary, "penstock.yaml:"),
        (_folder, "penstock.yaml: cannot read it: Is a directory; "),
    ],
)
def test_bad_pipeline_is_one_line(bare_penstock: Penstock, make: object, line: str):
    """Exit code 2, nothing on standard output."""
    make(bare_penstock.cwd)  # type: ignore[operator]
    done = bare_penstock("check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"penstock: {line}")
    assert done.stderr.count("\n") == 1
