"""A real OpenBao, in memory."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

BIN = Path(sys.executable).parent
ROOT_TOKEN = "root-of-the-tests"


@attrs.frozen
class Bao:
    """A server in memory. address: with its port."""

    address: str
    process: "subprocess.Popen[bytes]"
    certificate: Path | None = None

    def client(self, token: str = ROOT_TOKEN) -> Any:
        """hvac's own client, to arrange things as an administrator would."""
        import hvac
        import requests

        session = requests.Session()
        session.trust_env = False  # no proxy, no certificates of the machine
        session.verify = str(self.certificate) if self.certificate else True
        return hvac.Client(url=self.address, token=token, session=session)

    def token(self, rules: str, **options: Any) -> str:
        """A token that may do what the rules say."""
        name = f"policy{time.monotonic_ns()}"
        self.client().sys.create_or_update_policy(name, rules)
        token: str = self.client().auth.token.create(policies=[name], **options)["auth"]["client_token"]
        return token


def running_bao(folder: Path, *, tls: bool = False) -> Iterator[Bao]:
    for _ in range(5):  # somebody else may take the port in between
        started = start_bao(folder, tls=tls)
        if started:
            break
    else:
        pytest.fail("bao does not start: " + (folder / "bao.log").read_text()[-2000:])
    yield started
    started.process.kill()
    started.process.wait()


def start_bao(folder: Path, *, tls: bool) -> Bao | None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    certificates = folder / "certificates"
    certificates.mkdir(exist_ok=True)
    with_tls = ("-dev-tls", f"-dev-tls-cert-dir={certificates}") if tls else ()
    with (folder / "bao.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(BIN / "bao"), "server", "-dev", "-dev-no-store-token", *with_tls),
                *(f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}"),
            ],
            env={"HOME": str(folder), "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    made = Bao(f"{'https' if tls else 'http'}://127.0.0.1:{port}", process)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        authority = next(iter(certificates.glob("*-ca.pem")), None) if tls else None
        made = attrs.evolve(made, certificate=authority)
        if (not tls or authority) and answers(made):
            return made
        time.sleep(0.05)
    process.kill()
    process.wait()
    return None


def answers(server: Bao) -> bool:
    """Unsealed, and its engines are mounted: the server answers earlier than that."""
    from hvac.exceptions import VaultError
    from requests.exceptions import RequestException

    try:
        return "secret/" in server.client().sys.list_mounted_secrets_engines()["data"]
    except (VaultError, RequestException, OSError):
        return False
