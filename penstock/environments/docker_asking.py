"""Asking a Docker Engine elsewhere a question: by a socket, by TCP with TLS, or by SSH."""

import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

import attrs

from penstock.environments.model import DockerTarget
from penstock.errors import InputError, PlatformError

LIMIT_S = 10.0
DEFAULT_PORTS = {True: 2376, False: 2375}
Secret = Callable[[str], bytes]


@attrs.frozen
class Answer:
    """What the engine said. body: what its JSON holds; None where it is none."""

    status: int
    body: Any


def ask_docker(target: DockerTarget, path: str, secret: Secret) -> Answer:
    """
    GET a path of the engine's API; takes at most `LIMIT_S` between two pieces of the answer.

    target: with a host. secret: name → value. Raises: PlatformError when nobody answers there as an engine does.
    """
    host = target.host or ""
    try:
        with _connected(target, secret) as sock:
            return _asked(sock, path)
    except TimeoutError as error:
        raise PlatformError("the engine does not answer in time", where=host, remedy=_REMEDY) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = str(error.strerror or error) if isinstance(error, OSError) else str(error) or type(error).__name__
        raise PlatformError(f"no engine answers: {said}", where=host, remedy=_REMEDY) from error


_REMEDY = "see that it runs, and that this machine may reach it"


def _asked(sock: socket.socket, path: str) -> Answer:
    connection = http.client.HTTPConnection("docker", timeout=LIMIT_S)
    connection.sock = sock
    connection.request("GET", path, headers={"Connection": "close"})
    answer = connection.getresponse()
    data = answer.read(4 * 1024**2)
    try:
        return Answer(answer.status, json.loads(data))
    except ValueError:
        return Answer(answer.status, None)


@contextmanager
def _connected(target: DockerTarget, secret: Secret) -> Iterator[socket.socket]:
    parts = urlsplit(target.host or "")
    with ExitStack() as stack:
        if parts.scheme == "unix":
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(LIMIT_S)
            sock.connect(parts.path)
        elif parts.scheme == "ssh":
            sock = stack.enter_context(_by_ssh(parts))
        else:
            sock = stack.enter_context(_by_tcp(parts, target, secret))
        yield sock


def _by_tcp(parts: SplitResult, target: DockerTarget, secret: Secret) -> socket.socket:
    encrypted = target.ca_secret is not None
    address = (parts.hostname or "", parts.port or DEFAULT_PORTS[encrypted])
    plain = socket.create_connection(address, timeout=LIMIT_S)
    if not encrypted:
        return plain
    try:
        return _trust(target, secret).wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise


def _trust(target: DockerTarget, secret: Secret) -> ssl.SSLContext:
    """Trust the engine's own authority and no other; our key comes through memory, and is on no disk."""
    try:
        context = ssl.create_default_context(cadata=secret(str(target.ca_secret)).decode("ascii"))
        with _in_memory(secret(str(target.cert_secret))) as cert, _in_memory(secret(str(target.key_secret))) as key:
            context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        what = "its certificates cannot be read"
        raise InputError(
            what, where=target.host, remedy="keep them in the vault as PEM, the key unencrypted"
        ) from error
    return context


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path at which this process finds the bytes."""
    file = os.memfd_create("penstock-tls", os.MFD_CLOEXEC)
    try:
        os.write(file, data)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


@contextmanager
def _by_ssh(parts: SplitResult) -> Iterator[socket.socket]:
    """Through `docker system dial-stdio` there, with the keys and known hosts of whoever runs Penstock."""
    where = [*(("-p", str(parts.port)) if parts.port else ()), *(("-l", parts.username) if parts.username else ())]
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={LIMIT_S:.0f}"]
    words = ["ssh", *options, *where, "--", parts.hostname or "", "docker", "system", "dial-stdio"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            end = theirs.fileno()
            process = subprocess.Popen(words, stdin=end, stdout=end, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise PlatformError("the ssh command was not found", remedy="install OpenSSH's client") from None
        theirs.close()
        ours.settimeout(LIMIT_S)
        try:
            yield ours
        except (OSError, http.client.HTTPException) as error:
            raise PlatformError(_why(process, error), where=parts.geturl(), remedy=_REMEDY) from error
        finally:
            process.kill()
            process.communicate()


def _why(process: "subprocess.Popen[bytes]", error: Exception) -> str:
    """What ssh said, if it has ended; else what went wrong here."""
    try:
        _, said = process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        said = b""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"ssh: {lines[-1]}" if lines else f"no engine answers: {error or type(error).__name__}"
