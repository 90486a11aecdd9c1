"""A whole Penstock, started with its own command on a home and ports of its own, and what tests ask of it."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import psutil
from git_builder import GitRepository

from penstock.platform.example import write_hook
from penstock.settings import PORTS, Settings, load_settings

PENSTOCK = str(Path(sys.executable).parent / "penstock")
ENDED = ("succeeded", "failed", "cancelled", "timed_out", "waiting", "infra_error")
# Generous: the machine may be busy with other things. Nothing is measured by them.
START_LIMIT_S, RUN_LIMIT_S, STOP_LIMIT_S = 400.0, 240.0, 120.0


def wait_for(true: Callable[[], Any], what: str, *, limit_s: float = RUN_LIMIT_S, every_s: float = 0.1) -> Any:
    """The first true answer. Fails in words when there is none within the limit."""
    deadline = time.monotonic() + limit_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(every_s)
    return found


def free_ports() -> dict[str, str]:
    """PENSTOCK_*_PORT for ports in a row that nobody listens on, and room for services behind them."""
    while True:
        first = random.randrange(20_000, 30_000)
        if all(_free(port) for port in range(first, first + 20)):
            offsets = {name: n for n, name in enumerate(PORTS)} | {"apps": 10}
            return {f"PENSTOCK_{name.upper()}_PORT": str(first + n) for name, n in offsets.items()}


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@attrs.frozen
class Project:
    """A connected bare repository and a work tree to push from."""

    name: str
    bare: Path
    tree: GitRepository

    def commit(self, files: Mapping[str, str | bytes] | None = None, message: str = "Change") -> str:
        return self.tree.commit(dict(files or {}), message)

    def push(self, ref: str = "main", *, force: bool = False) -> str:
        """Push HEAD to a branch; the hook tells Penstock. Returns: the commit."""
        self.tree.git("push", "--quiet", *(["--force"] if force else []), str(self.bare), f"HEAD:refs/heads/{ref}")
        return self.tree.git("rev-parse", "HEAD")


class Penstock:
    """One home; the platform on it may be started, stopped and killed as often as wanted."""

    def __init__(self, folder: Path | None = None, **variables: str) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="pp", dir="/tmp"))
        self.folder.chmod(0o711)
        self.home = self.folder / "h"
        given = {"PENSTOCK_HOME": str(self.home), **free_ports(), **variables}
        dropped = ("PENSTOCK_", "GIT_", "PYTHONDONTWRITEBYTECODE")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | given
        self.settings: Settings = load_settings(given)
        self.http = httpx.Client(base_url=self.settings.api_url, timeout=60, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: dict[int, psutil.Process] = {}

    # The command

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `penstock` to its end."""
        return subprocess.run(
            [PENSTOCK, *words], check=False, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=300
        )

    def sql(self, query: str) -> list[dict[str, Any]]:
        done = self.command("sql", query, "--json", "--limit", "0")
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def up(self, *words: str) -> None:
        """Start in the background; returns when it says that it is complete. Nothing to do where it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [PENSTOCK, "up", *words], env=self.env, cwd=self.folder, stdout=output, stderr=output
            )
        wait_for(self._complete, "penstock up is complete", limit_s=START_LIMIT_S)
        self.remember()

    @property
    def output(self) -> Path:
        return self.folder / "up.txt"

    def _complete(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"penstock up ended:\n{self.output.read_text()}"
        return "Ctrl-C stops everything" in self.output.read_text()

    def down(self) -> int:
        """Ctrl-C. Returns: the exit code."""
        assert self.process is not None
        self.remember()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_LIMIT_S)

    def kill(self) -> None:
        """kill -9 of the command itself, and so of what supervises."""
        assert self.process is not None
        self.remember()
        self.process.kill()
        self.process.wait()

    # Processes

    def remember(self) -> None:
        """Know all that runs now, to be asked for when it should be gone."""
        self.seen |= {process.pid: process for process in self.living()}

    def living(self) -> list[psutil.Process]:
        """Processes of this home: by their words, environment or folder, and all those remembered."""
        found = {process.pid: process for process in self.seen.values() if process.is_running()}
        for process in psutil.process_iter():
            if process.pid != os.getpid() and self._is_ours(process):
                found[process.pid] = process
        return [process for process in found.values() if _runs(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            told = [*process.cmdline(), *process.environ().values(), process.cwd()]
        except psutil.Error:
            return False
        return any(str(self.home) in text for text in told)

    def part(self, mark: str) -> psutil.Process:
        """The process of a part, by a word of its command."""
        return wait_for(lambda: self._part(mark), f"a process {mark}")

    def _part(self, mark: str) -> psutil.Process | None:
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return next((child for child in children if mark in words(child)), None)

    # The API and Dagster

    @property
    def token(self) -> str:
        return (self.home / "token").read_text()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers; fails on an error."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.http.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def http_answers(self) -> bool:
        """Whether the API is there."""
        try:
            return self.http.get("/api/v1/health").is_success
        except httpx.TransportError:
            return False

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        asked = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.settings.dagster_url}/graphql", json=asked, timeout=60, trust_env=False).json()
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def connect(self, name: str, files: Mapping[str, str | bytes]) -> Project:
        """A new project with a first commit that is not pushed yet."""
        bare = self.folder / f"{name}.git"
        tree = GitRepository(self.folder / name)
        tree.git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        self.api("POST", "/projects", {"name": name, "url": str(bare)})
        write_hook(self.settings, bare, name)
        tree.commit(dict(files), "First")
        return Project(name, bare, tree)

    def runs(self, commit: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("GET", f"/runs?commit={commit}")
        return found

    def run_of(self, commit: str) -> dict[str, Any]:
        """The one run of a commit, with its steps, as it is now."""
        (run,) = wait_for(lambda: self.runs(commit), f"a run of {commit[:12]}")
        return self.run(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/runs/{run_id}")
        return found

    def ended_run_of(self, commit: str) -> dict[str, Any]:
        return self.ended(self.run_of(commit)["id"])

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run once it is on record and closed."""

        def closed() -> dict[str, Any] | None:
            answer = self.http.get(f"/api/v1/runs/{run_id}", headers={"Authorization": f"Bearer {self.token}"})
            return answer.json() if answer.is_success and answer.json()["state"] in ENDED else None

        ended: dict[str, Any] = wait_for(closed, f"run {run_id} is closed")
        return ended

    def step_runs(self, run_id: str, step: str) -> dict[str, Any]:
        """The run once the step is at work."""
        return wait_for(lambda: state_of(self.run(run_id), step) == "running", f"step {step} of {run_id} is running")


def state_of(run: Mapping[str, Any], step: str) -> str:
    return str({each["step"]: each for each in run["steps"]}[step]["state"])


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def described(processes: Iterable[psutil.Process]) -> list[str]:
    return [f"{process.pid} {words(process)[:200]}" for process in processes]
