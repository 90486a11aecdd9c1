"""
A workspace's way into a Pod and back: tar over a command that runs in a container, nothing beside the API is needed.

In: a tar of known size, so that one that was cut off is no complete one. Back: into a new folder beside the
workspace, which takes its place when all of it has come; what the job deleted is gone then.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from penstock.engines.kubernetes_cluster import Cluster
from penstock.engines.kubernetes_exec import STDERR, STDOUT, Check
from penstock.engines.kubernetes_manifests import CONTROL, COPY_IN, COPY_OUT
from penstock.errors import PlatformError
from penstock.folders import remove_tree
from penstock.pipeline.spec import WORKSPACE

CHUNK = 256 * 1024
_UNPACK = f"head -c {{size}} | tar -x -o -f - -C {WORKSPACE} && : > {CONTROL}/ready"
_PACK = f"tar -c -f - -C {WORKSPACE} ."
_LET_GO = f": > {CONTROL}/done"


def copy_in(cluster: Cluster, pod: str, workspace: Path, check: Check) -> None:
    """
    Unpack `workspace` in the Pod and let the job begin.

    check: called between chunks; what it raises ends the copying.
    Raises: StepFailure when the image has no tar, PlatformError when the way is cut off.
    """
    with tempfile.TemporaryFile(dir=workspace.parent) as packed:
        size = _pack(workspace, packed)
        argv = ["/bin/sh", "-c", _UNPACK.format(size=size)]
        with cluster.running(pod, COPY_IN, argv, stdin=True) as command:
            while (chunk := packed.read(CHUNK)) and command.send(chunk):
                check()
            said = b"".join(command.output(STDERR, check))
    command.refuse_failed("copying the workspace into the Pod", said)


def copy_out(cluster: Cluster, pod: str, workspace: Path, check: Check) -> None:
    """
    Put what the Pod has in the place of `workspace`.

    Raises: PlatformError when the way is cut off; the workspace is as it was then.
    """
    returned = workspace.with_name(f"{workspace.name}.returned")
    remove_tree(returned)
    returned.mkdir()
    try:
        with cluster.running(pod, COPY_OUT, ["/bin/sh", "-c", _PACK], stdin=False) as command:
            code = _unpack(command.output(STDOUT, check), returned)
        command.refuse_failed("copying the workspace out of the Pod")
        if code:
            raise PlatformError("the workspace that came back from the Pod is no complete archive")
        remove_tree(workspace)
        returned.rename(workspace)
    finally:
        remove_tree(returned)


def let_go(cluster: Cluster, pod: str, check: Check) -> None:
    """The workspace is no longer needed: let the Pod end. Raises: PlatformError."""
    with cluster.running(pod, COPY_OUT, ["/bin/sh", "-c", _LET_GO], stdin=False) as command:
        said = b"".join(command.output(STDERR, check))
    command.refuse_failed("letting the Pod end", said)


def _pack(workspace: Path, into: IO[bytes]) -> int:
    """Entries by name and not `.` itself, which in the Pod belongs to somebody else. Returns: bytes."""
    names = sorted(entry.name for entry in workspace.iterdir())
    words = ["tar", "-c", "-f", "-", "--owner=0", "--group=0", "--numeric-owner", "--null", "-T", "-"]
    given = b"".join(b"./" + name.encode(errors="surrogateescape") + b"\0" for name in names)
    done = subprocess.run(words, cwd=workspace, input=given, stdout=into, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise PlatformError(f"cannot pack the workspace: {done.stderr.decode(errors='replace').strip()}")
    size = into.seek(0, 2)
    into.seek(0)
    return size


def _unpack(chunks: Iterator[bytes], folder: Path) -> int:
    """By the tar command, which follows no link out of `folder`. Returns: its exit code."""
    words = ["tar", "-x", "-o", "-f", "-", "-C", str(folder)]
    with _fed(words) as process:
        assert process.stdin is not None
        for chunk in chunks:
            try:
                process.stdin.write(chunk)
            except BrokenPipeError:
                break
    return process.returncode


@contextmanager
def _fed(argv: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
        process.communicate()
    finally:
        process.kill()
        process.wait()
