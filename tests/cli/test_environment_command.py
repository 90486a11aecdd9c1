"""`penstock environment`: what it prints, changes and refuses, and the commands of its page."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from cli_process import Penstock

from penstock.environments import store
from penstock.environments.model import Environment

DOCS = Path(__file__).parents[2] / "docs" / "environments.md"


def kept(database: sa.Engine, name: str) -> Environment:
    with database.connect() as connection:
        return store.get_environment(connection, name)


def test_commands_of_the_docs_work(penstock: Penstock, database: sa.Engine, tmp_path: Path) -> None:
    """The file and the commands, as they stand there and in that order."""
    text = DOCS.read_text()
    (file,) = re.findall(r"```yaml\n(environments:.*?)```", text, re.DOTALL)
    (tmp_path / "environments.yaml").write_text(file)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    done = {}
    for line in lines:
        if not line.startswith("penstock environment ") or " drop " in line or " lift " in line or ">" in line:
            continue
        words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)][1:]
        done[line] = penstock(*words)
        assert done[line].returncode == (3 if words[1] == "test" else 0), done[line].stderr
    assert {line.split()[2] for line in done} >= {"add", "apply", "list", "show", "edit", "test", "hold", "release"}
    assert "no keeper runs; start `penstock up`" in next(one.stdout for line, one in done.items() if " test " in line)


def test_environment_is_made_edited_and_removed(penstock: Penstock, database: sa.Engine) -> None:
    """What is not named stays; a list is replaced, an empty text empties it; the version that was seen is held."""
    assert "it is production" in penstock("environment", "add", "prod", "--branch", "main", "--env", "A=1").stdout
    edit = ("environment", "edit", "prod")
    assert penstock(*edit, "--soak", "2h", "--env", "B=x=y", "--approvals", "2").stdout == (
        "prod is changed; it is at version 2\n"
    )
    rules = kept(database, "prod").rules
    assert (rules.env, rules.order.soak, rules.refs.branches) == ({"A": "1", "B": "x=y"}, 7200, ("main",))
    assert rules.approval is not None
    assert rules.approval.count == 2
    stale = penstock(*edit, "--version", "1", "--soak", "3h")
    assert (stale.returncode, stale.stdout) == (2, "")
    assert "it is at version 2 by now" in stale.stderr
    again = ("--branch", "", "--env", "A=", "--approvals", "0", "--target", "process", "--version", "2")
    assert penstock(*edit, *again).returncode == 0
    rules = kept(database, "prod").rules
    assert (rules.env, rules.refs.branches, rules.approval, rules.target_name) == ({"B": "x=y"}, (), None, "process")
    assert penstock("environment", "remove", "prod", "--version", "3").stdout == "prod is removed\n"
    assert "no environment" in penstock("environment", "show", "prod").stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("add", "Prod"), "name: "),
        (("add", "a", "--soak", "soon"), '"soon" is no duration'),
        (("add", "a", "--after", "absent"), 'no environment is called "absent"'),
        (("add", "a", "--env", "X"), '"X" sets no variable'),
        (("add", "a", "--env", "X.Y=1"), '"X.Y=1" sets no variable'),
        (("add", "a", "--target", "moon"), '"moon" cannot stand here'),
        (("edit", "absent", "--soak", "1h"), 'no environment is called "absent"'),
        (("edit", "absent"), "there is nothing to change"),
        (("hold", "absent"), 'no environment is called "absent"'),
        (("lift", "absent", "x", "--why", "y"), 'no environment is called "absent"'),
        (("drop", "absent", "x"), 'no deployment of a run "x" waits for absent'),
        (("apply", "absent.yaml"), "it cannot be read"),
        (("test", "absent"), 'no environment is called "absent"'),
    ],
)
def test_what_cannot_be_is_one_line(penstock: Penstock, words: tuple[str, ...], what: str) -> None:
    done = penstock("environment", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert done.stderr.count("\n") == 1


def test_export_is_what_apply_takes(penstock: Penstock, tmp_path: Path) -> None:
    """Nothing is lost on the way: applied again, nothing changes."""
    penstock("environment", "add", "staging", "--pull-request", "main", "--secret-env", "X=word")
    penstock("environment", "add", "production", "--after", "staging", "--need", "any", "--approvals", "1")
    (tmp_path / "all.yaml").write_text(penstock("environment", "export").stdout)
    done = penstock("environment", "apply", "all.yaml")
    assert done.stdout == "staging: unchanged, version 1\nproduction: unchanged, version 1\n"
