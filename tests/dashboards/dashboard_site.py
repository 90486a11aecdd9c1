"""A Penstock of a test's own: home, ports, and the processes that answer."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import httpx
from dashboard_history import Known

from penstock.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Site:
    """Dashboards that answer. known: None where there is no history."""

    url: str
    settings: Settings
    known: Known | None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def short_folder(stack: ExitStack) -> Path:
    """A folder whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))
    folder.chmod(0o711)  # as root, the database runs as a user of its own
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until `url` answers 200."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url, trust_env=False, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer: {log.read_text()}")


@contextmanager
def serving(settings: Settings, argv: list[str], url: str, name: str) -> Iterator[None]:
    """A process of Penstock that answers at `url` for as long as the block runs."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env |= {f"PENSTOCK_{part.upper()}_PORT": str(port) for part, port in settings.ports.items()}
    env |= {"PENSTOCK_HOME": str(settings.home), "PYTHONPATH": str(ROOT)}
    log = settings.home / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(url, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_dashboards(stack: ExitStack, settings: Settings) -> str:
    """Streamlit as the platform starts it. Returns: its address."""
    url = settings.dashboards_url
    argv = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboards/app.py")]
    argv += ["--server.address", "127.0.0.1", "--server.headless", "true", "--server.fileWatcherType", "none"]
    argv += ["--browser.gatherUsageStats", "false", "--client.toolbarMode", "minimal"]
    argv += ["--server.port", str(settings.ports["dashboards"])]
    stack.enter_context(serving(settings, argv, f"{url}/_stcore/health", "streamlit"))
    return url


def configure(stack: ExitStack) -> Settings:
    """Settings with a home and ports of their own."""
    names = ("api", "dagster", "dashboards", "code", "apps")
    ports = {f"PENSTOCK_{name.upper()}_PORT": str(port) for name, port in zip(names, free_ports(5), strict=True)}
    return load_settings({"PENSTOCK_HOME": str(short_folder(stack)), **ports})
