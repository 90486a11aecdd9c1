"""What a step is given and what it gives back."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from penstock.engines import Engine, Job
from penstock.errors import StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from penstock.artifacts.store import ArtifactStore
    from penstock.findings import Report
    from penstock.pipeline.junit import CaseResult

State = Literal["succeeded", "failed", "cancelled", "timed_out", "skipped", "infra_error"]


@attrs.frozen
class RunInfo:
    """The run that a step belongs to. `commit` is the full hash; `title` the commit's first line."""

    id: str
    project: str
    commit: str
    ref: str
    graph_hash: str
    structure_hash: str
    trigger: str = "push"
    author: str | None = None
    title: str | None = None
    committed_at: datetime | None = None

    @property
    def branch(self) -> str:
        """The ref without `refs/heads/`."""
        return self.ref.removeprefix("refs/heads/")

    @property
    def partition(self) -> str:
        """The commit's key in Dagster: its first 12 hex digits."""
        return self.commit[:12]


@attrs.frozen
class Artifact:
    """
    Bytes that a step put out, in the artifact store by their hash.

    path: where in the workspace they belong. kind: `file`, or `tree` (a tar archive of a folder).
    published: put under its key for other runs too (step.artifact_push), not only for steps that need this one.
    """

    key: str
    path: str
    kind: Literal["file", "tree"]
    digest: str
    size_bytes: int
    published: bool = False


@attrs.frozen
class ScanOutcome:
    """
    What came of a scan: the findings, and the raw report's hash in the artifact store.

    report: None when the scanner could not look; `failure` says why.
    """

    tool: str
    category: str
    report: "Report | None"
    report_digest: str | None = None
    failure: str | None = None


@attrs.frozen
class Verdict:
    """The gate of a step: did the tests pass, are there findings above the limit, is it healthy. With evidence."""

    check: Literal["tests", "findings", "healthy"]
    passed: bool
    summary: str
    evidence: Mapping[str, str | int | float] = attrs.field(factory=dict)


@attrs.frozen
class StepResult:
    """How a step ended and what it made."""

    state: State
    reason: str | None = None
    exit_code: int | None = None
    artifacts: tuple[Artifact, ...] = ()
    outputs: Mapping[str, str] = attrs.field(factory=dict)
    verdict: Verdict | None = None
    scans: tuple[ScanOutcome, ...] = ()
    tests: "tuple[CaseResult, ...]" = ()
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    reused_from: str | None = None
    produced: str = ""


class StepLog(Protocol):
    """Where a step's output goes: live to whoever watches, and to a bounded file."""

    def line(self, text: str) -> None:
        """A line of Penstock's own."""

    def output(self, chunk: bytes) -> None:
        """Bytes that the step's commands printed."""

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines that were printed, without Penstock's own."""


@attrs.frozen
class StepContext:
    """
    Everything a step may use.

    find_published: key, ref or None (this commit) → the newest artifact published under it.
    upstream_artifacts: step → what the steps that it needs put out, directly or through others.
    undecided: step → those upstream of it whose passing is not on record for this commit and graph.
    platform_up: whether a platform runs that can keep a deployed service alive.
    secrets: name → value of those that the step was granted; their values are masked in its log.
    """

    run: RunInfo
    settings: Settings
    workspace: Path
    engine: Engine
    store: "ArtifactStore"
    log: StepLog
    token: CancelToken
    defaults_env: Mapping[str, str]
    find_published: Callable[[str, str | None], Artifact | None]
    upstream_artifacts: Callable[[str], tuple[Artifact, ...]]
    undecided: Callable[[str], tuple[str, ...]]
    database: "sa.Engine"
    platform_up: bool
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)

    def secret(self, name: str) -> str:
        """
        The value of a granted secret.

        Raises: StepFailure when the step does not name it in `secrets`.
        """
        if name not in self.secrets:
            raise StepFailure(f'the step was not granted the secret "{name}"', remedy="name it in `secrets:`")
        return self.secrets[name].decode()

    def job(self, step: str, argv: tuple[str, ...], **options: object) -> Job:
        """A job of this run in this workspace, with the CI_* variables set."""
        env = {**self.ci_env(step), **self.defaults_env, **dict(options.pop("env", {}))}  # type: ignore[call-overload]
        return Job(
            run_id=self.run.id,
            step=step,
            argv=argv,
            workspace=self.workspace,
            env=env,
            **options,  # type: ignore[arg-type]
        )

    def ci_env(self, step: str) -> dict[str, str]:
        """The variables that every step sees."""
        run = self.run
        return {
            "CI": "true",
            "CI_PROJECT": run.project,
            "CI_COMMIT": run.commit,
            "CI_REF": run.ref,
            "CI_RUN": run.id,
            "CI_STEP": step,
        }
