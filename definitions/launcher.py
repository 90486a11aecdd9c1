"""
Runs start as forks of the run server (`definitions.warm`), asked for on a Unix socket.

In `dagster.yaml`, beside `DefaultRunCoordinator`:

    run_launcher:
      module: definitions.launcher
      class: WarmRunLauncher
      config: {socket: /absolute/path/warm.sock}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from definitions.forks import Answer, Request, ask
from penstock.errors import PlatformError

STATUS_EVENTS = {
    DagsterEventType.RUN_START,
    DagsterEventType.RUN_CANCELING,
    DagsterEventType.RUN_SUCCESS,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.RUN_CANCELED,
}


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Launch, terminate and check by the run server at `socket`."""

    def __init__(self, socket: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._socket, self._inst_data = Path(socket), inst_data
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What `dagster.yaml` said."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """socket: where the run server listens; may be `{env: NAME}`."""
        return {"socket": dg.StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "WarmRunLauncher":
        """As Dagster makes what `dagster.yaml` names."""
        return cls(config_value["socket"], inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """
        Returns when the run has its process. A run that has one, or had one, is left as it is.

        Raises: DagsterLaunchFailedError when the run server stays away or refuses; Dagster then fails the run.
        """
        run_id = context.dagster_run.run_id
        record = self._instance.get_run_record_by_id(run_id)
        if record and record.start_time is not None:
            return self._restore(context.dagster_run, "it has been started before")
        try:
            answer = ask(self._socket, Request("launch", run_id))
        except PlatformError as error:
            raise DagsterLaunchFailedError(str(error)) from error
        if answer.state == "refused":
            raise DagsterLaunchFailedError(f"run server {self._socket}: {answer.detail}")
        if answer.state == "running":
            return self._restore(context.dagster_run, f"process {answer.detail} executes it")
        return None

    def terminate(self, run_id: str) -> bool:
        """Ask a running run to stop; one without a process is CANCELED at once. Returns: whether it was told."""
        run = self._instance.get_run_by_id(run_id)
        if not run or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        try:
            answer = ask(self._socket, Request("terminate", run_id), patience_s=2)
        except PlatformError as error:
            self._instance.report_engine_event(f"Cancelled as soon as the run server is back: {error}", run)
            return False
        if answer.state == "absent":
            self._cancel_absent(run_id)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes, by asking the run server."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING or NOT_FOUND; UNKNOWN while the run server is away."""
        try:
            answer: Answer = ask(self._socket, Request("check", run.run_id), patience_s=0.5)
        except PlatformError as error:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, str(error), transient=True)
        running = answer.state == "running"
        return CheckRunHealthResult(WorkerStatus.RUNNING if running else WorkerStatus.NOT_FOUND)

    def _cancel_absent(self, run_id: str) -> None:
        run = self._instance.get_run_by_id(run_id)  # it may have ended by itself meanwhile
        if run and not run.is_finished:
            self._instance.report_run_canceled(run, "The run was cancelled; no process was executing it.")

    def _restore(self, run: dg.DagsterRun, why: str) -> None:
        """`DagsterInstance.launch_run` has set STARTING already: say what the run's own events say again."""
        self._instance.report_engine_event(f"Not launched a second time: {why}.", run)
        events = self._instance.get_records_for_run(run.run_id, of_type=STATUS_EVENTS, ascending=False, limit=1)
        for record in events.records:
            entry = record.event_log_entry
            self._instance.run_storage.handle_run_event(run.run_id, entry.get_dagster_event())
