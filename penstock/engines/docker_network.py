"""The network of jobs that asked for one: out to the world, and to no other job."""

import fcntl
from pathlib import Path

from penstock.engines.docker_server import Server

_NAME = "penstock"
_NO_NEIGHBOURS = {"com.docker.network.bridge.enable_icc": "false"}


def open_network(server: Server, home: Path) -> str:
    """
    What a container with network joins: a bridge called `penstock` on which containers cannot reach each other.

    One for all jobs: a bridge for each would cost a tenth of a second, and an engine has addresses for about thirty.
    Podman's default network on Podman, which has no such switch.
    """
    if server.podman:
        return "bridge"
    return _called(server, _NAME) or _made(server, home)


def _made(server: Server, home: Path) -> str:
    """One at a time: the engine lets two have the same name, and then starts no container on either."""
    with (home / "docker-network.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := _called(server, _NAME):
            return found
        made = server.client.api.create_network(_NAME, driver="bridge", options=_NO_NEIGHBOURS)
        return str(made["Id"])


def _called(server: Server, name: str) -> str | None:
    """The id of the network with just this name."""
    found = [one for one in server.client.api.networks(names=[name]) if one["Name"] == name]
    return str(found[0]["Id"]) if found else None
