"""What a service's container is, in the words of the engine's API; and how it is found again."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.deploy.plan import ContainerSettings, Service
from penstock.deploy.sandbox import MARK
from penstock.deploy.targets import Assignment
from penstock.deploy.targets.docker_discovery import endpoint
from penstock.engines import SECRETS_FOLDER
from penstock.engines.docker_container import HOME_LABEL, home_mark
from penstock.errors import InputError
from penstock.images.container import LOOPBACK, parse_volume

PROJECT_LABEL, ENVIRONMENT_LABEL, SERVICE_LABEL = (
    "io.penstock.project",
    "io.penstock.environment",
    "io.penstock.service",
)
RELEASE_LABEL, INSTANCE_LABEL = "io.penstock.release", "io.penstock.instance"
_TMP = {"/tmp": "exec,nosuid,nodev,mode=1777"}
# Twice: what was said while no keeper listened is read by the next one.
_LOG = {"type": "local", "config": {"max-size": "2m", "max-file": "2", "compress": "false"}}
_LOG_OF_PODMAN = {"type": "k8s-file", "config": {"max-size": "2m"}}
_NANOSECONDS = 1_000_000_000


def container_of(assignment: Assignment) -> ContainerSettings:
    """Raises: InputError for a release that says none."""
    if assignment.configuration.container is None:
        raise InputError("the release names no image", where=assignment.release_id)
    return assignment.configuration.container


def service_labels(home: Path, service: Service) -> dict[str, str]:
    """Whose it is."""
    return {
        HOME_LABEL: home_mark(home),
        PROJECT_LABEL: service.project,
        ENVIRONMENT_LABEL: service.environment,
        SERVICE_LABEL: service.name,
    }


def instance_labels(home: Path, assignment: Assignment) -> dict[str, str]:
    """By which a container is found again."""
    own = {RELEASE_LABEL: assignment.release_id, INSTANCE_LABEL: assignment.instance_id}
    return {**service_labels(home, assignment.service), **own}


def by_instance(home: Path, instance_id: str = "") -> dict[str, list[str]]:
    """A filter for the containers of one instance, or of all of this home's."""
    wanted = f"{INSTANCE_LABEL}={instance_id}" if instance_id else INSTANCE_LABEL
    return {"label": [f"{HOME_LABEL}={home_mark(home)}", wanted]}


def volume_name(home: Path, service: Service, name: str) -> str:
    """What the engine calls a service's volume: the same for all of its releases, and nobody else's."""
    whose = hashlib.sha256("\0".join((service.environment, service.project, service.name)).encode()).hexdigest()
    return f"penstock-{home_mark(home)}-{whose[:12]}-{name}"


def container_config(
    home: Path, assignment: Assignment, image: str, secret_files: Mapping[str, Path], *, network: str
) -> dict[str, Any]:
    """For the SDK's `create_container`. secret_files: variable → the file with its value."""
    container, configuration = container_of(assignment), assignment.configuration
    told = {"PORT": str(container.port), "HOST": "0.0.0.0", MARK: assignment.instance_id}
    files = {f"{variable}_FILE": f"{SECRETS_FOLDER}/{variable}" for variable in secret_files}
    return {
        "image": image,
        "name": f"penstock-{home_mark(home)}-{assignment.instance_id}",
        **_command(configuration.command),
        "environment": {**configuration.env, **files, **told},
        "user": container.user,
        "labels": instance_labels(home, assignment),
        "ports": [(container.port, "tcp")],
        "healthcheck": _health_check(assignment),
        "networking_config": endpoint(network, assignment.service),
        "use_config_proxy": False,
    }


def _command(command: tuple[str, ...] | str | None) -> dict[str, Any]:
    """Words are for the image's entrypoint; a line stands in its place, for the image's shell."""
    if isinstance(command, str):
        return {"entrypoint": ["/bin/sh", "-c", command], "command": []}
    return {"command": None if command is None else list(command)}


def _health_check(assignment: Assignment) -> dict[str, Any]:
    """Off, or the image's own at the release's pace."""
    check = assignment.configuration.health
    if check.kind != "docker":
        return {"test": ["NONE"]}
    return {
        "test": [],
        "interval": round(max(check.interval_s, 0.001) * _NANOSECONDS),
        "timeout": round(max(check.timeout_s, 0.001) * _NANOSECONDS),
        "retries": check.unhealthy_after,
        "start_period": round(check.start_period_s * _NANOSECONDS),
    }


def host_config(
    home: Path, assignment: Assignment, secret_files: Mapping[str, Path], *, network: str, port: int, podman: bool
) -> dict[str, Any]:
    """
    For the SDK's `create_host_config`: closed but for what the release asks for.

    port: of this machine's loopback, on which the container's is published.
    """
    from docker.types import LogConfig

    container = container_of(assignment)
    limits: dict[str, Any] = {"pids_limit": container.pids}
    limits |= {"mem_limit": container.memory_bytes, "memswap_limit": container.memory_bytes}
    if container.cpus:
        limits["nano_cpus"] = round(min(container.cpus, float(os.cpu_count() or 1)) * _NANOSECONDS)
    return {
        **limits,
        "network_mode": network,
        "port_bindings": {f"{container.port}/tcp": [(LOOPBACK, port)]},
        "mounts": _mounts(home, assignment, secret_files),
        "tmpfs": _TMP if container.read_only else None,
        "read_only": container.read_only,
        "cap_drop": ["ALL"],
        "cap_add": list(container.capabilities),
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "log_config": LogConfig(**(_LOG_OF_PODMAN if podman else _LOG)),
    }


def _mounts(home: Path, assignment: Assignment, secret_files: Mapping[str, Path]) -> list[Any]:
    from docker.types import Mount

    found = []
    for volume in (parse_volume(text) for text in container_of(assignment).volumes):
        source = volume_name(home, assignment.service, volume.source)
        found.append(
            Mount(
                volume.target,
                source,
                type="volume",
                read_only=volume.read_only,
                labels=service_labels(home, assignment.service),
            )
        )
    for variable, path in secret_files.items():
        found.append(Mount(f"{SECRETS_FOLDER}/{variable}", str(path), type="bind", read_only=True))
    return found


def published_port(inspected: Mapping[str, Any], port: int) -> int | None:
    """Where this machine reaches the container's port; None while it is not published, as when it does not run."""
    bound = (inspected["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
    return int(bound[0]["HostPort"]) if bound else None
