"""Runs a container of the pipeline's own: to its end, or as a service that stays as long as the run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx

from penstock.engines import SECRETS_FOLDER, Exit, Job, Probe
from penstock.engines.docker_container import home_mark, labels
from penstock.engines.docker_images import pull
from penstock.engines.docker_network import open_network
from penstock.engines.docker_running import started, unusable_command
from penstock.engines.docker_secrets import in_memory
from penstock.engines.docker_server import Server
from penstock.engines.docker_services import listens
from penstock.errors import StepFailure
from penstock.images.container import LOOPBACK, Container, config_of, folder_in, host_config_of, volume_name
from penstock.images.leftovers import note_run
from penstock.images.stopping import Limit
from penstock.images.talk import told_plainly
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.steps.context import StepLog

SHOWN_LINES = 50
_LOG = {"type": "local", "config": {"max-size": "1m", "max-file": "1", "compress": "false"}}
_LOG_OF_PODMAN = {"type": "k8s-file", "config": {"max-size": "1m"}}


@attrs.frozen
class Address:
    """
    Where a service answers. host: an address of this machine. ports: of the container → of this machine.
    """

    host: str
    ports: Mapping[int, int]


@attrs.frozen
class Place:
    """Where a container belongs: whose home and run, with what secrets, watched by whom."""

    settings: Settings
    job: Job
    log: "StepLog"
    limit: Limit

    @property
    def marks(self) -> dict[str, str]:
        """The labels by which the run's containers are found."""
        return labels(self.settings.home, self.job.run_id, self.job.step)


def run_to_end(server: Server, container: Container, place: Place) -> Exit:
    """
    Run it and stream what it prints; nothing of it is left.

    Raises: StepFailure when there is no such image or the engine refuses it, PlatformError when the engine goes away.
    """
    from docker.types import LogConfig

    with in_memory(place.settings.home, place.job.run_id, place.job.step, place.job.secrets) as secrets:
        made = _created(server, container, place, secrets.paths, LogConfig(type="none"))
        try:
            job = attrs.evolve(place.job, timeout_s=place.limit.left_s)
            with told_plainly(server.host), started(server, made, job, place.log.output) as running:
                secrets.unlink()
                return running if isinstance(running, Exit) else running.to_end(place.log.output, place.limit.token)
        finally:
            server.discard(made)


def start_service(server: Server, container: Container, place: Place, ready: Probe | None) -> Address:
    """
    Start it, wait until it is ready, and leave it running: it goes with the run.

    ready: None when being started is enough.
    Raises: StepFailure with its last lines when it ends or does not become ready; it is removed then.
    """
    from docker.types import LogConfig

    log = LogConfig(**(_LOG_OF_PODMAN if server.podman else _LOG))
    with in_memory(place.settings.home, place.job.run_id, place.job.step, place.job.secrets) as secrets:
        made = _created(server, container, place, secrets.paths, log)
        with _removed_on_failure(server, made), told_plainly(server.host):
            _start(server, made, container)
            secrets.unlink()
            address = _address(server, made)
            _Waiting(server, made, address, place).until_ready(ready)
            _show(server, made, place)
            return address


def _start(server: Server, container_id: str, container: Container) -> None:
    """Raises: StepFailure when the image has no such command; docker.errors.APIError for whatever else."""
    from docker.errors import APIError

    words = [*(container.entrypoint or ()), *(container.command or ()), container.image]
    try:
        server.client.api.start(container_id)
    except APIError as error:
        text = str(error.explanation or error)
        if unusable_command(text, words[0]) is None:
            raise
        raise StepFailure(f"the service does not start: {text}", remedy="mend entrypoint or command") from error


def _created(server: Server, container: Container, place: Place, secret_files: Mapping[str, Path], log: object) -> str:
    from docker.errors import ImageNotFound

    place.limit.check()
    _forget_former(server, place)
    hosts, network = _network(server, container, place)
    mounts = {**_mounts(server, container, place), **_secret_mounts(secret_files)}
    host_config = {**host_config_of(container, network, mounts, hosts), "log_config": log}
    config = config_of(container, place.marks)
    try:
        return server.create(config, host_config)
    except ImageNotFound:
        pull(server, container.image, place.limit.token)
    place.limit.check()
    return server.create(config, host_config)


def _forget_former(server: Server, place: Place) -> None:
    """A step that is tried again begins anew."""
    wanted = [f"{key}={value}" for key, value in place.marks.items()]
    for former in server.client.api.containers(all=True, quiet=True, filters={"label": wanted}):
        server.remove(former["Id"])


def _network(server: Server, container: Container, place: Place) -> tuple[tuple[str, ...], str]:
    """This machine's addresses for ports, and what the container joins."""
    if not (container.ports or container.network):
        return (), "none"
    network = open_network(server, place.settings.home)
    if place.settings.engine != "docker":
        return (LOOPBACK,), network
    return (_gateway(server, network) or LOOPBACK,), network


def _gateway(server: Server, network: str) -> str | None:
    """This machine as containers see it: steps that run in containers cannot reach its loopback."""
    name = "podman" if server.podman else network
    found = server.client.api.inspect_network(name)
    return next((one["Gateway"] for one in found["IPAM"]["Config"] or () if one.get("Gateway")), None)


def _mounts(server: Server, container: Container, place: Place) -> dict[str, tuple[str, bool, bool]]:
    found = {}
    for volume in container.volumes:
        if volume.of_workspace:
            found[volume.target] = (str(folder_in(place.job.workspace, volume)), True, volume.read_only)
        else:
            found[volume.target] = (_volume(server, volume.source, place), False, volume.read_only)
    return found


def _volume(server: Server, name: str, place: Place) -> str:
    """The run's own volume of this name, made when it is first asked for."""
    home, run_id = place.settings.home, place.job.run_id
    note_run(place.settings, run_id)
    called = volume_name(home_mark(home), run_id, name)
    server.client.api.create_volume(called, labels=labels(home, run_id))
    return called


def _secret_mounts(files: Mapping[str, Path]) -> dict[str, tuple[str, bool, bool]]:
    return {f"{SECRETS_FOLDER}/{name}": (str(path), True, True) for name, path in files.items()}


def _address(server: Server, container_id: str) -> Address:
    found: Mapping[str, Any] = server.client.api.inspect_container(container_id)["NetworkSettings"]["Ports"] or {}
    published = {int(port.partition("/")[0]): bound[0] for port, bound in found.items() if bound}
    hosts = [bound["HostIp"] for bound in published.values()]
    return Address(hosts[0] if hosts else "", {port: int(bound["HostPort"]) for port, bound in published.items()})


@contextmanager
def _removed_on_failure(server: Server, container_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        server.discard(container_id)
        raise


def _show(server: Server, container_id: str, place: Place) -> None:
    """What it has said until it was ready; what it says afterwards stays with the engine."""
    if printed := server.client.api.logs(container_id, tail=SHOWN_LINES):
        place.log.output(printed)


@attrs.frozen
class _Waiting:
    """Asks a started service until it is ready."""

    server: Server
    container_id: str
    address: Address
    place: Place

    def until_ready(self, probe: Probe | None) -> None:
        wanted = probe or Probe()
        deadline = time.monotonic() + wanted.limit_s
        while missing := self._missing(wanted):
            if time.monotonic() > deadline:
                raise StepFailure(
                    f"the service was not ready within {wanted.limit_s:g} s: {missing}{self._last_words()}",
                    remedy="mend it, or its `ready:`",
                )
            self.place.limit.wait(wanted.interval_s)

    def _missing(self, probe: Probe) -> str:
        """Empty when it is ready. Raises: StepFailure when it has ended."""
        state = self.server.client.api.inspect_container(self.container_id)["State"]
        if not state["Running"]:
            how = "out of memory" if state.get("OOMKilled") else f"exit code {state['ExitCode']}"
            raise StepFailure(f"the service ended before it was ready ({how}){self._last_words()}")
        if probe.port and not self._listens(int(state["Pid"]), probe.port):
            return f"nobody listens on port {probe.port}"
        if probe.http:
            return self._asked_by_http(probe)
        return self._asked_inside(probe.command) if probe.command else ""

    def _listens(self, pid: int, port: int) -> bool:
        """From the kernel's table: what the engine publishes takes connections whether anybody listens or not."""
        try:
            tables = "".join(Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6"))
        except OSError:  # the engine's processes are not ours to see
            tables = self._execute(("cat", "/proc/net/tcp", "/proc/net/tcp6"))[1]
        return listens(tables, port)

    def _asked_by_http(self, probe: Probe) -> str:
        port = self.address.ports.get(probe.port or 80)
        if port is None:
            raise StepFailure(f"`ready` asks port {probe.port or 80}, which is not published", remedy="add it to ports")
        try:
            with httpx.Client(trust_env=False, timeout=5) as http:
                status = http.get(f"http://{self.address.host}:{port}{probe.http}").status_code
        except httpx.HTTPError as error:
            return f"{probe.http} does not answer ({error or type(error).__name__})"
        return "" if status < 400 else f"{probe.http} answers {status}"

    def _asked_inside(self, command: tuple[str, ...]) -> str:
        code, said = self._execute(command)
        return "" if code == 0 else f"`{' '.join(command)}` ended with exit code {code} ({said[-200:]})"

    def _execute(self, command: tuple[str, ...]) -> tuple[int, str]:
        api = self.server.client.api
        made = api.exec_create(self.container_id, list(command))["Id"]
        printed: bytes = api.exec_start(made)
        return int(api.exec_inspect(made)["ExitCode"] or 0), " ".join(printed.decode("utf-8", "replace").split())

    def _last_words(self) -> str:
        said = self.server.last_lines(self.container_id)
        return f": {said}" if said else ", and printed nothing"
