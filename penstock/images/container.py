"""A container that a pipeline asks for: what it is, in the words of the engine's API."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import attrs

from penstock.engines import SECRETS_FOLDER

LOOPBACK = "127.0.0.1"
_PORT = re.compile(r"(?:(\d{1,5}):)?(\d{1,5})(?:/(tcp|udp))?")
_VOLUME = re.compile(r"([^:]+):(/[^:]*)(?::(ro|rw))?")
_VOLUME_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_NOT_TO_COVER = ("/proc", "/sys", "/dev", SECRETS_FOLDER)


@attrs.frozen
class Port:
    """A port of the container, published on this machine alone. host: 0 for any that is free."""

    container: int
    host: int = 0
    protocol: str = "tcp"


@attrs.frozen
class Volume:
    """source: a volume's name, or (`of_workspace`) a path relative to the workspace. target: a path inside."""

    source: str
    target: str
    of_workspace: bool
    read_only: bool = False


@attrs.frozen
class Container:
    """
    What to run. entrypoint, command: None for the image's own. user: None for the image's own.

    network: whether it may reach the network; with ports it must. cpus: may be a fraction. memory_bytes: at most.
    """

    image: str
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    network: bool = False
    user: str | None = None
    read_only: bool = False
    capabilities: tuple[str, ...] = ()
    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int = 4096


def parse_port(text: str) -> Port:
    """`80`, `8080:80` (this machine's first), `53/udp`. Raises: ValueError in words."""
    match = _PORT.fullmatch(text)
    host, inside = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if not match or not 1 <= inside <= 65535 or not (match[1] is None or 1024 <= host <= 65535):
        raise ValueError(
            f'"{text[:40]}" is no port; write 80, or 8080:80 with this machine\'s port (1024 or more) first'
        )
    return Port(inside, host, match[3] or "tcp")


def parse_volume(text: str) -> Volume:
    """`./src:/src:ro` of the workspace, or `name:/data`. Raises: ValueError in words for anything else."""
    match = _VOLUME.fullmatch(text)
    if not match:
        raise ValueError(f'"{text[:60]}" is no volume; write ./folder:/path or name:/path, with :ro if it is read-only')
    source, target = match[1], str(PurePosixPath(match[2]))
    covered = PurePosixPath(target)
    if ".." in covered.parts or target == "/" or any(covered.is_relative_to(path) for path in _NOT_TO_COVER):
        raise ValueError(f'"{target[:60]}" cannot be covered by a volume; choose another path')
    if source == "." or source.startswith(("./", "/workspace")):
        return Volume(_in_workspace(source), target, of_workspace=True, read_only=match[3] == "ro")
    if not _VOLUME_NAME.fullmatch(source):
        raise ValueError(f'"{source[:60]}" is neither a name nor a path of the workspace; write ./folder:{target[:60]}')
    return Volume(source, target, of_workspace=False, read_only=match[3] == "ro")


def _in_workspace(source: str) -> str:
    from penstock.pipeline.spec import path_in_workspace

    return str(path_in_workspace(source))


def volume_name(mark: str, run_id: str, name: str) -> str:
    """What the engine calls a run's volume. mark: of the home."""
    return f"penstock-{mark}-{run_id[:18]}-{name}"


def config_of(container: Container, marks: Mapping[str, str]) -> dict[str, Any]:
    """For the SDK's `create_container`."""
    return {
        "image": container.image,
        "entrypoint": None if container.entrypoint is None else list(container.entrypoint),
        "command": None if container.command is None else list(container.command),
        "environment": dict(container.env),
        "user": container.user,
        "labels": dict(marks),
        "ports": [(port.container, port.protocol) for port in container.ports],
        "healthcheck": {"test": ["NONE"]},
        "use_config_proxy": False,
    }


def host_config_of(
    container: Container, network: str, mounts: Mapping[str, tuple[str, bool, bool]], hosts: tuple[str, ...]
) -> dict[str, Any]:
    """
    For the SDK's `create_host_config`: closed but for what is asked for.

    mounts: path inside → (folder or volume, is it a folder, read-only). hosts: this machine's addresses for ports.
    """
    from docker.types import Mount

    bound = [
        Mount(target, source, type="bind" if folder else "volume", read_only=read_only)
        for target, (source, folder, read_only) in mounts.items()
    ]
    published = {
        f"{port.container}/{port.protocol}": [(host, port.host or None) for host in hosts] for port in container.ports
    }
    limits: dict[str, Any] = {}
    if container.memory_bytes:
        limits = {"mem_limit": container.memory_bytes, "memswap_limit": container.memory_bytes}
    if container.cpus:
        limits["nano_cpus"] = round(min(container.cpus, float(os.cpu_count() or 1)) * 1_000_000_000)
    return {
        **limits,
        "pids_limit": container.pids,
        "network_mode": network,
        "mounts": bound,
        "port_bindings": published,
        "tmpfs": {"/tmp": "exec,nosuid,nodev,mode=1777"} if container.read_only else None,
        "read_only": container.read_only,
        "cap_drop": ["ALL"],
        "cap_add": list(container.capabilities),
        "security_opt": ["no-new-privileges:true"],
        "init": True,
    }


def folder_in(workspace: Path, volume: Volume) -> Path:
    """
    The folder or file of the workspace that a volume is, links followed.

    Raises: InputError when it leads out of the workspace, StepFailure when it is not there.
    """
    from penstock.errors import StepFailure
    from penstock.steps.workspace import inside

    found = inside(workspace, volume.source)
    if not found.exists():
        raise StepFailure(f'there is no "{volume.source}" in the workspace', where="volumes", remedy="mend the path")
    return found
