"""Testing an environment: real engines by socket, TCP, TLS and SSH, a real keeper, Caddy and vault."""

import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
import yaml
from containers import DockerEngine

from penstock.environments.model import Environment, NamedRules
from penstock.environments.testing import Check, try_environment
from penstock.pipeline.log import utc_now
from penstock.processes import stop_group, wait_until
from penstock.settings import Settings
from penstock.vault import SHARED, open_vault
from tests.deploy.conftest import Platform, running_platform
from tests.sources.git_servers import make_key

pytestmark = pytest.mark.xdist_group("docker")


def tried(settings: Settings, database: sa.Engine, **rules: Any) -> dict[str, Check]:
    made = NamedRules.model_validate({"name": "staging", **rules}).rules()
    now = utc_now()
    environment = Environment("staging", made, 1, None, "ada", now, "ada", now)
    return {check.name: check for check in try_environment(environment, settings, database)}


def wrong(found: dict[str, Check]) -> dict[str, str]:
    """What failed, and that each has a remedy."""
    assert all(check.remedy for check in found.values() if not check.passed)
    return {name: check.told for name, check in found.items() if not check.passed}


@pytest.fixture(scope="module")
def platform(docker_engine: DockerEngine) -> Iterator[Platform]:
    with running_platform(PENSTOCK_DOCKER_HOST=docker_engine.host) as running:
        yield running


def docker(host: str | None = None, **more: str) -> dict[str, Any]:
    return {"target": {"name": "docker", "docker": {"host": host, **more} if host else more}}


def test_process_needs_a_keeper_and_caddy(platform: Platform):
    """Each is looked at by itself; what is away is named with what helps."""
    assert wait_until(lambda: not wrong(tried(platform.settings, platform.engine)), limit_s=20), "the keeper has begun"
    assert tried(platform.settings, platform.engine).keys() == {"keeper", "router"}
    stop_group(platform.keeper, grace_s=15)
    try:
        assert wrong(tried(platform.settings, platform.engine)) == {"keeper": "no keeper runs"}
    finally:
        platform.start_keeper()
    assert wait_until(lambda: not wrong(tried(platform.settings, platform.engine)), limit_s=20)


def test_nothing_runs(settings: Settings, database: sa.Engine):
    """A home where no platform ever was."""
    told = wrong(tried(settings, database, target={"name": "process"}))
    assert told == {"keeper": "no keeper runs", "router": "Caddy does not answer at its admin socket"}


def test_docker_tells_its_version_and_networks(platform: Platform, docker_engine: DockerEngine):
    """By the settings' own address and by the environment's; a network that is not there is said."""
    client = docker_engine.client()
    version = client.version()["Version"]
    client.close()
    for rules in (docker(network="bridge"), docker(docker_engine.host, network="bridge")):
        found = tried(platform.settings, platform.engine, **rules)
        assert wrong(found) == {}
        assert version in found["engine"].told
        assert "bridge is there" in found["network"].told
    found = tried(platform.settings, platform.engine, **docker(docker_engine.host, network="absent"))
    assert wrong(found) == {"network": 'there is no network "absent"'}


@contextmanager
def forwarding(socket_path: str, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port of loopback that leads to the engine's socket, by TLS if there is a context."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            with suppress(OSError, ssl.SSLError):
                plain, _ = listener.accept()
                threading.Thread(target=pass_on, args=(plain,), daemon=True).start()
                continue
            return

    def pass_on(plain: socket.socket) -> None:
        with suppress(OSError), plain, socket.socket(socket.AF_UNIX) as engine:
            outer = context.wrap_socket(plain, server_side=True) if context else plain
            engine.connect(socket_path)
            engine.sendall(outer.recv(65536))
            while chunk := engine.recv(65536):
                outer.sendall(chunk)
            outer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@attrs.frozen
class Certificates:
    """An authority, and a certificate of it for 127.0.0.1 that serves both sides."""

    folder: Path

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    request = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    openssl(*request, "/CN=authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*request, "/CN=127.0.0.1", "-keyout", "key.pem", "-out", "request")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "request", *signed, "-out", "cert.pem")
    return Certificates(folder)


def test_docker_by_tcp_is_asked_with_and_without_tls(platform: Platform, docker_engine: DockerEngine, tmp_path: Path):
    """With our certificate and the engine's own authority from the vault; another authority is not trusted."""
    path = docker_engine.host.removeprefix("unix://")
    vault = open_vault(platform.settings)
    known, strangers = make_certificates(tmp_path / "known"), make_certificates(tmp_path / "strangers")
    for name in ("ca", "cert", "key"):
        vault.write(SHARED, f"docker-{name}", known.read(f"{name}.pem"))
    vault.write(SHARED, "other-ca", strangers.read("ca.pem"))
    vault.write(SHARED, "no-pem", b"not a certificate")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(known.folder / "ca.pem"))
    context.load_cert_chain(known.folder / "cert.pem", known.folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    secrets = {"ca_secret": "docker-ca", "cert_secret": "docker-cert", "key_secret": "docker-key"}
    with forwarding(path) as port:
        found = tried(platform.settings, platform.engine, **docker(f"tcp://127.0.0.1:{port}"))
        assert "version" in found["engine"].told
        assert "refuses to deploy to tcp://" in wrong(found)["services"]
    with forwarding(path, context) as port:
        host = f"tcp://127.0.0.1:{port}"
        found = tried(platform.settings, platform.engine, **docker(host, **secrets))
        assert "version" in found["engine"].told, found
        for change, words in [
            ({"ca_secret": "other-ca"}, "certificate verify failed"),
            ({"key_secret": "no-pem"}, "its certificates cannot be read"),
            ({"key_secret": "absent"}, 'has no secret "absent"'),
        ]:
            found = tried(platform.settings, platform.engine, **docker(host, **{**secrets, **change}))
            assert words in wrong(found)["engine"]
        assert "no engine answers" in wrong(tried(platform.settings, platform.engine, **docker(host)))["engine"]
    assert "no engine answers" in wrong(tried(platform.settings, platform.engine, **docker(host)))["engine"]


def test_what_answers_is_no_engine(platform: Platform, tmp_path: Path):
    """Something else listens there, or nobody does."""
    path = tmp_path / "s"
    assert "No such file" in wrong(tried(platform.settings, platform.engine, **docker(f"unix://{path}")))["engine"]
    handler = type("Handler", (http.server.BaseHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = tried(platform.settings, platform.engine, **docker(f"tcp://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert "no Docker Engine: HTTP 501" in wrong(found)["engine"]


def test_docker_by_ssh_is_asked_through_its_own_client(
    platform: Platform, docker_engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the keys and the known hosts of whoever runs Penstock; who is not let in reads what ssh says."""
    with serving_engine(tmp_path, docker_engine.host) as port:
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        host = f"ssh://{user}@127.0.0.1:{port}"
        trusting(tmp_path, monkeypatch, key=True)
        found = tried(platform.settings, platform.engine, **docker(host))
        assert "version" in found["engine"].told, found
        trusting(tmp_path, monkeypatch, key=False)
        assert "ssh: " in wrong(tried(platform.settings, platform.engine, **docker(host)))["engine"]
    assert "ssh: " in wrong(tried(platform.settings, platform.engine, **docker(host)))["engine"]


def trusting(folder: Path, monkeypatch: pytest.MonkeyPatch, *, key: bool) -> None:
    """An ssh that reads a configuration of the test's own, and not that of whoever runs it."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    identity = folder / "client" if key else folder / "stranger"
    if not identity.exists():
        make_key(identity)
    options = f"-F none -i {identity} -o IdentitiesOnly=yes -o UserKnownHostsFile={folder}/known_hosts"
    (commands / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh", path=os.defpath)} {options} "$@"\n')
    (commands / "ssh").chmod(0o755)
    if not os.environ["PATH"].startswith(str(commands)):
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")


@contextmanager
def serving_engine(folder: Path, engine: str) -> Iterator[int]:
    """An OpenSSH server on whose machine `docker` knows the engine."""
    make_key(folder / "client")
    make_key(folder / "host")
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = (
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "UsePAM no", "StrictModes no"),
        *(f"AuthorizedKeysFile {folder}/authorized_keys", "PasswordAuthentication no", "PidFile none"),
        *("PermitRootLogin prohibit-password", "LogLevel ERROR", "UseDNS no", f"SetEnv DOCKER_HOST={engine}"),
    )
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    host_key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert sshd, "install Debian's package openssh-server"
    with (folder / "sshd.log").open("wb") as log:
        words = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: listens(port), limit_s=20), (folder / "sshd.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def serving_cluster(allowed: set[str]) -> Iterator[str]:
    """What a cluster answers to two questions, in the shapes of the API reference (version.Info, v1 review)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            info = dict.fromkeys(
                ("major", "minor", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "1"
            )
            self.tell({**info, "gitVersion": "v1.31.2"} if self.path == "/version/" else {}, 200)

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = review["spec"]["resourceAttributes"]
            login = self.headers.get("Authorization")
            may = asked["resource"] in allowed and asked["namespace"] == "shop" and asked["verb"] == "create"
            known = login == "Bearer cluster-token"
            self.tell({**review, "status": {"allowed": may}} if known else {}, 201 if known else 401)

        def tell(self, body: Any, status: int) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def kubeconfig(server: str, token: str = "cluster-token") -> bytes:
    return yaml.safe_dump(
        {
            "apiVersion": "v1", "kind": "Config", "current-context": "other",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "penstock", "user": {"token": token}}, {"name": "nobody", "user": {}}],
            "contexts": [
                {"name": "shop", "context": {"cluster": "here", "user": "penstock"}},
                {"name": "other", "context": {"cluster": "here", "user": "nobody"}},
            ],
        }
    ).encode()  # fmt: skip


def test_cluster_tells_its_version_and_what_we_may(platform: Platform):
    """Through a kubeconfig in the vault; each right is asked of the cluster itself."""
    vault = open_vault(platform.settings)
    target: dict[str, Any] = {"kubeconfig_secret": "kubeconfig", "context": "shop", "namespace": "shop"}

    def found(**change: str) -> dict[str, Check]:
        rules = {"target": {"name": "kubernetes", "kubernetes": {**target, **change}}}
        return tried(platform.settings, platform.engine, **rules)

    with serving_cluster({"deployments", "services"}) as address:
        vault.write(SHARED, "kubeconfig", kubeconfig(address))
        vault.write(SHARED, "broken", b"{")
        assert found()["cluster"].told == "v1.31.2"
        assert wrong(found()) == {"may make secrets": "we may not create secrets in the namespace shop"}
        assert wrong(found(namespace="web")).keys() == {
            "may make deployments", "may make services", "may make secrets",
        }  # fmt: skip
        assert "(401)" in wrong(found(context="other"))["may make deployments"]
        assert "the kubeconfig cannot be used" in wrong(found(context="absent"))["cluster"]
        assert "kubeconfig:2: did not find" in wrong(found(kubeconfig_secret="broken"))["cluster"]
    assert "the cluster does not answer" in wrong(found())["cluster"]


def test_secrets_are_looked_for_in_the_vault(platform: Platform):
    """The platform's, or one of each project that may come here; their values are told nobody."""
    vault = open_vault(platform.settings)
    vault.write(SHARED, "everybodys", b"value-of-everybody")
    vault.write("shop", "shops", b"value-of-the-shop")
    with platform.engine.begin() as connection:
        for name in ("shop", "web"):
            row = {"name": name, "url": f"/srv/{name}", "default_branch": "main"}
            connection.execute(sa.text("INSERT INTO projects VALUES (:name, :url, :default_branch)"), row)
    names = {"A": "everybodys", "B": "shops", "C": "absent"}
    found = tried(platform.settings, platform.engine, secret_env=names, projects="shop")
    assert wrong(found) == {"secret absent": "it is not in the vault for shop"}
    assert (found["secret everybodys"].told, found["secret shops"].told) == ("of the platform", "of shop")
    found = tried(platform.settings, platform.engine, secret_env={"B": "shops"})
    assert wrong(found) == {"secret shops": "it is not in the vault for web"}
    assert "value-of" not in str(found)
    away = attrs.evolve(platform.settings, vault="hashicorp", vault_addr="http://127.0.0.1:1")
    assert "vault" in wrong(tried(away, platform.engine, secret_env=names))
