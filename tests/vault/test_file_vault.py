"""The encrypted file: whole at any moment, and closed to whoever has not the key."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pyrage
import pytest

from penstock.errors import PenstockError, PlatformError, SettingsError
from penstock.settings import Settings
from penstock.vault.file import FileVault
from penstock.vault.key import create_key, read_key

VALUE = b"hunter2-correct-horse"
WRITER = """
import sys
from penstock.settings import load_settings
from penstock.vault import open_vault
vault = open_vault(load_settings())
for number in range(int(sys.argv[2])):
    vault.write("shop", sys.argv[1].format(number), b"%d" % number)
    print(number, flush=True)
"""


@pytest.fixture
def vault(vault_settings: Settings) -> FileVault:
    return FileVault.of(vault_settings)


@pytest.fixture
def filled(vault: FileVault) -> FileVault:
    vault.write("shop", "TOKEN", VALUE)
    return vault


@pytest.fixture
def writer(vault_env: dict[str, str]) -> Callable[[str, int], "subprocess.Popen[bytes]"]:
    """writer(name, times) → a process that writes that often and prints each number when it is written."""

    def start(name: str, times: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", WRITER, name, str(times)],
            env={**os.environ, **vault_env},
            stdout=subprocess.PIPE,
        )

    return start


def whole_of(error: BaseException) -> str:
    """Everything that a traceback could show of an error and of what led to it."""
    seen, text = error, ""
    while seen is not None:
        text += repr(seen) + str(seen) + repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    return text


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_nobody_else_can_read_what_is_made(filled: FileVault):
    """The file, its folder, the key and the key's folder; nothing else is left there."""
    assert mode(filled.path) == mode(filled.key_file) == 0o600
    assert mode(filled.path.parent) == mode(filled.key_file.parent) == 0o700
    assert sorted(path.name for path in filled.path.parent.iterdir()) == ["lock", "secrets.age"]
    assert [path.name for path in filled.key_file.parent.iterdir()] == ["vault.key"]


def test_neither_value_nor_name_can_be_read_in_the_file(filled: FileVault):
    """Names tell too much as well."""
    sealed = filled.path.read_bytes()
    for word in (VALUE, b"TOKEN", b"shop"):
        assert word not in sealed


def test_file_and_key_are_those_of_age(filled: FileVault):
    """`age -d -i vault.key secrets.age` prints JSON: an age header, and a key file as age-keygen writes it."""
    assert filled.path.read_bytes().startswith(b"age-encryption.org/v1\n-> X25519 ")
    lines = filled.key_file.read_text().splitlines()
    assert re.fullmatch(r"# created: \S+", lines[0])
    assert re.fullmatch(r"# public key: age1[a-z0-9]+", lines[1])
    identity = pyrage.x25519.Identity.from_str(lines[2])
    plain = json.loads(pyrage.decrypt(filled.path.read_bytes(), [identity]))
    assert plain["version"] == 1
    assert plain["secrets"]["shop"]["TOKEN"]["value"] == "aHVudGVyMi1jb3JyZWN0LWhvcnNl"


def test_reading_makes_nothing(vault: FileVault):
    """Before the first secret neither file nor key is there."""
    assert vault.names("shop") == ()
    assert "no secrets yet" in vault.check()
    assert not vault.path.parent.exists()
    assert not vault.key_file.exists()


def test_home_is_kept_out_of_git(filled: FileVault):
    """As whatever makes PENSTOCK_HOME does."""
    assert (filled.settings.home / ".gitignore").read_text() == "*\n"


def test_one_key_serves_several_homes(filled: FileVault, tmp_path: Path):
    """A second home takes the key that is there, and does not read the first one's secrets."""
    before = filled.key_file.read_text()
    second = FileVault.of(attrs.evolve(filled.settings, home=tmp_path / "second"))
    second.write("shop", "OTHER", b"value")
    assert filled.key_file.read_text() == before
    assert [info.name for info in second.names("shop")] == ["OTHER"]


def test_key_is_replaced_by_putting_a_new_one_first(filled: FileVault):
    """Both open the file; what is written next is for the new one alone, and then the old one may go."""
    old = filled.key_file.read_text()
    new = str(pyrage.x25519.Identity.generate())
    filled.key_file.write_text(f"{new}\n{old}")
    assert filled.read("shop", "TOKEN") == VALUE
    filled.write("shop", "OTHER", b"value")
    filled.key_file.write_text(new)
    assert filled.read("shop", "TOKEN") == VALUE
    filled.key_file.write_text(old)
    with pytest.raises(PlatformError, match="not encrypted for the key"):
        filled.read("shop", "TOKEN")


def test_second_maker_of_a_key_takes_the_first_ones(tmp_path: Path):
    """Two processes that both see no key end with the same."""
    path = tmp_path / "keys" / "vault.key"
    sealed = create_key(path).encrypted(b"value")
    again = create_key(path)
    assert pyrage.decrypt(sealed, list(again.identities)) == b"value"
    assert "AGE-SECRET" not in repr(again)


def damage(filled: FileVault, kind: str) -> None:
    sealed = filled.path.read_bytes()
    changed = {
        "empty": b"",
        "no age file": b"PK\x03\x04 something else entirely",
        "cut in its header": sealed[:60],
        "cut in its contents": sealed[:-20],
        "one bit of its header": sealed[: -len(sealed) + 5] + b"X" + sealed[6:],
        "one bit of its contents": sealed[:-10] + bytes((sealed[-10] ^ 1,)) + sealed[-9:],
        "more at its end": sealed + b"x",
    }
    filled.path.write_bytes(changed[kind])


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "no age file",
        "cut in its header",
        "cut in its contents",
        "one bit of its header",
        "one bit of its contents",
        "more at its end",
    ],
)
def test_damaged_file_is_one_clear_line(filled: FileVault, kind: str):
    """Read or written: refused, and left as it is for whoever has a backup."""
    damage(filled, kind)
    before = filled.path.read_bytes()
    for call in (
        lambda: filled.read("shop", "TOKEN"),
        lambda: filled.write("shop", "TOKEN", b"new"),
        lambda: filled.names("shop"),
        filled.check,
    ):
        with pytest.raises(PlatformError, match=r"the vault is damaged: .*; put it back from a backup"):
            call()
    assert filled.path.read_bytes() == before


@pytest.mark.parametrize(
    "plain", [b"", b"{}", b'{"secrets": {"shop": {"A": {"value": "hunter2"}}}}', b"\xff", b"[" * 5000]
)
def test_file_of_somebody_else_is_one_clear_line(filled: FileVault, plain: bytes):
    """Encrypted for our key, but not ours inside; the error holds nothing of what was inside."""
    key = read_key(filled.key_file)
    assert key
    filled.path.write_bytes(key.encrypted(plain))
    with pytest.raises(PlatformError, match="holds no secrets of Penstock") as raised:
        filled.read("shop", "TOKEN")
    assert "hunter2" not in whole_of(raised.value)


def test_newer_version_is_not_guessed_at(filled: FileVault):
    """A newer Penstock wrote it."""
    key = read_key(filled.key_file)
    assert key
    filled.path.write_bytes(key.encrypted(b'{"version": 2, "secrets": {}}'))
    with pytest.raises(PlatformError, match="version 2, this Penstock reads 1"):
        filled.read("shop", "TOKEN")


def test_lost_key_is_said_and_no_new_one_made(filled: FileVault):
    """A new key would only hide that the old one is missing."""
    filled.key_file.unlink()
    for call in (lambda: filled.read("shop", "TOKEN"), lambda: filled.write("shop", "TOKEN", b"new"), filled.check):
        with pytest.raises(PlatformError, match=r"key is not there: .*put it back"):
            call()
    assert not filled.key_file.exists()


def test_wrong_key_is_said(filled: FileVault):
    """With the file's and the key's name."""
    filled.key_file.unlink()
    create_key(filled.key_file)
    with pytest.raises(PlatformError, match=re.escape(str(filled.key_file))):
        filled.read("shop", "TOKEN")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "hunter2\n", "AGE-SECRET-KEY-1QQQQ\n", "\x00\xff"])
def test_what_is_no_key_is_refused(filled: FileVault, text: str):
    """And not repeated: it may be a key with a slip of the pen."""
    filled.key_file.write_text(text)
    with pytest.raises(SettingsError, match="no key of age") as raised:
        filled.read("shop", "TOKEN")
    assert "hunter2" not in whole_of(raised.value)
    assert "QQQQ" not in whole_of(raised.value)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o666, 0o660])
def test_key_that_others_can_read_is_refused(filled: FileVault, bits: int):
    """With the command that closes it."""
    filled.key_file.chmod(bits)
    for call in (lambda: filled.read("shop", "TOKEN"), lambda: filled.write("shop", "TOKEN", b"new")):
        with pytest.raises(SettingsError, match=f"mode {bits:04o}.*chmod 600"):
            call()


def test_key_in_a_git_work_tree_is_refused(vault_settings: Settings, tmp_path: Path):
    """Not even made there: the next `git add .` would publish it."""
    (tmp_path / "work" / ".git").mkdir(parents=True)
    key = tmp_path / "work" / "ci" / "vault.key"
    vault = FileVault.of(attrs.evolve(vault_settings, vault_key_file=key))
    for call in (lambda: vault.write("shop", "TOKEN", VALUE), lambda: vault.names("shop"), vault.check):
        with pytest.raises(SettingsError, match=r"git repository .*work; move it elsewhere"):
            call()
    assert not key.parent.exists()


def test_key_beside_the_file_is_refused(vault_settings: Settings, tmp_path: Path):
    """Whoever takes PENSTOCK_HOME would have both; a link does not help."""
    home = vault_settings.home
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    for key in (home / "vault.key", home / "vault" / "vault.key", tmp_path / "link" / "vault.key"):
        vault = FileVault.of(attrs.evolve(vault_settings, vault_key_file=key))
        with pytest.raises(SettingsError, match="lies in PENSTOCK_HOME"):
            vault.write("shop", "TOKEN", VALUE)


@pytest.mark.parametrize("what", ["path", "key_file"])
def test_folder_in_place_of_a_file_is_one_clear_line(filled: FileVault, what: str):
    """Instead of a traceback."""
    place: Path = getattr(filled, what)
    place.unlink()
    place.mkdir()
    with pytest.raises(PenstockError, match="cannot read"):
        filled.read("shop", "TOKEN")


def test_writers_at_once_lose_nothing(filled: FileVault, writer: Callable[[str, int], "subprocess.Popen[bytes]"]):
    """Four processes, each with secrets of its own: all are there."""
    processes = [writer(f"W{number}_{{}}", 10) for number in range(4)]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    expected = {f"W{number}_{count}" for number in range(4) for count in range(10)}
    assert {info.name for info in filled.names("shop")} == expected | {"TOKEN"}


def test_killed_writer_leaves_the_old_or_the_new(
    filled: FileVault, writer: Callable[[str, int], "subprocess.Popen[bytes]"]
):
    """`kill -9` at any moment: what was confirmed is there, the rest is whole, and the next writer goes on."""
    for delay_ms in range(12):
        process = writer("COUNT", 1_000_000)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay_ms * 1.3 / 1000)
        process.kill()
        confirmed = [int(line) for line in process.communicate()[0].split(b"\n")[:-1]]
        found = int(filled.read("shop", "COUNT"))
        assert found - (confirmed[-1] if confirmed else 0) in (0, 1)
        assert filled.read("shop", "TOKEN") == VALUE
    filled.write("shop", "AFTER", b"value")
    assert sorted(path.name for path in filled.path.parent.iterdir()) == ["lock", "secrets.age"]


def test_writer_killed_at_its_first_secret_leaves_no_riddle(
    vault: FileVault, writer: Callable[[str, int], "subprocess.Popen[bytes]"]
):
    """Between the key and the file too: the next writer makes do with what is there."""
    for delay_ms in range(0, 300, 50):
        process = writer("COUNT", 1)
        time.sleep(delay_ms / 1000)
        process.kill()
        process.communicate()
        vault.write("shop", "TOKEN", VALUE)
        assert vault.read("shop", "TOKEN") == VALUE
        vault.path.unlink()
        vault.key_file.unlink()


def test_full_disk_keeps_the_old(filled: FileVault, vault_env: dict[str, str]):
    """A write that finds no room is one line, and what was there stays."""
    code = (
        "import resource, sys\n"
        "from penstock.settings import load_settings\n"
        "from penstock.vault import open_vault\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from penstock.errors import PlatformError\n"
        "try: open_vault(load_settings()).write('shop', 'BIG', b'x' * 60_000)\n"
        "except PlatformError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **vault_env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "cannot write the vault: File too large" in done.stdout
    assert filled.read("shop", "TOKEN") == VALUE
    filled.write("shop", "AFTER", b"value")
    assert sorted(path.name for path in filled.path.parent.iterdir()) == ["lock", "secrets.age"]
