"""The target `docker`: instances are containers on the Docker Engine of this machine, from an image."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from penstock.deploy.commands import ask_container, asked
from penstock.deploy.health import HealthCheck, ProbeResult, probe
from penstock.deploy.plan import Source
from penstock.deploy.targets import Assignment, Census, Kept, Wake
from penstock.deploy.targets.docker_container import INSTANCE_LABEL, by_instance
from penstock.deploy.targets.docker_discovery import remove_unused_networks
from penstock.deploy.targets.docker_images import forget_images, keep_image
from penstock.deploy.targets.docker_instance import SECRETS_OF, DockerInstance
from penstock.engines.docker_secrets import forget
from penstock.engines.docker_server import Server, connected
from penstock.errors import InputError, PlatformError, SettingsError, StepFailure
from penstock.settings import Settings, is_loopback

if TYPE_CHECKING:
    from penstock.deploy.releases import Instance, Release
    from penstock.pipeline.cancel import CancelToken

START_LIMIT_S = 60.0
REAP_AGAIN_S = 2.0
REAP_GRACE_S = 5


class DockerTarget:
    """See `Target`."""

    start_limit_s = START_LIMIT_S

    def __init__(self, settings: Settings, wake: Wake) -> None:
        self._settings, self._wake = settings, wake

    def place(self, release: "Release", source: Source | None, token: "CancelToken") -> None:
        """The release's image gets a name that keeps it on the engine."""
        del source  # the image has been found, and holds the files
        container = release.configuration.container
        if container is None:
            raise InputError("the release names no image", where=str(release))
        check_engine_is_here(self._settings)
        with connected(self._settings) as server:
            keep_image(server, self._settings.home, release.id, container.image_id)
            if release.configuration.health.kind == "docker":
                _check_has_health(server, container.image_id, container.image)
        token.raise_if_cancelled()

    def probe(self, check: HealthCheck, instance: "Instance") -> ProbeResult:
        """By HTTP or TCP on the published port, by a command inside, or what the engine says of the image's check."""
        if check.kind == "docker":
            return self._verdict(instance.id)
        if check.kind == "exec":
            return self._execute(check, instance.id)
        if instance.port is None:
            return ProbeResult(False, "it has no port")
        return probe(check, instance.port, proxied=True)

    def _execute(self, check: HealthCheck, instance_id: str) -> ProbeResult:
        with connected(self._settings) as server:
            found = server.client.api.containers(filters=by_instance(self._settings.home, instance_id))
            if not found:
                return ProbeResult(False, f"{asked(check)}: the container does not run")
            return ask_container(check, server, found[0]["Id"])

    def _verdict(self, instance_id: str) -> ProbeResult:
        with connected(self._settings) as server:
            found = server.client.api.containers(all=True, filters=by_instance(self._settings.home, instance_id))
            if not found:
                return ProbeResult(False, "there is no container")
            return _health_of(server.client.api.inspect_container(found[0]["Id"]))

    def forget(self, release_ids: Collection[str]) -> None:
        """The names that kept the releases' images are removed; when the engine is away, by a later deployment."""
        with suppress(PlatformError), connected(self._settings) as server:
            forget_images(server, self._settings.home, release_ids)

    def keep(self, assignment: Assignment) -> Kept:
        """A container that is found again, or started at the first `step`."""
        return DockerInstance(assignment, self._settings, self._wake)

    def reap(self, census: Callable[[], Census]) -> None:
        """In the background: containers of this home's instances that nobody wants or keeps are stopped and removed."""
        forget(self._settings.home, SECRETS_OF)
        threading.Thread(target=self._reap, args=(census,), name="reaper", daemon=True).start()

    def _reap(self, census: Callable[[], Census]) -> None:
        while True:
            try:
                with connected(self._settings) as server:
                    _remove_unwanted(server, by_instance(self._settings.home), census)
                    remove_unused_networks(server, self._settings.home)
            except (PlatformError, SettingsError, sa.exc.DBAPIError):
                time.sleep(REAP_AGAIN_S)
            else:
                return


def _remove_unwanted(server: Server, mine: Mapping[str, list[str]], census: Callable[[], Census]) -> None:
    """Containers are counted before rows: each has had its row first."""
    from docker.errors import NotFound

    api = server.client.api
    there = api.containers(all=True, filters=mine)
    found = census()
    for container in there:
        if container["Labels"][INSTANCE_LABEL] in {*found.wanted, *found.kept}:
            continue
        with suppress(NotFound):
            api.stop(container["Id"], timeout=REAP_GRACE_S)
        server.remove(container["Id"])


def check_engine_is_here(settings: Settings) -> None:
    """Raises: SettingsError for an engine on another machine, whose published ports are not this one's."""
    host = settings.docker_host or ""
    parts = urlsplit(host)
    if not host or parts.scheme in ("unix", "http+unix") or is_loopback(parts.hostname or ""):
        return
    raise SettingsError(
        f"{host} is another machine: containers there cannot be reached through this one's loopback",
        where="PENSTOCK_DOCKER_HOST",
        remedy="deploy where the engine runs",
    )


def _check_has_health(server: Server, image_id: str, name: str) -> None:
    config = server.client.api.inspect_image(image_id).get("Config") or {}
    if (config.get("Healthcheck") or {}).get("Test") in (None, [], ["NONE"]):
        raise StepFailure(f"the image {name} has no HEALTHCHECK", remedy="add one, or name a path in health.http")


def _health_of(inspected: Mapping[str, Any]) -> ProbeResult:
    health = inspected["State"].get("Health") or {}
    status, log = str(health.get("Status", "none")), health.get("Log") or [{}]
    said = " ".join(str(log[-1].get("Output", "")).split())[:200]
    return ProbeResult(status == "healthy", f"the image's health check: {status}" + (f': "{said}"' if said else ""))
