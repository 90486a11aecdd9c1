"""The docker engine's pure parts: what it reads in an engine's words, and what it makes of a job's."""

import pytest

from penstock.engines.docker_container import hosts_file, in_order, inside
from penstock.engines.docker_images import refusal
from penstock.engines.docker_running import unusable_command
from penstock.engines.docker_services import listens
from penstock.errors import PlatformError, StepFailure


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("manifest for a:b not found: manifest unknown: manifest unknown", StepFailure),
        ("pull access denied for a, repository does not exist or may require 'docker login'", StepFailure),
        ("Head https://r/v2/a/manifests/b: unauthorized: authentication required", StepFailure),
        ("no matching manifest for linux/s390x in the manifest list entries", StepFailure),
        ("Get https://r/v2/: dial tcp: lookup r on 10.0.0.1:53: no such host", PlatformError),
        ("Get https://r/v2/: net/http: request canceled (Client.Timeout exceeded)", PlatformError),
        ("toomanyrequests: You have reached your pull rate limit", PlatformError),
        ("write /var/lib/docker/tmp/x: no space left on device", PlatformError),
        ("received unexpected HTTP status: 503 Service Unavailable", PlatformError),
    ],
)
def test_failed_pulls_are_told_apart(words: str, kind: type[Exception]):
    """What the step got wrong, and what is worth another try."""
    told = refusal("a:b", words, "unix:///x")
    assert type(told) is kind
    assert "a:b" in str(told)


def test_shells_write_to_one_stream():
    """What is no shell is left alone: its image may have none."""
    assert in_order(("/bin/sh", "-c", "x")) == ["/bin/sh", "-c", 'exec "$0" "$@" 2>&1', "/bin/sh", "-c", "x"]
    assert in_order(("/tool", "-c", "x")) == ["/tool", "-c", "x"]


@pytest.mark.parametrize(
    ("written", "seen"),
    [(".", "/workspace"), ("a/b", "/workspace/a/b"), ("/workspace/a", "/workspace/a"), ("a/../b", "/workspace/b")],
)
def test_folder_inside(written: str, seen: str):
    """With /workspace or without."""
    assert str(inside(written)) == seen


def test_listening_sockets_are_read_from_the_kernel():
    """State 0A on the port, whatever the address."""
    line = "   0: 00000000:1538 00000000:0000 {} 00000000:00000000 00:00000000 00000000 0 0 1 1 0 100 0 0 10 0\n"
    assert listens(line.format("0A"), 5432)
    assert not listens(line.format("01"), 5432)
    assert not listens(line.format("0A"), 5433)
    assert not listens("", 5432)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ('OCI runtime create failed: exec: "/x": stat /x: no such file or directory: unknown', 127),
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": permission denied: unknown', 126),
        ("error mounting /x: no such file or directory", None),
        ("no space left on device", None),
    ],
)
def test_unusable_commands_are_told_from_other_failures(words: str, code: int | None):
    """Only what is about the step's own command is its exit code."""
    assert unusable_command(words, "/x") == code


def test_hosts_file_knows_the_services():
    """And nothing of this machine."""
    assert hosts_file(["db"]).decode().splitlines() == ["127.0.0.1 localhost", "::1 localhost", "127.0.0.1 db"]
