"""Tool environments: made once from a lock, whoever asks, and never half."""

import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import pytest

from penstock.errors import Cancelled, NotFoundError, PlatformError
from penstock.pipeline.cancel import CancelToken
from penstock.scanners import lock_file, open_scanner, scanner_names
from penstock.scanners.tools import Tool, find_tool
from penstock.settings import load_settings
from penstock.toolbox import READY, Requirements, Toolbox, base_python, find_uv, install_commands, locked

BANDIT = Requirements("bandit", lock_file("bandit"))


def toolbox(folder: Path, uv: Path | None = None) -> Toolbox:
    return Toolbox(folder, base_python(), uv)


def works(bin: Path) -> bool:
    done = subprocess.run([bin / "python", "-I", "-m", "bandit", "--version"], capture_output=True, check=False)
    return done.returncode == 0


def ask(folder: Path) -> None:
    toolbox(folder, find_uv()).ensure(BANDIT, CancelToken())


def test_tool_is_made_once(tmp_path: Path):
    """The second time nothing is installed."""
    said: list[str] = []
    first = toolbox(tmp_path, find_uv()).ensure(BANDIT, CancelToken(), said.append)
    second = toolbox(tmp_path, find_uv()).ensure(BANDIT, CancelToken(), said.append)
    assert first == second
    assert said == ["installing bandit (once)"]
    assert works(first)


def test_without_uv_pip_makes_it(tmp_path: Path):
    """Where uv is absent, venv and pip give the same tool."""
    assert works(toolbox(tmp_path).ensure(BANDIT, CancelToken()))


def test_many_processes_make_it_once(tmp_path: Path):
    """Four that ask at once all get it, and nobody sees a half-made one."""
    spawned = multiprocessing.get_context("spawn")
    asking = [spawned.Process(target=ask, args=(tmp_path,)) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join(120)
    assert [process.exitcode for process in asking] == [0, 0, 0, 0]
    assert works(tmp_path / BANDIT.environment / "bin")


def test_interrupted_installation_is_made_anew(tmp_path: Path):
    """An environment without its mark is what a killed installer left."""
    environment = tmp_path / BANDIT.environment
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("/bin/false")
    assert works(toolbox(tmp_path, find_uv()).ensure(BANDIT, CancelToken()))
    assert (environment / READY).is_file()


def test_environment_whose_python_is_gone_is_made_anew(tmp_path: Path):
    """After the interpreter below was removed or moved, the tool is installed again."""
    bin = toolbox(tmp_path, find_uv()).ensure(BANDIT, CancelToken())
    (bin / "python").unlink()
    (bin / "python").symlink_to("/nowhere/python3")
    assert works(toolbox(tmp_path, find_uv()).ensure(BANDIT, CancelToken()))


def test_tool_that_cannot_be_installed_says_what_to_do(tmp_path: Path):
    """One line with the installer's own words and a remedy, and nothing that looks ready."""
    box = Toolbox(tmp_path, Path("/bin/false"), None)
    with pytest.raises(PlatformError, match=r"cannot install bandit.*package index"):
        box.ensure(BANDIT, CancelToken())
    assert not (tmp_path / BANDIT.environment / READY).exists()


def test_missing_installer_is_one_line(tmp_path: Path):
    """An uv that was removed meanwhile is no traceback."""
    with pytest.raises(PlatformError, match="cannot start /nowhere/uv"):
        toolbox(tmp_path, Path("/nowhere/uv")).ensure(BANDIT, CancelToken())


def test_cancel_ends_an_installation(tmp_path: Path):
    """A run that is cancelled while its tool is being made does not wait for it."""
    slow = tmp_path / "uv"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    token = CancelToken()

    def cancel_soon(_text: str) -> None:
        import threading

        threading.Timer(0.3, token.cancel, ("enough",)).start()

    started = time.monotonic()
    with pytest.raises(Cancelled, match="enough"):
        toolbox(tmp_path / "tools", slow).ensure(BANDIT, token, cancel_soon)
    assert time.monotonic() - started < 60


def test_repository_cannot_steer_the_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An index that the repository's own uv.toml names is not asked."""
    (tmp_path / "uv.toml").write_text('index-url = "http://127.0.0.1:1/simple"\n')
    monkeypatch.chdir(tmp_path)
    assert toolbox(tmp_path / ".penstock" / "tools", find_uv()).ensure(BANDIT, CancelToken()).is_dir()


@pytest.mark.parametrize("uv", [Path("/opt/uv"), None])
def test_commands_demand_hashes_and_name_no_index(uv: Path | None):
    """Every package must match the lock and be a wheel; where from is the user's own setting."""
    words = [word for command in install_commands(uv, Path("/p"), Path("/e"), Path("/l")) for word in command]
    assert "--require-hashes" in words
    assert words[words.index("--only-binary") + 1] == ":all:"
    assert not [word for word in words if "index" in word or "find-links" in word]


@pytest.mark.parametrize("name", [name for name in scanner_names() if name != "grype"])
def test_lock_fixes_every_package_and_names_no_place(name: str):
    """A version and a hash for each, no options, no addresses."""
    lines = lock_file(name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(" ")]
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)
    assert all(line.strip().startswith("--hash=sha256:") for line in lines if line.startswith(" "))
    assert "://" not in lock_file(name).read_text()


def test_tool_without_a_lock_is_taken_from_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only its own file is shown to its sandbox, not the folder around it, which may be somebody's home."""
    command = tmp_path / "home" / "grype"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "grype").symlink_to(command)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    tool = find_tool(load_settings({"PENSTOCK_HOME": str(tmp_path / "p")}), open_scanner("grype"))
    assert tool == Tool(command.parent.resolve(), (command.resolve(),))


def test_tool_that_is_nowhere_is_a_platform_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the remedy."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="put its command on the PATH"):
        find_tool(load_settings({"PENSTOCK_HOME": str(tmp_path / "p")}), open_scanner("grype"))


def test_lock_may_be_shared_but_not_while_one_is_alone(tmp_path: Path):
    """Scans read a database side by side; whoever fetches it waits, and gives up when cancelled."""
    lock = tmp_path / "database.lock"
    with locked(lock, CancelToken(), shared=True), locked(lock, CancelToken(), shared=True):
        token = CancelToken()
        token.cancel("enough")
        with pytest.raises(Cancelled, match="enough"), locked(lock, token):
            pass
    with locked(lock, CancelToken()):
        pass


def test_unknown_scanner_names_those_that_there_are():
    """One line with the names."""
    with pytest.raises(NotFoundError, match="semgrep, bandit"):
        open_scanner("sonar")


def test_uv_is_taken_from_beside_the_interpreter_or_path():
    """What is found can be run."""
    found = find_uv()
    assert found is None or os.access(found, os.X_OK)
