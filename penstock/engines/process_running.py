"""A job that has been started: its output is read, its limits are held, and it always ends with its processes gone."""

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil

from penstock.engines import Exit, ExitState, Gateway, Job, OnOutput
from penstock.engines.process_command import Command, outside
from penstock.engines.process_gateway import Door
from penstock.engines.process_groups import Group
from penstock.engines.process_sandbox import bubblewrap
from penstock.engines.process_watch import Excess, Watch, threads_of_the_machine
from penstock.errors import PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import signal_group, spawn

STOP_GRACE_S = 3.0
READ_SIZE = 64 * 1024
_TOO_LONG = 7  # E2BIG


class Running:
    """One started job. Call `wait`, then `ended`."""

    def __init__(
        self,
        job: Job,
        command: Command,
        group: Group | None,
        *,
        on_output: OnOutput,
        token: CancelToken,
        reap: Callable[[], object],
    ) -> None:
        """
        reap: ends what is left of a job that neither control group nor sandbox held, and whose runner was killed.

        Raises: PlatformError, StepFailure when it cannot be started.
        """
        self._job, self._command, self._group = job, command, group
        self._on_output, self._token, self._reap = on_output, token, reap
        self._state: ExitState = "exited"
        self._started = time.monotonic()
        read_end, write_end = os.pipe()
        try:
            self._process = self._start(write_end)
        except OSError as error:
            os.close(read_end)
            raise _not_started(job, error) from error
        finally:
            os.close(write_end)
        self._output = os.fdopen(read_end, "rb", buffering=0)
        self._killer = threading.Timer(STOP_GRACE_S, self._kill)
        self._killer.daemon = True
        self._reader = threading.Thread(target=self._read, name=f"output of {job.step}", daemon=True)
        self._reader.start()

    def open_door(self, door: Door, gateway: Gateway, stack: ExitStack) -> None:
        """
        Let the job begin, once its gateway serves; it serves until `stack` is closed.

        Raises: PlatformError when there can be none; the job, which has not begun, is gone then.
        """
        try:
            stack.enter_context(gateway(door.listening()))
            door.open()
        except BaseException:
            self._kill()
            self._process.wait()
            raise

    def wait(self) -> None:
        """Until the job's own process has ended; all that it started is gone then."""
        clock = threading.Timer(self._job.timeout_s, self._stop, ("timed_out",))
        clock.daemon = True
        clock.start()
        watch = self._watch() if self._group is None else None
        try:
            with self._token.stopping(lambda: self._stop("cancelled")):
                _, status, self._usage = os.wait4(self._process.pid, 0)
        finally:
            clock.cancel()
            self._killer.cancel()
            self._kill()
            if watch is not None:
                watch.end()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._group is None and not bubblewrap() and self._process.returncode < 0:
            self._reap()

    def ended(self) -> Exit:
        """
        How it ended, once all that it printed has been read.

        Raises: StepFailure when a service kept it from being started.
        """
        self._reader.join(STOP_GRACE_S)
        if self._state == "exited" and (failure := self._command.failure()):
            raise StepFailure(failure)
        code = self._process.returncode
        if self._state == "exited" and code and self._group is not None and self._group.out_of_memory():
            self._state = "out_of_memory"
        return Exit(
            state=self._state,
            code=code if code >= 0 else 128 - code,
            seconds=time.monotonic() - self._started,
            cpu_s=self._cpu_s(),
            memory_peak_bytes=self._group.memory_peak_bytes() if self._group else self._largest_bytes(),
        )

    def _cpu_s(self) -> float | None:
        if self._group is not None:
            return self._group.cpu_s()
        return None if bubblewrap() else self._usage.ru_utime + self._usage.ru_stime

    def _largest_bytes(self) -> int | None:
        """The largest process; None with bubblewrap, which does not wait for those inside and so does not know."""
        return None if bubblewrap() else self._usage.ru_maxrss * 1024

    def _start(self, output: int) -> "subprocess.Popen[bytes]":
        # bubblewrap binds itself to us; without a signal to set, Python needs not copy this process to start one.
        bound = None if bubblewrap() else signal.SIGKILL
        # A folder that is mounted into the sandbox is not there on this machine; bubblewrap changes into it.
        folder = self._job.workspace if self._job.mounts else self._job.workspace / outside(self._job.work_dir)
        command = self._command
        process = spawn(
            command.argv, output=output, env=command.env, cwd=folder, death_signal=bound, pass_fds=command.fds
        )
        if self._group is None and os.geteuid():  # root has no such limit
            with suppress(OSError):
                limit = threads_of_the_machine() + self._job.pids
                resource.prlimit(process.pid, resource.RLIMIT_NPROC, (limit, limit))
        return process

    def _watch(self) -> Watch:
        watch = Watch(
            self._tree, memory_bytes=self._job.memory_bytes, pids=self._job.pids, on_excess=self._stop_for_excess
        )
        watch.start()
        return watch

    def _read(self) -> None:
        with self._output:
            while chunk := self._output.read(READ_SIZE):
                self._on_output(chunk)

    def _stop_for_excess(self, excess: Excess) -> None:
        if excess == "memory" and self._state == "exited":
            self._state = "out_of_memory"
        if excess == "pids":
            self._on_output(f"stopped: it has more than {self._job.pids} processes and threads\n".encode())
        self._kill()

    def _stop(self, state: ExitState) -> None:
        """Ask all inside to end (not bubblewrap, that would take it down at once), then kill. First reason counts."""
        if self._state == "exited":
            self._state = state
        for process in self._asked_to_end():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        with suppress(RuntimeError):  # it was started before: a job may be cancelled after its limit
            self._killer.start()

    def _kill(self) -> None:
        if self._group is None and not bubblewrap():
            self._kill_below_runner()
        signal_group(self._process.pid, signal.SIGKILL)
        if self._group is not None:
            self._group.kill()

    def _kill_below_runner(self) -> None:
        """The runner holds together what is below it, so it goes last; what forks meanwhile is found the next time."""
        deadline = time.monotonic() + STOP_GRACE_S
        while (below := self._tree()[1:]) and time.monotonic() < deadline:
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)

    def _asked_to_end(self) -> list[psutil.Process]:
        """All but bubblewrap; of a job with services only what runs them, which asks the job before the services."""
        tree = self._tree()
        inside = tree[1:] if bubblewrap() else tree
        if self._command.report is None:
            return inside
        return inside[1:2] if bubblewrap() else inside[:1]  # after bubblewrap's own first process

    def _tree(self) -> list[psutil.Process]:
        """The process that was started, then its descendants, level by level."""
        try:
            leader = psutil.Process(self._process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _not_started(job: Job, error: OSError) -> PlatformError | StepFailure:
    if error.errno == _TOO_LONG:
        return StepFailure(
            "its command or a variable is longer than the kernel takes", where=job.step, remedy="put it into a file"
        )
    return PlatformError(f"cannot start {job.argv[0]}: {error.strerror}")
