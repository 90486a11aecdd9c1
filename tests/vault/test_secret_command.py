"""`penstock secret`, as people call it."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bao_server import ROOT_TOKEN, Bao

from penstock.settings import Settings
from penstock.vault import LARGEST_BYTES, SHARED, open_vault

Secret = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.mark.parametrize(
    ("piped", "kept"),
    [
        (b"hunter2", b"hunter2"),
        (b"hunter2\n", b"hunter2"),
        (b"hunter2\r\n", b"hunter2"),
        (b"two\nlines\n\n", b"two\nlines\n"),
        (b"\xff\x00\xfe\x01\n", b"\xff\x00\xfe\x01"),
    ],
)
def test_value_comes_from_standard_input(secret: Secret, vault_settings: Settings, piped: bytes, kept: bytes):
    """Without the one newline that echo adds; the value is not repeated."""
    done = secret("set", "TOKEN", "--project", "shop", piped=piped)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"TOKEN is set for shop\n", b"")
    assert open_vault(vault_settings).read("shop", "TOKEN") == kept


def test_value_comes_from_a_file_as_it_is(secret: Secret, vault_settings: Settings, tmp_path: Path):
    """Newlines too: keys need theirs."""
    (tmp_path / "key").write_bytes(b"line\nline\n")
    assert secret("set", "KEY", "--from-file", "key").stdout == b"KEY is set for all projects\n"
    assert open_vault(vault_settings).read(SHARED, "KEY") == b"line\nline\n"


def test_value_is_asked_for_on_a_terminal(vault_settings: Settings, vault_env: dict[str, str], tmp_path: Path):
    """And not shown while it is typed."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("penstock"), "secret", "set", "TOKEN"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, **vault_env},
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    while b"Value of TOKEN: " not in shown:
        shown += os.read(master, 1024)
    os.write(master, b"hunter2\n")
    assert process.wait(timeout=60) == 0
    shown += os.read(master, 4096)
    os.close(master)
    assert b"TOKEN is set for all projects" in shown
    assert b"hunter2" not in shown
    assert open_vault(vault_settings).read(SHARED, "TOKEN") == b"hunter2"


def test_value_on_the_command_line_is_refused(secret: Secret):
    """Other users could read it there, and the shell's history keeps it."""
    done = secret("set", "TOKEN", "hunter2")
    assert done.returncode == 2
    assert b"unexpected extra argument" in done.stderr


@pytest.mark.parametrize(
    ("words", "piped", "complaint"),
    [
        (("set", "TOKEN"), b"", "secret TOKEN: the value is empty"),
        (("set", "TOKEN"), b"\n", "secret TOKEN: the value is empty"),
        (("set", "TOKEN"), b"x" * (LARGEST_BYTES + 1), "a secret at most 65536"),
        (("set", "9TOKEN"), b"value", '"9TOKEN" is no name for a secret'),
        (("set", "TOKEN", "--project", "../x"), b"value", '"../x" is no name for a project'),
        (("set", "TOKEN", "--from-file", "nowhere"), b"", "nowhere: cannot read it: No such file or directory"),
        (("remove", "TOKEN"), b"", 'the platform has no secret "TOKEN"; set it with `penstock secret set TOKEN`'),
        (("list", "--project", "A"), b"", '"A" is no name for a project'),
    ],
)
def test_wrong_input_is_one_line(secret: Secret, words: tuple[str, ...], piped: bytes, complaint: str):
    """Exit code 2, and nothing is kept."""
    done = secret(*words, piped=piped)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("penstock: ")
    assert complaint in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_short_secret_is_kept_with_a_warning(secret: Secret):
    """Logs cannot mask what would turn up everywhere."""
    done = secret("set", "PIN", piped=b"123")
    assert (done.returncode, done.stdout) == (0, b"PIN is set for all projects\n")
    assert done.stderr == b"penstock: PIN has fewer than 4 bytes: logs will not mask it\n"


def test_list_shows_what_a_project_gets_and_no_values(secret: Secret):
    """Its own and those of all projects; without a project, only those."""
    secret("set", "OWN", "--project", "shop", piped=b"hunter2")
    secret("set", "ALL", piped=b"hunter2")
    lines = secret("list", "--project", "shop").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["secret", "OWN", "ALL"]
    assert "hunter2" not in "".join(lines)
    assert "OWN" not in secret("list").stdout.decode()
    assert secret("remove", "OWN", "--project", "shop").stdout == b"OWN of shop is removed\n"
    assert "OWN" not in secret("list", "--project", "shop").stdout.decode()


def test_check_says_what_is_wrong(secret: Secret, vault_settings: Settings):
    """On one line, with exit code 3 when it is the platform's trouble."""
    assert b"no secrets yet" in secret("check").stdout
    secret("set", "TOKEN", piped=b"hunter2")
    assert b"secrets in it: 1" in secret("check").stdout
    vault_settings.vault_key_file.unlink()
    done = secret("check")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"key is not there" in done.stderr


def test_check_really_connects(secret: Secret, tls_bao: Bao, tmp_path: Path):
    """To the vault that the settings name, with the authority that VAULT_CACERT names."""
    (tmp_path / "token").write_text(ROOT_TOKEN)
    named = {
        "PENSTOCK_VAULT": "hashicorp",
        "PENSTOCK_VAULT_ADDR": tls_bao.address,
        "PENSTOCK_VAULT_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert b"certificate cannot be trusted" in secret("check", **named).stderr
    done = secret("check", **named, VAULT_CACERT=str(tls_bao.certificate))
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"{tls_bao.address} answers".encode() in done.stdout
    assert ROOT_TOKEN.encode() not in done.stdout


@pytest.mark.parametrize("words", [(), ("set",), ("list",), ("remove",), ("check",)])
def test_help_has_examples(secret: Secret, words: tuple[str, ...]):
    """For each of its commands."""
    done = secret(*words, "--help")
    assert done.returncode == 0
    assert b"Examples:" in done.stdout
