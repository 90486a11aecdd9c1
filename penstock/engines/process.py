"""
The embedded engine: the host's own tools in a fresh workspace, apart from the host by bubblewrap.

With bubblewrap: read-only host, private /tmp and home, no network unless asked, all capabilities
dropped, own process and IPC namespaces, PENSTOCK_HOME and the user's credentials hidden. Without it
the commands run as the user who runs Penstock; `isolation()` says so plainly.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import attrs
import psutil

from penstock.engines import Exit, ExitState, Job, OnOutput
from penstock.errors import PlatformError
from penstock.folders import remove_tree
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.spec import WORKSPACE
from penstock.processes import kill_all, signal_group, spawn
from penstock.settings import Settings

RUN_MARK = "PENSTOCK_RUN_MARK"  # in the environment of every process of a run: how `reap` finds them
STOP_GRACE_S = 3.0
READ_SIZE = 64 * 1024

# Nothing of the host's environment reaches a job but these.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE")
# With the network on, package managers need to know the host's proxies and certificates.
_PASSED_ON_WITH_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("PIP_CERT", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "GIT_SSL_CAINFO"),
)
_NETWORK_FILES = (".config/pip/pip.conf", ".pip/pip.conf")
_CREDENTIAL_FOLDERS = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".docker", ".kube", ".config", ".local/share/keyrings"),
    *(".password-store", ".mozilla", ".claude"),
)
_SECRETS_OF_THE_HOST = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d"),
    *("/etc/ssh", "/etc/ssl/private", "/var/spool/cron", "/var/lib/docker", "/var/lib/postgresql"),
)
_CREDENTIAL_FILES = (
    *(".netrc", ".git-credentials", ".pypirc", ".npmrc", ".pgpass", ".my.cnf", ".vault-token"),
    *(".bash_history", ".zsh_history", ".python_history", ".gitconfig"),
)


@attrs.frozen
class ProcessEngine:
    """Runs jobs as processes of this machine, which never see PENSTOCK_HOME."""

    settings: Settings
    name: str = "process"

    @property
    def home(self) -> Path:
        """PENSTOCK_HOME."""
        return self.settings.home

    def image_digest(self, image: str) -> str | None:
        """None: images are not used."""
        del image
        return None

    def shell(self, job: Job) -> int:
        """Run the job's argv on this terminal; see `Engine.shell`."""
        private = job.workspace.parent / f"{job.workspace.name}.private"
        private.mkdir(exist_ok=True)
        try:
            folder = job.workspace / _outside(job.work_dir)
            return subprocess.run(
                self._argv(job, private), env=self._env(job, private), cwd=folder, check=False
            ).returncode
        finally:
            remove_tree(private)

    def isolation(self) -> str:
        """One sentence that says plainly how far a job is kept apart from this machine."""
        if bubblewrap():
            return "bubblewrap: read-only host, private /tmp and home, no network unless asked"
        return "none: commands run as your user with your files and network; install bubblewrap to isolate them"

    def run(self, job: Job, on_output: OnOutput, token: CancelToken) -> Exit:
        """Run the job to its end; see `Engine.run`."""
        token.raise_if_cancelled()
        private = job.workspace.parent / f"{job.workspace.name}.private"
        private.mkdir(exist_ok=True)
        try:
            running = _Running(job, self._argv(job, private), self._env(job, private), on_output, token)
            try:
                running.wait()
            finally:
                if not bubblewrap():  # what has left the group would hold the output open
                    self.reap(job.run_id, job.step)
            return running.ended()
        finally:
            remove_tree(private)

    def reap(self, run_id: str, step: str = "") -> int:
        """Kill what carries the run's mark, of one step or of all."""
        marked = [process for process in psutil.process_iter() if _marked(process, self._mark(run_id, step))]
        kill_all(marked, grace_s=0)
        return len(marked)

    def _mark(self, run_id: str, step: str) -> str:
        """Names the home too, without telling it: another Penstock on this machine reaps its own runs alone."""
        return f"{run_id}/{hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]}/{step}"

    def _argv(self, job: Job, private: Path) -> list[str]:
        if wrap := bubblewrap():
            return [wrap, *sandbox_arguments(job, self.home, private, Path.home()), "--", *job.argv]
        return list(job.argv)

    def _env(self, job: Job, private: Path) -> dict[str, str]:
        inside = bubblewrap() is not None
        env = host_env(os.environ, network=job.network)
        env |= {
            "HOME": "/tmp/home" if inside else str(private),
            "WORKSPACE": WORKSPACE if inside else str(job.workspace),
        }
        return {**env, **job.env, RUN_MARK: self._mark(job.run_id, job.step)}


def host_env(environment: Mapping[str, str], *, network: bool) -> dict[str, str]:
    """The part of the host's environment that a job sees. Penstock's own tools come last on PATH."""
    names = (*_PASSED_ON, *_PASSED_ON_WITH_NETWORK) if network else _PASSED_ON
    env = {name: environment[name] for name in names if name in environment}
    own = str(Path(sys.executable).parent)
    path = [folder for folder in env.get("PATH", os.defpath).split(":") if folder and folder != own]
    return {**env, "PATH": ":".join([*path, own])}


@cache
def bubblewrap() -> str | None:
    """The bwrap command, if it is there and this kernel lets it work."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    probe = [found, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(probe, check=False, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None


def sandbox_arguments(job: Job, home: Path, private: Path, user_home: Path) -> list[str]:
    """bubblewrap's words for a job: what it sees, what it does not."""
    arguments = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    if job.network:
        arguments.append("--share-net")
    arguments += read_only_host()
    arguments += ["--dev", "/dev", "--proc", "/proc", "--bind", str(private), "/tmp", "--dir", "/tmp/home"]
    arguments += hidden(home, user_home)
    if job.network:
        for name in _NETWORK_FILES:
            arguments += ["--ro-bind-try", str(user_home / name), f"/tmp/home/{name}"]
    # Penstock's own environment may lie where the private /tmp is now.
    for folder in (Path(sys.prefix), *job.read_only):
        arguments += ["--ro-bind", str(folder), str(folder)]
    arguments += ["--bind", str(job.workspace), WORKSPACE, "--remount-ro", "/"]
    return [*arguments, "--chdir", str(Path(WORKSPACE, job.work_dir))]


def read_only_host() -> list[str]:
    """The host's top-level folders, read-only, on a root that has room for more."""
    arguments: list[str] = []
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            arguments += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.is_dir() and entry.name not in {"dev", "proc", "tmp", "run", "sys", "workspace", "lost+found"}:
            arguments += ["--ro-bind", str(entry), str(entry)]
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.is_relative_to("/run"):
        arguments += ["--ro-bind-try", str(resolver), str(resolver)]
    return arguments


def hidden(home: Path, user_home: Path) -> list[str]:
    """Empty folders and files over PENSTOCK_HOME and over the places where people keep credentials."""
    arguments = ["--tmpfs", str(home)] if home.exists() and not home.is_relative_to("/tmp") else []
    for name in _CREDENTIAL_FOLDERS:
        if (user_home / name).is_dir():
            arguments += ["--tmpfs", str(user_home / name)]
    for name in _CREDENTIAL_FILES:
        if (user_home / name).is_file():
            arguments += ["--ro-bind", "/dev/null", str(user_home / name)]
    for path in _SECRETS_OF_THE_HOST:  # root could read them, also without its capabilities
        if Path(path).exists():
            arguments += ["--tmpfs", path] if Path(path).is_dir() else ["--ro-bind", "/dev/null", path]
    return arguments


class _Running:
    """One started job: reads its output, watches its limits, and always ends with its processes gone."""

    def __init__(
        self, job: Job, argv: list[str], env: Mapping[str, str], on_output: OnOutput, token: CancelToken
    ) -> None:
        self._job, self._on_output, self._token = job, on_output, token
        self._state: ExitState = "exited"
        self._started = time.monotonic()
        read_end, write_end = os.pipe()
        try:
            # bubblewrap binds itself to us; without a signal to set, Python needs not copy this process to start one.
            bound = None if bubblewrap() else signal.SIGKILL
            folder = job.workspace / _outside(job.work_dir)
            self._process = spawn(argv, output=write_end, env=env, cwd=folder, death_signal=bound)
        except OSError as error:
            os.close(read_end)
            raise PlatformError(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(write_end)
        self._output = os.fdopen(read_end, "rb", buffering=0)

        self._killer = threading.Timer(STOP_GRACE_S, signal_group, (self._process.pid, signal.SIGKILL))
        self._killer.daemon = True
        self._reader = threading.Thread(target=self._read, name=f"output of {job.step}", daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Until the job's own process has ended; its group is gone then."""
        watch = threading.Timer(self._job.timeout_s, self._stop, ("timed_out",))
        watch.daemon = True
        watch.start()
        try:
            with self._token.stopping(lambda: self._stop("cancelled")):
                _, status, self._usage = os.wait4(self._process.pid, 0)
        finally:
            watch.cancel()
            self._killer.cancel()
            signal_group(self._process.pid, signal.SIGKILL)
        self._process.returncode = os.waitstatus_to_exitcode(status)

    def ended(self) -> Exit:
        """How it ended, once all that it printed has been read."""
        self._reader.join(STOP_GRACE_S)
        code, usage = self._process.returncode, self._usage
        return Exit(
            state=self._state,
            code=code if code >= 0 else 128 - code,
            seconds=time.monotonic() - self._started,
            cpu_s=usage.ru_utime + usage.ru_stime,
            memory_peak_bytes=usage.ru_maxrss * 1024,
        )

    def _read(self) -> None:
        with self._output:
            while chunk := self._output.read(READ_SIZE):
                self._on_output(chunk)

    def _stop(self, state: ExitState) -> None:
        """Ask all inside to end (not bubblewrap, that would take it down at once), then kill. First reason counts."""
        if self._state == "exited":
            self._state = state
        for process in self._inside():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        with suppress(RuntimeError):  # it was started before: a job may be cancelled after its limit
            self._killer.start()

    def _inside(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self._process.pid)
            return leader.children(recursive=True) if bubblewrap() else [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _outside(work_dir: str) -> str:
    """`work_dir` relative to the workspace, whether it was written with /workspace or without."""
    return str(Path(work_dir).relative_to(WORKSPACE)) if work_dir.startswith(WORKSPACE) else work_dir


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        found = process.environ().get(RUN_MARK, "")
        return found.startswith(mark) if mark.endswith("/") else found == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
