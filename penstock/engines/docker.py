"""
Jobs as containers of a Docker Engine, or of Podman through its Docker-compatible service.

The engine runs on this machine: workspaces are bind mounts. Everything that it makes carries the labels of the home,
the run and the step, by which `reap` finds what a process that was killed has left.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from penstock.engines import Exit, Job, OnOutput
from penstock.engines.docker_container import inside, job_config, job_host_config, labels
from penstock.engines.docker_gateway import held_network
from penstock.engines.docker_images import digest, pull
from penstock.engines.docker_network import open_network
from penstock.engines.docker_running import Running, started
from penstock.engines.docker_secrets import forget, in_memory
from penstock.engines.docker_server import Server, connected, is_rootless
from penstock.engines.docker_services import Services, services
from penstock.engines.docker_shell import is_terminal, join, write_out
from penstock.errors import PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.spec import WORKSPACE
from penstock.settings import Settings

_FULL_BELOW_BYTES = 64 * 1024
LEAST_MEMORY_BYTES = 6 * 1024 * 1024  # the engine's own


@attrs.frozen
class DockerEngine:
    """Runs each job in a container of its own; holds no connection between two calls."""

    settings: Settings
    name: str = "docker"

    def isolation(self) -> str:
        """One sentence that says plainly how far a job is kept apart from this machine."""
        with connected(self.settings) as server:
            return isolation_of(server)

    def run(self, job: Job, on_output: OnOutput, token: CancelToken) -> Exit:
        """Run the job to its end; see `Engine.run`."""

        def attend(running: Running) -> Exit:
            return running.to_end(on_output, token)

        return self._run(job, on_output, token, attend)

    def shell(self, job: Job) -> int:
        """Run the job's argv on this terminal; see `Engine.shell`."""
        terminal = is_terminal()

        def attend(running: Running) -> Exit:
            if terminal:
                join(running.server, running.container_id, running.stream)
            return running.to_end(write_out, CancelToken(), limited=False)

        return self._run(job, write_out, CancelToken(), attend, terminal=terminal).code

    def image_digest(self, image: str) -> str | None:
        """The registry's digest of an image, or its id when it was built here; fetched when it is not there."""
        with connected(self.settings) as server:
            return digest(server, image, CancelToken())

    def reap(self, run_id: str, step: str = "") -> int:
        """Remove the containers of this home's run, or of one step of it. Returns: how many there were."""
        forget(self.settings.home, run_id, step)
        wanted = [f"{key}={value}" for key, value in labels(self.settings.home, run_id, step).items()]
        with connected(self.settings) as server:
            found = server.client.api.containers(all=True, quiet=True, filters={"label": wanted})
            return sum(server.remove(container["Id"]) for container in found)

    def _run(
        self,
        job: Job,
        on_output: OnOutput,
        token: CancelToken,
        attend: Callable[[Running], Exit],
        *,
        terminal: bool = False,
    ) -> Exit:
        token.raise_if_cancelled()
        _check(job)
        with (
            connected(self.settings) as server,
            self._network(server, job, token) as network,
            services(server, job, network, self.settings.home, token) as beside,
        ):
            with self._started(server, job, beside, on_output, token, terminal=terminal) as running:
                ended = attend(running) if isinstance(running, Running) else running
            if ended.state == "exited" and ended.code:
                beside.say_who_died()
                _raise_if_full(job)
            return ended

    @contextmanager
    def _network(self, server: Server, job: Job, token: CancelToken) -> Iterator[str]:
        """What the job's containers join, as the engine calls it."""
        if job.gateway is None:
            yield open_network(server, self.settings.home) if job.network else "none"
            return

        def create(config: Mapping[str, object], host_config: Mapping[str, object]) -> str:
            return _created(server, config, host_config, token)

        with held_network(server, job, self.settings.home, create) as network:
            yield network

    @contextmanager
    def _started(
        self, server: Server, job: Job, beside: Services, on_output: OnOutput, token: CancelToken, *, terminal: bool
    ) -> Iterator[Running | Exit]:
        """As `started` gives it; gone afterwards. Its secrets are on this machine only until the container has them."""
        marks = labels(self.settings.home, job.run_id, job.step)
        with in_memory(self.settings.home, job.run_id, job.step, job.secrets) as secrets:
            config = job_config(job, marks, server.user(), terminal=terminal)
            made = _created(server, config, job_host_config(job, beside.network, secrets.paths, beside.hosts), token)
            try:
                with started(server, made, job, on_output, terminal=terminal) as running:
                    secrets.unlink()
                    yield running
            finally:
                server.discard(made)


def _created(
    server: Server, config: Mapping[str, object], host_config: Mapping[str, object], token: CancelToken
) -> str:
    """A container; its image is fetched when it is not there, which is not worth a question each time."""
    from docker.errors import ImageNotFound

    try:
        return server.create(config, host_config)
    except ImageNotFound:
        pull(server, str(config["image"]), token)
    token.raise_if_cancelled()
    return server.create(config, host_config)


def _check(job: Job) -> None:
    """What the engine itself would mend in silence, by making folders that belong to root."""
    if not job.image:
        raise StepFailure(f"{job.step} names no image, and the docker engine needs one", remedy="add `image:` to it")
    if job.memory_bytes and job.memory_bytes < LEAST_MEMORY_BYTES:
        raise StepFailure(f"{job.step}: no container starts with {job.memory_bytes} bytes", remedy="raise `memory`")
    if not job.workspace.is_dir():
        raise PlatformError(f"the workspace {job.workspace} is not there")
    folder = inside(job.work_dir)
    if folder.is_relative_to(WORKSPACE) and not Path(job.workspace, folder.relative_to(WORKSPACE)).is_dir():
        raise StepFailure(f'there is no folder "{job.work_dir}" in the workspace', remedy="mend work_dir")


def _raise_if_full(job: Job) -> None:
    """A step that failed on a full disk failed through no fault of its own."""
    if shutil.disk_usage(job.workspace).free < _FULL_BELOW_BYTES:
        raise PlatformError(
            f"{job.step} failed, and the disk of the workspaces is full",
            where=str(job.workspace),
            remedy="free space there, then run it again",
        )


def isolation_of(server: Server) -> str:
    """What an engine's containers are apart from, and what they share."""
    info = server.info()
    kind = "Podman" if server.podman else "Docker Engine"
    seccomp = any("name=seccomp" in one and "unconfined" not in one for one in info.get("SecurityOptions") or ())
    filtered = "default seccomp filter" if seccomp else "NO seccomp filter (this engine has none)"
    root = ", whose root is not this machine's" if is_rootless(info) else ""
    shared = "containers with network reach each other; " if server.podman else ""
    return (
        f"{kind} {info.get('ServerVersion', '')}: a container for each step{root}, no capabilities, no new privileges, "
        f"{filtered}, read-only root, private /tmp, no network unless asked; {shared}the kernel is shared with this "
        "machine"
    )
