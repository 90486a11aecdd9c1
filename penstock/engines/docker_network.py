"""The network of jobs that asked for one: out to the world, and to no other job."""

from pathlib import Path

from penstock.engines.docker_container import HOME_LABEL, home_mark
from penstock.engines.docker_server import Server

_NO_NEIGHBOURS = {"com.docker.network.bridge.enable_icc": "false"}


def open_network(server: Server, home: Path) -> str:
    """
    What a container with network joins: a bridge of this home's own on which containers cannot reach each other.

    One for all jobs: a bridge for each would cost a tenth of a second, and an engine has addresses for about thirty.
    Podman's default network on Podman, which has no such switch.
    """
    if server.podman:
        return "bridge"
    name = f"penstock-{home_mark(home)}"
    api = server.client.api
    if not (found := _called(server, name)):
        api.create_network(name, driver="bridge", options=_NO_NEIGHBOURS, labels={HOME_LABEL: home_mark(home)})
        found = _called(server, name)
    return found[0]


def _called(server: Server, name: str) -> list[str]:
    """Ids, oldest first: two processes may have made it at the same time, and the engine lets both."""
    found = [one for one in server.client.api.networks(names=[name]) if one["Name"] == name]
    return [str(one["Id"]) for one in sorted(found, key=lambda one: str(one["Created"]))]
