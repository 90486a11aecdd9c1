"""
The sidecars of a job.

They and the job share one network namespace, the first sidecar's, in which every sidecar's name is 127.0.0.1. On
a network of its own, also an internal one, a container still reaches this machine's services through the bridge's
gateway address; a namespace without any interface but loopback has no such door, needs no name server, and is what
a Kubernetes Pod is too. So two sidecars of a job cannot listen on the same port.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from penstock.engines import Job, Probe, Sidecar
from penstock.engines.docker_container import hosts_file, labels, sidecar_config, sidecar_host_config
from penstock.engines.docker_images import pull
from penstock.engines.docker_secrets import in_memory
from penstock.engines.docker_server import Server
from penstock.errors import StepFailure
from penstock.pipeline.cancel import CancelToken

_LISTENING = "0A"  # the state of a listening socket in /proc/net/tcp
_QUESTION_LIMIT_S = 5.0
_SAID_CHUNKS = 200
_TOO_LONG, _UNUSABLE = 124, 126  # as `timeout` and shells have it
_ASK_HTTP = """
url=$0
if command -v curl >/dev/null; then exec curl --fail --silent --show-error --max-time 5 --output /dev/null "$url"; fi
if command -v wget >/dev/null; then exec wget -q -O /dev/null "$url"; fi
for python in python3 python; do
  if command -v $python >/dev/null; then
    exec $python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "$url"
  fi
done
if command -v node >/dev/null; then
  exec node -e 'require("http").get(process.argv[1], r => process.exit(r.statusCode < 400 ? 0 : 1))' "$url"
fi
exit 127
"""


@attrs.define
class Services:
    """
    Started sidecars.

    network: what the job's container joins. hosts: `hosts` → the file that knows their names. ids: name → container.
    """

    server: Server
    network: str
    hosts: Mapping[str, Path] = attrs.field(factory=dict)
    ids: dict[str, str] = attrs.field(factory=dict)

    def say_who_died(self) -> None:
        """Raises: StepFailure naming a sidecar that has ended with an error, with its last lines."""
        for name, container_id in self.ids.items():
            state = self.server.client.api.inspect_container(container_id)["State"]
            if not state["Running"] and state["ExitCode"]:
                raise StepFailure(f"the service {name} died ({_how_it_died(state)}){self._last_words(name)}")

    def start(self, job: Job, sidecar: Sidecar, marks: Mapping[str, str], token: CancelToken) -> None:
        """Create and start one; the first one's namespace is what the others join. Its image is fetched if need be."""
        from docker.errors import APIError, ImageNotFound

        if sidecar.image is None:
            raise StepFailure(f"the service {sidecar.name} names no image", remedy="add `image:` to it")
        host_config = sidecar_host_config(job, self.network, self.hosts, podman=self.server.podman)
        try:
            made = self.server.create(sidecar_config(sidecar, marks), host_config)
        except ImageNotFound:
            pull(self.server, sidecar.image, token)
            made = self.server.create(sidecar_config(sidecar, marks), host_config)
        self.ids[sidecar.name] = made
        try:
            self.server.client.api.start(made)
        except APIError as error:
            self.say_who_died()  # the first one's namespace is gone with it
            if error.is_server_error() and "exec" not in str(error):
                raise
            raise StepFailure(f"the service {sidecar.name} does not start: {error.explanation or error}") from error
        if len(self.ids) == 1:
            self.network = f"container:{made}"

    def wait_until_ready(self, sidecar: Sidecar, token: CancelToken) -> None:
        """Ask until it is ready. Raises: StepFailure when it ends or its time is over, Cancelled."""
        probe, asked = sidecar.ready or Probe(), "it was not asked yet"
        deadline = time.monotonic() + probe.limit_s
        while True:
            state = self.server.client.api.inspect_container(self.ids[sidecar.name])["State"]
            if not state["Running"]:
                died = f"the service {sidecar.name} ended before it was ready ({_how_it_died(state)})"
                raise StepFailure(died + self._last_words(sidecar.name))
            if (asked := self._answer(sidecar, probe, state["Pid"], deadline)) == "":
                return
            if time.monotonic() >= deadline:
                late = f"the service {sidecar.name} was not ready within {probe.limit_s:g} s: {asked}"
                raise StepFailure(late + self._last_words(sidecar.name), remedy="mend it, or its `ready:`")
            token.wait(min(probe.interval_s, max(0.0, deadline - time.monotonic())))
            token.raise_if_cancelled()

    def _answer(self, sidecar: Sidecar, probe: Probe, pid: int, deadline: float) -> str:
        """Empty when it is ready, else what is missing."""
        if probe.port is not None and not self._listens(sidecar.name, pid, probe.port, deadline):
            return f"nobody listens on port {probe.port}"
        if probe.http is not None:
            url = f"http://{sidecar.name}:{probe.port or 80}/{probe.http.lstrip('/')}"
            code, said = self._execute(sidecar.name, ("/bin/sh", "-c", _ASK_HTTP, url), deadline)
            if code in (126, 127):
                return "its image has no curl, wget, python or node to ask with; use a `port` alone"
            if code:
                return f"{url} does not answer well ({said or f'exit code {code}'})"
        if probe.command is not None:
            code, said = self._execute(sidecar.name, probe.command, deadline)
            return (
                "" if code == 0 else f"`{' '.join(probe.command)}` ended with exit code {code} ({said or 'no words'})"
            )
        return ""

    def _listens(self, name: str, pid: int, port: int, deadline: float) -> bool:
        """Whether a socket listens there, read from the kernel's own table: nothing in the image is needed."""
        try:
            tables = "".join(Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6"))
        except OSError:  # the engine's processes are not ours to see
            _, tables = self._execute(name, ("cat", "/proc/net/tcp", "/proc/net/tcp6"), deadline)
        return listens(tables, port)

    def _execute(self, name: str, argv: Sequence[str], deadline: float) -> tuple[int, str]:
        """Run a command in the sidecar. Returns: exit code (124 when it took too long), and the end of what it said."""
        from docker.errors import APIError

        api, said = self.server.client.api, deque[bytes](maxlen=_SAID_CHUNKS)
        try:
            made = api.exec_create(self.ids[name], list(argv))["Id"]
            printed = api.exec_start(made, stream=True)
        except APIError as error:  # it has ended, or has no such command
            return _UNUSABLE, str(error.explanation or error)
        reader = threading.Thread(target=lambda: said.extend(printed), daemon=True)
        reader.start()
        reader.join(max(1.0, min(_QUESTION_LIMIT_S, deadline - time.monotonic())))
        if reader.is_alive():
            return _TOO_LONG, "it takes too long"
        code = api.exec_inspect(made)["ExitCode"]
        return (_TOO_LONG if code is None else int(code)), " ".join(b"".join(said).decode("utf-8", "replace").split())

    def _last_words(self, name: str) -> str:
        said = self.server.last_lines(self.ids[name])
        return f": {said}" if said else ", and printed nothing"


@contextmanager
def services(server: Server, job: Job, network: str, home: Path, token: CancelToken) -> Iterator[Services]:
    """
    The job's sidecars, all ready; gone afterwards, whatever happened.

    network: what they and the job are on, as the engine calls it.
    Raises: StepFailure naming the sidecar that died or did not become ready, with its last lines.
    """
    names = [sidecar.name for sidecar in job.services]
    known = {"hosts": hosts_file(names)} if names else {}
    with in_memory(home, job.run_id, job.step, known, mode=0o444) as hosts:
        started = Services(server, network, hosts.paths)
        try:
            for sidecar in job.services:
                started.start(job, sidecar, labels(home, job.run_id, job.step), token)
                token.raise_if_cancelled()
            for sidecar in job.services:
                started.wait_until_ready(sidecar, token)
            yield started
        finally:
            for container_id in reversed(started.ids.values()):
                server.discard(container_id)


def listens(tables: str, port: int) -> bool:
    """
    Whether a TCP socket listens on a port.

    tables: the text of /proc/net/tcp and tcp6; column 2 is the local address with the port in hex, column 4 the state.
    """
    for line in tables.splitlines():
        columns = line.split()
        if len(columns) > 3 and columns[3] == _LISTENING and columns[1].endswith(f":{port:04X}"):
            return True
    return False


def _how_it_died(state: Mapping[str, object]) -> str:
    return "out of memory" if state.get("OOMKilled") else f"exit code {state['ExitCode']}"
