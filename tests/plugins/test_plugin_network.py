"""Plugins that try to get out: they reach what their manifest lists, and nothing else."""

import http.server
import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from plugin_runs import Bench, build_image, write_plugin

from penstock.errors import AccessError, InputError
from penstock.plugins.network import parse_rule, permitted

# Says `reached` or why not, for: the proxy's way, a direct way, a name, the gateway, another port.
ASK = """
ask() { printf 'CONNECT %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET / HTTP/1.0\\r\\n\\r\\n' "$1" | nc -w 5 127.0.0.1 3128; }
"""


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello from {self.path} for {self.headers['Host']}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A server on every address of this machine: its port."""
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), _Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def _allowing(bench: Bench, *hosts: str) -> Bench:
    """What the operator lets be private."""
    settings = attrs.evolve(bench.services.settings, allow_private_hosts=hosts)
    return attrs.evolve(bench, services=attrs.evolve(bench.services, settings=settings))


def _own_address() -> str:
    """An address of this machine that is not loopback; loopback where it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(asking.getsockname()[0])


def _attempts(port: int, other: int) -> str:
    own = _own_address()
    return f"""
python3 - <<'END'
import os, socket, urllib.request, urllib.error
def tell(what, act):
    try: print(what, "reached", act())
    except urllib.error.HTTPError as error: print(what, error.code, error.read().decode().strip())
    except OSError as error: print(what, "stopped", type(error).__name__)
tell("allowed:", lambda: urllib.request.urlopen("http://127.0.0.1:{port}/page", timeout=10).read().decode())
def direct(host, port):
    with socket.create_connection((host, port), 3): return "directly"
tell("direct:", lambda: direct("{own}", {port}))
tell("loopback of the host:", lambda: direct("127.0.0.1", {port}))
tell("metadata:", lambda: direct("169.254.169.254", 80))
tell("dns:", lambda: socket.getaddrinfo("example.org", 80))
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.sendto(b"x" * 12, ("9.9.9.9", 53))
        return asking.recv(10)
tell("raw dns:", datagram)
tell("other port:", lambda: urllib.request.urlopen("http://127.0.0.1:{other}/", timeout=10).read())
tell("other host:", lambda: urllib.request.urlopen("http://elsewhere.test/", timeout=10).read())
tell("https:", lambda: urllib.request.urlopen("https://elsewhere.test/", timeout=10).read())
itself = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
tell("the proxy itself:", lambda: itself.open("http://127.0.0.1:3128/api/v1/projects", timeout=10).read())
END
"""


def test_only_the_listed_host_is_reached(bench: Bench, folder: Path, server: int) -> None:
    """Through the proxy to what is listed; not directly, not to other hosts or ports, and no name is looked up."""
    # urllib would go round the proxy for loopback, as NO_PROXY says.
    script = "export NO_PROXY= no_proxy=" + _attempts(server, server + 1)
    bench.install(write_plugin(folder, script, network=[f"127.0.0.1:{server}"]))
    log = _allowing(bench, "127.0.0.1").run().log()
    said = dict(line.split(": ", 1) for line in log.splitlines() if ": " in line and not line.startswith("refused"))
    assert said["allowed"] == f"reached hello from /page for 127.0.0.1:{server}"
    for way in ("direct", "loopback of the host", "metadata", "dns", "raw dns"):
        assert said[way].startswith("stopped"), log
    assert said["other port"] == f"403 penstock: 127.0.0.1:{server + 1} is not in the plugin's network list"
    assert said["other host"] == "403 penstock: elsewhere.test:80 is not in the plugin's network list"
    assert said["https"].startswith("stopped")
    assert said["the proxy itself"] == "403 penstock: the plugin does not say `reads:` in its manifest"
    assert "refused: elsewhere.test:443 is not in the plugin's network list" in log


def test_without_a_list_there_is_no_network_at_all(bench: Bench, folder: Path, server: int) -> None:
    """Not even a proxy."""
    bench.install(write_plugin(folder, _attempts(server, server + 1) + "env | grep -ci _proxy"))
    log = bench.run().log()
    assert "reached" not in log
    assert log.count("stopped") == 10
    assert log.splitlines()[-1 if "exit" not in log.splitlines()[-1] else -2] == "0", log


def test_this_machine_is_reached_only_if_its_operator_says_so(bench: Bench, folder: Path, server: int) -> None:
    """A manifest that lists 127.0.0.1 gets nowhere by itself: there may be services without a login."""
    script = "export NO_PROXY= no_proxy=" + _attempts(server, server + 1)
    bench.install(write_plugin(folder, script, network=[f"127.0.0.1:{server}"]))
    assert "allowed: 403 penstock: 127.0.0.1 is 127.0.0.1, which is not a public address" in bench.run().log()


def test_without_bubblewrap_a_step_with_a_network_list_is_refused(
    bench: Bench, folder: Path, commands_without_bwrap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never opened wide: where nothing can filter, the step does not start."""
    from penstock.engines.process import bubblewrap

    bench.install(write_plugin(folder, "echo started", network=["example.org"]))
    monkeypatch.setenv("PATH", str(commands_without_bwrap))
    bubblewrap.cache_clear()
    try:
        seen = bench.run()
    finally:
        monkeypatch.undo()
        bubblewrap.cache_clear()
    assert (seen.step().state, "started" in seen.log()) == ("failed", False)
    assert "install bubblewrap, or use the docker engine" in str(seen.step().reason)


def test_without_bubblewrap_a_plugin_finds_its_folders_by_variables(
    bench: Bench, folder: Path, commands_without_bwrap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PENSTOCK_CI_DIR and WORKSPACE say where things are; the log says that nothing is kept apart."""
    from penstock.engines.process import bubblewrap
    from penstock.vault import open_vault

    open_vault(bench.services.settings).write("shop", "KEY", b"opensesame")
    script = 'test "$ci" != /ci && cat $ci/input.json >/dev/null && wc -c <$PENSTOCK_SECRETS/KEY && ls $WORKSPACE'
    bench.install(write_plugin(folder, script, secrets=[{"name": "KEY", "why": "tests"}]))
    monkeypatch.setenv("PATH", str(commands_without_bwrap))
    bubblewrap.cache_clear()
    try:
        seen = bench.run(secrets=["KEY"])
    finally:
        monkeypatch.undo()
        bubblewrap.cache_clear()
    assert seen.step().state == "succeeded", seen.log()
    assert "without bubblewrap the plugin runs as your user" in seen.log()
    assert "10\npenstock.yaml" in seen.log()


@pytest.mark.xdist_group("docker")
def test_a_container_gets_out_through_the_proxy_alone(docker_bench: Bench, folder: Path, server: int) -> None:
    """The same on Docker: from the container's first moment, and neither through its gateway nor a direct way."""
    own = _own_address()
    script = f"""{ASK}
echo "allowed: $(ask 127.0.0.1:{server} | tail -1)"
echo "other: $(ask elsewhere.test:443 | head -1)"
for way in {own} 172.17.0.1 127.0.0.1 169.254.169.254; do
  nc -w 2 $way {server} </dev/null && echo "direct: reached $way"
done
nslookup example.org 2>&1 | grep -q Address.*: && echo "dns: answered"
ls /sys/class/net; true"""
    write_plugin(folder, script, image="probe:network", network=[f"127.0.0.1:{server}"])
    build_image(str(docker_bench.services.settings.docker_host), folder, "probe:network")
    docker_bench.install(folder)
    seen = _allowing(docker_bench, "127.0.0.1").run()
    assert seen.step().state == "succeeded", seen.log()
    assert "allowed: hello from / for" in seen.log()
    assert "other: HTTP/1.1 403 Forbidden" in seen.log()
    assert "direct: reached" not in seen.log()
    assert "eth" not in seen.log()
    assert "refused: elsewhere.test:443" in seen.log()


@pytest.mark.parametrize(
    ("rule", "host", "port", "covered"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "EXAMPLE.org.", 80, True),
        ("example.org", "example.org", 8443, False),
        ("example.org:8443", "example.org", 8443, True),
        ("example.org", "a.example.org", 443, False),
        (".example.org", "a.b.example.org", 443, True),
        (".example.org", "example.org", 443, False),
        (".example.org", "badexample.org", 443, False),
        ("192.0.2.7", "192.0.2.7", 80, True),
        ("[2001:db8::7]:443", "2001:DB8:0::7", 443, True),
    ],
)
def test_rules_cover_what_they_say(rule: str, host: str, port: int, covered: bool) -> None:
    """A leading dot is for what is below; without a port it is 80 and 443."""
    assert parse_rule(rule).covers(host, port) is covered


@pytest.mark.parametrize(
    "text", ["*", "", "http://a.org", "a b", "a.org:0", "a.org:99999", "1.2.3", "0x7f.1", "-a.org"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    """Neither addresses nor stars, nor numbers that some resolvers take for an address."""
    with pytest.raises(InputError):
        parse_rule(text)


@pytest.mark.parametrize(
    ("rule", "host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("169.254.169.254", "169.254.169.254", False),
        ("[::1]", "::1", False),
        ("10.0.0.8", "10.0.0.8", True),
        ("localhost", "localhost", False),
    ],
)
def test_private_addresses_must_be_listed_as_such(rule: str, host: str, allowed: bool) -> None:
    """A name that leads into a private network is refused; this machine and link-local always, unless allowed."""
    if allowed:
        assert permitted([parse_rule(rule)], host, 80, ()) == (host,)
    else:
        with pytest.raises(AccessError, match="not a public address"):
            permitted([parse_rule(rule)], host, 80, ())
    assert ipaddress.ip_address(permitted([parse_rule(rule)], host, 80, ("0.0.0.0/0", "::/0"))[0])
