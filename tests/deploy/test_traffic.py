"""Caddy alone, with real instances: weights, dead instances, what it measures, restarts and websockets."""

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from penstock.deploy import caddy
from penstock.deploy.caddy import Upstream
from penstock.deploy.requests import Meter
from penstock.deploy.slots import NOWHERE
from penstock.processes import spawn, stop_group, wait_until
from penstock.settings import Settings
from tests.deploy.conftest import settings_for
from tests.deploy.load import Load

ECHO = Path(__file__).parent / "app" / "echo.py"
TUNNELS_S = 0.5


class Instance(ThreadingHTTPServer):
    """A server that answers with its name; `/bad` with 500."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.server.name.encode()
        self.send_response(500 if self.path.startswith("/bad") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        pass


class Router:
    """Caddy, the port of one service, and who gets its requests."""

    def __init__(self, settings: Settings, env: dict[str, str]) -> None:
        self.settings, self._env = settings, env
        self.port = settings.ports["apps"]
        self.folder = caddy.caddy_folder(settings)

    def start(self) -> None:
        self.process = spawn(caddy.caddy_argv(), output=subprocess.DEVNULL, env=self._env)
        assert wait_until(lambda: caddy.running_configuration(self.settings) is not None, limit_s=20)

    def lead(self, slots: dict[int, int]) -> None:
        caddy.write_upstreams(self.folder, [Upstream(self.port, port, number) for port, number in slots.items()])

    def load(self, *ports: int) -> None:
        caddy.load_configuration(self.settings, caddy.render([self.port, *ports], close_tunnels_s=TUNNELS_S))

    def ask(self, times: int = 1, path: str = "/") -> Counter[tuple[int, str]]:
        """Over one connection. Returns: status and body → how often."""
        connection, found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20), Counter()
        for _ in range(times):
            connection.request("GET", path)
            answer = connection.getresponse()
            found[answer.status, answer.read().decode()] += 1
        connection.close()
        return found


@pytest.fixture(scope="module")
def router(tmp_path_factory) -> Iterator[Router]:
    settings, env = settings_for(tmp_path_factory.mktemp("router"))
    running = Router(settings, env)
    running.start()
    running.lead(NOWHERE)
    running.load()
    yield running
    stop_group(running.process, grace_s=10)


@pytest.fixture
def instances() -> Iterator[list[Instance]]:
    """Two of them, `a` and `b`."""
    running = [Instance("a"), Instance("b")]
    yield running
    for one in running:
        one.close()


def test_requests_follow_the_weights(router, instances):
    """A fifth is a fifth, within what chance allows; nothing is nothing."""
    a, b = (one.server_port for one in instances)
    router.lead({a: 80, b: 20})
    found = router.ask(1000)
    assert 130 < found[200, "b"] < 270  # five standard deviations
    assert found.total() == found[200, "a"] + found[200, "b"]
    router.lead({a: 100})
    assert router.ask(300) == {(200, "a"): 300}


def test_dead_instance_fails_no_request_while_another_lives(router, instances):
    """Half of the slots name somebody who is not there any more."""
    a, b = instances
    router.lead({a.server_port: 50, b.server_port: 50})
    b.close()
    assert router.ask(100) == {(200, "a"): 100}


def test_no_request_fails_while_weights_change(router, instances):
    """Twenty changes under load, there and back; each request is answered, and every connection stays."""
    a, b = (one.server_port for one in instances)
    router.lead({a: 100})
    with Load(
        f"127.0.0.1:{router.port}", clients=((True, "GET", "/"), (True, "POST", "/"), (False, "GET", "/"))
    ) as load:
        for weight in (1, 20, 50, 99, 0, 100, 0) * 3:
            router.lead({port: slots for port, slots in ((a, 100 - weight), (b, weight)) if slots})
            seen = len(load.answers)
            assert wait_until(lambda seen=seen: len(load.answers) > seen + 5, limit_s=20)
    assert load.failures == []
    assert set(load.answers) == {"a", "b"}


def test_requests_wait_for_an_instance_that_is_about_to_come(router, instances):
    """What cannot run twice has a gap: who asks in it is answered after it."""
    router.lead(NOWHERE)
    answers: list[Counter[tuple[int, str]]] = []
    client = threading.Thread(target=lambda: answers.append(router.ask()))
    client.start()
    client.join(0.3)
    assert answers == []
    router.lead({instances[0].server_port: 100})
    client.join()
    assert answers == [{(200, "a"): 1}]


def test_restarted_caddy_serves_the_same_weights(router, instances):
    """Killed: the files say what was, nobody has to tell it again."""
    a, b = (one.server_port for one in instances)
    router.lead({a: 50, b: 50})
    router.process.send_signal(signal.SIGKILL)
    router.process.wait()
    router.start()
    found = router.ask(200)
    assert found.total() == 200
    assert min(found[200, "a"], found[200, "b"]) > 50


def test_slots_that_were_lost_are_written_again(router, instances):
    """Empty after a power failure, or of a Penstock that had one file per service."""
    a = instances[0].server_port
    room = router.folder / "upstreams" / str(router.port)
    router.lead({a: 100})
    (room / "7").write_text("")
    (room / "8").unlink()
    router.lead({a: 100})
    assert set(caddy.read_slots(router.folder, router.port)) == {a}
    caddy.write_upstreams(router.folder, [])
    room.write_text("127.0.0.1:1")
    router.lead({a: 100})
    assert set(caddy.read_slots(router.folder, router.port)) == {a}


def test_meter_counts_by_release_while_it_measures(router, instances):
    """Requests, errors and latency of each release since the last reading; nothing of before, nothing afterwards."""
    a, b = (one.server_port for one in instances)
    router.lead({a: 100})
    meter = Meter(router.settings, router.port)
    router.ask(5)
    meter.begin()
    router.ask(30)
    router.lead({b: 100})
    router.ask(10)
    router.ask(10, "/bad")
    releases = {a: "old", b: "new"}
    found: Counter[str] = Counter()

    def read() -> bool:
        for release_id, requests in meter.read(releases).items():
            found[release_id] += requests.count
            found[f"{release_id} errors"] += requests.errors
            if requests.count:
                assert requests.p95_s is not None
                assert 0 < requests.p95_s < 5
        return found["old"] + found["new"] >= 50

    assert wait_until(read, limit_s=20)
    assert found == {"old": 30, "new": 20, "new errors": 10, "old errors": 0}
    meter.end()
    size = caddy.measured_log(router.settings, router.port).stat().st_size
    router.ask(20)
    assert caddy.measured_log(router.settings, router.port).stat().st_size == size


def test_what_is_measured_holds_nothing_that_was_asked(router, instances):
    """Paths, addresses and headers may hold secrets: none of them is written, and only the owner may read the rest."""
    router.lead({instances[0].server_port: 100})
    meter = Meter(router.settings, router.port)
    meter.begin()
    router.ask(1, "/bad?token=hunter2")
    log = caddy.measured_log(router.settings, router.port)
    assert wait_until(lambda: bool(meter.read({instances[0].server_port: "old"})["old"].count), limit_s=20)
    meter.end()
    last = json.loads(log.read_text().splitlines()[-1])
    assert set(last) == {"level", "ts", "logger", "msg", "duration", "status", "upstream"}
    assert "hunter2" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


@contextmanager
def echoing(router: Router) -> Iterator["subprocess.Popen[bytes]"]:
    """A websocket service that gets all requests."""
    with subprocess.Popen([sys.executable, str(ECHO)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        router.lead({int(process.stdout.readline()): 100})
        try:
            yield process
        finally:
            process.kill()


def test_websocket_of_a_stopped_instance_ends_with_a_close_frame(router, instances):
    """It outlives the switch; when its instance is told to end, the instance says so through the router."""
    with echoing(router) as process, connect(f"ws://127.0.0.1:{router.port}/") as socket:
        router.lead({instances[0].server_port: 100})
        socket.send("still here")
        assert socket.recv(timeout=20) == "still here"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_websocket_of_a_killed_instance_ends_at_once(router):
    """Nobody is left to say anything: the connection is closed, and its user is not left waiting."""
    with echoing(router) as process, connect(f"ws://127.0.0.1:{router.port}/") as socket:
        socket.send("hello")
        assert socket.recv(timeout=20) == "hello"
        process.kill()
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_new_configuration_closes_websockets_with_a_close_frame(router):
    """A service more: those of the others go on for a while, then hear that the router goes away."""
    router.load()
    with echoing(router), connect(f"ws://127.0.0.1:{router.port}/") as socket:
        caddy.set_measured(router.settings, router.port + 1, False)
        router.load(router.port + 1)
        socket.send("still here")
        assert socket.recv(timeout=20) == "still here"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
