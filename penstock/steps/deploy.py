"""step.deploy: make an artifact the live release of a service, or leave the former one serving."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.errors import StepFailure
from penstock.pipeline.spec import ArtifactKey, Duration, EnvName, EnvValue, Kind, Model, StepFields, StepName
from penstock.steps.context import Artifact, StepContext, StepResult, Verdict

if TYPE_CHECKING:
    from penstock.deploy.releases import Release


class Health(Model):
    """How an instance is asked whether it is well: by HTTP (a path) or by TCP (a connection)."""

    http: str | None = Field(None, pattern=r"^/[!-~]*$", description="A path that answers 200 to 399 when it is well.")
    interval: Duration = Field(1, description="Between two probes.")
    timeout: Duration = Field(2, description="For one probe.")
    healthy_after: int = Field(2, ge=1, le=100, description="Good answers in a row.")
    unhealthy_after: int = Field(3, ge=1, le=100, description="Bad answers in a row.")
    start_period: Duration = Field(10, description="How long bad answers do not count.")
    within: Duration = Field(60, description="An instance that is not healthy by then has failed.")

    def check(self) -> HealthCheck:
        """The same for the deployment."""
        return HealthCheck(
            kind="http" if self.http else "tcp",
            path=self.http or "/",
            interval_s=float(self.interval),
            timeout_s=float(self.timeout),
            healthy_after=self.healthy_after,
            unhealthy_after=self.unhealthy_after,
            start_period_s=float(self.start_period),
            limit_s=float(self.within),
        )


class Config(StepFields):
    """What to deploy, where, and how to tell that it is well."""

    kind: ClassVar[Kind] = "deployment"
    summary: ClassVar[str] = "Make an artifact the live release of a service."

    environment: StepName = Field(description="Where to.")
    target: Literal["process"] = Field("process", description="What runs it: a supervised process on this machine.")
    service: StepName | None = Field(None, description="The service's name; default: the project's.")
    artifact: ArtifactKey = Field(description="A folder that one of the needed steps put out, by its key.")
    command: tuple[str, ...] | str = Field(description="What starts the service; it answers on $HOST:$PORT.")
    env: dict[EnvName, EnvValue] = Field({}, description="Variables of the service.")
    health: Health = Field(default_factory=Health, description="How to tell that it is well.")
    drain: Duration = Field(10, description="How long requests to the former release may still take.")

    def artifacts_wanted(self) -> dict[str, str]:
        """What it deploys."""
        return {"artifact": self.artifact}

    def check_name(self) -> str | None:
        """A deployment decides the check `healthy`."""
        return "healthy"


def run(config: Config, context: StepContext) -> StepResult:
    """Deploy; refused while anything upstream has not passed for this very commit and graph."""
    # Imported here: the database's libraries are slow to load, and `penstock check` reads this file's model.
    from penstock.deploy.rollout import deploy

    if not context.platform_up:
        return StepResult("skipped", reason="deployments need the platform: `penstock up`, then push")
    if undecided := context.undecided(config.name):
        raise StepFailure(
            f"not deployed: no pass is on record for {', '.join(undecided)} at commit {context.run.partition}",
            remedy="run what it needs first",
        )
    artifact = _artifact(config, context)
    service = Service(context.run.project, config.environment, config.service or context.run.project)
    try:
        release = deploy(
            _plan(config, context, service, artifact),
            engine=context.database,
            settings=context.settings,
            log=context.log.line,
            token=context.token,
        )
    except StepFailure as error:
        verdict = Verdict("healthy", passed=False, summary=str(error))
        return StepResult("failed", reason=str(error), verdict=verdict)
    return _result(context, service, release)


def _result(context: StepContext, service: Service, release: "Release") -> StepResult:
    from penstock.deploy.releases import service_url

    url = service_url(context.database, service) or ""
    evidence: dict[str, str | int | float] = {"release": release.number, "environment": service.environment, "url": url}
    return StepResult(
        "succeeded",
        outputs={"url": url, "release": str(release.number)},
        verdict=Verdict("healthy", passed=True, summary=f"release {release.number} at {url}", evidence=evidence),
    )


def _artifact(config: Config, context: StepContext) -> Artifact:
    """The newest that the needed steps put out under the key."""
    found = [made for made in context.upstream_artifacts(config.name) if made.key == config.artifact]
    if not found:
        raise StepFailure(
            f'no step that "{config.name}" needs put out an artifact "{config.artifact}"',
            remedy="name a key of its artifacts_out, and the step in needs",
        )
    if found[-1].kind != "tree":
        raise StepFailure(f'the artifact "{config.artifact}" is a file', remedy="put out a folder")
    return found[-1]


def _plan(config: Config, context: StepContext, service: Service, artifact: Artifact) -> DeploymentPlan:
    return DeploymentPlan(
        service=service,
        commit=context.run.commit,
        digest=artifact.digest,
        graph_hash=context.run.graph_hash,
        run_id=context.run.id,
        source=lambda folder: context.store.fetch_tree(artifact.digest, folder),
        configuration=ServiceConfiguration(
            command=config.command,
            env={**context.defaults_env, **config.env},
            health=config.health.check(),
            drain_s=float(config.drain),
        ),
    )
