"""What somebody wants deployed: values, checked once."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import attrs
import msgspec

from penstock.deploy.health import HealthCheck, check_health
from penstock.deploy.sandbox import RESERVED
from penstock.errors import InputError

Source = Path | Callable[[Path], None]


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


class ServiceConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a release runs; part of its immutable record.

    command: words, or a line for /bin/sh. It must answer on $HOST:$PORT.
    drain_s: how long requests that the former release is answering may still take.
    stop_grace_s: between SIGTERM and SIGKILL.
    """

    command: tuple[str, ...] | str
    env: dict[str, str] = {}
    health: HealthCheck = HealthCheck()
    drain_s: float = 10.0
    stop_grace_s: float = 5.0

    @property
    def argv(self) -> list[str]:
        """The command as words."""
        return ["/bin/sh", "-c", self.command] if isinstance(self.command, str) else list(self.command)


@attrs.frozen
class DeploymentPlan:
    """
    One deployment.

    digest: of the artifact that `source` holds.
    source: an unpacked folder, which is copied, or a callable that fills the empty folder it is given.
    Raises: InputError when it cannot be carried out.
    """

    service: Service
    commit: str
    digest: str
    graph_hash: str
    run_id: str
    source: Source = attrs.field(repr=False)
    configuration: ServiceConfiguration

    def __attrs_post_init__(self) -> None:
        for name in (self.service.project, self.service.environment, self.service.name):
            _check_name(name)
        _check_command(self.configuration.command)
        _check_env(self.configuration.env)
        check_health(self.configuration.health, where="health")
        for limit in ("drain_s", "stop_grace_s"):
            if not 0 <= getattr(self.configuration, limit) <= 3600:
                raise InputError("must be from 0 to 3600", where=limit, remedy="give seconds")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[^\s.\x00][^\x00-\x1f]{0,79}", name):
        raise InputError(f'"{name}" cannot name a project, environment or service', remedy="1 to 80 letters")


def _check_command(command: tuple[str, ...] | str) -> None:
    words = (command,) if isinstance(command, str) else command
    if not words or not words[0].strip() or any("\0" in word for word in words):
        raise InputError("there is no command to run", where="command", remedy="say what starts the service")


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            raise InputError(f'"{name}" is no environment variable', where="env", remedy="use letters, digits and _")
        if name in RESERVED:
            raise InputError(f"{name} is given by Penstock", where=f"env.{name}", remedy="read it, leave it out here")
