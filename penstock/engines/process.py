"""
The embedded engine: the host's own tools in a fresh workspace, apart from the host by bubblewrap.

With bubblewrap: read-only host, private /tmp and home, no network unless asked, all capabilities
dropped, own process and IPC namespaces, PENSTOCK_HOME and the credentials of user and host hidden.
Without it the commands run as the user who runs Penstock. Limits are control groups where these can
be made, else a watch. `isolation()` says plainly what there is.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import psutil

from penstock.engines import Exit, Job, OnOutput
from penstock.engines.process_command import RUN_MARK, command_for, mark, name_of, outside, remove_secrets
from penstock.engines.process_groups import Group, Groups, find_groups
from penstock.engines.process_running import Running
from penstock.engines.process_sandbox import bubblewrap, hidden, host_env
from penstock.engines.process_watch import EVERY_S
from penstock.folders import remove_tree
from penstock.pipeline.cancel import CancelToken
from penstock.processes import kill_all
from penstock.settings import Settings

__all__ = ["RUN_MARK", "ProcessEngine", "bubblewrap", "hidden", "host_env"]


@attrs.frozen
class ProcessEngine:
    """
    Runs jobs as processes of this machine, which never see PENSTOCK_HOME.

    find_groups: says where control groups can be made; None where they cannot.
    """

    settings: Settings
    name: str = "process"
    find_groups: Callable[[], Groups | None] = find_groups

    @property
    def home(self) -> Path:
        """PENSTOCK_HOME."""
        return self.settings.home

    def image_digest(self, image: str) -> str | None:
        """None: images are not used."""
        del image
        return None

    def isolation(self) -> str:
        """One sentence that says plainly how far a job is kept apart from this machine."""
        return f"{_apart()}; {_limits(self.find_groups())}"

    def run(self, job: Job, on_output: OnOutput, token: CancelToken) -> Exit:
        """Run the job to its end; see `Engine.run`."""
        token.raise_if_cancelled()
        with ExitStack() as stack:
            private, group = stack.enter_context(_private_folder(job)), stack.enter_context(self._group(job))
            command = command_for(job, self.settings, private, group, stack)
            running = Running(
                job,
                command,
                group,
                on_output=on_output,
                token=token,
                reap=lambda: self._kill_marked(job.run_id, job.step),
            )
            if command.door is not None and job.gateway is not None:
                running.open_door(command.door, job.gateway, stack)
            running.wait()
            return running.ended()

    def shell(self, job: Job) -> int:
        """Run the job's argv on this terminal; see `Engine.shell`."""
        with ExitStack() as stack:
            private, group = stack.enter_context(_private_folder(job)), stack.enter_context(self._group(job))
            command = command_for(job, self.settings, private, group, stack, on_terminal=True)
            folder = job.workspace / outside(job.work_dir)
            return subprocess.run(
                command.argv, env=dict(command.env), cwd=folder, pass_fds=command.fds, check=False
            ).returncode

    def reap(self, run_id: str, step: str = "") -> int:
        """Kill what carries the run's mark or is in its groups, of one step or of all; see `Engine.reap`."""
        name = name_of(self.settings, run_id, step)
        groups = found.named(name) if (found := self.find_groups()) else []
        in_groups = {pid for group in groups for pid in group.members()}
        killed = self._kill_marked(run_id, step)
        for group in groups:
            group.kill()
            group.remove()
        remove_secrets(name)
        return len(in_groups | killed)

    def _kill_marked(self, run_id: str, step: str) -> set[int]:
        wanted = mark(self.settings, run_id, step)
        marked = [process for process in psutil.process_iter() if _marked(process, wanted)]
        kill_all(marked, grace_s=0)
        return {process.pid for process in marked}

    @contextmanager
    def _group(self, job: Job) -> Iterator[Group | None]:
        """A control group with the job's limits, whose members end with the block; None where there can be none."""
        groups = self.find_groups()
        if groups is None:
            yield None
            return
        group = groups.make(name_of(self.settings, job.run_id, job.step))
        try:
            group.limit(memory_bytes=job.memory_bytes, pids=job.pids, cpus=job.cpus)
            yield group
        finally:
            group.kill()
            group.remove()


def _apart() -> str:
    if bubblewrap():
        return "bubblewrap: read-only host, private /tmp and home, no network unless asked"
    return "none: commands run as your user with your files and network; install bubblewrap to isolate them"


def _limits(groups: Groups | None) -> str:
    if groups is None:
        return f"limits of memory and processes are looked at every {EVERY_S:g} s, processors are not limited"
    if "cpu" not in groups.folders:
        return f"limits of memory and processes by control groups (v{groups.version}), processors are not limited"
    return f"limits by control groups (v{groups.version})"


@contextmanager
def _private_folder(job: Job) -> Iterator[Path]:
    """Beside the workspace: the job's /tmp and home."""
    private = job.workspace.parent / f"{job.workspace.name}.private"
    private.mkdir(exist_ok=True)
    try:
        yield private
    finally:
        remove_tree(private)


def _marked(process: psutil.Process, wanted: str) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        found = process.environ().get(RUN_MARK, "")
        return found.startswith(wanted) if wanted.endswith("/") else found == wanted
    return False
