"""Real container parts for tests: a Docker Engine without systemd, an image without a registry, a registry."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import docker
import httpx

BUSYBOX = "busybox:tests"
START_LIMIT_S = 60.0


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@attrs.define
class DockerEngine:
    """A Docker Engine of the tests' own, that can be stopped, killed and started again on the same data."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def host(self) -> str:
        """What DOCKER_HOST would say."""
        return f"unix://{self.folder / 'docker.sock'}"

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("docker.pid", "exec/containerd/containerd.pid"):  # of one that was killed: its number may live on
            (self.folder / name).unlink(missing_ok=True)
        words = [
            *(
                "dockerd",
                "--host",
                self.host,
                "--data-root",
                f"{self.folder}/data",
                "--exec-root",
                f"{self.folder}/exec",
            ),
            *("--pidfile", f"{self.folder}/docker.pid", "--storage-driver", "overlay2", "--log-level", "warn"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"{_memory_group()}/penstock-tests"),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it is there."""
        return answers_at(self.folder / "docker.sock")

    def client(self) -> docker.DockerClient:
        """The Docker SDK, connected; close it."""
        return docker.DockerClient(base_url=self.host, timeout=60)

    def kill(self) -> None:
        """`kill -9`: containers stay or go as they do in life."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it in an orderly way; its containers end too."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def remove(self) -> None:
        """Containers, engine, mounts and data."""
        if self.answers():
            client = self.client()
            for container in client.containers.list(all=True):
                container.remove(force=True)
            for network in client.networks.list():
                if network.name not in ("bridge", "host", "none"):
                    network.remove()
            client.close()
        self.stop()
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def _memory_group() -> str:
    """Containers stay inside the caller's own control group."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if names in ("memory", ""):
            return path.rstrip("/")
    return ""


def build_busybox(host: str, folder: Path, tag: str = BUSYBOX) -> None:
    """An image of Debian's busybox-static: /bin/sh and the usual commands, 2 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", folder / "busybox")
    lines = ["FROM scratch", "COPY busybox /bin/busybox", 'RUN ["/bin/busybox", "--install", "-s", "/bin"]']
    (folder / "Dockerfile").write_text("\n".join([*lines, 'CMD ["/bin/sh"]']) + "\n")
    words = ["docker", "--host", host, "build", "--quiet", "--tag", tag, str(folder)]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"}, timeout=120)


@contextmanager
def running_registry(folder: Path, *, user: str | None = None, password: str = "") -> Iterator[str]:
    """Debian's docker-registry on loopback, with a login if `user` is given. Gives `127.0.0.1:PORT`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lines = ["version: 0.1", "storage:", "  delete: {enabled: true}", f"  filesystem: {{rootdirectory: {folder}/data}}"]
    lines += [f"http: {{addr: '127.0.0.1:{port}'}}"]
    if user:
        words = ["htpasswd", "-Bbn", user, password]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        (folder / "htpasswd").write_text(done.stdout)
        lines += [f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}"]
    (folder / "config.yml").write_text("\n".join(lines) + "\n")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            httpx.get(url, timeout=5, trust_env=False)
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


PODMAN_CONF = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@attrs.define
class PodmanService:
    """Podman's Docker-compatible service, with data of its own."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def host(self) -> str:
        """What DOCKER_HOST would say."""
        return f"unix://{self.folder / 'podman.sock'}"

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "containers.conf").write_text(PODMAN_CONF)
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/data"\nrunroot = "{self.folder}/run"\n'
        )
        env = {
            **os.environ,
            "CONTAINERS_CONF": f"{self.folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
        }
        words = ["podman", "--tmpdir", f"{self.folder}/tmp", "system", "service", "--time", "0", self.host]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=env
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not answers_at(self.folder / "podman.sock"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"podman did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def client(self) -> docker.DockerClient:
        """The Docker SDK, connected; close it."""
        return docker.DockerClient(base_url=self.host, timeout=60)

    def remove(self) -> None:
        """Containers, service, mounts and data."""
        if answers_at(self.folder / "podman.sock"):
            with closing(self.client()) as client:
                for container in client.containers.list(all=True):
                    container.remove(force=True)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def answers_at(socket_path: Path) -> bool:
    """Whether an engine is there."""
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path))) as client:
            return client.get("http://docker/_ping", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def unmount_below(folder: Path) -> None:
    """What an engine has mounted in its folder."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(str(folder))), reverse=True):
        subprocess.run(["umount", mount], check=False)
