"""
One run of a plugin, the same for a pipeline's step and for `penstock plugin test`.

/ci is made, the plugin is run (again, when it asks to be), and how it ended is said in words.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from penstock.engines import GATEWAY_PORT, Engine, Exit, Gateway, Job
from penstock.folders import remove_tree
from penstock.pipeline.cancel import CancelToken
from penstock.plugins.contract import (
    ARTIFACT_FILES,
    ARTIFACTS,
    ATTEMPTS,
    BAD_CONFIGURATION,
    CI_BYTES,
    CONTRACT,
    DATA,
    DATA_PREFIX,
    DONE,
    FIRST_PAUSE_S,
    INPUT,
    MEMORY_BYTES,
    METRICS,
    MIB,
    OUTPUT,
    PIDS,
    PIPES,
    RESULTS,
    SECRETS,
    TOKEN,
    TRY_AGAIN,
)
from penstock.plugins.launch import Launch
from penstock.plugins.manifest import Manifest, variable_of
from penstock.plugins.markers import Markers
from penstock.plugins.pipes import pipes_env
from penstock.plugins.results import Left, ci_bytes
from penstock.steps.context import RunInfo, State, StepLog
from penstock.steps.workspace import tail_of

LOOK_EVERY_S = 0.25
_FILES = (OUTPUT, METRICS, DATA, PIPES)
_FOLDERS = (RESULTS, ARTIFACTS, SECRETS)


@attrs.frozen
class Limits:
    """memory_bytes, pids: of all its processes. cpus: processors. timeout_s: all attempts with their pauses."""

    timeout_s: float
    memory_bytes: int = MEMORY_BYTES
    pids: int = PIDS
    cpus: float | None = None
    ci_bytes: int = CI_BYTES


@attrs.frozen
class Invocation:
    """
    A plugin about to be run.

    inputs: as `with:` gives them, defaults put in. secrets: by the plugin's own names. environment: name and type.
    gateway: its one way out; None for none. token: of the data API, when it may read.
    first_pause_s: before the second attempt; each later one is twice as long.
    """

    manifest: Manifest
    info: RunInfo
    step: str
    inputs: Mapping[str, Any]
    launch: Launch
    workspace: Path
    ci: Path
    limits: Limits
    env: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    environment: Mapping[str, str] | None = None
    gateway: Gateway | None = None
    token: str | None = attrs.field(default=None, repr=False)
    first_pause_s: float = FIRST_PAUSE_S

    def document(self) -> dict[str, Any]:
        """What input.json says."""
        info = self.info
        return {
            "contract": CONTRACT,
            "plugin": {"name": self.manifest.name, "version": self.manifest.version},
            "inputs": dict(self.inputs),
            "project": info.project,
            "commit": info.commit,
            "ref": info.ref,
            "event": {"name": info.event, "before": info.before, **info.about},
            "environment": dict(self.environment) if self.environment else None,
            "run": info.id,
            "step": self.step,
            "workspace": self.launch.workspace,
        }

    def variables(self) -> dict[str, str]:
        """Scalars as PLUGIN_*, where things are, and how the network is reached."""
        launch = self.launch
        env = {
            **self.env,
            **launch.env,
            "PENSTOCK_CI_DIR": launch.ci,
            "PENSTOCK_SECRETS": f"{launch.ci}/{SECRETS}",
            "WORKSPACE": launch.workspace,
            **pipes_env(launch.ci, self.info.id, {"inputs": dict(self.inputs)}),
            **{variable_of(name): text for name, text in _scalars(self.inputs)},
        }
        if self.gateway is not None:
            proxy = f"http://127.0.0.1:{GATEWAY_PORT}"
            env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
            env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
            if self.token is not None:
                env["PENSTOCK_DATA_URL"] = f"{proxy}{DATA_PREFIX}"
        return env

    def job(self, timeout_s: float) -> Job:
        """For the engine."""
        token = {TOKEN: self.token.encode()} if self.token is not None else {}
        return Job(
            run_id=self.info.id,
            step=self.step,
            argv=self.launch.argv,
            workspace=self.workspace,
            workspace_writable=False,
            work_dir=self.launch.folder,
            env=self.variables(),
            image=self.launch.image,
            mounts=self.launch.mounts,
            gateway=self.gateway,
            secrets={**self.secrets, **token},
            secrets_folder=f"{self.launch.ci}/{SECRETS}",
            cpus=self.limits.cpus,
            memory_bytes=self.limits.memory_bytes,
            pids=self.limits.pids,
            timeout_s=timeout_s,
        )


@attrs.frozen
class Ended:
    """How a plugin ended. state, reason: of the step. exit: of the last attempt. wrote: what it left behind in /ci."""

    state: State
    reason: str | None
    exit: Exit
    wrote: Left

    @property
    def has_results(self) -> bool:
        """Whether what it wrote is to be read: it came to its own end, well or not."""
        return self.exit.state == "exited" and self.exit.code not in (TRY_AGAIN, BAD_CONFIGURATION)


def _scalars(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if value is None or isinstance(value, str | int | float):
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            if "\0" not in text:
                yield name, text


def with_defaults(manifest: Manifest, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, and the defaults that the schema names for those that are not given."""
    properties = manifest.inputs.get("properties") or {}
    defaults = {name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one}
    return {**defaults, **inputs}


def run_plugin(invocation: Invocation, engine: Engine, log: StepLog, token: CancelToken) -> Ended:
    """
    Run it to its end; again after a pause when it asks for that, within its time.

    Raises: whatever the engine raises when it cannot be run.
    """
    deadline = time.monotonic() + invocation.limits.timeout_s
    for attempt in range(1, ATTEMPTS + 1):
        ended = _run_once(invocation, engine, log, token, max(0.1, deadline - time.monotonic()))
        pause_s = invocation.first_pause_s * 2 ** (attempt - 1)
        again = ended.exit.state == "exited" and ended.exit.code == TRY_AGAIN
        if not again or attempt == ATTEMPTS or time.monotonic() + pause_s >= deadline:
            break
        log.line(f"it asks to be tried again: attempt {attempt + 1} of {ATTEMPTS} in {pause_s:g} s")
        if token.wait(pause_s):
            return attrs.evolve(ended, state="cancelled", reason=token.reason)
    return ended


def _run_once(invocation: Invocation, engine: Engine, log: StepLog, token: CancelToken, left_s: float) -> Ended:
    make_ci(invocation)
    markers = Markers(log.output, log.line)
    own = CancelToken()
    private = invocation.workspace.with_name(f"{invocation.workspace.name}.private")  # its /tmp, on some engines
    stopping = token.stopping(lambda: own.cancel(token.reason or "cancelled"))
    with stopping, _watched((invocation.ci, private), invocation.limits.ci_bytes, own):
        ended = engine.run(invocation.job(left_s), markers.feed, own)
    markers.end()
    state, reason = _outcome(ended, invocation, log, own, token)
    return Ended(state, reason, ended, Left(invocation.ci))


def make_ci(invocation: Invocation) -> None:
    """A fresh /ci, with nothing of an earlier attempt in it."""
    remove_tree(invocation.ci)
    invocation.ci.mkdir(parents=True, mode=0o700)
    for name in _FOLDERS:
        (invocation.ci / name).mkdir()
    text = json.dumps(invocation.document(), ensure_ascii=False, default=str)
    (invocation.ci / INPUT).write_bytes(text.encode("utf-8", "replace"))


@contextmanager
def _watched(folders: tuple[Path, ...], limit: int, token: CancelToken) -> Iterator[None]:
    """Stop the job when it has written more than it may."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            size, count = ci_bytes(folders, limit, 2 * ARTIFACT_FILES)
            if size > limit or count > 2 * ARTIFACT_FILES:
                token.cancel(
                    f"it has written more than {limit // MIB} MiB" if size > limit else f"it has made {count} files"
                )
                return

    thread = threading.Thread(target=watch, name="watch over what a plugin writes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _outcome(
    ended: Exit, invocation: Invocation, log: StepLog, own: CancelToken, token: CancelToken
) -> tuple[State, str | None]:
    limits = invocation.limits
    if token.cancelled:
        return "cancelled", token.reason
    stopped: dict[str, tuple[State, str]] = {
        "cancelled": ("failed", f"stopped: {own.reason}"),
        "timed_out": ("timed_out", f"took longer than its limit of {limits.timeout_s:g} s"),
        "out_of_memory": ("failed", f"out of memory: more than {limits.memory_bytes // MIB} MiB; raise `memory:`"),
    }
    if ended.state in stopped:
        return stopped[ended.state]
    return _by_exit_code(ended.code, tail_of(log, 1))


def _by_exit_code(code: int, said: str) -> tuple[State, str | None]:
    words = f": {said}" if said else ""
    if code == DONE:
        return "succeeded", None
    if code == BAD_CONFIGURATION:
        return "failed", f"bad configuration{words or '; see its docs'}"
    if code == TRY_AGAIN:
        return "infra_error", f"it asked to be tried again, at last too{words}"
    return "failed", f"exit code {code}{words}"
