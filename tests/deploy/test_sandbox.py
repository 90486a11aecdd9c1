"""What an instance sees, under real bubblewrap and without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from penstock.deploy.sandbox import (
    Rooms,
    credentials_of,
    instance_environment,
    own_scripts,
    sandbox_argv,
    search_path,
    usable_bwrap,
)

LOOK = """
import json, os, sys
def writable(folder):
    try:
        open(os.path.join(folder, "new"), "w").close()
        return True
    except OSError:
        return False
print(json.dumps({name: [os.path.exists(name), writable(name)] for name in sys.argv[1:]} | {"pid": os.getpid()}))
"""


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    home = tmp_path / "home"
    for folder in ("release", "data", "secret"):
        (home / folder).mkdir(parents=True)
    (home / "token").write_text("secret")
    return Rooms(home / "release", home / "data", (home,))


def look(rooms: Rooms, *paths: Path) -> dict[str, list[bool]]:
    if usable_bwrap() is None:
        pytest.skip("bubblewrap is not usable here")
    argv = sandbox_argv([sys.executable, "-c", LOOK, *map(str, paths)], rooms)
    return json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout)


def test_release_is_read_only_and_data_is_writable(rooms):
    """What was released cannot change itself; what it stores stays."""
    seen = look(rooms, rooms.release, rooms.data)
    assert seen[str(rooms.release)] == [True, False]
    assert seen[str(rooms.data)] == [True, True]
    assert (rooms.data / "new").exists()


def test_the_rest_of_home_is_hidden(rooms):
    """Tokens and other releases are not there at all."""
    home = rooms.release.parent
    seen = look(rooms, home / "token", home / "secret")
    assert seen[str(home / "token")] == [False, False]
    assert seen[str(home / "secret")] == [False, False]


def test_host_is_read_only_and_tmp_is_private(rooms, tmp_path):
    """The host cannot be written; /tmp is the instance's own."""
    seen = look(rooms, Path("/etc"), Path("/usr"), Path("/tmp"))
    assert seen["/etc"] == [True, False]
    assert seen["/usr"] == [True, False]
    assert seen["/tmp"] == [True, True]
    assert not Path("/tmp/new").exists()


def test_process_ids_are_its_own(rooms):
    """It sees and signals no process of the host."""
    assert look(rooms)["pid"] < 10


def test_credentials_of_the_user_are_hidden(tmp_path):
    """Folders and files alike, only those that exist, and of links what they point at."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".netrc").write_text("x")
    (tmp_path / ".aws").symlink_to(tmp_path / ".ssh")
    places = credentials_of(tmp_path)
    assert [path for path in places if path.is_relative_to(tmp_path)] == [tmp_path / ".ssh", tmp_path / ".netrc"]
    rooms = Rooms(tmp_path, tmp_path, places)
    argv = " ".join(sandbox_argv(["true"], rooms))
    assert f"--tmpfs {tmp_path}/.ssh --ro-bind /dev/null {tmp_path}/.netrc" in argv


def test_credentials_of_the_host_are_hidden(rooms, tmp_path):
    """Password hashes and keys of the machine, which root could read: the same list as for steps."""
    if usable_bwrap() is None:
        pytest.skip("bubblewrap is not usable here")
    places = credentials_of(tmp_path)
    assert Path("/etc/shadow") in places
    rooms = attrs.evolve(rooms, hidden=(*rooms.hidden, *places))
    script = "; ".join(f"cat {path}" for path in places if path.is_file())
    argv = sandbox_argv(["/bin/sh", "-c", script], rooms)
    assert subprocess.run(argv, check=False, capture_output=True, timeout=60).stdout == b""


def test_command_is_never_taken_for_an_option(rooms):
    """A command that begins with dashes comes after the end of options."""
    assert sandbox_argv(["--bind", "/"], rooms)[-3:] == ["--", "--bind", "/"]


def test_environment_holds_what_was_given_and_told_only():
    """The plan's variables, the port, and a handful that every program needs."""
    env = instance_environment({"A": "1"}, mark="m", port=5, data=Path("/d"), path="/bin")
    assert env["A"] == "1"
    assert env["PORT"] == "5"
    assert set(env) - {"A"} == {
        *("PATH", "LANG", "TMPDIR", "HOME", "PYTHONUNBUFFERED"),
        *("PORT", "HOST", "DATA_DIR", "PENSTOCK_INSTANCE"),
    }


def test_plan_may_choose_its_path():
    """What somebody wrote wins over our default."""
    env = instance_environment({"PATH": "/opt/bin"}, mark="m", port=5, data=Path("/d"), path="/bin")
    assert env["PATH"] == "/opt/bin"


def test_own_scripts_are_not_on_the_path():
    """A service finds the host's Python, not the one that Penstock runs with."""
    own = Path("/opt/penstock/bin")
    assert search_path({"PATH": f"{own}:/usr/bin::/bin"}, own) == "/usr/bin:/bin"
    assert search_path({"PATH": str(own)}, own) == os.defpath
    assert search_path({"PATH": "/usr/bin"}, None) == "/usr/bin"
    assert search_path({}, own) == os.defpath


def test_own_scripts_are_those_of_a_virtual_environment():
    """Outside of one there is no folder to leave out."""
    assert own_scripts() == (None if sys.prefix == sys.base_prefix else Path(sys.prefix) / "bin")


def test_missing_bwrap_is_noticed(monkeypatch, tmp_path):
    """No command, no sandbox: the keeper falls back to the plain way."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert usable_bwrap() is None


def test_bwrap_that_may_not_is_noticed(monkeypatch, tmp_path):
    """A kernel that forbids it shows as a command that fails."""
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert usable_bwrap() is None
