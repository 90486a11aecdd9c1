"""The network that the services of a project share in one environment, on which each is reached by its name."""

import fcntl
import hashlib
from pathlib import Path
from typing import Any

from penstock.deploy.plan import Service
from penstock.engines.docker_container import home_mark
from penstock.engines.docker_server import Server
from penstock.errors import StepFailure

SHARED_LABEL = "io.penstock.shared"
_NO_ADDRESSES = ("non-overlapping", "could not find an available", "no free subnet")


def network_name(home: Path, service: Service) -> str:
    """The same for all services of a project in an environment, and nobody else's."""
    whose = hashlib.sha256("\0".join((service.environment, service.project)).encode()).hexdigest()
    return f"penstock-{home_mark(home)}-{whose[:12]}"


def open_shared_network(server: Server, home: Path, service: Service) -> str:
    """
    The network's name; made when it is not there.

    Raises: StepFailure when the engine has no addresses left for one more.
    """
    name = network_name(home, service)
    # One at a time: the engine lets two have the same name, and then starts no container on either.
    with (home / "docker-network.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_there(server, name):
            _make(server, name, home)
    return name


def _is_there(server: Server, name: str) -> bool:
    return any(one["Name"] == name for one in server.client.api.networks(names=[name]))


def _make(server: Server, name: str, home: Path) -> None:
    from docker.errors import APIError

    try:
        server.client.api.create_network(name, driver="bridge", labels={SHARED_LABEL: home_mark(home)})
    except APIError as error:
        text = str(error.explanation or error)
        if any(sign in text for sign in _NO_ADDRESSES):
            what = "the engine has no addresses left for another network"
            raise StepFailure(what, remedy="remove unused ones: docker network prune") from error
        raise


def endpoint(network: str, service: Service) -> Any:
    """For the SDK's `create_container`: on the network the service's name leads to the container."""
    from docker.types import EndpointConfig, NetworkingConfig

    return NetworkingConfig({network: EndpointConfig("1.41", aliases=[service.name])})


def remove_unused_networks(server: Server, home: Path) -> None:
    """Those of this home that no container is on; one that is just being joined is made again at the next try."""
    from docker.errors import APIError

    mine = server.client.api.networks(filters={"label": f"{SHARED_LABEL}={home_mark(home)}"})
    for one in mine:
        try:
            if not server.client.api.inspect_network(one["Id"]).get("Containers"):
                server.client.api.remove_network(one["Id"])
        except APIError as error:
            if error.status_code not in (403, 404, 409):  # in use again, or gone
                raise
