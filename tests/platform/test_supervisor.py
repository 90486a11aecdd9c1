"""The supervisor with real processes: what ends is started again, what is stopped is gone."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from penstock.errors import ConflictError, PlatformError, SettingsError
from penstock.platform.supervisor import Part, Supervisor, check_ports, is_up, logged, only_one
from penstock.processes import spawn, wait_until
from penstock.settings import Settings, create_home, load_settings

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
WITH_CHILD = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"]
DEAF = [sys.executable, "-uc", "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(600)"]
LIMIT_S = 60.0


class Parts:
    """Makes parts and knows every process that they started."""

    def __init__(self) -> None:
        self.started: dict[str, list[subprocess.Popen[bytes]]] = {}

    def part(self, name: str, argv: list[str], ready: Callable[[], bool] = lambda: True, **options: object) -> Part:
        def start() -> "subprocess.Popen[bytes]":
            process = spawn(argv, output=subprocess.DEVNULL)
            self.started.setdefault(name, []).append(process)
            return process

        return Part(name, start, ready, **options)

    def newest(self, name: str) -> "subprocess.Popen[bytes]":
        return self.started[name][-1]

    def alive(self) -> list[int]:
        return [one.pid for many in self.started.values() for one in many if psutil.pid_exists(one.pid)]


@contextmanager
def supervised(*parts: Part) -> Iterator[list[str]]:
    """Run parts for as long as the block; gives what the supervisor says."""
    said: list[str] = []
    supervisor = Supervisor(parts, said.append)
    supervisor.start()
    try:
        supervisor.wait_until_ready(lambda _: None)
        yield said
    finally:
        supervisor.stop()


def test_ended_part_is_started_again_and_that_is_told() -> None:
    """By signal or by itself; the others go on."""
    made = Parts()
    with supervised(made.part("one", SLEEP), made.part("two", SLEEP)) as said:
        first, other = made.newest("one"), made.newest("two")
        first.send_signal(signal.SIGKILL)
        assert wait_until(lambda: len(made.started["one"]) == 2, limit_s=LIMIT_S)
        assert made.newest("two") is other
    assert said == ["one ended with signal 9; it is started again"]
    assert made.alive() == []


def test_part_that_ends_at_once_is_started_again_more_and_more_slowly() -> None:
    """A broken part does not keep the machine busy."""
    made = Parts()
    with supervised(made.part("broken", [sys.executable, "-c", "raise SystemExit(3)"])) as said:
        assert wait_until(lambda: len(made.started["broken"]) == 3, limit_s=LIMIT_S)
    assert "broken ended with exit code 3; it is started again" in said


def test_part_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """The supervisor and the other parts live on."""
    made = Parts()
    command = tmp_path / "command"

    def start() -> "subprocess.Popen[bytes]":
        return logged([str(command)], tmp_path / "logs" / "late.log", cwd=tmp_path, env={})

    late = Part("late", start, (tmp_path / "began").exists)
    said: list[str] = []
    supervisor = Supervisor([late, made.part("other", SLEEP)], said.append)
    supervisor.start()
    assert wait_until(lambda: any("late cannot be started" in line for line in said), limit_s=LIMIT_S)
    command.write_text(f"#!/bin/sh\n: > {tmp_path}/began\nexec /bin/sleep 600\n")
    command.chmod(0o755)
    supervisor.wait_until_ready(lambda _: None)
    supervisor.stop()
    assert made.alive() == []


def test_part_that_has_lost_a_part_of_itself_is_started_again() -> None:
    """It runs, but its child, which does the work, is dead."""
    made = Parts()

    def has_child(pid: int) -> bool:
        return bool([child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE])

    def ready() -> bool:
        return has_child(made.newest("server").pid)

    with supervised(made.part("server", WITH_CHILD, ready, whole=has_child)) as said:
        (child,) = psutil.Process(made.newest("server").pid).children()
        child.kill()
        assert wait_until(lambda: len(made.started["server"]) == 2, limit_s=LIMIT_S)
    assert said[0] == "server has lost a part of itself"


def test_what_a_killed_part_leaves_behind_goes_with_it() -> None:
    """Its group is killed before it is started again."""
    made = Parts()
    with supervised(made.part("server", WITH_CHILD, lambda: bool(children(made)))):
        (child,) = children(made)
        made.newest("server").send_signal(signal.SIGKILL)
        assert wait_until(lambda: not child.is_running(), limit_s=LIMIT_S)


def children(made: Parts) -> list[psutil.Process]:
    return psutil.Process(made.newest("server").pid).children()


def test_deaf_part_is_killed_after_its_grace() -> None:
    """Stop comes to an end whatever a part does."""
    made = Parts()
    with supervised(made.part("deaf", DEAF, grace_s=0.5)):
        pass
    assert made.alive() == []


def test_parts_leave_in_their_order(tmp_path: Path) -> None:
    """What starts work is gone before what does it is told."""
    made, order = Parts(), tmp_path / "order"

    def leaving(name: str, turn: int) -> Part:
        say = f"open({str(order)!r}, 'a').write('{name} ')"
        stop = f"signal.signal(15, lambda *_: (time.sleep(0.3), {say}, sys.exit()))"
        began = tmp_path / name
        code = f"import signal, sys, time; {stop}; open({str(began)!r}, 'w'); time.sleep(600)"
        return made.part(name, [sys.executable, "-c", code], began.exists, leaves=turn)

    with supervised(leaving("last", 2), leaving("first", 0), leaving("second", 1)):
        pass
    assert order.read_text().split() == ["first", "second", "last"]
    assert made.alive() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_part_that_never_answers_is_named() -> None:
    """Where the supervisor cannot go on, the wait ends with the part's name and where to look."""

    def start() -> "subprocess.Popen[bytes]":
        raise PlatformError("no such thing")

    supervisor = Supervisor([Part("never", start, lambda: False)], lambda _: None)
    supervisor.start()
    with pytest.raises(PlatformError, match="never did not start"):
        supervisor.wait_until_ready(lambda _: None)
    supervisor.stop()


@pytest.fixture
def fresh(home: Path) -> Settings:
    made = load_settings({"PENSTOCK_HOME": str(home)})
    create_home(made)
    return made


def test_only_one_platform_runs_on_a_home(fresh: Settings) -> None:
    """The second is told; afterwards there is room again."""
    assert not is_up(fresh)
    with only_one(fresh):
        assert is_up(fresh)
        with pytest.raises(ConflictError, match="runs already"), only_one(fresh):
            pass
    assert not is_up(fresh)


def test_free_ports_are_fine_and_a_taken_one_is_named() -> None:
    """With its variable, who has it, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError) as refused:
            check_ports({"PENSTOCK_API_PORT": port})
    assert str(refused.value).startswith(f"PENSTOCK_API_PORT: port {port} is taken by ")
    assert str(refused.value).endswith("; stop that, or set PENSTOCK_API_PORT")
    check_ports({"PENSTOCK_API_PORT": port})
