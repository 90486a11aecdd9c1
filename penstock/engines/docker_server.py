"""One opened Docker Engine (or Podman), what sort it is, and the few calls that the engine makes with it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from penstock.engines.docker_client import DEFAULT_HOST, about, engine_errors, open_docker
from penstock.errors import StepFailure
from penstock.settings import Settings

if TYPE_CHECKING:
    import docker

_GONE = (404, 409)  # it is not there any more, or somebody else is removing it


@attrs.frozen
class Server:
    """
    A connected engine.

    host: how it is addressed, for messages. podman: whether it is Podman's Docker-compatible service.
    """

    client: "docker.DockerClient" = attrs.field(repr=False)
    host: str
    podman: bool

    def info(self) -> Mapping[str, Any]:
        """What the engine tells of itself."""
        found: Mapping[str, Any] = self.client.api.info()
        return found

    def user(self) -> str:
        """
        Who a job runs as, so that its files belong to Penstock's user afterwards: `uid:gid` inside.

        Root inside of a rootless engine's containers is the user who runs the engine.
        """
        rootless = os.getuid() != 0 and is_rootless(self.info())
        return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"

    def create(self, config: Mapping[str, Any], host_config: Mapping[str, Any]) -> str:
        """
        A container that is not started yet. Returns: its id.

        config, host_config: what the SDK's `create_container` and `create_host_config` take.
        Raises: docker.errors.ImageNotFound; StepFailure when the engine refuses what the step asks for.
        """
        from docker.errors import APIError, ImageNotFound

        api = self.client.api
        try:
            return str(api.create_container(host_config=api.create_host_config(**host_config), **config)["Id"])
        except ImageNotFound:
            raise
        except APIError as error:
            text = str(error.explanation or error)
            if "no such image" in text.lower():
                raise ImageNotFound(text, response=error.response) from error
            if host_config.get("init") and "container-init binary not found" in text:  # Podman without catatonit
                return self.create(config, {**host_config, "init": False})
            if "invalid reference format" in text:
                raise StepFailure(f'"{config["image"]}" is no name of an image', remedy="mend `image`") from error
            if error.status_code == 400 and "bind source path" not in text:
                raise StepFailure(f"the engine refuses the step: {text}", remedy="mend its settings") from error
            raise

    def remove(self, container_id: str) -> bool:
        """Kill and remove, with its anonymous volumes. Returns: whether it was still there."""
        from docker.errors import APIError

        try:
            self.client.api.remove_container(container_id, force=True, v=True)
        except APIError as error:
            if error.status_code not in _GONE:
                raise
            return False
        return True

    def discard(self, container_id: str) -> None:
        """Remove it if the engine lets us: what an engine that went away keeps is found by `reap`."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        with suppress(DockerException, RequestException, OSError):
            self.remove(container_id)

    def last_lines(self, container_id: str, lines: int = 20) -> str:
        """The end of a sidecar's log, on one line."""
        printed: bytes = self.client.api.logs(container_id, tail=lines)
        return " | ".join(line for line in printed.decode("utf-8", "replace").splitlines() if line.strip())


@contextmanager
def connected(settings: Settings) -> Iterator[Server]:
    """
    The engine that the settings name, for one piece of work.

    Raises: PlatformError in words for whatever the SDK raises inside and nobody handles.
    """
    host = settings.docker_host or DEFAULT_HOST
    client = open_docker(settings)
    try:
        with engine_errors(host):
            yield Server(client, host, podman="libpod" in about(client.api).get("Server", "").lower())
    finally:
        client.close()


def is_rootless(info: Mapping[str, Any]) -> bool:
    """Whether an engine says that it runs without root."""
    return bool(info.get("Rootless")) or any("rootless" in option for option in info.get("SecurityOptions") or ())
