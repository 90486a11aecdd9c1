"""A job that the cluster has begun: looked at until it ends, its workspace copied in before and out after."""

import time

from penstock.engines import Exit, ExitState, Job, OnOutput
from penstock.engines.kubernetes_cluster import Cluster
from penstock.engines.kubernetes_copy import copy_in, copy_out, let_go
from penstock.engines.kubernetes_log import Follower
from penstock.engines.kubernetes_manifests import SIDECAR_PREFIX, START_SLACK_S, Manifest
from penstock.engines.kubernetes_status import Look, failed_sidecar, is_keeping_workspace, look_at
from penstock.errors import PenstockError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken

UNSCHEDULABLE_LIMIT_S = 600.0  # long enough for a cluster that adds a node
AWAY_LIMIT_S = 60.0  # an API server that restarts
LOG_LIMIT_S = 30.0
_CANCELLED_CODE = 143


class Stop(Exception):
    """The job is to be stopped: cancelled, or its time is over."""

    def __init__(self, state: ExitState) -> None:
        super().__init__(state)
        self.state = state


class Running:
    """One begun Job. Call `until_end` once."""

    def __init__(
        self, cluster: Cluster, job: Job, name: str, *, on_output: OnOutput, token: CancelToken, look_every_s: float
    ) -> None:
        self._cluster, self._job, self._name, self._look_every_s = cluster, job, name, look_every_s
        self._on_output, self._token = on_output, token
        self._begun = time.monotonic()
        self._deadline: float | None = None  # of the job's own time, which begins with its container
        self._follower: Follower | None = None
        self._pod: Manifest | None = None
        self._unschedulable_since: float | None = None
        self._said = ""

    def until_end(self) -> Exit:
        """
        Until the job's container has ended and its workspace is back; a stopped job's workspace is not brought back.

        Raises: StepFailure, PlatformError as `look_at` says; StepFailure for a sidecar that ends or never gets ready.
        """
        try:
            look = self._until_ended()
            self._read_rest_of_log()
            exit_ = self._exit(look)
            if exit_.state != "timed_out":
                self._bring_back()
            return exit_
        except Stop as stop:
            return Exit(stop.state, _CANCELLED_CODE, time.monotonic() - self._begun)
        finally:
            if self._follower is not None:
                self._follower.leave()

    def _until_ended(self) -> Look:
        copied = False
        while True:
            look = self._look()
            if look.deadline:
                raise Stop("timed_out")
            if look.trouble is not None:
                raise look.trouble
            if look.stage == "ended":
                self._follow()  # it may have ended between two looks
                return look
            if look.stage == "copying in" and not copied:
                copy_in(self._cluster, self._pod_name(), self._job.workspace, self._go_on)
                copied = True
            elif look.stage == "running":
                self._follow()
            elif look.stage == "starting":
                self._refuse_failed_sidecar()
            self._wait_for(look)
            self._go_on()
            self._token.wait(self._look_every_s)

    def _look(self) -> Look:
        """One look, or several while the API is away."""
        away_since = time.monotonic()
        while True:
            try:
                pod = self._cluster.pod_of(self._name)
            except PlatformError:
                if time.monotonic() - away_since > AWAY_LIMIT_S:
                    raise
                self._go_on()
                self._token.wait(self._look_every_s)
                continue
            if pod is None and self._pod is not None:
                raise PlatformError("its Pod has vanished: somebody deleted it, or its node is gone")
            self._pod = pod
            return look_at(pod)

    def _go_on(self) -> None:
        """Raises: Stop when it was cancelled or its time is over; PlatformError when it does not start."""
        self._check_cancelled()
        if self._follower is None:
            self._refuse_late(self._begun, f"start; it was waiting for {self._said or 'its workspace'}")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Stop("timed_out")

    def _follow(self) -> None:
        if self._follower is None:
            self._deadline = time.monotonic() + self._job.timeout_s
            self._follower = Follower(self._cluster, self._pod_name(), self._on_output, pause_s=self._look_every_s)
            self._follower.start()

    def _wait_for(self, look: Look) -> None:
        """Say what it waits for, once; give up on a node that does not come. Raises: PlatformError."""
        if look.waiting_for and look.waiting_for != self._said:
            self._said = look.waiting_for
            self._on_output(f"waiting for {look.waiting_for}\n".encode())
        now = time.monotonic()
        if not look.unschedulable:
            self._unschedulable_since = None
        elif self._unschedulable_since is None:
            self._unschedulable_since = now
        elif now - self._unschedulable_since > UNSCHEDULABLE_LIMIT_S:
            raise PlatformError(f"no node took it within {UNSCHEDULABLE_LIMIT_S:g} s: {look.waiting_for}")

    def _refuse_failed_sidecar(self) -> None:
        failed = failed_sidecar(self._pod or {})
        if failed is None:
            return
        name, how = failed
        words = self._last_words(f"{SIDECAR_PREFIX}{name}")
        raise StepFailure(f'service "{name}" did not get ready: it ended with {how}{words}')

    def _last_words(self, container: str) -> str:
        """Of the time before it was started again, if there was one."""
        for previous in (True, False):
            try:
                if text := self._cluster.last_lines(self._pod_name(), container, previous=previous):
                    return f": {text}"
            except PlatformError:
                continue
        return ""

    def _read_rest_of_log(self) -> None:
        if self._follower is None:
            return
        self._follower.finish(LOG_LIMIT_S)
        if self._follower.lost is not None:
            self._on_output(f"the rest of its output could not be read: {self._follower.lost}\n".encode())

    def _exit(self, look: Look) -> Exit:
        code = 1 if look.code is None else look.code
        seconds = time.monotonic() - self._begun if look.seconds is None else look.seconds
        return Exit("out_of_memory" if look.out_of_memory else "exited", code, seconds)

    def _bring_back(self) -> None:
        """Raises: Stop; PlatformError when the workspace does not come back whole."""
        if self._pod is None or not is_keeping_workspace(self._pod):
            raise PlatformError("its workspace is lost: the container that kept it has ended")
        since = time.monotonic()

        def check() -> None:
            self._check_cancelled()
            self._refuse_late(since, "give its workspace back")

        copy_out(self._cluster, self._pod_name(), self._job.workspace, check)
        try:
            let_go(self._cluster, self._pod_name(), check)
        except PenstockError as error:
            self._on_output(f"its Pod did not end by itself: {error}\n".encode())

    def _refuse_late(self, since: float, doing: str) -> None:
        if time.monotonic() - since > START_SLACK_S:
            raise PlatformError(f"it took longer than {START_SLACK_S} s to {doing}")

    def _check_cancelled(self) -> None:
        if self._token.cancelled:
            raise Stop("cancelled")

    def _pod_name(self) -> str:
        if self._pod is None:
            raise PlatformError("its Pod has vanished: somebody deleted it, or its node is gone")
        return str(self._pod["metadata"]["name"])
