"""HashiCorp Vault's API, on a real OpenBao: rights, logins, and servers that are sealed, away or something else."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from bao_server import ROOT_TOKEN, Bao

from penstock.errors import AccessError, NotFoundError, PenstockError, PlatformError, SettingsError
from penstock.settings import Settings
from penstock.vault import SHARED, Vault, open_vault

READ_SHOP = 'path "secret/data/penstock/shop/*" { capabilities = ["read"] }'
READ_ALL = 'path "secret/*" { capabilities = ["read", "list", "create", "update", "delete"] }'
VALUE = b"hunter2-correct-horse"


@pytest.fixture
def opened(vault_settings: Settings, tmp_path: Path) -> Callable[..., Vault]:
    """opened(server or address, token) → the vault with that token in its file."""

    def open_(server: Bao | str | None, token: str = ROOT_TOKEN, **more: str) -> Vault:
        (tmp_path / "token").write_text(token)
        address = server.address if isinstance(server, Bao) else server
        named = {"vault_addr": address, "vault_token_file": tmp_path / "token", **more}
        return open_vault(attrs.evolve(vault_settings, vault="hashicorp", **named))

    return open_


def whole_of(error: BaseException) -> str:
    """Everything that a traceback could show of an error and of what led to it."""
    seen, text = error, ""
    while seen is not None:
        text += repr(seen) + str(seen) + repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    return text


def refused(vault: Vault, kind: type[PenstockError], words: str) -> None:
    """Reading and writing end in one line of that kind, which holds neither token nor value."""
    for call in (lambda: vault.read("shop", "TOKEN"), lambda: vault.write("shop", "TOKEN", VALUE)):
        with pytest.raises(kind, match=words) as raised:
            call()
        assert "\n" not in str(raised.value)
        for hidden in (ROOT_TOKEN, VALUE.decode()):
            assert hidden not in whole_of(raised.value)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_vaults_own_tools_set_what_penstock_reads(bao: Bao, opened: Callable[..., Vault]):
    """`bao kv put secret/penstock/PROJECT/NAME value=…`, and `_shared` for all projects."""
    kv = bao.client().secrets.kv.v2
    kv.create_or_update_secret(path="penstock/tools/TOKEN", secret={"value": "own"}, mount_point="secret")
    kv.create_or_update_secret(path="penstock/_shared/ALL", secret={"value": "all"}, mount_point="secret")
    vault = opened(bao)
    assert vault.read("tools", "TOKEN") == b"own"
    assert vault.read("tools", "ALL") == b"all"
    vault.write("tools", "BINARY", b"\xff\x00")
    kept = kv.read_secret_version(path="penstock/tools/BINARY", mount_point="secret", raise_on_deleted_version=True)
    assert kept["data"]["data"] == {"value_base64": "/wA="}


@pytest.mark.parametrize("fields", [{"password": "hunter2"}, {"value": 7}, {"value_base64": "not base64!"}, {}])
def test_other_fields_are_said_and_not_shown(bao: Bao, opened: Callable[..., Vault], fields: dict[str, object]):
    """A secret that somebody has set otherwise."""
    bao.client().secrets.kv.v2.create_or_update_secret(path="penstock/odd/TOKEN", secret=fields, mount_point="secret")
    with pytest.raises(PlatformError, match="has no field `value`") as raised:
        opened(bao).read("odd", "TOKEN")
    assert "hunter2" not in whole_of(raised.value)


def test_deleted_version_is_absent(bao: Bao, opened: Callable[..., Vault]):
    """The server remembers that it was there; Penstock neither reads nor lists it."""
    vault = opened(bao)
    vault.write("deleted", "TOKEN", VALUE)
    bao.client().secrets.kv.v2.delete_latest_version_of_secret(path="penstock/deleted/TOKEN", mount_point="secret")
    assert vault.names("deleted") == ()
    for call in (vault.read, vault.remove):
        with pytest.raises(NotFoundError):
            call("deleted", "TOKEN")


def test_token_needs_no_more_than_reading(bao: Bao, opened: Callable[..., Vault]):
    """A policy for one project's folder is enough for its runs; everything else is refused, and said."""
    opened(bao).write("shop", "TOKEN", VALUE)
    vault = opened(bao, bao.token(READ_SHOP))
    assert vault.read("shop", "TOKEN") == VALUE
    with pytest.raises(AccessError, match=r"the token may not do this with secret/penstock/…: .*permission denied"):
        vault.read("other", "TOKEN")
    with pytest.raises(AccessError, match="give its policy that right"):
        vault.names(SHARED)
    with pytest.raises(AccessError):
        vault.write("shop", "TOKEN", b"new")


def test_wrong_token_is_said(bao: Bao, opened: Callable[..., Vault]):
    """With the file that holds it."""
    refused(opened(bao, "s.wrong"), AccessError, r"the token is wrong, expired or revoked; put a new one into .*token")


def test_expired_token_is_said_and_a_new_one_taken(bao: Bao, opened: Callable[..., Vault], tmp_path: Path):
    """Without a restart: the token file is read again when the server refuses."""
    opened(bao).write("expiring", "TOKEN", VALUE)
    token = bao.token(READ_ALL, ttl="1h")
    vault = opened(bao, token)
    assert vault.read("expiring", "TOKEN") == VALUE
    bao.client().auth.token.revoke(token)
    with pytest.raises(AccessError, match="wrong, expired or revoked"):
        vault.read("expiring", "TOKEN")
    (tmp_path / "token").write_text(bao.token(READ_ALL))
    assert vault.read("expiring", "TOKEN") == VALUE


def test_lease_that_ran_out_is_said(bao: Bao, opened: Callable[..., Vault]):
    """A token that lives for a second."""
    vault = opened(bao, bao.token(READ_ALL, ttl="1s"))

    def has_expired() -> bool:
        try:
            vault.names("nothing")
        except AccessError as error:
            return "wrong, expired or revoked" in str(error)
        return False

    until(has_expired)


def test_approle_logs_in_and_again_when_its_token_expires(bao: Bao, opened: Callable[..., Vault]):
    """Role and secret id in the token file, for machines whose tokens are short-lived."""
    opened(bao).write("role", "TOKEN", VALUE)
    admin = bao.client()
    if "approle/" not in admin.sys.list_auth_methods()["data"]:
        admin.sys.enable_auth_method("approle")
    admin.sys.create_or_update_policy("ci", READ_ALL)
    admin.auth.approle.create_or_update_approle("ci", token_policies=["ci"], token_ttl="1h")
    ids = {
        "role_id": admin.auth.approle.read_role_id("ci")["data"]["role_id"],
        "secret_id": admin.auth.approle.generate_secret_id("ci")["data"]["secret_id"],
    }
    vault = opened(bao, json.dumps(ids))
    first = vault.read("role", "TOKEN")
    admin.sys.revoke_prefix("auth/approle/login")
    assert vault.read("role", "TOKEN") == first == VALUE
    wrong = opened(bao, json.dumps({**ids, "secret_id": "hunter2"}))
    with pytest.raises(AccessError, match="no login by AppRole with these ids") as raised:
        wrong.check()
    assert "hunter2" not in whole_of(raised.value)


@pytest.mark.parametrize("text", ["", "\n", "two words", "{}", '{"role_id": "hunter2"}', "{hunter2", "tök", "a\nb"])
def test_what_is_no_token_is_refused(bao: Bao, opened: Callable[..., Vault], text: str):
    """Before the server is asked, and without showing it."""
    with pytest.raises(SettingsError, match="this is no token of a vault") as raised:
        opened(bao, text).check()
    assert "hunter2" not in whole_of(raised.value)


def test_token_file_that_went_away_is_said(bao: Bao, opened: Callable[..., Vault], tmp_path: Path):
    """An agent that writes it may be slow."""
    vault = opened(bao)
    (tmp_path / "token").unlink()
    with pytest.raises(SettingsError, match="cannot read the vault's token: No such file"):
        vault.check()


def test_engine_of_version_1_is_refused(own_bao: Bao, opened: Callable[..., Vault]):
    """It would take what is written without a word, and keep it under another name."""
    own_bao.client().sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
    vault = opened(own_bao, vault_mount="old")
    for call in (vault.check, lambda: vault.write("shop", "TOKEN", VALUE)):
        with pytest.raises(SettingsError, match='"old" is no kv engine of version 2'):
            call()


def test_missing_engine_is_said(bao: Bao, opened: Callable[..., Vault]):
    """With the setting that names it."""
    with pytest.raises(PenstockError, match=r"no such engine|may not do this with nowhere/"):
        opened(bao, vault_mount="nowhere").check()
    with pytest.raises(SettingsError, match="PENSTOCK_VAULT_MOUNT"):
        opened(bao, vault_mount="nowhere").read("shop", "TOKEN")


def test_sealed_vault_is_the_platforms_trouble(own_bao: Bao, opened: Callable[..., Vault]):
    """Not the step's: it may be tried again when somebody has unsealed it."""
    vault = opened(own_bao)
    vault.write("shop", "TOKEN", VALUE)
    own_bao.client().sys.seal()
    refused(vault, PlatformError, "the vault is sealed; unseal it")


def test_vault_that_went_away_is_the_platforms_trouble(own_bao: Bao, opened: Callable[..., Vault]):
    """In the middle of its work."""
    vault = opened(own_bao)
    vault.write("shop", "TOKEN", VALUE)
    own_bao.process.kill()
    own_bao.process.wait()
    refused(vault, PlatformError, "cannot be reached; start it")


def test_certificates_are_verified(tls_bao: Bao, opened: Callable[..., Vault], monkeypatch: pytest.MonkeyPatch):
    """One that nobody known has signed is refused; VAULT_SKIP_VERIFY changes nothing; a named authority does."""
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "true")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    refused(opened(tls_bao), PlatformError, "certificate cannot be trusted; name the file of the authority")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls_bao.certificate))
    vault = opened(tls_bao)
    vault.write("shop", "TOKEN", VALUE)
    assert vault.read("shop", "TOKEN") == VALUE


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "vault.example:8200",
        "ftp://vault.example",
        "https://",
        "https://user:hunter2@vault.example",
        "https://hunter2@vault.example",
        "http://vault.example:8200",
        "http://10.0.0.5:8200",
        "https://vault.example:port",
    ],
)
def test_address_that_cannot_be_used_is_refused(opened: Callable[..., Vault], address: str | None):
    """None, no URL, with credentials, or one that would show secrets to the network."""
    with pytest.raises(SettingsError, match=r"this is no address|no vault is named|would show secrets") as raised:
        opened(address)
    assert "hunter2" not in whole_of(raised.value)
    assert raised.value.where == "PENSTOCK_VAULT_ADDR"


def test_token_file_must_be_named(vault_settings: Settings):
    """With the variable's name."""
    with pytest.raises(SettingsError, match="no token for the vault is named"):
        open_vault(attrs.evolve(vault_settings, vault="hashicorp", vault_addr="https://vault.example"))


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that always answers the same."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_LIST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>a proxy's page</html>", "what answers is no vault"),
        (200, b"[]", "what answers is no vault"),
        (200, b'{"data": {}}', "has no field|no kv engine"),
        (204, b"", "what answers is no vault"),
        (404, b"<html>not found</html>", "has no secret|no such secret"),
        (429, b'{"errors": ["rate limit"]}', "cannot do this now: rate limit"),
        (500, b'{"errors": ["internal\\nerror"]}', "cannot do this now: internal error"),
        (501, b'{"errors": []}', "not initialised"),
        (502, b"bad gateway", "cannot do this now: BadGateway"),
        (503, b'{"errors": ["Vault is sealed"]}', "is sealed"),
        (503, b"try later", "cannot do this now: VaultDown"),
        (418, b"{}", "cannot do this now: UnexpectedError"),
    ],
)
def test_odd_answers_are_one_line(opened: Callable[..., Vault], status: int, body: bytes, words: str):
    """Other servers, proxies, and vaults in trouble."""
    with answering(status, body) as address:
        refused(opened(address), PenstockError, words)


def test_vault_that_says_nothing_is_given_up(opened: Callable[..., Vault], monkeypatch: pytest.MonkeyPatch):
    """After a time limit, so that a run does not hang."""
    monkeypatch.setattr("penstock.vault.hashicorp.TIMEOUT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        vault = opened(f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused(vault, PlatformError, "did not answer within 1 s")
