"""A vault in a home of its own, a real OpenBao, and the command with something on its standard input."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bao_server import Bao, running_bao

from penstock.settings import Settings, load_settings

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of the tests are on this machine, whatever proxy it uses for others."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture
def vault_env(tmp_path: Path) -> dict[str, str]:
    """What makes a process use the file vault of this test."""
    return {"PENSTOCK_HOME": str(tmp_path / "home"), "PENSTOCK_VAULT_KEY_FILE": str(tmp_path / "keys" / "vault.key")}


@pytest.fixture
def vault_settings(vault_env: dict[str, str]) -> Settings:
    return load_settings(vault_env)


@pytest.fixture
def secret(vault_env: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    """secret("set", "NAME", piped=b"value", **env) → the command when it has ended."""

    def call(*words: str, piped: bytes = b"", **more: str) -> "subprocess.CompletedProcess[bytes]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "VAULT_"))}
        return subprocess.run(
            [str(BIN / "penstock"), "secret", *words],
            input=piped,
            capture_output=True,
            cwd=tmp_path,
            env={**inherited, "COLUMNS": "200", **vault_env, **more},
            timeout=120,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """A server that all tests of a worker share; each uses projects of its own."""
    yield from running_bao(tmp_path_factory.mktemp("bao"))


@pytest.fixture
def own_bao(tmp_path: Path) -> Iterator[Bao]:
    """A server that a test may seal or stop."""
    yield from running_bao(tmp_path)


@pytest.fixture
def tls_bao(tmp_path: Path) -> Iterator[Bao]:
    """A server with a certificate of an authority of its own."""
    yield from running_bao(tmp_path, tls=True)
