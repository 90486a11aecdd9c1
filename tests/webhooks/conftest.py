"""The API with the room for webhooks, a connected repository, and forges that tell of it."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from git_builder import GitRepository

sys.path.append(str(Path(__file__).parents[1] / "forges"))  # the hand-written payloads

from delivered import Json, settled
from forge_sender import TOPIC, Sender, sns_certificate
from forge_server import running
from forge_servers import AzureServer

from penstock.answers import connections as answering
from penstock.api.app import create_app
from penstock.api.tokens import ensure_local_token, token_file
from penstock.forges.clients import Link
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.vault import Vault, open_vault
from penstock.webhooks.deliveries import Delivery
from penstock.webhooks.hooks import Hook, Pins, add_hook, new_secret

EVERYTHING = """\
version: 1
on: [push, tag, pull_request, release]
steps:
  - name: hello
    type: step.shell_exec
    commands: [echo hello]
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a key of the test's own for the vault; forges' APIs may be on this machine."""
    return attrs.evolve(settings, vault_key_file=tmp_path / "keys" / "vault.key", allow_private_hosts=("127.0.0.1",))


@pytest.fixture
def vault(settings: Settings) -> Vault:
    """Where the secrets of hooks are."""
    return open_vault(settings)


@pytest.fixture
def asked() -> list[str]:
    """The addresses of SNS's that were asked."""
    return []


@pytest.fixture
def client(settings: Settings, database: sa.Engine, asked: list[str]) -> Iterator[httpx.Client]:
    """The API on a free port, with a client that has no token. SNS's own server is the test's."""

    def sns(url: str) -> bytes:
        asked.append(url)
        return sns_certificate(url)

    ensure_local_token(database, settings)
    app = create_app(settings)
    app.state.sns_get = sns
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as made:
            yield made
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def api(client: httpx.Client, settings: Settings) -> Iterator[httpx.Client]:
    """A client with this machine's token."""
    headers = {"Authorization": f"Bearer {token_file(settings).read_text()}"}
    with httpx.Client(base_url=client.base_url, headers=headers, timeout=60, trust_env=False) as made:
        yield made


@pytest.fixture
def shop(make_repository: Callable[..., GitRepository], database: sa.Engine) -> GitRepository:
    """A connected repository whose pipeline runs for everything: main with two commits, and a branch `orders`."""
    made = make_repository("shop", {"penstock.yaml": EVERYTHING})
    made.commit({"README": "x"}, "Second")
    made.git("branch", "orders")
    add_project(database, "shop", str(made.root))
    return made


@pytest.fixture
def azure(database: sa.Engine, vault: Vault, shop: GitRepository) -> Iterator[Callable[[], AzureServer]]:
    """azure() → Azure DevOps' API, which the shop has a token for."""
    with ExitStack() as stack:
        made: list[AzureServer] = []

        def start() -> AzureServer:
            if not made:
                made.append(stack.enter_context(running(AzureServer)))
                place = {"url": made[0].url, "repository": made[0].repository, "link": Link(("127.0.0.1",))}
                answering.connect(database, vault, "shop", "azure-devops", secret=made[0].secret, **place)
            return made[0]

        yield start


Connect = Callable[..., "tuple[Hook, Sender]"]


@pytest.fixture
def connect(
    database: sa.Engine,
    vault: Vault,
    client: httpx.Client,
    shop: GitRepository,
    azure: Callable[[], AzureServer],
) -> Connect:
    """connect(forge, secret, …) → the shop's hook at a forge, and the forge."""

    def make(forge: str, secret: str | None = None, **more: object) -> tuple[Hook, Sender]:
        pins = Pins(topic_arn=TOPIC) if forge == "aws-codecommit" else Pins(subscription="s1", azure_project="p1")
        chosen = None if forge == "aws-codecommit" else secret or new_secret()
        hook = add_hook(database, vault, "shop", forge, secret=chosen, pins=pins, **more)  # type: ignore[arg-type]
        return hook, Sender(client, forge, hook.path, chosen or "", azure() if forge == "azure-devops" else None)

    return make


@pytest.fixture
def told(connect: Connect, database: sa.Engine) -> Callable[..., Delivery]:
    """told(forge, payload, event) → the delivery, worked on."""
    senders: dict[str, Sender] = {}

    def tell(forge: str, payload: Json, event: str = "", **more: str) -> Delivery:
        sender = senders.setdefault(forge, connect(forge, **more)[1])
        answer = sender.send(payload, event)
        assert answer.status_code == 202, answer.text
        return settled(database, answer.json()["delivery"])

    return tell
