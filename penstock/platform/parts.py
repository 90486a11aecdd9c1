"""Which processes are one Penstock, and how each is started."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import sqlalchemy as sa

import penstock
from penstock.deploy.caddy import running_configuration
from penstock.errors import PlatformError
from penstock.platform.dagster import DagsterClient
from penstock.platform.supervisor import Part, logged
from penstock.settings import DATABASE_FILE, SMTP_FILE, Settings, keep_secret
from penstock.sockets import make_private, socket_folder
from penstock.state.database import DAGSTER_SCHEMA, dagster_url
from penstock.state.embedded import EmbeddedPostgres

WARM_SOCKET = "warm.sock"
_DAGSTER_YAML = """\
# Written at every start; the address may hold a password, so only its owner can read this file.
storage:
  custom:
    module: definitions.storage
    class: PostgresStorage
    config:
      postgres_url: "{database}"
run_coordinator:
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
run_launcher:
  module: definitions.launcher
  class: WarmRunLauncher
  config:
    socket: "{socket}"
compute_logs:
  module: definitions.logs
  class: RedirectedLogs
  config:
    base_dir: "{logs}"
local_artifact_storage:
  module: dagster._core.storage.root
  class: LocalArtifactStorage
  config:
    base_dir: "{home}"
run_monitoring:
  enabled: true
  start_timeout_seconds: 120
  cancel_timeout_seconds: 30
  poll_interval_seconds: 30
telemetry:
  enabled: false
nux:
  enabled: false
"""
_WORKSPACE_YAML = """\
load_from:
  - grpc_server:
      host: 127.0.0.1
      port: {port}
      location_name: penstock
"""


def checkout() -> Path:
    """
    The folder that holds Dagster's rooms and the dashboards.

    Raises: PlatformError where only the package is installed.
    """
    root = Path(penstock.__file__).parents[1]
    if not (root / "definitions").is_dir():
        raise PlatformError("the platform is not installed here", remedy="start it from a checkout or its image")
    return root


def write_configuration(settings: Settings) -> None:
    """Dagster's files under PENSTOCK_HOME."""
    settings.dagster_home.mkdir(exist_ok=True, mode=0o700)
    make_private(warm_socket(settings).parent, {os.geteuid()})
    text = _DAGSTER_YAML.format(
        database=dagster_url(settings),
        socket=warm_socket(settings),
        logs=settings.home / "logs" / "dagster",
        home=settings.dagster_home,
    )
    keep_secret(settings.dagster_home / "dagster.yaml", text)
    keep_secret(settings.dagster_home / "workspace.yaml", _WORKSPACE_YAML.format(port=settings.ports["code"]))


def keep_database_address(settings: Settings) -> None:
    """Let other processes find the external database that this home was started with; call it when it has answered."""
    if settings.database_url:
        keep_secret(settings.home / DATABASE_FILE, settings.database_url)


def keep_mail_address(settings: Settings) -> None:
    """The same for the mail server, whose address may hold a password too."""
    if settings.smtp_url:
        keep_secret(settings.home / SMTP_FILE, settings.smtp_url)


def warm_socket(settings: Settings) -> Path:
    """Where the run server listens."""
    return socket_folder(settings.home / "run", WARM_SOCKET) / WARM_SOCKET


def environment(settings: Settings, root: Path) -> dict[str, str]:
    """The environment of every part. It holds no secret: what is one lies in files under PENSTOCK_HOME."""
    dropped = {"PENSTOCK_DATABASE_URL", "PENSTOCK_SMTP_URL", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME"}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    ports = {f"PENSTOCK_{name.upper()}_PORT": str(port) for name, port in settings.ports.items()}
    own = {
        "PENSTOCK_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONPATH": str(root),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    return {**env, **ports, **own}


def create_dagster_tables(settings: Settings, database: sa.Engine) -> None:
    """
    Let Dagster make its tables where there are none, once, before several of its processes do so at the same time.

    Raises: PlatformError with Dagster's last words.
    """
    tables = [sa.func.to_regclass(f"{DAGSTER_SCHEMA}.{name}") for name in ("runs", "event_logs", "jobs")]
    with database.connect() as connection:
        if all(connection.execute(sa.select(*tables)).one()):
            return
    root = checkout()
    make = [sys.executable, "-c", "import dagster; dagster.DagsterInstance.get().dispose()"]
    done = subprocess.run(
        make, check=False, capture_output=True, text=True, cwd=root, env=environment(settings, root), timeout=120
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PlatformError(f"Dagster could not make its tables: {said[-1]}")


def platform_parts(settings: Settings) -> list[Part]:
    """Every part but the database, in the order in which they are started."""
    root = checkout()
    env = environment(settings, root)
    python, bin_dir = sys.executable, Path(sys.executable).parent
    workspace = str(settings.dagster_home / "workspace.yaml")

    def part(name: str, argv: list[str], ready: Callable[[], bool], **options: Any) -> Part:
        log = settings.home / "logs" / f"{name}.log"
        return Part(name, lambda: logged(argv, log, cwd=root, env=env), ready, **options)

    code = [str(bin_dir / "dagster"), "code-server", "start", "-f", str(root / "definitions/__init__.py")]
    code += ["-d", str(root), "-a", "defs", "--location-name", "penstock", "-h", "127.0.0.1"]
    port = settings.ports["code"]
    code += ["-p", str(port)]
    web = [str(bin_dir / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(settings.ports["dagster"]), "-w", workspace]
    warm = [python, "-m", "definitions.warm", "--socket", str(warm_socket(settings))]
    warm += ["--loader", "definitions.catalog:load", "--dagster-home", str(settings.dagster_home)]
    streamlit = [str(bin_dir / "streamlit"), "run", str(root / "dashboards/app.py"), *_STREAMLIT]
    streamlit += ["--server.port", str(settings.ports["dashboards"])]
    caddy, keeper = [python, "-m", "penstock.deploy.caddy"], [python, "-m", "penstock.deploy.keeper"]
    # What starts runs leaves before what executes them, and that before what a deployment needs to be undone.
    return [
        part("code", code, lambda: _listens(port), whole=lambda pid: not _listens(port) or has_child(pid), leaves=1),
        part("runs", warm, lambda: _answers_on(warm_socket(settings)), grace_s=15.0, leaves=1),
        part("caddy", caddy, lambda: running_configuration(settings) is not None, leaves=2),
        part("keeper", keeper, lambda: True, grace_s=30.0, leaves=2),
        part("dagster", web, DagsterClient.at(settings.dagster_url).answers),
        part("daemon", [str(bin_dir / "dagster-daemon"), "run", "-w", workspace], lambda: True),
        part("api", [python, "-m", "penstock.api"], lambda: _is_ok(f"{settings.api_url}/api/v1/health")),
        part("dashboards", streamlit, lambda: _is_ok(f"{settings.dashboards_url}/_stcore/health")),
    ]


_STREAMLIT = (
    *("--server.address", "127.0.0.1", "--server.headless", "true", "--server.fileWatcherType", "none"),
    *("--browser.gatherUsageStats", "false", "--client.toolbarMode", "minimal"),
)


def database_part(settings: Settings) -> Part | None:
    """The embedded PostgreSQL as a part; None with an external one."""
    if settings.database_url:
        return None
    server = EmbeddedPostgres(settings.home)
    return Part(
        "postgres", lambda: server.spawn(die_with_parent=True), server.answers, grace_s=20.0, stop_signal=signal.SIGINT
    )


def port_variables(settings: Settings) -> Mapping[str, int]:
    """Variable → port, of the parts that listen on one."""
    return {f"PENSTOCK_{name.upper()}_PORT": settings.ports[name] for name in ("api", "dagster", "dashboards", "code")}


def has_child(pid: int) -> bool:
    """Dagster's code server passes all questions to a child, and goes on without it when that dies."""
    try:
        return any(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False
