"""One instance's container: found again or started, watched, started again with back-off, stopped and removed."""

import math
import threading
import time
from collections.abc import Container, Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import attrs

from penstock.deploy.health import HealthCheck, probe
from penstock.deploy.output import BoundedLog, tail
from penstock.deploy.secrets import secret_values
from penstock.deploy.supervised import describe_end, free_port
from penstock.deploy.targets import REASON_LINES, STEADY_S, Assignment, Phase, Report, Wake, delay_s
from penstock.deploy.targets.docker_container import (
    by_instance,
    container_config,
    container_of,
    host_config,
    published_port,
)
from penstock.deploy.targets.docker_discovery import open_shared_network
from penstock.engines.docker_client import platform_error
from penstock.engines.docker_images import pull
from penstock.engines.docker_secrets import forget, in_memory
from penstock.engines.docker_server import Server, connected
from penstock.errors import PenstockError, PlatformError, StepFailure
from penstock.images.names import is_image_id, parse_image
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings

SECRETS_OF = "deploy"  # whose files in memory they are, where a step's are its run's
ASK_AGAIN_S = 0.5  # an engine that went away, or one whose log ended too early
PORTS_TRIED = 5
LOG_END_S = 2.0
_LISTENS = HealthCheck(kind="tcp", timeout_s=1.0)
_LOOK_EVERY_S = 0.05
_TAKEN = ("port is already allocated", "address already in use")


@attrs.frozen
class Found:
    """A running container. port: of this machine's loopback."""

    id: str
    port: int
    pid: int | None
    started_at: datetime


class DockerInstance:
    """
    See `Kept`. A thread talks to the engine, which may take its time; what it has to tell is taken at each `step`.

    An engine that is away is asked again until it is back. That is no end of the container: it may still run.
    """

    due_s = math.inf  # the thread wakes the keeper

    def __init__(self, assignment: Assignment, settings: Settings, wake: Wake) -> None:
        self._assignment, self._settings, self._wake = assignment, settings, wake
        self.phase: Phase = "waiting"
        self.report: Report = Report("starting", None, assignment.port, assignment.restarts, None, None)
        self._thread: threading.Thread | None = None
        self._reader: threading.Thread | None = None
        self._news: SimpleQueue[tuple[Phase, Report]] = SimpleQueue()
        self._told = self.report
        self._taken: Container[int] = ()
        self._stopping, self._changed = threading.Event(), threading.Event()
        self._over = False
        self._quick_ends, self._due_s, self._started_s = 0, 0.0, 0.0
        self._last_end: str | None = None

    @property
    def pid(self) -> int | None:
        """The engine's child, not the keeper's."""
        return None

    def step(self, now_s: float, taken: Container[int]) -> None:
        """Take the thread's news, and start it at first."""
        del now_s
        self._taken = taken
        if self._thread is None and self.phase == "waiting":
            name = f"instance {self._assignment.instance_id}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        while not self._news.empty():
            self.phase, self.report = self._news.get()

    def stop(self, now_s: float) -> None:
        """The thread stops and removes the container, also one that a former keeper started."""
        self.step(now_s, self._taken)
        self._stopping.set()
        self._changed.set()

    def _run(self) -> None:
        while not self._over:
            try:
                with connected(self._settings) as server:
                    while not self._over:
                        self._tend(server)
            except PenstockError as error:
                self._tell(state="starting", pid=None, reason=str(error))
                self._pause(ASK_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave its instance to nobody
                self._failed(f"cannot be kept running: {type(error).__name__}: {error}")
                self._pause(ASK_AGAIN_S)

    def _tend(self, server: Server) -> None:
        """One life of the container."""
        if self._stopping.is_set():
            self._end(server)
        elif self._due_s > time.monotonic():
            self._pause(self._due_s - time.monotonic())
        elif container := self._running(server) or self._started(server):
            self._watch(server, container)

    def _pause(self, seconds: float) -> None:
        """Sleep; who is asked to stop waits for nothing but the engine."""
        if self._stopping.is_set():
            time.sleep(min(seconds, ASK_AGAIN_S))
        else:
            self._stopping.wait(seconds)

    def _tell(self, phase: Phase = "running", **changes: Any) -> None:
        told = attrs.evolve(self._told, **changes)
        if told != self._told or phase == "stopped":
            self._told = told
            self._news.put((phase, told))
            self._wake()

    def _containers(self, server: Server) -> list[str]:
        filters = by_instance(self._settings.home, self._assignment.instance_id)
        return [str(one["Id"]) for one in server.client.api.containers(all=True, filters=filters)]

    def _running(self, server: Server) -> Found | None:
        """The container if it is there and runs; what is left of ended and unfinished ones is removed."""
        running = None
        for container_id in self._containers(server):
            found = self._found(server, container_id)
            if found is None or running is not None:
                server.remove(container_id)
            else:
                running = found
        return running

    def _found(self, server: Server, container_id: str) -> Found | None:
        from docker.errors import NotFound

        try:
            inspected: Mapping[str, Any] = server.client.api.inspect_container(container_id)
        except NotFound:
            return None
        port = published_port(inspected, container_of(self._assignment).port)
        if not inspected["State"]["Running"] or port is None:
            return None
        pid = int(inspected["State"].get("Pid") or 0)
        return Found(container_id, port, pid or None, _moment(inspected["State"]["StartedAt"]))

    def _started(self, server: Server) -> Found | None:
        """A new container; None when it cannot be started, which counts as an end of it."""
        self._started_s = time.monotonic()
        try:
            return self._start(server)
        except PlatformError:
            raise
        except (PenstockError, OSError) as error:
            self._failed(f"cannot be started: {error}")
            return None

    def _start(self, server: Server) -> Found:
        this, home = self._assignment, self._settings.home
        forget(home, SECRETS_OF, this.instance_id)
        values = secret_values(self._settings, this.service, this.configuration.secret_env)
        image, network = self._image(server), open_shared_network(server, home, this.service)
        for _ in range(PORTS_TRIED):
            port = free_port(None, self._taken)
            # Everybody may read them in the container, whoever its user is; here they are in a folder that is closed.
            with in_memory(home, SECRETS_OF, this.instance_id, values, mode=0o444) as secrets:
                config = container_config(home, this, image, secrets.paths, network=network)
                closed = host_config(home, this, secrets.paths, network=network, port=port, podman=server.podman)
                container_id = server.create(config, closed)
                if self._is_started(server, container_id) and (found := self._found(server, container_id)):
                    return found
            if self._has_ended(server, container_id):
                return Found(container_id, port, None, datetime.now(UTC))  # already over: `_watch` says how
            server.remove(container_id)
        raise StepFailure("no free port for an instance")

    def _image(self, server: Server) -> str:
        """The image's id; fetched by its digest if somebody removed it from the engine."""
        from docker.errors import ImageNotFound, NotFound

        container, digest = container_of(self._assignment), self._assignment.digest
        try:
            server.client.api.inspect_image(container.image_id)
        except (ImageNotFound, NotFound) as error:
            if is_image_id(container.image) or digest == container.image_id:
                raise StepFailure(f"the image {container.image} is gone from the engine") from error
            pinned = parse_image(container.image).pinned(digest)
            pull(server, pinned, CancelToken())
            return pinned
        return container.image_id

    def _is_started(self, server: Server, container_id: str) -> bool:
        """False when its port was taken meanwhile. Raises: StepFailure with the engine's words."""
        from docker.errors import APIError

        try:
            server.client.api.start(container_id)
        except APIError as error:
            text = str(error.explanation or error)
            if any(sign in text for sign in _TAKEN):
                return False
            if "no space left" in text:
                raise platform_error(error, server.host) from error
            raise StepFailure(text) from error
        return True

    def _has_ended(self, server: Server, container_id: str) -> bool:
        return str(server.client.api.inspect_container(container_id)["State"]["Status"]) == "exited"

    def _watch(self, server: Server, container: Found) -> None:
        self._changed.clear()
        self._reader = threading.Thread(target=self._read, args=(container.id,), name="output", daemon=True)
        self._reader.start()
        # A port that it had before is left when nobody answers there yet: requests wait, and are not dropped.
        port = container.port if self._told.port is None else self._told.port
        self._tell(
            state="running", pid=container.pid, port=port, reason=self._last_end, started_at=container.started_at
        )
        if port != container.port and self._listens(container.port):
            self._tell(port=container.port)
        while not self._stopping.is_set() and not self._changed.wait(60):
            pass
        if not self._stopping.is_set():
            self._reader.join(LOG_END_S)
            self._ended(server, container.id)

    def _listens(self, port: int) -> bool:
        while not self._changed.is_set():
            if probe(_LISTENS, port, proxied=True).good:
                return True
            self._changed.wait(_LOOK_EVERY_S)
        return False

    def _read(self, container_id: str) -> None:
        """Its output into the log, until it ends or the engine goes away."""
        try:
            path = self._assignment.log
            since = path.stat().st_mtime if path.exists() else None
            with closing(BoundedLog(path)) as log, connected(self._settings) as server:
                _copy(server.client.api.logs(container_id, stream=True, follow=True, since=since), log)
        except (PenstockError, OSError) as error:
            # Not in the report: whether it runs is asked elsewhere.
            print(f"keeper: cannot read what {self._assignment.instance_id} prints: {error}", flush=True)
        finally:
            self._changed.set()

    def _ended(self, server: Server, container_id: str) -> None:
        from docker.errors import NotFound

        try:
            state: Mapping[str, Any] = server.client.api.inspect_container(container_id)["State"]
        except NotFound:
            self._failed("somebody removed the container")
            return
        if state["Running"]:
            self._pause(ASK_AGAIN_S)
            return
        server.remove(container_id)
        self._failed(self._how(state))

    def _how(self, state: Mapping[str, Any]) -> str:
        lines = tail(self._assignment.log, REASON_LINES)
        how = describe_end(int(state["ExitCode"]), lines)
        if not state.get("OOMKilled"):
            return how
        limit = container_of(self._assignment).memory_bytes // 1024**2
        return f"it needed more than {limit} MiB of memory; {how}"

    def _failed(self, reason: str) -> None:
        now_s = time.monotonic()
        self._quick_ends = 0 if now_s - self._started_s >= STEADY_S else self._quick_ends + 1
        self._due_s, self._last_end = now_s + delay_s(self._quick_ends), reason
        self._tell("waiting", state="exited", pid=None, restarts=self._told.restarts + 1, reason=reason)

    def _end(self, server: Server) -> None:
        from docker.errors import APIError

        for container_id in self._containers(server):
            try:
                server.client.api.stop(container_id, timeout=math.ceil(self._assignment.configuration.stop_grace_s))
            except APIError as error:
                if error.status_code != 404:
                    raise
            if self._reader is not None:
                self._reader.join(LOG_END_S)
            server.remove(container_id)
        self._over = True
        self._tell("stopped", state="stopped", pid=None)


def _copy(chunks: Iterable[bytes], log: BoundedLog) -> None:
    """A full disk costs lines, never the service."""
    for chunk in chunks:
        with suppress(OSError):
            log.write(chunk)


def _moment(text: str) -> datetime:
    """The engine's nanoseconds are more than Python takes."""
    whole, _, _ = text.partition(".")
    return datetime.fromisoformat(whole.removesuffix("Z")).replace(tzinfo=UTC)
