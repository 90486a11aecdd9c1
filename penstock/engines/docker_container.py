"""What a job's and a sidecar's container is: pure words for the engine's API."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from penstock.engines import DEFAULT_PIDS, Job, Sidecar
from penstock.pipeline.spec import WORKSPACE

HOME_LABEL, RUN_LABEL, STEP_LABEL = "io.penstock.home", "io.penstock.run", "io.penstock.step"
STOP_GRACE_S = 3
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_TMP = {"/tmp": "exec,nosuid,nodev,mode=1777"}
_NO_NEW_PRIVILEGES = ["no-new-privileges:true"]
# What the start scripts of common service images need to become their own user; nothing that reaches out.
_SIDECAR_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "NET_BIND_SERVICE"]


def home_mark(home: Path) -> str:
    """Names a PENSTOCK_HOME without telling it: another Penstock on this machine reaps its own runs alone."""
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def labels(home: Path, run_id: str, step: str = "") -> dict[str, str]:
    """The labels of a run's containers, or of one step's."""
    found = {HOME_LABEL: home_mark(home), RUN_LABEL: run_id}
    return {**found, STEP_LABEL: step} if step else found


def inside(work_dir: str) -> PurePosixPath:
    """The folder to start in, as seen inside, whether it was written with /workspace or without."""
    return PurePosixPath(os.path.normpath(PurePosixPath(WORKSPACE, work_dir)))


def in_order(argv: Sequence[str]) -> list[str]:
    """
    A shell writes to one pipe for both streams, and so what it prints comes in its true order.

    The engine reads stdout and stderr from two pipes; which of two lines came first is lost there. What is no shell
    stays as it is: its image may have none.
    """
    if PurePosixPath(argv[0]).name not in _SHELLS:
        return list(argv)
    return [argv[0], "-c", 'exec "$0" "$@" 2>&1', *argv]


def job_config(job: Job, marks: Mapping[str, str], user: str, *, terminal: bool = False) -> dict[str, Any]:
    """For `create_container`: the image's own entrypoint and health check have no say."""
    return {
        "image": job.image,
        "entrypoint": list(job.argv) if terminal else in_order(job.argv),
        "command": [],
        "environment": {"HOME": "/tmp", "WORKSPACE": WORKSPACE, **job.env},
        "working_dir": str(inside(job.work_dir)),
        "user": user,
        "labels": dict(marks),
        "tty": terminal,
        "stdin_open": terminal,
        "healthcheck": {"test": ["NONE"]},
        "use_config_proxy": job.network,
    }


def job_host_config(
    job: Job, network: str, secret_files: Mapping[str, Path], hosts: Mapping[str, Path]
) -> dict[str, Any]:
    """For `create_host_config`: closed but for what the job asks for. hosts: see `sidecar_host_config`."""
    from docker.types import LogConfig, Mount

    mounts = [Mount(WORKSPACE, str(job.workspace), type="bind", read_only=not job.workspace_writable)]
    mounts += [Mount(str(folder), str(folder), type="bind", read_only=True) for folder in job.read_only]
    mounts += [Mount(one.inside, str(one.folder), type="bind", read_only=not one.writable) for one in job.mounts]
    mounts += _files(job.secrets_folder, secret_files) + _files("/etc", hosts)
    return {
        **_limits(job),
        "network_mode": network,
        "mounts": mounts,
        "tmpfs": _TMP,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": _NO_NEW_PRIVILEGES,
        "init": True,
        "log_config": LogConfig(type="none"),  # what is printed goes to us alone: it cannot fill the engine's disk
    }


def sidecar_config(sidecar: Sidecar, marks: Mapping[str, str]) -> dict[str, Any]:
    """For `create_container`: the image's own user and entrypoint; `argv` is what docker calls the command."""
    return {
        "image": sidecar.image,
        "command": None if sidecar.argv is None else list(sidecar.argv),
        "environment": dict(sidecar.env),
        "labels": dict(marks),
        "healthcheck": {"test": ["NONE"]},
    }


def sidecar_host_config(job: Job, network: str, hosts: Mapping[str, Path], *, podman: bool) -> dict[str, Any]:
    """
    For `create_host_config`: it may write to its own file system, which is thrown away; its log is small.

    hosts: `hosts` → the file that knows the sidecars' names; Podman has no other way to tell them to a container
    that joins the network of another.
    """
    from docker.types import LogConfig

    log = {"type": "k8s-file", "config": {"max-size": "1m"}}
    if not podman:
        log = {"type": "local", "config": {"max-size": "1m", "max-file": "1", "compress": "false"}}
    return {
        **_limits(job),
        "network_mode": network,
        "mounts": _files("/etc", hosts),
        "tmpfs": _TMP,
        "cap_drop": ["ALL"],
        "cap_add": _SIDECAR_CAPABILITIES,
        "security_opt": _NO_NEW_PRIVILEGES,
        "init": True,
        "log_config": LogConfig(**log),
    }


def hosts_file(names: Sequence[str]) -> bytes:
    """What /etc/hosts says where a job and its sidecars are."""
    lines = ["127.0.0.1 localhost", "::1 localhost", *(f"127.0.0.1 {name}" for name in names)]
    return ("\n".join(lines) + "\n").encode()


def _files(folder: str, files: Mapping[str, Path]) -> list[Any]:
    from docker.types import Mount

    return [Mount(f"{folder}/{name}", str(path), type="bind", read_only=True) for name, path in files.items()]


def _limits(job: Job) -> dict[str, Any]:
    """Memory without more swap; no more processors than there are, which the engine would refuse."""
    limits: dict[str, Any] = {"pids_limit": job.pids or DEFAULT_PIDS}
    if job.memory_bytes:
        limits |= {"mem_limit": job.memory_bytes, "memswap_limit": job.memory_bytes}
    if job.cpus:
        limits["nano_cpus"] = round(min(job.cpus, float(os.cpu_count() or 1)) * 1_000_000_000)
    return limits
