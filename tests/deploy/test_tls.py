"""Names and TLS: services by HTTPS, with certificates of a real ACME server, or of Caddy's own CA."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import msgspec
import pytest
from cryptography import x509

from penstock.deploy.caddy import caddy_folder, measured_log, render, running_configuration, set_measured
from penstock.deploy.front import Front, blocked_ports, can_listen, front_ports, keep_names, read_names
from penstock.deploy.operations import ask_rollback
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import release_history
from penstock.deploy.rollout import carry, deploy
from penstock.deploy.rollouts import get_rollout
from penstock.deploy.routing import apply_routes
from penstock.errors import InputError, PlatformError, SettingsError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import LETS_ENCRYPT, load_settings
from penstock.steps.deploy import Config
from tests.deploy.acme import Pebble, running_pebble
from tests.deploy.conftest import Platform, free_block, running_platform, settings_for

FRONT = Front(host="", http_port=80, https_port=443, issuer="acme", acme_url=LETS_ENCRYPT)
ISSUE_LIMIT_S = 60.0


@attrs.frozen
class Site:
    """A platform whose names are served with certificates that `roots` vouches for."""

    platform: Platform
    http_port: int
    https_port: int
    pebble: Pebble | None = None

    def plan(self, name: str, version: str, *domains: str, **env: str) -> DeploymentPlan:
        made = self.platform.plan(name, version, **env)
        return attrs.evolve(made, configuration=msgspec.structs.replace(made.configuration, domains=domains))

    def deploy(self, name: str, version: str, *domains: str) -> None:
        self.platform.deploy(self.plan(name, version, *domains))

    def roots(self) -> str:
        if self.pebble:
            return self.pebble.roots()
        return (caddy_folder(self.platform.settings) / "storage/pki/authorities/local/root.crt").read_text()

    def connect(self, domain: str) -> ssl.SSLSocket:
        """Raises: ssl.SSLError when it is not served, or not with a certificate that the CA vouches for."""
        trusting = ssl.create_default_context(cadata=self.roots())
        plain = socket.create_connection(("127.0.0.1", self.https_port), timeout=20)
        try:
            return trusting.wrap_socket(plain, server_hostname=domain)
        except OSError:
            plain.close()
            raise

    def get(self, domain: str, *, host: str = "") -> tuple[int, str]:
        """Status and body, over a connection of its own."""
        with self.connect(domain) as secure:
            return self.ask(secure, host or domain)

    def ask(self, secure: ssl.SSLSocket, host: str) -> tuple[int, str]:
        """Over one that is open, which stays so."""
        connection = http.client.HTTPConnection(host)
        connection.sock = secure
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def serves(self, domain: str, version: str) -> bool:
        try:
            return self.get(domain) == (200, version)
        except (OSError, http.client.HTTPException):
            return False

    def is_refused(self, domain: str) -> bool:
        try:
            self.connect(domain).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        return False

    def serial(self, domain: str) -> int:
        with self.connect(domain) as secure:
            certificate = secure.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number

    def redirect(self, host: str, path: str) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        connection.close()
        return answer.status, answer.getheader("Location")


def wait_until_served(site: Site, domain: str, version: str) -> None:
    assert wait_until(lambda: site.serves(domain, version), limit_s=ISSUE_LIMIT_S), said(site)


def said(site: Site) -> str:
    return (site.platform.settings.home / "platform.log").read_text()[-4000:]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With certificates of Pebble, which looks at the names' own ports before it issues one."""
    http_port = free_block(5)
    https_port = http_port + 1
    folder = tmp_path_factory.mktemp("pebble")
    with running_pebble(folder, http_port + 2, http_port=http_port, https_port=https_port) as pebble:
        variables = {
            **front_variables(http_port),
            "PENSTOCK_ACME_URL": pebble.url,
            "PENSTOCK_ACME_CA": str(pebble.ca),
            "PENSTOCK_ACME_EMAIL": "ops@example.org",
        }
        with running_platform(**variables) as platform:
            yield Site(platform, http_port, https_port, pebble)


def front_variables(http_port: int) -> dict[str, str]:
    ports = {"PENSTOCK_HTTP_PORT": str(http_port), "PENSTOCK_HTTPS_PORT": str(http_port + 1)}
    return {**ports, "PENSTOCK_HTTP_HOST": "127.0.0.1"}


def test_service_answers_by_https_with_a_certificate_of_the_acme_server(site):
    """After a real validation, verified against the ACME server's root; HTTP leads there."""
    site.deploy("shop", "v1", "shop.example.org", "www.shop.example.org")
    wait_until_served(site, "shop.example.org", "v1")
    wait_until_served(site, "www.shop.example.org", "v1")
    assert site.redirect("shop.example.org", "/a?b=c") == (308, "https://shop.example.org/a?b=c")
    assert site.platform.answers("shop", "v1")


def test_next_release_changes_no_configuration_and_closes_no_connection(site):
    """One that was open before the switch is answered by the new release."""
    site.deploy("kept", "v1", "kept.example.org")
    wait_until_served(site, "kept.example.org", "v1")
    before = running_configuration(site.platform.settings)
    with site.connect("kept.example.org") as secure:
        assert site.ask(secure, "kept.example.org") == (200, "v1")
        site.deploy("kept", "v2", "kept.example.org")
        assert site.ask(secure, "kept.example.org") == (200, "v2")
    assert running_configuration(site.platform.settings) == before


def test_caddy_that_was_killed_serves_the_same_certificates(site):
    """From its storage, which nobody else can read: nothing is ordered again."""
    site.deploy("killed", "v1", "killed.example.org")
    wait_until_served(site, "killed.example.org", "v1")
    serial, orders = site.serial("killed.example.org"), site.pebble.orders()
    assert orders > 0
    site.platform.kill(site.platform.caddy)
    site.platform.start_caddy()
    assert site.get("killed.example.org") == (200, "v1")
    assert (site.serial("killed.example.org"), site.pebble.orders()) == (serial, orders)
    assert (caddy_folder(site.platform.settings) / "storage").stat().st_mode & 0o777 == 0o700


def test_name_that_a_release_gives_up_is_served_no_more(site):
    """Not by HTTPS, and HTTP leads nowhere; the service's other name stays."""
    site.deploy("fewer", "v1", "fewer.example.org", "gone.example.org")
    wait_until_served(site, "fewer.example.org", "v1")
    wait_until_served(site, "gone.example.org", "v1")
    site.deploy("fewer", "v2", "fewer.example.org")
    assert wait_until(lambda: site.is_refused("gone.example.org"), limit_s=20)
    assert site.redirect("gone.example.org", "/") == (421, None)
    assert site.get("fewer.example.org") == (200, "v2")


def test_unknown_host_is_refused(site):
    """No certificate, no redirect, and no way in through somebody else's name."""
    site.deploy("known", "v1", "known.example.org")
    wait_until_served(site, "known.example.org", "v1")
    assert site.is_refused("unknown.example.org")
    assert site.redirect("unknown.example.org", "/") == (421, None)
    assert site.get("known.example.org", host="unknown.example.org")[0] == 421


def test_name_of_another_service_is_refused(site):
    """The release is not even made; the message says who has the name."""
    site.deploy("first", "v1", "first.example.org")
    with pytest.raises(StepFailure) as caught:
        site.deploy("second", "v1", "second.example.org", "first.example.org")
    assert str(caught.value) == (
        "shop/second in production: first.example.org is the name of shop/first in production; "
        "take it from there first, or leave it out here"
    )
    site.deploy("first", "v2")
    site.deploy("second", "v1", "first.example.org")
    wait_until_served(site, "first.example.org", "v1")


def test_release_that_fails_brings_no_name(site):
    """The former one's are served as before."""
    site.deploy("bad", "v1", "old.example.org")
    wait_until_served(site, "old.example.org", "v1")
    with pytest.raises(StepFailure, match="not healthy after"):
        site.platform.deploy(site.plan("bad", "v2", "new.example.org", UNHEALTHY="no"))
    assert site.get("old.example.org") == (200, "v1")
    assert site.is_refused("new.example.org")


def test_requests_by_name_are_measured(site):
    """A canary's analysis sees them as it sees those at the service's port."""
    site.deploy("measured", "v1", "measured.example.org")
    wait_until_served(site, "measured.example.org", "v1")
    port = urlsplit(site.platform.url("measured")).port
    log = measured_log(site.platform.settings, port)
    assert not log.exists() or not log.read_text()
    set_measured(site.platform.settings, port, measured=True)
    assert site.get("measured.example.org") == (200, "v1")
    assert wait_until(lambda: len(log.read_text().splitlines()) == 1, limit_s=20)
    line = json.loads(log.read_text())
    assert (line["status"], line["upstream"].partition(":")[0]) == (200, "127.0.0.1")
    assert "measured.example.org" not in log.read_text()


def test_shell_without_the_settings_takes_no_name_away(site):
    """What was said where Caddy was started holds for everybody who changes its configuration."""
    site.deploy("elsewhere", "v1", "elsewhere.example.org")
    wait_until_served(site, "elsewhere.example.org", "v1")
    before = running_configuration(site.platform.settings)
    apply_routes(site.platform.engine, attrs.evolve(site.platform.settings, http_port=None, https_port=None))
    assert running_configuration(site.platform.settings) == before


@contextmanager
def own_ca(site: Site) -> Iterator[Site]:
    """Caddy started again with PENSTOCK_TLS=internal; what Caddy was started with holds for everybody."""
    platform = site.platform
    platform.env["PENSTOCK_TLS"] = "internal"
    try:
        restart_caddy(platform)
        yield attrs.evolve(site, pebble=None)
    finally:
        del platform.env["PENSTOCK_TLS"]
        restart_caddy(platform)


def restart_caddy(platform: Platform) -> None:
    platform.kill(platform.caddy)
    platform.start_caddy()


def test_caddys_own_ca(site):
    """Without an ACME server; its port stands in the redirect, since nobody says that it is reached on 443."""
    with own_ca(site) as own:
        own.deploy("own", "v1", "own.example.org")
        wait_until_served(own, "own.example.org", "v1")
        assert own.redirect("own.example.org", "/") == (308, f"https://own.example.org:{own.https_port}/")
    wait_until_served(site, "own.example.org", "v1")


def test_port_that_somebody_took(site):
    """A deployment that needs it fails and says so; services without a name are served, and names when it is free."""
    platform, message = site.platform, rf"Caddy cannot serve taken\.example\.org on port {site.https_port}"
    site.deploy("taken", "v1", "taken.example.org")
    wait_until_served(site, "taken.example.org", "v1")
    platform.kill(platform.caddy)
    with socket.create_server(("127.0.0.1", site.https_port)):
        platform.start_caddy()
        assert platform.answers("taken", "v1")
        with pytest.raises(PlatformError, match=message):
            site.deploy("taken", "v2", "taken.example.org")
        site.deploy("nameless", "v1")
    wait_until_served(site, "taken.example.org", "v1")


def test_names_are_off_by_default(site, tmp_path: Path):
    """The deployment is refused with what to set; nothing was made."""
    settings, _ = settings_for(tmp_path / "home")
    plan, said = site.plan("off", "v1", "a.example.org"), []
    with pytest.raises(StepFailure) as caught:
        deploy(plan, engine=site.platform.engine, settings=settings, log=said.append, token=CancelToken())
    assert str(caught.value) == (
        "shop/off in production: a.example.org cannot be served: names are off here; "
        "set PENSTOCK_HTTP_PORT and PENSTOCK_HTTPS_PORT and start Penstock again, or leave `domains` out"
    )
    assert release_history(site.platform.engine, plan.service) == []


def test_way_back_to_a_name_that_another_has_by_now_is_refused(site):
    """The rollout that somebody asked for ends at once and says why; both go on serving."""
    site.deploy("lender", "v1", "lent.example.org")
    site.deploy("lender", "v2")
    site.deploy("borrower", "v1", "lent.example.org")
    service, platform = site.plan("lender", "v1").service, site.platform
    asked = ask_rollback(platform.engine, platform.settings, service, number=1, same=False, actor="ann", why="")
    carry(platform.engine, platform.settings, [].append, CancelToken(), service)
    with platform.engine.begin() as connection:
        ended = get_rollout(connection, asked.id)
    assert (ended.state, ended.release_id) == ("failed", None)
    assert "lent.example.org is the name of shop/borrower in production" in (ended.trouble or "")
    assert platform.answers("lender", "v2")
    wait_until_served(site, "lent.example.org", "v1")


PLAN = {
    **{"service": Service("shop", "production", "web"), "commit": "c", "digest": "d", "graph_hash": "g"},
    **{"run_id": "r", "source": Path("app")},
}
WRONG = {
    "*.example.org": "name each host",
    "https://shop.example.org": "write the host alone",
    "shop.example.org:8443": "write the host alone",
    "shop.example.org/": "write the host alone",
    "Shop.example.org": "write it in lower case",
    "bücher.example.org": "write it as DNS does",
    "shop": "write one such as",
    "": "write one such as",
    "shop..org": "write one such as",
    "shop.example.org.": "write one such as",
    "-shop.example.org": "write one such as",
    "192.0.2.1": "write one such as",
    "${{ branch }}.example.org": "write one such as",
    "{env.home}.org": "write one such as",
    f"{'a' * 64}.org": "write one such as",
    ".".join(["abcdefgh"] * 30): "write one such as",
}


@pytest.mark.parametrize(("domain", "remedy"), WRONG.items())
def test_wrong_name_is_refused(domain, remedy):
    """One line that says which, and how to write it; in the pipeline and in the plan."""
    with pytest.raises(InputError, match=remedy) as caught:
        DeploymentPlan(**PLAN, configuration=ServiceConfiguration(command="x", domains=(domain,)))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=remedy):
        step(domains=[domain])


def test_name_that_stands_there_twice_is_refused():
    """As are more than fifty; one alone needs no list."""
    with pytest.raises(ValueError, match=r"a\.example\.org stands there twice; leave one out"):
        step(domains=["a.example.org", "b.example.org", "a.example.org"])
    with pytest.raises(ValueError, match="at most 50"):
        step(domains=[f"a{n}.example.org" for n in range(51)])
    assert step(domains="a.example.org").domains == ("a.example.org",)
    assert step().domains == ()


def step(**given: object) -> Config:
    needed = {"name": "deploy", "type": "step.deploy", "environment": "production", "artifact": "a", "command": "./run"}
    return Config.model_validate({**needed, **given})


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PENSTOCK_HTTP_PORT": "80"}, "PENSTOCK_HTTPS_PORT: names need an HTTP and an HTTPS port; set both"),
        ({"PENSTOCK_HTTPS_PORT": "443"}, "PENSTOCK_HTTP_PORT: names need an HTTP and an HTTPS port; set both"),
        ({"PENSTOCK_HTTP_PORT": "http"}, 'PENSTOCK_HTTP_PORT: "http" is no port; give a number from 1'),
        ({"PENSTOCK_HTTPS_PORT": "65536"}, 'PENSTOCK_HTTPS_PORT: "65536" is no port'),
        ({"PENSTOCK_HTTP_PORT": "80", "PENSTOCK_HTTPS_PORT": "80"}, "port 80 is also PENSTOCK_HTTP_PORT; give each"),
        ({"PENSTOCK_HTTP_PORT": "80", "PENSTOCK_HTTPS_PORT": "8700"}, "port 8700 is also PENSTOCK_API_PORT"),
        ({"PENSTOCK_TLS": "none"}, 'PENSTOCK_TLS: "none" cannot stand here; write acme or internal'),
        ({"PENSTOCK_ACME_URL": "http://ca.example.org"}, "PENSTOCK_ACME_URL: it is no https address; write one such"),
        ({"PENSTOCK_ACME_URL": "https://a:b@ca.example.org"}, "PENSTOCK_ACME_URL: it is no https address"),
        ({"PENSTOCK_ACME_URL": "https://[ca/dir"}, "PENSTOCK_ACME_URL: it is no https address"),
        ({"PENSTOCK_ACME_EMAIL": "ops"}, "PENSTOCK_ACME_EMAIL: it is no address of mail; write one such as ops@"),
        ({"PENSTOCK_ACME_CA": "/no/such.pem"}, 'PENSTOCK_ACME_CA: no file "/no/such.pem"; name a PEM file'),
        ({"PENSTOCK_HTTP_HOST": "example.org"}, 'PENSTOCK_HTTP_HOST: "example.org" is no address; give an IP'),
    ],
)
def test_wrong_setting_is_refused(tmp_path: Path, env, message):
    """With its name and the remedy."""
    with pytest.raises(SettingsError) as caught:
        load_settings(env, tmp_path)
    assert message in str(caught.value)


def test_configuration_without_names_has_no_front():
    """No port is opened for nothing; a name of a service that is not served is left out."""
    assert render([8710], front=FRONT) == render([8710])
    assert render([8710], front=FRONT, names={"a.example.org": 8711}) == render([8710])
    assert front_ports(render([8710], front=FRONT, names={"a.example.org": 8710})) == {80, 443}
    assert front_ports({}) == set()


def test_names_that_cannot_be_read_are_none(tmp_path: Path):
    """Caddy starts all the same; the keeper writes them again."""
    assert read_names(tmp_path) == {}
    for content in ("", "[", '["a"]', '{"a": "b"}'):
        (tmp_path / "names.json").write_text(content)
        assert read_names(tmp_path) == {}
    keep_names(tmp_path, {"a.example.org": 8710})
    assert read_names(tmp_path) == {"a.example.org": 8710}


def test_port_of_a_service_that_is_older_than_the_setting():
    """Caddy would refuse everything for two servers on one port: it serves no names instead."""
    first = free_block(2)
    front = msgspec.structs.replace(FRONT, host="127.0.0.1", http_port=first, https_port=first + 1)
    assert blocked_ports(front, [first + 2]) == ()
    assert blocked_ports(front, [first + 1]) == (first + 1,)
    with socket.create_server(("127.0.0.1", first)):
        assert blocked_ports(front, []) == (first,)
        assert blocked_ports(front, [], shown=[first]) == ()


def test_address_that_cannot_be_listened_on():
    """Taken on one address is taken on all; an address of another machine is none of ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not can_listen("127.0.0.1", port)
        assert not can_listen("", port)
    assert can_listen("", port)
    assert not can_listen("192.0.2.1", port)
