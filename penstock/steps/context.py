"""What a step is given and what it gives back."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs

from penstock.engines import Engine, Job, Probe, Sidecar
from penstock.errors import StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.spec import ContainedFields, Service
from penstock.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from penstock.artifacts.store import ArtifactStore
    from penstock.components import Bill
    from penstock.coverage import FileCoverage
    from penstock.findings import Report
    from penstock.pipeline.junit import CaseResult

State = Literal["succeeded", "failed", "cancelled", "timed_out", "skipped", "waiting", "infra_error"]


@attrs.frozen
class RunInfo:
    """
    The run that a step belongs to. `commit` is the full hash; `title` the commit's first line.

    trigger: what started it: an event's kind, or rerun. event: the kind of event that it is about.
    before: the commit that the ref was at before. about: what else the event says (pull_request, release, actor).
    """

    id: str
    project: str
    commit: str
    ref: str
    graph_hash: str
    structure_hash: str
    trigger: str = "push"
    event: str = "push"
    before: str | None = None
    about: Mapping[str, Any] = attrs.field(factory=dict)
    author: str | None = None
    title: str | None = None
    committed_at: datetime | None = None

    @property
    def branch(self) -> str:
        """The ref without `refs/heads/`."""
        return self.ref.removeprefix("refs/heads/")

    @property
    def from_fork(self) -> bool:
        """Whether it is of a pull request from a fork, whose author the project may not know."""
        return bool((self.about.get("pull_request") or {}).get("fork"))

    @property
    def partition(self) -> str:
        """The commit's key in Dagster: its first 12 hex digits."""
        return self.commit[:12]


@attrs.frozen
class Artifact:
    """
    Bytes that a step put out, in the artifact store by their hash.

    path: where in the workspace they belong. kind: `file`, `executable` (a file with its exec bit), or
    `tree` (a tar archive of a folder).
    published: put under its key for other runs too (step.artifact_push), not only for steps that need this one.
    """

    key: str
    path: str
    kind: Literal["file", "executable", "tree"]
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
class BillOutcome:
    """
    What a checkout or an image was found to be made of, and the raw list's hash in the artifact store.

    source: `checkout`, or the image's name without tag and digest.
    """

    bill: "Bill"
    report_digest: str
    source: str = "checkout"


@attrs.frozen
class ImageMade:
    """
    An image that a step built or pushed under a name.

    image_id: of its configuration; digest: of its manifest in a registry, None where it was only built.
    size_bytes: unpacked. platform: such as linux/amd64.
    """

    name: str
    image_id: str
    digest: str | None = None
    size_bytes: int | None = None
    layers: int | None = None
    platform: str | None = None


@attrs.frozen
class Verdict:
    """The gate of a step: did the tests pass, are there findings above the limit, is it healthy. With evidence."""

    check: Literal["tests", "findings", "healthy"]
    passed: bool
    summary: str
    evidence: Mapping[str, str | int | float] = attrs.field(factory=dict)


@attrs.frozen
class StepResult:
    """
    How a step ended and what it made.

    metrics: what a plugin measured, by name.
    allowed: it did not succeed, and need not (continue_on_error). unneeded: its condition does not hold.
    """

    state: State
    reason: str | None = None
    exit_code: int | None = None
    artifacts: tuple[Artifact, ...] = ()
    outputs: Mapping[str, Any] = attrs.field(factory=dict)
    verdict: Verdict | None = None
    scans: tuple[ScanOutcome, ...] = ()
    tests: "tuple[CaseResult, ...]" = ()
    bills: tuple[BillOutcome, ...] = ()
    coverage: "tuple[FileCoverage, ...]" = ()
    images: tuple[ImageMade, ...] = ()
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    reused_from: str | None = None
    produced: str = ""
    allowed: bool = False
    unneeded: bool = False

    @property
    def lets_go_on(self) -> bool:
        """Whether the steps that need this one may begin."""
        return self.allowed or self.state in ("succeeded", "skipped")


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
    holds: step, CEL → whether a condition over what is upstream of the step is true.
    undecided: step → those upstream of it whose passing is not on record for this commit and graph.
    suppressed: fingerprint → reason of the findings that somebody suppressed in this project, as it is in force now.
    platform_up: whether a platform runs that can keep a deployed service alive.
    services: what the file lets run beside steps, by name.
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
    holds: Callable[[str, str], bool]
    database: "sa.Engine"
    platform_up: bool
    suppressed: Callable[[], Mapping[str, str]] = dict
    default_branch: str = "main"
    services: Mapping[str, Service] = attrs.field(factory=dict)
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)

    def secret(self, name: str) -> str:
        """
        The value of a granted secret.

        Raises: StepFailure when the step does not name it in `secrets`.
        """
        if name not in self.secrets:
            raise StepFailure(f'the step was not granted the secret "{name}"', remedy="name it in `secrets:`")
        try:
            return self.secrets[name].decode()
        except UnicodeDecodeError as error:
            raise StepFailure(f'the secret "{name}" is no text', remedy="read it from its file") from error

    def job(self, step: str, argv: tuple[str, ...], **options: Any) -> Job:
        """A job of this run in this workspace, with the CI_* variables set."""
        env = {**self.ci_env(step), **self.defaults_env, **options.pop("env", {})}
        return Job(run_id=self.run.id, step=step, argv=argv, workspace=self.workspace, env=env, **options)

    def contained_job(self, config: ContainedFields, argv: tuple[str, ...], **options: Any) -> Job:
        """A job with the image, environment, limits, secrets and services that a step asks for."""
        secret_env = {variable: self.secret(name) for variable, name in config.secret_env.items()}
        asked: dict[str, Any] = {
            "env": {**config.env, **secret_env},
            "image": config.image,
            "work_dir": config.work_dir,
            "network": config.network,
            "secrets": {name: self.secrets[name] for name in config.secrets},
            "services": tuple(sidecar(name, self.services[name]) for name in config.services),
            "cpus": config.cpu,
            "memory_bytes": config.memory,
            "timeout_s": float(config.timeout),
            **({"pids": config.pids} if config.pids else {}),
        }
        return self.job(config.name, argv, **{**asked, **options})

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


def sidecar(name: str, service: Service) -> Sidecar:
    """A service of the file, for an engine."""
    asked = service.ready
    probe = None
    if asked:
        times = {"interval_s": float(asked.interval), "limit_s": float(asked.within)}
        probe = Probe(port=asked.tcp, http=asked.http, command=asked.command, **times)
    return Sidecar(name, service.image, service.command, service.env, probe)
