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
    PENSTOCK_ENVIRONMENTS    any: one comes to be with its first deployment (default); known: only those that were made
    PENSTOCK_APPS_PORT       first of the ports on which deployed services answer
    PENSTOCK_HTTP_PORT, PENSTOCK_HTTPS_PORT   where services answer by name (`domains`): 80 and 443; default: off
    PENSTOCK_HTTP_HOST       the address on which both listen; default: all of this machine
    PENSTOCK_TLS             who makes certificates of those names: acme (default) or internal, a CA of one's own
    PENSTOCK_ACME_URL        the ACME server's directory; default: that of Let's Encrypt
    PENSTOCK_ACME_EMAIL      where that server's people may write to
    PENSTOCK_ACME_CA         a PEM file of roots to trust the ACME server by, when it is one of your own
    PENSTOCK_ENGINE          where steps run: process (default), docker or kubernetes
    PENSTOCK_DOCKER_HOST     the socket of Docker Engine or Podman; default: DOCKER_HOST, else Docker's own
    PENSTOCK_VAULT           where secrets lie: file (default, encrypted, under PENSTOCK_HOME) or hashicorp
    PENSTOCK_VAULT_KEY_FILE  the key of the encrypted file; default: outside of PENSTOCK_HOME, in ~/.config/penstock
    PENSTOCK_VAULT_ADDR, PENSTOCK_VAULT_MOUNT    of HashiCorp Vault or OpenBao
    PENSTOCK_VAULT_TOKEN_FILE                    holds a token, or {"role_id", "secret_id"} for AppRole
    PENSTOCK_PUBLIC_URL      where people reach the dashboards, for links on commits; default: their loopback address
    PENSTOCK_API_PUBLIC_URL  where people reach the API, for links in mails; default: the API's own address
    PENSTOCK_SMTP_URL        the mail server: smtp+starttls://user:password@host:port, smtps://… or smtp://…
    PENSTOCK_MAIL_FROM       who mails are from, such as Penstock <ci@example.org>
    PENSTOCK_ALLOW_PRIVATE_HOSTS   private hosts or networks where forges may be, such as git.corp.example,10.0.0.0/8
    PENSTOCK_KUBECONFIG, PENSTOCK_KUBERNETES_NAMESPACE                      of the kubernetes engine
"""

import ipaddress
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from penstock.errors import SettingsError

PORTS = {"api": 8700, "dagster": 8701, "dashboards": 8702, "code": 8703, "apps": 8710}
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
DATABASE_FILE = "database.url"
SMTP_FILE = "smtp.url"
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
    http_host: str = ""
    http_port: int | None = None
    https_port: int | None = None
    tls: str = "acme"
    acme_url: str = LETS_ENCRYPT
    acme_email: str | None = None
    acme_ca: Path | None = None
    engine: str = "process"
    environments: str = "any"
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
    api_public_url: str | None = None
    smtp_url: str | None = attrs.field(default=None, repr=False)
    mail_from: str | None = None

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
        database_url=env.get("PENSTOCK_DATABASE_URL") or _kept(home / DATABASE_FILE),
        artifacts_url=env.get("PENSTOCK_ARTIFACTS_URL") or None,
        tls_cert=_file(env, "PENSTOCK_TLS_CERT"),
        tls_key=_file(env, "PENSTOCK_TLS_KEY"),
        http_host=env.get("PENSTOCK_HTTP_HOST", ""),
        http_port=_public_port(env, "PENSTOCK_HTTP_PORT"),
        https_port=_public_port(env, "PENSTOCK_HTTPS_PORT"),
        tls=_one_of(env, "PENSTOCK_TLS", ("acme", "internal")),
        acme_url=env.get("PENSTOCK_ACME_URL") or LETS_ENCRYPT,
        acme_email=env.get("PENSTOCK_ACME_EMAIL") or None,
        acme_ca=_file(env, "PENSTOCK_ACME_CA"),
        engine=env.get("PENSTOCK_ENGINE") or "process",
        environments=_one_of(env, "PENSTOCK_ENVIRONMENTS", ("any", "known")),
        docker_host=env.get("PENSTOCK_DOCKER_HOST") or env.get("DOCKER_HOST") or None,
        vault=env.get("PENSTOCK_VAULT") or "file",
        vault_key_file=_vault_key_file(env),
        vault_addr=env.get("PENSTOCK_VAULT_ADDR") or None,
        vault_token_file=_file(env, "PENSTOCK_VAULT_TOKEN_FILE", "the file that holds the token"),
        vault_mount=env.get("PENSTOCK_VAULT_MOUNT") or "secret",
        kubeconfig=_file(env, "PENSTOCK_KUBECONFIG", "a kubeconfig"),
        public_url=env.get("PENSTOCK_PUBLIC_URL") or None,
        api_public_url=env.get("PENSTOCK_API_PUBLIC_URL") or None,
        smtp_url=env.get("PENSTOCK_SMTP_URL") or _kept(home / SMTP_FILE),
        mail_from=env.get("PENSTOCK_MAIL_FROM") or None,
        allow_private_hosts=tuple(env.get("PENSTOCK_ALLOW_PRIVATE_HOSTS", "").replace(",", " ").split()),
        kubernetes_namespace=env.get("PENSTOCK_KUBERNETES_NAMESPACE") or "penstock",
    )
    _check_ports(settings)
    _check_names(settings)
    _check_listening(settings)
    _check_mail(settings)
    return settings


def _home(env: Mapping[str, str], cwd: Path) -> Path:
    if named := env.get("PENSTOCK_HOME"):
        return Path(named).expanduser().absolute()
    return repository_root(cwd) / ".penstock"


def _kept(path: Path) -> str | None:
    """An address with a password, which this home was started with: in a file, so that no environment shows it."""
    try:
        return path.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"cannot read it: {error.strerror}", where=str(path)) from error


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


def _public_port(env: Mapping[str, str], variable: str) -> int | None:
    """One that the world may see, so privileged ones too; None when it is not set."""
    text = env.get(variable)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise SettingsError(f'"{text[:40]}" is no port', where=variable, remedy="give a number from 1 to 65535")
    return int(text)


def _one_of(env: Mapping[str, str], variable: str, words: tuple[str, ...]) -> str:
    """The first is the default."""
    text = env.get(variable) or words[0]
    if text not in words:
        raise SettingsError(f'"{text[:40]}" cannot stand here', where=variable, remedy=f"write {' or '.join(words)}")
    return text


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


def _check_names(settings: Settings) -> None:
    public = {"PENSTOCK_HTTP_PORT": settings.http_port, "PENSTOCK_HTTPS_PORT": settings.https_port}
    if (settings.http_port is None) != (settings.https_port is None):
        missing = next(variable for variable, port in public.items() if port is None)
        raise SettingsError("names need an HTTP and an HTTPS port", where=missing, remedy="set both, or neither")
    taken = {port: f"PENSTOCK_{name.upper()}_PORT" for name, port in settings.ports.items()}
    for variable, port in public.items():
        if port is not None and port in taken:
            raise SettingsError(f"port {port} is also {taken[port]}", where=variable, remedy="give each its own")
        taken |= {} if port is None else {port: variable}
    _check_acme(settings)


def _check_acme(settings: Settings) -> None:
    try:
        parts = urlsplit(settings.acme_url)
        well = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        well = False
    if not well or re.search(r"[\s\x00-\x1f]", settings.acme_url):
        what, remedy = "it is no https address", f"write one such as {LETS_ENCRYPT}"
        raise SettingsError(what, where="PENSTOCK_ACME_URL", remedy=remedy)
    if settings.acme_email and not re.fullmatch(r"[^\s@,<>]+@[^\s@,<>]+", settings.acme_email):
        what, remedy = "it is no address of mail", "write one such as ops@example.org"
        raise SettingsError(what, where="PENSTOCK_ACME_EMAIL", remedy=remedy)
    if settings.http_host:
        try:
            ipaddress.ip_address(settings.http_host)
        except ValueError as error:
            what, remedy = f'"{settings.http_host[:60]}" is no address', "give an IP address of this machine, or none"
            raise SettingsError(what, where="PENSTOCK_HTTP_HOST", remedy=remedy) from error


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


def _check_mail(settings: Settings) -> None:
    if settings.smtp_url:
        from penstock.notify.smtp import read_server

        read_server(settings.smtp_url, settings.mail_from)
    if settings.api_public_url and not settings.api_public_url.startswith(("https://", "http://")):
        what, remedy = "it is no http(s) address", "write https://ci.example.org"
        raise SettingsError(what, where="PENSTOCK_API_PUBLIC_URL", remedy=remedy)


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
