"""Addresses that users configure lead only to where everybody may go, unless the platform allows more."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from penstock.errors import AccessError, InputError, PlatformError
from penstock.webhooks.addresses import check_address
from penstock.webhooks.guarded import guarded_client


def leads_to(*addresses: str):
    return lambda _host, _port: addresses


@pytest.mark.parametrize("address", ["140.82.121.4", "2606:50c0:8000::153", "::ffff:140.82.121.4"])
def test_public_address_may_be_asked(address: str):
    """Of both kinds."""
    assert check_address("https://git.example", resolve=leads_to(address)) == (address,)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1%eth0", "fd00:ec2::254", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_address_inside_is_refused(address: str):
    """Private, link-local, metadata, multicast, and all of them in IPv6's clothes."""
    with pytest.raises(AccessError, match="not a public address"):
        check_address("https://git.example", resolve=leads_to(address))


def test_every_address_of_a_name_must_be_public():
    """One that leads inside is enough."""
    with pytest.raises(AccessError):
        check_address("https://git.example", resolve=leads_to("140.82.121.4", "127.0.0.1"))


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://[::1]:8080/", "http://localhost/"])
def test_loopback_in_any_spelling_is_refused(url: str):
    """As the machine's own resolver reads it."""
    with pytest.raises((AccessError, PlatformError)):
        check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "git.example",
        "ftp://git.example",
        "file:///etc/passwd",
        "https://",
        "https://a:b@git.example",
        "http://[x/",
        "https://git.example:99999/",
        "https://git .example/",
        "https://git.example/\n",
    ],
)
def test_what_is_no_address_is_refused(url: str):
    """In one line."""
    with pytest.raises(InputError):
        check_address(url, resolve=leads_to("140.82.121.4"))


@pytest.mark.parametrize(
    ("allowed", "may"),
    [
        (True, True),
        (("git.corp.example",), True),
        (("GIT.corp.example",), True),
        (("10.0.0.0/8",), True),
        (("10.1.2.3",), True),
        (("*",), True),
        ((), False),
        (("other.example", "192.168.0.0/16"), False),
        (("corp.example",), False),
    ],
)
def test_platform_may_allow_private_hosts(allowed: bool | tuple[str, ...], may: bool):
    """By name, by network, or all."""
    if may:
        assert check_address("https://git.corp.example", allowed, resolve=leads_to("10.1.2.3"))
    else:
        with pytest.raises(AccessError):
            check_address("https://git.corp.example", allowed, resolve=leads_to("10.1.2.3"))


def test_name_that_cannot_be_looked_up_is_said():
    """Not taken for a refusal."""

    def fails(_host: str, _port: int):
        raise OSError("no such name")

    with pytest.raises(PlatformError):
        check_address("https://git.example", resolve=fails)


class _Redirecting(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the tests' output."""


@pytest.fixture
def inside() -> Iterator[str]:
    """A server on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_client_connects_only_where_it_may(inside: str):
    """The check is at the connection itself, where a name has been looked up for the last time."""
    with guarded_client() as client, pytest.raises(AccessError):
        client.get(inside)
    with guarded_client(("127.0.0.0/8", "::1")) as client:
        assert client.get(inside).status_code == 200


def test_client_does_not_follow(inside: str):
    """A redirect would lead past the check of whoever configured the address."""
    with guarded_client(True) as client:
        assert client.get(f"{inside}/away").status_code == 302
