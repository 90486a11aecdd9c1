"""The git command: hooks off, few protocols, no prompts; its time, its output and the files it writes are bounded."""

import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import attrs

from penstock.errors import InputError, PlatformError

_PROTOCOLS = "https:http:ssh:file"
_GUARDS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.protectHFS": "true",  # `.git` in the spellings that macOS and Windows take for it
    "core.protectNTFS": "true",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "http.followRedirects": "false",  # to wherever the server says, past the check of the address; see `reaching`
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "safe.directory": "*",
}
_KEPT_WORDS_BYTES = 64 * 1024  # of what git says went wrong: its last words count
_KEPT_VARIABLES = {"GIT_SSL_CAINFO", "GIT_SSH", "GIT_SSH_COMMAND"}
_BLOCK_BYTES = 512  # what the shell's `ulimit -f` counts in
_OF_SSH = "Could not read from remote repository"  # what ssh itself said stands above it
_REDIRECT = re.compile(r"returned error: 30[12378]\b")
_MOVED = "the server redirects: give the address that it leads to, such as the one that ends with .git"
_SHORT_SH = 'ulimit -f "$0"; exec "$@"'


@attrs.frozen
class Bounds:
    """
    What one git command may take. time_s: seconds. output_bytes: what it prints. file_bytes: the largest file that it
    writes; None for no bound.
    """

    time_s: float = 300.0
    output_bytes: int = 256 * 1024**2
    file_bytes: int | None = None


class TooLarge(InputError):
    """A command's output went beyond its bound."""


def git(
    *words: str,
    env: Mapping[str, str] | None = None,
    guarded: bool = True,
    bounds: Bounds | None = None,
    data: bytes | None = None,
) -> bytes:
    """
    What git printed.

    guarded: hooks off; False only for a push to a repository of one's own, whose hook must run. data: standard input.
    Raises: PlatformError with git's own last line, TooLarge when it prints more than it may.
    """
    bounds = bounds or Bounds()
    options = [word for name, value in _GUARDS.items() for word in ("-c", f"{name}={value}")] if guarded else []
    command = [*_limiting(bounds), "git", *options, *words]
    code, output, told = _run(command, {**_environment(), **(env or {})}, bounds, _verb(words), data)
    if code:
        said = _last_words(told, code)
        raise PlatformError(f"git {_verb(words)} failed: {said}", remedy=_MOVED if _REDIRECT.search(said) else None)
    return output


def _limiting(bounds: Bounds) -> Sequence[str]:
    if bounds.file_bytes is None:
        return ()
    return ("/bin/sh", "-c", _SHORT_SH, str(max(bounds.file_bytes // _BLOCK_BYTES, 1)))


def _environment() -> dict[str, str]:
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/true", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    own["GIT_ALLOW_PROTOCOL"] = _PROTOCOLS  # stronger than protocol.*.allow, which a repository's own config can set
    own["SSH_ASKPASS"] = "/bin/true"
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes", **_without_git(os.environ), **own}


def _run(
    command: Sequence[str], env: Mapping[str, str], bounds: Bounds, verb: str, data: bytes | None
) -> tuple[int, bytes, bytes]:
    """Returns: exit code, output, last words of standard error."""
    with _standard_input(data) as given:
        process = _spawn(command, env, given)
        try:
            output, told = _collect(process, bounds, verb)
            return process.wait(), output, told
        finally:
            _end(process)


@contextmanager
def _standard_input(data: bytes | None) -> Iterator[int]:
    if data is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as given:
        given.write(data)
        given.seek(0)
        yield given.fileno()


def _spawn(command: Sequence[str], env: Mapping[str, str], given: int) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    try:
        # In a session of its own nothing can ask at the terminal, and its helpers end together with it.
        return subprocess.Popen(command, stdin=given, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
    except OSError as error:
        raise PlatformError("the git command was not found", remedy="install git and put it on PATH") from error


def _collect(process: "subprocess.Popen[bytes]", bounds: Bounds, verb: str) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + bounds.time_s
    output, told = bytearray(), bytearray()
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, told)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready or time.monotonic() > deadline:
                raise PlatformError(f"git {verb} took longer than {bounds.time_s:.0f} s")
            for key, _ in ready:
                if piece := os.read(key.fd, 1 << 18):
                    key.data.extend(piece)
                else:
                    selector.unregister(key.fileobj)
            del told[:-_KEPT_WORDS_BYTES]
            if len(output) > bounds.output_bytes:
                raise TooLarge(f"git {verb} prints more than {bounds.output_bytes / 1e6:.0f} MB")
    return bytes(output), bytes(told)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """It and its helpers are gone, whatever they were at."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _last_words(told: bytes, code: int) -> str:
    """Git's own reason: not its advice, and no control characters of a server's."""
    text = told.decode("utf-8", "replace").replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()] or [f"exit code {code}"]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:")) and _OF_SSH not in line]
    return "".join(c if c.isprintable() else "?" for c in (reasons or _of_ssh(lines))[-1][:500])


def _of_ssh(lines: Sequence[str]) -> Sequence[str]:
    """Without git's advice below ssh's own reason."""
    ends = next((at for at, line in enumerate(lines) if _OF_SSH in line), len(lines))
    return lines[: ends or None]


def _without_git(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would point git at another repository, as inside a hook."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT_VARIABLES or not name.startswith(("GIT_", "SSH_ASKPASS"))
    }


def _verb(words: Sequence[str]) -> str:
    """`fetch` of `--git-dir X fetch …`."""
    with_value = {"--git-dir", "-C", "-c", "--work-tree"}
    position = 0
    while position < len(words) and words[position].startswith("-"):
        position += 2 if words[position] in with_value else 1
    return words[position] if position < len(words) else ""
