"""The small decisions about an instance's process."""

import signal
import socket
import subprocess
import sys

import pytest

from penstock.deploy.caddy import is_free
from penstock.deploy.supervised import describe_end, free_port, marked
from penstock.deploy.targets import delay_s


def test_delays_double_up_to_half_a_minute():
    """Quick at first, and never a busy loop; thousands of crashes are no overflow."""
    assert [delay_s(n) for n in (1, 2, 3, 9, 10, 100_000)] == [0.1, 0.2, 0.4, 25.6, 30.0, 30.0]


def test_instance_that_ran_steadily_comes_back_at_once():
    """No quick end, the shortest delay."""
    assert delay_s(0) == 0.1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exit code 1; last lines: a | b"),
        (-9, "killed by SIGKILL; last lines: a | b"),
        (139, "exit code 139 (SIGSEGV); last lines: a | b"),
        (255, "exit code 255; last lines: a | b"),
    ],
)
def test_end_in_words(code, text):
    """Signals have names, also when they come through bubblewrap."""
    assert describe_end(code, ["a", "b"]) == text


def test_end_without_a_word():
    """Silence is said."""
    assert describe_end(0, []) == "exit code 0; it wrote nothing"


def test_port_of_before_is_kept():
    """Nothing has to be switched for a restart."""
    port = free_port(None, set())
    assert free_port(port, set()) == port


def test_port_that_somebody_took_is_not():
    """Listened on, or given to another instance: another one it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert free_port(port, set()) != port
    assert is_free(port)
    assert free_port(port, {port}) != port


def test_no_port_at_all():
    """A thousand tries, then an error that says so."""
    with pytest.raises(OSError, match="no free port"):
        free_port(None, {5}, pick=lambda: 5)


def test_marked_finds_by_environment_only():
    """Another process with the same id in its arguments is none of ours."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(sleep, env={"PENSTOCK_INSTANCE": "abc"})
    other = subprocess.Popen([*sleep, "PENSTOCK_INSTANCE=abc"], env={})
    try:
        assert [process.pid for process in marked({"abc"})] == [ours.pid]
    finally:
        for process in (ours, other):
            process.send_signal(signal.SIGKILL)
            process.wait()
