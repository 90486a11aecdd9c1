"""Caddy as the router: its configuration, its admin socket, and the files that say where traffic goes."""

import socket
import subprocess
from collections import Counter
from urllib.parse import urlsplit

import psutil
import pytest

from penstock.deploy.caddy import (
    Upstream,
    caddy_argv,
    caddy_folder,
    is_free,
    known_ports,
    load_configuration,
    read_slots,
    render,
    running_configuration,
    served_ports,
    write_upstreams,
)
from penstock.deploy.locks import lock_number
from penstock.deploy.plan import Service
from penstock.deploy.routing import Routing, apply_routes
from penstock.errors import PlatformError
from penstock.processes import spawn, stop_group, wait_until
from tests.deploy.conftest import settings_for


def test_caddy_runs_with_what_was_rendered(platform):
    """What it says back equals what the tables give, so applying again changes nothing."""
    platform.deploy(platform.plan("rendered", "v1"))
    ports = known_ports(caddy_folder(platform.settings))
    assert running_configuration(platform.settings) == render(ports)
    assert apply_routes(platform.engine, platform.settings) == Routing(caddy_answers=True)


def test_caddy_listens_on_service_ports_only(platform):
    """On loopback, and its admin API not on the network at all."""
    platform.deploy(platform.plan("loopback", "v1"))
    listening = [
        connection.laddr
        for connection in psutil.Process(platform.caddy.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == known_ports(caddy_folder(platform.settings))
    assert (caddy_folder(platform.settings) / "admin.sock").stat().st_mode & 0o777 == 0o600


def test_configuration_that_caddy_refuses_changes_nothing(platform):
    """Its own words, and everybody is served as before."""
    platform.deploy(platform.plan("refused", "v1"))
    with pytest.raises(PlatformError, match=r"Caddy refuses its configuration: .*no_such_module"):
        load_configuration(platform.settings, {**render([]), "apps": {"no_such_module": {}}})
    assert platform.get("refused") == "v1"


def test_upstream_that_was_tampered_with_is_put_right(platform):
    """The tables are the truth; the keeper compares every second."""
    platform.deploy(platform.plan("tampered", "v1"))
    port = urlsplit(platform.url("tampered")).port
    file = caddy_folder(platform.settings) / "upstreams" / str(port) / "7"
    right = file.read_text()
    file.write_text("127.0.0.1:1")
    assert wait_until(lambda: file.read_text() == right, limit_s=20)
    assert platform.get("tampered") == "v1"


def test_first_service_gets_the_first_port_that_is_free(own_platform):
    """Somebody listens on PENSTOCK_APPS_PORT: the next one, and it is kept."""
    first = own_platform.settings.ports["apps"]
    with socket.create_server(("127.0.0.1", first)):
        own_platform.deploy(own_platform.plan("moved", "v1"))
    assert urlsplit(own_platform.url("moved")).port == first + 1
    own_platform.deploy(own_platform.plan("moved", "v2"))
    assert urlsplit(own_platform.url("moved")).port == first + 1
    own_platform.deploy(own_platform.plan("filler", "v1"))
    assert urlsplit(own_platform.url("filler")).port == first


def test_port_that_is_taken_between_two_releases_fails_the_second(own_platform):
    """It cannot be served there: the release fails with the port's number, nothing else changes."""
    platform = own_platform
    platform.deploy(platform.plan("lost", "v1"))
    port = urlsplit(platform.url("lost")).port
    platform.kill(platform.caddy)
    with socket.create_server(("127.0.0.1", port)):
        platform.start_caddy()
        with pytest.raises(PlatformError, match=f"Caddy cannot serve port {port}"):
            platform.deploy(platform.plan("lost", "v2"))
    assert wait_until(lambda: platform.answers("lost", "v1"), limit_s=20)


def test_home_with_a_long_path(tmp_path):
    """Longer than a socket's address may be: the admin API works all the same."""
    settings, env = settings_for(tmp_path / ("long" * 40))
    caddy = spawn(caddy_argv(), output=subprocess.DEVNULL, env=env)
    try:
        assert wait_until(lambda: running_configuration(settings) is not None, limit_s=20)
    finally:
        stop_group(caddy, grace_s=10)


def test_caddy_that_is_not_there(tmp_path):
    """No answer, and loading says so in one line."""
    settings, _ = settings_for(tmp_path / "home")
    assert running_configuration(settings) is None
    with pytest.raises(PlatformError, match="Caddy does not answer"):
        load_configuration(settings, render([]))


def test_wrong_settings_are_one_line(tmp_path):
    """The process that becomes Caddy ends with the setting's name."""
    _, env = settings_for(tmp_path / "home")
    wrong = {**env, "PENSTOCK_APPS_PORT": "many"}
    done = subprocess.run(caddy_argv(), env=wrong, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == 'PENSTOCK_APPS_PORT: "many" is no usable port; give a number from 1024 to 65000\n'


def test_upstream_files_say_what_is_wanted_and_nothing_else(tmp_path):
    """New ones appear, changed ones change, old ones go; other files are none of them."""
    folder = tmp_path
    for room in ("upstreams", "measured"):
        (folder / room).mkdir()
        (folder / room / "README").write_text("x")
    write_upstreams(folder, [Upstream(8710, 20001), Upstream(8711, 20002)])
    write_upstreams(folder, [Upstream(8711, 20003, 30), Upstream(8711, 20004, 70)])
    assert known_ports(folder) == {8711}
    assert Counter(read_slots(folder, 8711)) == {20003: 30, 20004: 70}
    assert sorted(path.name for path in folder.iterdir()) == ["measured", "upstreams"]
    assert sorted(path.name for path in (folder / "measured").iterdir()) == ["8711", "README"]


def test_served_ports_of_any_configuration():
    """Ours, an empty one, one without services."""
    assert served_ports(render([8710, 8712])) == {8710, 8712}
    assert served_ports(render([])) == set()
    assert served_ports({}) == set()


def test_is_free_sees_a_listener():
    """Listened on or not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_locks_of_different_services_differ():
    """Also of those whose names only differ in where they are cut."""
    names = [Service("a", "b", "c"), Service("ab", "", "c"), Service("a", "bc", ""), Service("b", "a", "c")]
    numbers = {lock_number(name) for name in names}
    assert len(numbers) == len(names)
    assert all(-(2**63) <= number < 2**63 for number in numbers)
