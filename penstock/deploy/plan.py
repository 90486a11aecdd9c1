"""What somebody wants deployed: values, checked once."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs
import msgspec

from penstock.deploy.domains import check_domains
from penstock.deploy.health import HealthCheck, check_health
from penstock.deploy.sandbox import RESERVED
from penstock.deploy.strategies import Settings as StrategySettings
from penstock.deploy.strategies import check_settings
from penstock.deploy.verification import Check, check_checks
from penstock.engines import DEFAULT_PIDS
from penstock.errors import InputError

Source = Path | Callable[[Path], None]
TargetName = Literal["process", "docker"]
MOST_REPLICAS = 100


@attrs.frozen
class Service:
    """What is deployed where; two deployments of the same one never overlap."""

    project: str
    environment: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name} in {self.environment}"

    @property
    def folder(self) -> Path:
        """A relative folder of its own, whatever characters the names hold."""
        return Path(*(quote(part, safe="") for part in (self.environment, self.project, self.name)))


class ContainerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a container is, beyond what every service says.

    image: as it was asked for. image_id: what that stood for when it was deployed, and what runs; `sha256:…`.
    port: on which the service answers inside. volumes: `name:/path`, kept per service over releases.
    memory_bytes, pids: at most. cpus: at most, may be a fraction; None for all. user: None for the image's own.
    """

    image: str
    image_id: str
    port: int
    volumes: tuple[str, ...] = ()
    memory_bytes: int = 1024**3
    cpus: float | None = None
    pids: int = DEFAULT_PIDS
    read_only: bool = True
    user: str | None = None
    capabilities: tuple[str, ...] = ()


class ServiceConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a release runs; part of its immutable record.

    command: words, or a line for /bin/sh; None for an image's own. A process must answer on $HOST:$PORT.
    secret_env: variable → name of a secret. Values are read when an instance starts, and stand in no record.
    drain_s: how long requests that the former release is answering may still take.
    stop_grace_s: between SIGTERM and SIGKILL.
    container: for the target docker.
    replicas: how many instances. strategy: how the release takes over from the one before.
    verify: asked of a new instance before it gets traffic. smoke: asked when all traffic goes to the release.
    watch_s: how long after that an instance that dies takes the release back; the former one is kept till then.
    domains: names under which the service answers by HTTPS while the release is live.
    """

    command: tuple[str, ...] | str | None = None
    env: dict[str, str] = {}
    secret_env: dict[str, str] = {}
    health: HealthCheck = HealthCheck()
    drain_s: float = 10.0
    stop_grace_s: float = 5.0
    target: TargetName = "process"
    container: ContainerSettings | None = None
    replicas: int = 1
    strategy: StrategySettings = StrategySettings()
    verify: tuple[Check, ...] = ()
    smoke: tuple[Check, ...] = ()
    watch_s: float = 0.0
    domains: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        """The command as words; none for an image's own."""
        return ["/bin/sh", "-c", self.command] if isinstance(self.command, str) else list(self.command or ())


@attrs.frozen
class DeploymentPlan:
    """
    One deployment.

    digest: of the artifact that `source` holds, or of the image.
    source: an unpacked folder, which is copied, or a callable that fills the empty folder it is given; None for an
    image, which holds its files itself.
    rollback_of: the id of the release that this one takes up again.
    Raises: InputError when it cannot be carried out.
    """

    service: Service
    commit: str
    digest: str
    graph_hash: str
    run_id: str
    source: Source | None = attrs.field(repr=False)
    configuration: ServiceConfiguration
    rollback_of: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in (self.service.project, self.service.environment, self.service.name):
            _check_name(name)
        _check_target(self.configuration, self.source)
        _check_env(self.configuration.env, "env")
        _check_env(self.configuration.secret_env, "secret_env")
        _check_overlap(self.configuration)
        check_health(self.configuration.health, where="health")
        _check_rollout(self.configuration)
        check_domains(self.configuration.domains)
        for limit in ("drain_s", "stop_grace_s", "watch_s"):
            if not 0 <= getattr(self.configuration, limit) <= 3600:
                raise InputError("must be from 0 to 3600", where=limit, remedy="give seconds")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[^\s.\x00][^\x00-\x1f]{0,79}", name):
        raise InputError(f'"{name}" cannot name a project, environment or service', remedy="1 to 80 letters")


def _check_target(configuration: ServiceConfiguration, source: Source | None) -> None:
    if configuration.target == "docker":
        _check_container(configuration.container)
    elif configuration.container is not None or source is None:
        raise InputError("a process needs files, and no container", where="target", remedy="write target: docker")
    if configuration.target == "process" or configuration.command is not None:
        _check_command(configuration.command)


def _check_rollout(configuration: ServiceConfiguration) -> None:
    if not 1 <= configuration.replicas <= MOST_REPLICAS:
        remedy = f"give a number from 1 to {MOST_REPLICAS}"
        raise InputError(f"{configuration.replicas} instances cannot be run", where="replicas", remedy=remedy)
    check_settings(configuration.strategy)
    check_checks(configuration.verify, where="verify")
    check_checks(configuration.smoke, where="smoke")


def _check_container(container: ContainerSettings | None) -> None:
    if container is None or not container.image_id:
        raise InputError("the target docker needs an image", where="image", remedy="name one that a step built")
    if not 1 <= container.port <= 65535:
        raise InputError(f"{container.port} is no port", where="port", remedy="give a number from 1 to 65535")


def _check_command(command: tuple[str, ...] | str | None) -> None:
    words = (command,) if isinstance(command, str) else command
    if not words or not words[0].strip() or any("\0" in word for word in words):
        raise InputError("there is no command to run", where="command", remedy="say what starts the service")


def _check_env(env: Mapping[str, str], where: str) -> None:
    for name, value in env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            raise InputError(f'"{name}" is no environment variable', where=where, remedy="use letters, digits and _")
        if name in RESERVED:
            raise InputError(
                f"{name} is given by Penstock", where=f"{where}.{name}", remedy="read it, leave it out here"
            )


def _check_overlap(configuration: ServiceConfiguration) -> None:
    for name in configuration.secret_env:
        if name in configuration.env:
            raise InputError(f"{name} stands in env too", where=f"secret_env.{name}", remedy="leave one of both out")
