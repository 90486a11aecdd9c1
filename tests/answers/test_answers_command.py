"""`penstock answers`, as people call it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from answering import Runs
from forge_server import TOKEN, ForgeServer

from penstock.answers.connections import Connection, list_connections
from penstock.answers.deliver import Deliverer
from penstock.settings import Settings

Answers = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def answers(settings: Settings, env: dict[str, str], tmp_path: Path) -> Answers:
    """answers(words) calls the command."""
    environment = {**os.environ, **env, "PENSTOCK_VAULT_KEY_FILE": str(settings.vault_key_file), "COLUMNS": "200"}

    def call(*words: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name("penstock")), "answers", *words]
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            input=typed,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_what_was_told_waits_and_failed_is_listed_and_tried_again(
    *, answers: Answers, runs: Runs, forge: ForgeServer, connected: Callable[..., Connection], deliverer: Deliverer
) -> None:
    """With the reason, and why the forge is left alone."""
    connected(forge)
    runs.end(runs.start())
    deliverer.round()
    forge.token = "another"
    runs.start("b" * 40)
    deliverer.round()
    listed = answers("list")
    assert listed.returncode == 0
    first, second = listed.stdout.splitlines()[1:]
    assert "failed" in first
    assert "401 Bad credentials" in first
    assert ("sent" in second, "succeeded" in second, "0123456789ab" in second) == (True, True, True)
    assert "401 Bad credentials" in listed.stderr
    assert TOKEN not in listed.stdout + listed.stderr
    assert len(answers("list", "--state", "sent").stdout.splitlines()) == 2

    assert answers("retry").stdout.startswith("1 to be told again")
    assert "waiting" in answers("list").stdout
    assert answers("retry", "999").stderr.startswith("penstock: nothing with the number 999")


def test_a_forge_in_a_private_network_is_refused_with_the_remedy(
    answers: Answers, shop: object, forge: ForgeServer, database: sa.Engine
) -> None:
    """One line; the token is kept nowhere."""
    words = ("connect", "shop", "github", "--api-url", forge.url, "--repository", "shop/api", "--token-file", "-")
    done = answers(*words, typed=TOKEN)
    assert done.returncode == 2
    assert "is not a public address" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert TOKEN not in done.stderr
    assert list_connections(database) == ()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("list", "--state", "lost"), 'no answer is "lost"'),
        (("connect", "nobody", "github", "--token-file", "missing"), "the token cannot be read"),
        (("disconnect", "shop"), "no forge is told of shop"),
        (("test", "shop"), "no forge is told of shop"),
    ],
)
def test_what_cannot_be_is_one_line(answers: Answers, words: tuple[str, ...], told: str) -> None:
    """With exit code 2."""
    done = answers(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_connection_can_be_taken_away(
    answers: Answers, forge: ForgeServer, connected: Callable[..., Connection], database: sa.Engine
) -> None:
    """The project stays."""
    connected(forge)
    assert answers("disconnect", "shop").stdout == "nobody is told of shop any more\n"
    assert list_connections(database) == ()
