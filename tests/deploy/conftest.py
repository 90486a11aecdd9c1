"""A whole platform for deployments: embedded PostgreSQL, keeper and Caddy as real processes, on ports that are free."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from penstock.deploy.caddy import caddy_argv, is_free, running_configuration
from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import Release, service_url
from penstock.deploy.rollout import deploy
from penstock.pipeline.cancel import CancelToken
from penstock.processes import spawn, stop_group, wait_until
from penstock.settings import PORTS, Settings, load_settings
from penstock.state.database import hosted_database

APP = Path(__file__).parent / "app"
QUICK = HealthCheck(path="/health", interval_s=0.2, timeout_s=1.0, unhealthy_after=2, start_period_s=5.0)


def free_block(size: int) -> int:
    """The first of `size` loopback ports in a row that nobody listens on."""
    while True:
        first = random.randrange(10_000, 19_000)
        if all(is_free(port) for port in range(first, first + size)):
            return first


def settings_for(home: Path, **given_too: str) -> tuple[Settings, dict[str, str]]:
    """Settings on free ports, and the environment that makes another process read the same ones."""
    first = free_block(30)
    ports = {f"PENSTOCK_{name.upper()}_PORT": str(first + n) for n, name in enumerate(PORTS)}
    ports["PENSTOCK_APPS_PORT"] = str(first + 10)
    key = {"PENSTOCK_VAULT_KEY_FILE": f"{home}.key"}  # beside the home: it may not lie in it
    given = {**ports, **key, **given_too, "PENSTOCK_HOME": str(home)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return load_settings(given), {**inherited, **given}


class Platform:
    """The processes that deployments need, and shortcuts for what the tests do with them."""

    def __init__(self, settings: Settings, env: dict[str, str], engine: sa.Engine, *, bwrap: bool = True) -> None:
        self.settings, self.env, self.engine = settings, env, engine
        self._keeper_env = env if bwrap else {**env, "PATH": str(settings.home / "no-commands")}
        self._log = (settings.home / "platform.log").open("ab")

    def start(self) -> None:
        self.start_keeper()
        self.start_caddy()

    def start_keeper(self) -> None:
        self.keeper = spawn([sys.executable, "-m", "penstock.deploy.keeper"], output=self._log, env=self._keeper_env)

    def start_caddy(self) -> None:
        self.caddy = spawn(caddy_argv(), output=self._log, env=self.env)
        assert wait_until(lambda: running_configuration(self.settings) is not None, limit_s=20)

    def stop(self) -> None:
        for process in (self.keeper, self.caddy):
            stop_group(process, grace_s=15)
        self._log.close()

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def plan(self, name: str, version: str, *, health: HealthCheck = QUICK, **env: str) -> DeploymentPlan:
        return DeploymentPlan(
            service=Service("shop", "production", name),
            commit=version * 4,
            digest=f"sha256:{version}",
            graph_hash="graph",
            run_id=f"run-{version}",
            source=APP,
            configuration=ServiceConfiguration(
                command=(sys.executable, "service.py"), env={"VERSION": version, **env}, health=health
            ),
        )

    def deploy(self, plan: DeploymentPlan, token: CancelToken | None = None) -> Release:
        self.said: list[str] = []
        token = token or CancelToken()
        return deploy(plan, engine=self.engine, settings=self.settings, log=self.said.append, token=token)

    def url(self, name: str) -> str:
        url = service_url(self.engine, Service("shop", "production", name))
        assert url is not None
        return url

    def get(self, name: str, path: str = "/") -> str:
        with urllib.request.urlopen(self.url(name) + path, timeout=20) as answer:
            return str(answer.read().decode())

    def answers(self, name: str, version: str) -> bool:
        try:
            return self.get(name) == version
        except (urllib.error.URLError, OSError):
            return False

    def processes(self) -> list[psutil.Process]:
        """Everything on this machine that runs a file of this platform's home, or was started with its settings."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = str(self.settings.home) in " ".join([*process.cmdline(), *process.environ().values()])
            except psutil.Error:
                continue
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return [process for process in found if process.name() != "postgres"]


@contextmanager
def running_platform(*, bwrap: bool = True, **variables: str) -> Iterator[Platform]:
    # Short, since a unix socket's path is; open to pass through, for the database's own user.
    home = Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))
    home.chmod(0o711)
    settings, env = settings_for(home, **variables)
    try:
        with hosted_database(settings) as engine:
            platform = Platform(settings, env, engine, bwrap=bwrap)
            platform.start()
            try:
                yield platform
            finally:
                platform.stop()
    finally:
        shutil.rmtree(home)
        Path(f"{home}.key").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """One for all tests of a file; each uses service names of its own."""
    with running_platform() as running:
        yield running


@pytest.fixture
def own_platform() -> Iterator[Platform]:
    """One for a test that breaks it."""
    with running_platform() as running:
        yield running
