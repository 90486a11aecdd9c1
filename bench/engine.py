"""
What does a step cost through Penstock's engines, beside the bare thing?

    python bench/engine.py [--rounds 9] [--image NAME] [--skip docker|process]

Both sides run a one-second command, in turn, here and now: the docker engine beside `docker run --rm` with the same
image and the same limits, the process engine beside the bare `bwrap` with a read-only host. Prints medians with the
smallest and largest; the last line is the ratios of medians. Exit code 1 when one is above 1.05.

The Docker Engine is the one that PENSTOCK_DOCKER_HOST or DOCKER_HOST names, or the default socket. The image needs
`sleep`; without --image, one is made of this machine's static busybox.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from penstock.engines import Engine, Job, open_engine
from penstock.engines.docker_client import DEFAULT_HOST
from penstock.engines.process import bubblewrap
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings, load_settings

COMMAND = ("sleep", "1")
WARM_UPS = 2
GOAL = 1.05
BUSYBOX = "penstock-bench:busybox"
PIDS = 4096


@attrs.frozen
class Pair:
    """One engine and the bare thing beside it. Both run COMMAND once and return when nothing of it is left."""

    name: str
    through_engine: Callable[[], None]
    bare: Callable[[], None]


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def step(engine: Engine, workspace: Path, image: str | None) -> None:
    """One step through an engine."""
    job = Job("bench", "step", COMMAND, workspace, image=image)
    ended = engine.run(job, lambda _: None, CancelToken())
    if ended.code:
        sys.exit(f"engine: the step ended with {ended}")


def quiet(argv: Sequence[str]) -> None:
    """One bare command."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def process_pair(settings: Settings, workspace: Path) -> Pair:
    """Beside bubblewrap with what a sandbox needs at the least."""
    if not (wrap := bubblewrap()):
        sys.exit("engine: bubblewrap is not there, or this kernel does not let it work; use --skip process")
    words = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--tmpfs", "/tmp"]
    words += ["--dev", "/dev", "--proc", "/proc", "--bind", str(workspace), "/mnt", "--chdir", "/mnt"]
    engine = open_engine(attrs.evolve(settings, engine="process"))
    return Pair("process", lambda: step(engine, workspace, None), lambda: quiet([wrap, *words, "--", *COMMAND]))


def docker_pair(settings: Settings, workspace: Path, image: str) -> Pair:
    """Beside the docker command with the same doors closed."""
    words = ["docker", "--host", settings.docker_host or DEFAULT_HOST, "run", "--rm", "--init", "--network", "none"]
    words += ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--pids-limit", str(PIDS), "--volume", f"{workspace}:/workspace", "--workdir", "/workspace"]
    words += ["--user", f"{os.getuid()}:{os.getgid()}", image, *COMMAND]
    engine = open_engine(attrs.evolve(settings, engine="docker"))
    return Pair("docker", lambda: step(engine, workspace, image), lambda: quiet(words))


@contextlib.contextmanager
def busybox_image(host: str, folder: Path) -> Iterator[str]:
    """An image of this machine's static busybox; gone afterwards."""
    folder.mkdir()
    found = shutil.which("busybox") or sys.exit("engine: busybox is not there; give an image by --image")
    shutil.copy(str(found), folder / "busybox")
    recipe = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
    (folder / "Dockerfile").write_text(recipe)
    build = ["docker", "--host", host, "build", "--quiet", "--tag", BUSYBOX, str(folder)]
    done = subprocess.run(build, check=False, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    if done.returncode:
        sys.exit(f"engine: no Docker Engine that builds answers at {host}; start one, or say --skip docker")
    try:
        yield BUSYBOX
    finally:
        subprocess.run(["docker", "--host", host, "rmi", "--force", BUSYBOX], check=False, capture_output=True)


def measure(pair: Pair, rounds: int) -> tuple[list[float], list[float]]:
    """Both in turn, so that they meet the same machine; warm-up rounds do not count."""
    ours, bare = [], []
    for number in range(WARM_UPS + rounds):
        one, other = seconds(pair.through_engine), seconds(pair.bare)
        label = "warm-up" if number < WARM_UPS else f"round {number - WARM_UPS + 1}"
        print(f"{label:<9} {pair.name:<8} engine {one:6.3f} s   bare {other:6.3f} s", flush=True)
        if number >= WARM_UPS:
            ours.append(one)
            bare.append(other)
    return ours, bare


def show(found: Mapping[str, tuple[list[float], list[float]]]) -> None:
    """The table: medians with the smallest and largest."""
    print(f"\n{'medians (from … to)':<22} {'through the engine':>26} {'bare':>26}")
    for name, both in found.items():
        told = [f"{statistics.median(one):.3f} s ({min(one):.3f} … {max(one):.3f})" for one in both]
        print(f"{name:<22} {told[0]:>26} {told[1]:>26}")
    print(f"load {os.getloadavg()[0]:.1f}")


def main() -> int:
    """Returns: 0 when each ratio is within the goal, else 1."""
    parser = argparse.ArgumentParser(description="cost of a step over the bare docker run and the bare bwrap")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image", help="an image that has `sleep`")
    parser.add_argument("--skip", choices=("docker", "process"))
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        workspace = folder / "home" / "workspaces" / "bench"
        workspace.mkdir(parents=True)
        settings = load_settings({**os.environ, "PENSTOCK_HOME": str(folder / "home")})
        pairs = []
        if options.skip != "docker":
            host = settings.docker_host or DEFAULT_HOST
            image = options.image or stack.enter_context(busybox_image(host, folder / "image"))
            pairs.append(docker_pair(settings, workspace, image))
        if options.skip != "process":
            pairs.append(process_pair(settings, workspace))
        found = {pair.name: measure(pair, options.rounds) for pair in pairs}
    show(found)
    ratios = {name: statistics.median(ours) / statistics.median(bare) for name, (ours, bare) in found.items()}
    print(" ".join(f"{name}_ratio={ratio:.3f}" for name, ratio in ratios.items()))
    return 0 if all(ratio <= GOAL for ratio in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
