"""
A network namespace with one socket in it, for a container that may go out through a gateway alone.

The namespace must be there before the job begins, so that a connection of its first moment finds somebody who
listens. It belongs to a container that does nothing but hold it: the job's image with a tiny program of ours that
sleeps, because an image need hold no other.
"""

import os
import platform
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.engines import Job
from penstock.engines.docker_container import labels
from penstock.engines.docker_server import Server
from penstock.engines.gateways import listen_inside
from penstock.errors import PlatformError

INSIDE = "/.penstock-hold"
Create = Callable[[Mapping[str, object], Mapping[str, object]], str]

_LOADED_AT = 0x400000
# pause() again and again. Machine → (its number in ELF, its code).
_SLEEP = {
    # mov eax, 34; syscall; jmp to the beginning
    "x86_64": (0x3E, bytes.fromhex("b8220000000f05ebf7")),
    # ppoll(NULL, 0, NULL, NULL), aarch64 has no pause: mov x0..x4 0; mov x8, 73; svc 0; b to the beginning
    "aarch64": (0xB7, bytes.fromhex("000080d2010080d2020080d2030080d2040080d2280980d2010000d4f9ffff17")),
}


def sleeping_program(machine: str) -> bytes:
    """
    A static ELF program that sleeps for ever.

    Raises: PlatformError for a machine that it is not written for.
    """
    if machine not in _SLEEP:
        raise PlatformError(f"the network of plugins cannot be filtered on {machine}", remedy="use x86_64 or aarch64")
    number, code = _SLEEP[machine]
    size = 64 + 56 + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    head = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _LOADED_AT + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    return ident + head + segment + code


@contextmanager
def held_network(server: Server, job: Job, home: Path, create: Create) -> Iterator[str]:
    """
    A namespace without any network, in which the job's gateway serves. Gives what the job's container joins.

    create: makes a container; its image is fetched when it is not there.
    Raises: PlatformError when the engine's namespaces cannot be entered from here.
    """
    assert job.gateway is not None
    program = _program(home)
    made = create(_config(job, labels(home, job.run_id, job.step)), _host_config(program))
    try:
        server.client.api.start(made)
        pid = int(server.client.api.inspect_container(made)["State"]["Pid"])
        with job.gateway(listen_inside(pid)):
            yield f"container:{made}"
    finally:
        server.discard(made)


def _program(home: Path) -> Path:
    path = home / "tools" / "hold-network"
    wanted = sleeping_program(platform.machine())
    if not path.is_file() or path.read_bytes() != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(wanted)
        part.chmod(0o755)
        part.replace(path)
    return path


def _config(job: Job, marks: Mapping[str, str]) -> dict[str, object]:
    return {
        "image": job.image,
        "entrypoint": [INSIDE],
        "command": [],
        "working_dir": "/",
        "labels": dict(marks),
        "healthcheck": {"test": ["NONE"]},
    }


def _host_config(program: Path) -> dict[str, object]:
    from docker.types import LogConfig, Mount

    return {
        "network_mode": "none",
        "mounts": [Mount(INSIDE, str(program), type="bind", read_only=True)],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 8,
        "log_config": LogConfig(type="none"),
    }
