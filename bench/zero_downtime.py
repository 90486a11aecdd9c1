"""
Does anybody notice a deployment? Constant load, and releases that come, fail and go back.

    python bench/zero_downtime.py [--rounds 20] [--target process|docker] [--replicas 2]

One Penstock is made here: PostgreSQL, keeper, Caddy, and the driver of manual rollbacks. A service answers with its
version while asyncio clients ask it without pause: on kept connections, on new ones, and with requests that take five
seconds. Rounds go through rolling, blue/green and canary, each forward, with a release that fails its verification and
is rolled back by itself, and back by hand. A request has failed when it got no answer, another status than 200, or a
version that was never live.

Beside it, in the same run, one replacement as `docker restart` does it: the former process or container is stopped and
the new one started on the same port. Exit code 1 when a request failed behind Penstock; last line: failed=N requests=N.

With --target docker the engine is the one that PENSTOCK_DOCKER_HOST or DOCKER_HOST names; its image is made of this
machine's static busybox.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import sqlalchemy as sa

from penstock.deploy.caddy import caddy_argv, is_free, running_configuration
from penstock.deploy.carrying import Carrier
from penstock.deploy.health import HealthCheck
from penstock.deploy.operations import ask_rollback
from penstock.deploy.plan import ContainerSettings, DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import live_releases, service_url
from penstock.deploy.rollout import deploy
from penstock.deploy.rollouts import get_rollout
from penstock.deploy.strategies import CanaryStep
from penstock.deploy.strategies import Settings as Strategy
from penstock.deploy.verification import Check
from penstock.engines.docker_client import DEFAULT_HOST
from penstock.errors import PenstockError
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, stop_group, wait_until
from penstock.settings import PORTS, Settings, load_settings
from penstock.state.database import hosted_database

SERVICE = Service("bench", "production", "web")
SLOW_S = 5.0
KEPT, NEW, SLOW = 6, 3, 4
PAUSE_S = 0.005
ROLLOUT_LIMIT_S = 180.0
IMAGE = "penstock-bench:zero-downtime"
STRATEGIES = {
    "rolling": Strategy(name="rolling", max_surge=1, max_unavailable=0),
    "blue/green": Strategy(name="blue_green"),
    "canary": Strategy(name="canary", steps=(CanaryStep(weight=20, hold_s=0.5), CanaryStep(weight=60, hold_s=0.5))),
}
WAYS = ("forward", "failing", "back")
APP = """
import http.server, os, time, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    def do_GET(self):
        asked = urllib.parse.urlsplit(self.path)
        if asked.path == "/slow":
            time.sleep(5)
        found = asked.path != "/ready" or "BROKEN" not in os.environ
        body = os.environ["VERSION"].encode()
        self.send_response(200 if found else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler).serve_forever()
"""
# busybox's httpd answers with a file, or runs a script that takes its time.
SERVE = (
    "mkdir -p /tmp/www/cgi-bin && cd /tmp/www && echo -n $VERSION >index.html && "
    "printf '#!/bin/sh\\nsleep 5\\necho Content-Type: text/plain\\necho\\necho -n %s\\n' $VERSION >cgi-bin/slow && "
    'chmod +x cgi-bin/slow && { [ -n "$BROKEN" ] || touch ready; } && exec httpd -f -p $PORT -h /tmp/www'
)


@attrs.define
class Load:
    """Clients that never try again. allowed: versions that may answer; failures: what went wrong, how often."""

    port: int
    slow_path: str
    allowed: set[str] = attrs.field(factory=set)
    requests: int = 0
    failures: Counter[str] = attrs.field(factory=Counter)
    answers: Counter[str] = attrs.field(factory=Counter)
    ended: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def run(self) -> None:
        """Until `ended` is set, and what is under way is answered."""
        clients = [self._client(keep=True) for _ in range(KEPT)]
        clients += [self._client(keep=False) for _ in range(NEW)]
        clients += [self._client(keep=number % 2 == 0, path=self.slow_path) for number in range(SLOW)]
        await asyncio.gather(*clients)

    async def _client(self, *, keep: bool, path: str = "/") -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.ended.is_set():
            self.requests += 1
            try:
                async with asyncio.timeout(SLOW_S + 20):
                    streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
                    answer, open_still = await _ask(*streams, path, keep=keep)
                self._count(answer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError) as error:
                self.failures[f"{path}: {type(error).__name__}"] += 1
                open_still = False
            if streams and not (keep and open_still):
                streams[1].close()
                streams = None
            await asyncio.sleep(PAUSE_S)
        if streams:
            streams[1].close()

    def _count(self, answer: str) -> None:
        self.answers[answer] += 1
        if answer not in self.allowed:
            self.failures[f"answer {answer[:60]!r}"] += 1


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, *, keep: bool
) -> tuple[str, bool]:
    """The body, or the status if it is not 200; and whether the connection stays."""
    connection = "keep-alive" if keep else "close"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n".encode())
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = head.split(" ", 2)[1]
    body = await _body(reader, head)
    return (body.decode() if status == "200" else f"status {status}"), keep and "connection: close" not in head


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    return await reader.read()


@contextlib.contextmanager
def penstock(target: str) -> Iterator[tuple[Settings, sa.Engine]]:
    """Keeper, Caddy, database and the driver of rollouts, in a home of their own."""
    home = Path(tempfile.mkdtemp(prefix="psb", dir="/tmp"))
    home.chmod(0o711)
    given = {"PENSTOCK_HOME": str(home), "PENSTOCK_VAULT_KEY_FILE": f"{home}.key", **_ports()}
    if target == "docker":
        given |= {"PENSTOCK_ENGINE": "docker", "PENSTOCK_DOCKER_HOST": _docker_host()}
    settings = load_settings(given)
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}, **given}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        database = stack.enter_context(hosted_database(settings))
        log = stack.enter_context((home / "parts.log").open("ab"))
        for argv in ([sys.executable, "-m", "penstock.deploy.keeper"], caddy_argv()):
            process = spawn(argv, output=log, env=environment)
            stack.callback(stop_group, process, grace_s=20)
        if not wait_until(lambda: running_configuration(settings) is not None, limit_s=30):
            raise SystemExit("Caddy did not start")
        carrier = Carrier(database, settings)
        carrier.start()
        stack.callback(carrier.stop)
        yield settings, database


def _ports() -> dict[str, str]:
    first = next(
        port for port in range(21_000, 29_000, 40) if all(is_free(one) for one in range(port, port + len(PORTS) + 10))
    )
    return {f"PENSTOCK_{name.upper()}_PORT": str(first + number) for number, name in enumerate(PORTS)}


def _docker_host() -> str:
    return os.environ.get("PENSTOCK_DOCKER_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


@attrs.frozen
class Bench:
    """What every round needs. image_id: for containers."""

    settings: Settings
    database: sa.Engine
    target: str
    replicas: int
    app: Path
    image_id: str

    def plan(self, version: str, strategy: Strategy, *, broken: bool) -> DeploymentPlan:
        """A release that answers with its version; a broken one is healthy, and fails its verification."""
        env = {"VERSION": version, **({"BROKEN": "1"} if broken else {})}
        shared = {
            "env": env,
            "health": HealthCheck(path="/", interval_s=0.3, timeout_s=3.0, start_period_s=30.0),
            "drain_s": SLOW_S * 3,
            "replicas": self.replicas,
            "strategy": strategy,
            "verify": (Check(name="ready", path="/ready"),),
        }
        docker = self.target == "docker"
        container = ContainerSettings(image=IMAGE, image_id=self.image_id, port=8080) if docker else None
        configuration = ServiceConfiguration(
            target="docker" if docker else "process",
            command=SERVE if docker else (sys.executable, "service.py"),
            container=container,
            **shared,  # type: ignore[arg-type]
        )
        digest = self.image_id if docker else f"sha256:{version}"
        source = None if docker else self.app
        return DeploymentPlan(SERVICE, version * 4, digest, "graph", f"run-{version}", source, configuration)

    def release(self, plan: DeploymentPlan) -> None:
        """Raises: PenstockError when it did not go live."""
        deploy(plan, engine=self.database, settings=self.settings, log=_quiet, token=CancelToken())

    def back(self, number: int) -> None:
        """By hand, to a kept release. Raises: SystemExit when that fails."""
        asked = ask_rollback(
            self.database, self.settings, SERVICE, number=number, same=True, actor="bench", why="to measure"
        )
        deadline_s = time.monotonic() + ROLLOUT_LIMIT_S
        while time.monotonic() < deadline_s:
            with self.database.begin() as connection:
                rollout = get_rollout(connection, asked.id)
            if not rollout.is_open:
                if rollout.state != "succeeded":
                    raise SystemExit(f"the rollback {rollout.state}: {rollout.trouble}")
                return
            time.sleep(0.1)
        raise SystemExit("the rollback has no end")


def _quiet(_line: str) -> None:
    """Nobody reads the log of a deployment here."""


def main() -> int:
    """Measure, and print it. Returns: 1 when a request failed behind Penstock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--target", choices=["process", "docker"], default="process")
    parser.add_argument("--replicas", type=int, default=2)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        penstock(given.target) as (settings, database),
    ):
        app = Path(folder)
        (app / "service.py").write_text(APP)
        image_id = _image(app) if given.target == "docker" else ""
        bench = Bench(settings, database, given.target, given.replicas, app, image_id)
        load = asyncio.run(_measured(bench, given.rounds))
        plain = asyncio.run(_plain(bench))
    for what, count in load.failures.most_common(10):
        print(f"  {count} × {what}")
    print(f"beside it, stopped and started on the same port: failed={plain.failures.total()} requests={plain.requests}")
    print(f"failed={load.failures.total()} requests={load.requests}")
    return 1 if load.failures else 0


async def _measured(bench: Bench, rounds: int) -> Load:
    await asyncio.to_thread(bench.release, bench.plan("v0", STRATEGIES["rolling"], broken=False))
    url = service_url(bench.database, SERVICE)
    assert url is not None
    load = Load(int(url.rsplit(":", 1)[1]), _slow_path(bench), {"v0"})
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(1)
    done = 0
    while done < rounds:
        for name in STRATEGIES:
            for way in WAYS:
                if done < rounds:
                    done += 1
                    await _round(bench, load, done, name, way)
    load.ended.set()
    await clients
    return load


async def _round(bench: Bench, load: Load, number: int, name: str, way: str) -> None:
    before, failed, began_s = load.requests, load.failures.total(), time.monotonic()
    version, live = f"v{number}", live_releases(bench.database)[0]
    if way == "back":
        await asyncio.to_thread(bench.back, _former(bench, live.number))
    else:
        # A broken release is asked before it gets traffic; whatever strategy it has, nobody may see it.
        load.allowed |= {version} if way == "forward" else set()
        plan = bench.plan(version, STRATEGIES[name], broken=way == "failing")
        try:
            await asyncio.to_thread(bench.release, plan)
        except PenstockError as error:
            if way != "failing":
                raise SystemExit(f"round {number}: {error}") from error
        else:
            if way == "failing":
                raise SystemExit(f"round {number}: a release that fails its verification went live")
    requests, failures = load.requests - before, load.failures.total() - failed
    took_s = time.monotonic() - began_s
    print(f"{number:3} {name:10} {way:8} {took_s:5.1f} s  {requests:6} requests  {failures} failed", flush=True)


def _former(bench: Bench, live: int) -> int:
    """The release before the present one that was in use."""
    from penstock.deploy.releases import release_history

    usable = [one for one in release_history(bench.database, SERVICE) if one.state == "superseded" and one.live_at]
    return next(one.number for one in usable if one.number < live)


def _slow_path(bench: Bench) -> str:
    return "/cgi-bin/slow" if bench.target == "docker" else "/slow"


async def _plain(bench: Bench) -> Load:
    """The former stopped, the new one started, on one port: what most people have."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    start = _container if bench.target == "docker" else _process
    stop = start(bench, port, "v0")
    load = Load(port, _slow_path(bench), {"v0", "v1"})
    await asyncio.to_thread(wait_until, lambda: not is_free(port), limit_s=20)
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(2)
    await asyncio.to_thread(stop)
    stop = await asyncio.to_thread(start, bench, port, "v1")
    await asyncio.sleep(2)
    load.ended.set()
    await clients
    await asyncio.to_thread(stop)
    return load


def _process(bench: Bench, port: int, version: str) -> Callable[[], None]:
    environment = {**os.environ, "PORT": str(port), "VERSION": version}
    process = subprocess.Popen([sys.executable, "service.py"], cwd=bench.app, env=environment)

    def stop() -> None:
        process.terminate()
        process.wait(20)

    return stop


def _container(bench: Bench, port: int, version: str) -> Callable[[], None]:
    name = f"penstock-bench-{port}"
    words = ["run", "--detach", "--rm", "--name", name, "--publish", f"127.0.0.1:{port}:8080"]
    _docker(*words, "--env", "PORT=8080", "--env", f"VERSION={version}", bench.image_id, "/bin/sh", "-c", SERVE)

    def stop() -> None:
        _docker("stop", "--time", "5", name)
        wait_until(lambda: not _docker("ps", "--all", "--quiet", "--filter", f"name={name}"), limit_s=20)

    return stop


def _image(folder: Path) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("--target docker needs a static busybox on this machine")
    context = folder / "image"
    context.mkdir()
    shutil.copy(busybox, context / "busybox")
    lines = ["FROM scratch", "COPY busybox /bin/busybox", 'RUN ["/bin/busybox", "--install", "-s", "/bin"]']
    (context / "Dockerfile").write_text("\n".join([*lines, "ENV PATH=/bin", ""]))
    _docker("build", "--quiet", "--tag", IMAGE, str(context))
    return _docker("image", "inspect", "--format", "{{.Id}}", IMAGE)


def _docker(*words: str) -> str:
    done = subprocess.run(_command(words), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SystemExit(f"docker {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _command(words: Sequence[str]) -> list[str]:
    return ["docker", "--host", _docker_host(), *words]


if __name__ == "__main__":
    raise SystemExit(main())
