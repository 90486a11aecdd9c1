"""
Where Penstock lives and listens: PENSTOCK_* variables, read once, validated, frozen.

    PENSTOCK_HOME            everything that Penstock keeps; default `.penstock` in the repository's root
    PENSTOCK_DATABASE_URL    an external PostgreSQL; default: the embedded one under PENSTOCK_HOME
    PENSTOCK_ARTIFACTS_URL   where artifacts and the warehouse's Parquet go; default: a folder under PENSTOCK_HOME
    PENSTOCK_ARTIFACTS_ENDPOINT, _REGION, _ACCESS_KEY_ID, _SECRET_ACCESS_KEY_FILE, _ALLOW_HTTP   see docs/artifacts.md
    PENSTOCK_WAREHOUSE_KEEP_DAYS   days to keep rows of old scans and runs; default: for ever
    PENSTOCK_HOST            where the API listens; anything but loopback needs TLS
    PENSTOCK_TLS_CERT, PENSTOCK_TLS_KEY
    PENSTOCK_API_PORT, PENSTOCK_DAGSTER_PORT, PENSTOCK_DASHBOARDS_PORT, PENSTOCK_CODE_PORT
    PENSTOCK_API_UPLOAD_LIMIT   the largest artifact that the API takes, such as 500m or 20g; default 16g
    PENSTOCK_APPS_PORT       first of the ports on which deployed services answer
    PENSTOCK_ENGINE          where steps run: process (default), docker or kubernetes
    PENSTOCK_DOCKER_HOST     the socket of Docker Engine or Podman; default: DOCKER_HOST, else Docker's own
    PENSTOCK_VAULT           where secrets lie: file (default, encrypted, under PENSTOCK_HOME) or hashicorp
    PENSTOCK_VAULT_KEY_FILE  the key of the encrypted file; default: outside of PENSTOCK_HOME, in ~/.config/penstock
    PENSTOCK_VAULT_ADDR, PENSTOCK_VAULT_MOUNT    of HashiCorp Vault or OpenBao
    PENSTOCK_VAULT_TOKEN_FILE                    holds a token, or {"role_id", "secret_id"} for AppRole
    PENSTOCK_PUBLIC_URL      where people reach the dashboards, for links on commits; default: their loopback address
    PENSTOCK_ALLOW_PRIVATE_HOSTS   private hosts or networks where forges may be, such as git.corp.example,10.0.0.0/8
    PENSTOCK_KUBECONFIG, PENSTOCK_KUBERNETES_NAMESPACE                      of the kubernetes engine
"""

import ipaddress
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from penstock.errors import SettingsError

PORTS = {"api": 8700, "dagster": 8701, "dashboards": 8702, "code": 8703, "apps": 8710}
DATABASE_FILE = "database.url"
PRIVATE_FOLDERS = (
    *("artifacts", "data", "kept", "lake", "logs", "mirrors", "releases", "repositories", "templates", "tools"),
    "workspaces",
)


@attrs.frozen
class Settings:
    """The whole configuration of one Penstock. Paths are absolute."""

    home: Path
    ports: Mapping[str, int]
    host: str = "127.0.0.1"
    database_url: str | None = attrs.field(default=None, repr=False)
    artifacts_url: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    engine: str = "process"
    docker_host: str | None = None
    vault: str = "file"
    vault_key_file: Path = attrs.field(factory=lambda: Path.home() / ".config" / "penstock" / "vault.key")
    vault_addr: str | None = None
    vault_token_file: Path | None = None
    vault_mount: str = "secret"
    kubeconfig: Path | None = None
    kubernetes_namespace: str = "penstock"
    allow_private_hosts: tuple[str, ...] = ()
    public_url: str | None = None

    @property
    def api_url(self) -> str:
        """Base address of the API, without a trailing slash."""
        scheme = "https" if self.tls_cert else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.ports['api']}"

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver; always loopback, it has no authentication."""
        return f"http://127.0.0.1:{self.ports['dagster']}"

    @property
    def dashboards_url(self) -> str:
        """Base address of the dashboards; always loopback."""
        return f"http://127.0.0.1:{self.ports['dashboards']}"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def templates_path(self) -> Path:
        """The platform's library of templates."""
        return self.home / "templates"

    @property
    def artifacts_path(self) -> str:
        """Folder or URL for the artifact store."""
        return self.artifacts_url or str(self.home / "artifacts")

    @property
    def lake_path(self) -> str:
        """Folder or URL for the warehouse's Parquet files."""
        return f"{self.artifacts_url.rstrip('/')}/lake" if self.artifacts_url else str(self.home / "lake")


def load_settings(env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """
    Settings from the environment.

    Raises: SettingsError naming the variable and the remedy.
    """
    env = os.environ if env is None else env
    home = _home(env, cwd or Path.cwd())
    settings = Settings(
        home=home,
        ports={name: _port(env, name, default) for name, default in PORTS.items()},
        host=env.get("PENSTOCK_HOST", "127.0.0.1"),
        database_url=env.get("PENSTOCK_DATABASE_URL") or _kept_database_url(home),
        artifacts_url=env.get("PENSTOCK_ARTIFACTS_URL") or None,
        tls_cert=_file(env, "PENSTOCK_TLS_CERT"),
        tls_key=_file(env, "PENSTOCK_TLS_KEY"),
        engine=env.get("PENSTOCK_ENGINE") or "process",
        docker_host=env.get("PENSTOCK_DOCKER_HOST") or env.get("DOCKER_HOST") or None,
        vault=env.get("PENSTOCK_VAULT") or "file",
        vault_key_file=_vault_key_file(env),
        vault_addr=env.get("PENSTOCK_VAULT_ADDR") or None,
        vault_token_file=_file(env, "PENSTOCK_VAULT_TOKEN_FILE", "the file that holds the token"),
        vault_mount=env.get("PENSTOCK_VAULT_MOUNT") or "secret",
        kubeconfig=_file(env, "PENSTOCK_KUBECONFIG", "a kubeconfig"),
        public_url=env.get("PENSTOCK_PUBLIC_URL") or None,
        allow_private_hosts=tuple(env.get("PENSTOCK_ALLOW_PRIVATE_HOSTS", "").replace(",", " ").split()),
        kubernetes_namespace=env.get("PENSTOCK_KUBERNETES_NAMESPACE") or "penstock",
    )
    _check_ports(settings)
    _check_listening(settings)
    return settings


def _home(env: Mapping[str, str], cwd: Path) -> Path:
    if named := env.get("PENSTOCK_HOME"):
        return Path(named).expanduser().absolute()
    return repository_root(cwd) / ".penstock"


def _kept_database_url(home: Path) -> str | None:
    """The external database that this home was started with; in a file, so that no environment listing shows it."""
    try:
        return (home / DATABASE_FILE).read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"cannot read it: {error.strerror}", where=str(home / DATABASE_FILE)) from error


def keep_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, complete or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600, exist_ok=False)
    part.write_text(text)
    part.replace(path)


def repository_root(cwd: Path) -> Path:
    """The root of the git work tree around `cwd`, else `cwd` itself."""
    for folder in (cwd.absolute(), *cwd.absolute().parents):
        if (folder / ".git").exists():
            return folder
    return cwd.absolute()


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    variable = f"PENSTOCK_{name.upper()}_PORT"
    text = env.get(variable, str(default))
    if not text.isdecimal() or not 1024 <= int(text) <= 65000:
        raise SettingsError(f'"{text}" is no usable port', where=variable, remedy="give a number from 1024 to 65000")
    return int(text)


def _check_ports(settings: Settings) -> None:
    seen: dict[int, str] = {}
    for name, port in settings.ports.items():
        if port in seen:
            raise SettingsError(
                f"port {port} is also PENSTOCK_{seen[port].upper()}_PORT",
                where=f"PENSTOCK_{name.upper()}_PORT",
                remedy="give each its own",
            )
        seen[port] = name


def _vault_key_file(env: Mapping[str, str]) -> Path:
    named = env.get("PENSTOCK_VAULT_KEY_FILE")
    folder = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(named).expanduser().absolute() if named else folder / "penstock" / "vault.key"


def _file(env: Mapping[str, str], variable: str, what: str = "a PEM file") -> Path | None:
    text = env.get(variable)
    if not text:
        return None
    if not Path(text).is_file():
        raise SettingsError(f'no file "{text}"', where=variable, remedy=f"name {what}")
    return Path(text).absolute()


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_listening(settings: Settings) -> None:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise SettingsError("certificate and key go together", where="PENSTOCK_TLS_CERT", remedy="set both")
    if not is_loopback(settings.host) and not settings.tls_cert:
        raise SettingsError(
            f'refusing to listen on "{settings.host}" without TLS',
            where="PENSTOCK_HOST",
            remedy="set PENSTOCK_TLS_CERT and PENSTOCK_TLS_KEY, or stay on 127.0.0.1",
        )


def create_home(settings: Settings) -> Path:
    """
    Make PENSTOCK_HOME (mode 0711: the embedded database's own user passes through), its folders (nobody else
    does) and keep git out of it.

    Raises: SettingsError when the folder cannot be made or written.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o711)
        for name in PRIVATE_FOLDERS:
            (settings.home / name).mkdir(exist_ok=True, mode=0o700)
            (settings.home / name).chmod(0o700)
        (settings.home / ".gitignore").write_text("*\n")
    except OSError as error:
        raise SettingsError(
            f"cannot write {settings.home}: {error.strerror}",
            where="PENSTOCK_HOME",
            remedy="name a folder you own",
        ) from error
    return settings.home


def require_git() -> None:
    """Raises: SettingsError when the git command is not there."""
    try:
        subprocess.run(["git", "--version"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError("the git command was not found", remedy="install git and put it on PATH") from error
