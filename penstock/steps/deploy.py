"""step.deploy: make an artifact or an image the live release of a service, or leave the former one serving."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from penstock.deploy.domains import MOST_DOMAINS, Domains
from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import (
    MOST_REPLICAS,
    ContainerSettings,
    DeploymentPlan,
    Service,
    ServiceConfiguration,
    TargetName,
)
from penstock.engines import DEFAULT_PIDS
from penstock.errors import StepFailure
from penstock.images.container import parse_volume
from penstock.images.logins import Login, account_of
from penstock.images.names import EXPRESSION, ImageText, is_pinned, parse_image
from penstock.pipeline.spec import (
    ArtifactKey,
    Capability,
    Duration,
    EnvName,
    EnvValue,
    Kind,
    Model,
    OneOrMany,
    SecretName,
    Size,
    StepFields,
    StepName,
)
from penstock.steps.context import Artifact, StepContext, StepResult, Verdict
from penstock.steps.rollouts import NameAlone, Pause, Question, Strategy

if TYPE_CHECKING:
    from penstock.deploy.releases import Release
    from penstock.deploy.targets.docker_images import FoundImage
    from penstock.environments.admission import Admitted

# What the start scripts of common service images need to become their own user; nothing that reaches out.
DEFAULT_MEMORY_BYTES = 1024**3
_OF_DOCKER = (
    *("image", "port", "volumes", "cpu", "memory", "pids", "read_only", "user", "capabilities"),
    *("auth", "username", "password_secret", "session_token_secret", "tenant"),
)


class Health(Model):
    """How an instance is asked whether it is well: by HTTP (a path), a command, the image's own check, or by TCP."""

    http: str | None = Field(None, pattern=r"^/[!-~]*$", description="A path that answers 200 to 399 when it is well.")
    docker: bool = Field(False, description="Whether the engine runs the image's own HEALTHCHECK, in place of HTTP.")
    command: tuple[str, ...] | str | None = Field(
        None, description="Words, or a line for /bin/sh, run where the instance is; exits with 0 when it is well."
    )
    interval: Duration = Field(1, description="Between two probes.")
    timeout: Duration = Field(2, description="For one probe.")
    healthy_after: int = Field(2, ge=1, le=100, description="Good answers in a row.")
    unhealthy_after: int = Field(3, ge=1, le=100, description="Bad answers in a row.")
    start_period: Duration = Field(10, description="How long bad answers do not count.")
    within: Duration = Field(60, description="An instance that is not healthy by then has failed.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum((self.docker, self.http is not None, self.command is not None)) > 1:
            raise ValueError("health asks one way; leave all but one of `http`, `command` and `docker` out")
        return self

    def check(self) -> HealthCheck:
        """The same for the deployment."""
        return HealthCheck(
            kind="docker" if self.docker else "http" if self.http else "exec" if self.command else "tcp",
            command=self.command,
            path=self.http or "/",
            interval_s=float(self.interval),
            timeout_s=float(self.timeout),
            healthy_after=self.healthy_after,
            unhealthy_after=self.unhealthy_after,
            start_period_s=float(self.start_period),
            limit_s=float(self.within),
        )


class Config(Login, StepFields):
    """What to deploy, where, and how to tell that it is well."""

    kind: ClassVar[Kind] = "deployment"
    summary: ClassVar[str] = "Make an artifact or an image the live release of a service."
    outputs: ClassVar[tuple[str, ...]] = ("url", "release", "digest")

    environment: StepName = Field(description="Where to.")
    target: TargetName = Field(
        "process",
        description="What runs it: a supervised process on this machine, or a container on its Docker engine.",
    )
    service: StepName | None = Field(None, description="The service's name; default: the project's.")
    artifact: ArtifactKey | None = Field(
        None, description="For a process: a folder that one of the needed steps put out, by its key."
    )
    image: ImageText | None = Field(
        None, description="For a container: an image that an earlier step built or pushed, or one of a registry."
    )
    command: tuple[str, ...] | str | None = Field(
        None,
        description="What starts the service. A process answers on $HOST:$PORT. For a container: words for the image's "
        "entrypoint, or a line for its shell; default: the image's own.",
    )
    port: int | None = Field(None, ge=1, le=65535, description="The port on which the container answers.")
    env: dict[EnvName, EnvValue] = Field({}, description="Variables of the service.")
    secret_env: dict[EnvName, SecretName] = Field(
        {},
        description="Variables that hold a secret named in `secrets`, read when an instance starts. In a container, "
        "NAME_FILE names a file that holds it.",
    )
    volumes: Annotated[tuple[str, ...], OneOrMany()] = Field(
        (), max_length=50, description="name:/path of what the container keeps over releases."
    )
    cpu: float | None = Field(None, gt=0, le=1024, description="Processors at most; 0.5 is half of one.")
    memory: Size | None = Field(None, description="Memory of the container at most: 512m, 2g; default: 1g.")
    pids: int | None = Field(None, ge=8, le=1_000_000, description="Processes and threads of the container at most.")
    read_only: bool = Field(True, description="Whether the container's file system, but for /tmp, is read-only.")
    user: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$", description="Default: the image's.")
    capabilities: tuple[Capability, ...] = Field((), description="What root inside may do; default: nothing special.")
    health: Health = Field(default_factory=Health, description="How to tell that it is well.")
    drain: Duration = Field(10, description="How long requests to the former release may still take.")
    replicas: int = Field(1, ge=1, le=MOST_REPLICAS, description="How many instances share the traffic.")
    strategy: Annotated[Strategy, NameAlone()] = Field(
        Strategy(name="rolling"), description="How the release takes over from the one before."
    )
    verify: tuple[Question, ...] = Field(
        (), max_length=50, description="Asked of a new instance before it gets traffic; what fails is undone."
    )
    smoke: tuple[Question, ...] = Field(
        (), max_length=50, description="Asked at the service's address after the switch; what fails is undone."
    )
    watch: Pause = Field(
        5, description="How long after the switch an instance that dies takes the release back; 0s for not at all."
    )

    domains: Annotated[Domains, OneOrMany()] = Field(
        (), max_length=MOST_DOMAINS, description="Names under which it answers by HTTPS, such as shop.example.org."
    )

    @model_validator(mode="after")
    def _fits_its_target(self) -> Self:
        if self.target == "docker":
            self._check_docker()
        else:
            self._check_process()
        if both := sorted(self.env.keys() & self.secret_env.keys()):
            raise ValueError(f"{both[0]} stands in env and in secret_env; leave one of both out")
        for name in (*self.secret_env.values(), *self.secret_names):
            if name not in self.secrets:
                raise ValueError(f'"{name}" is no secret of this step; name it in `secrets` too')
        return self

    def _check_process(self) -> None:
        fields = type(self).model_fields
        given = [name for name in _OF_DOCKER if getattr(self, name) != fields[name].default]
        if given or self.health.docker:
            field = given[0] if given else "health.docker"
            raise ValueError(f"`{field}` is for containers; write `target: docker`, or leave it out")
        if self.artifact is None:
            raise ValueError("target process needs an artifact; name a folder that a step puts out")
        if self.command is None:
            raise ValueError("target process needs a command; say what starts the service")

    def _check_docker(self) -> None:
        if self.artifact is not None:
            raise ValueError("`artifact` is for processes; a container's files are in its image")
        if self.image is None:
            raise ValueError("target docker needs an image; name one that a step builds")
        if self.port is None:
            raise ValueError("target docker needs a port; say on which the container answers")
        for text in self.volumes:
            if EXPRESSION not in text and parse_volume(text).of_workspace:
                raise ValueError(f'"{text[:60]}" is of the workspace, which ends with the run; write name:/path')
        if self.secret_env and EXPRESSION not in self.image and not is_pinned(self.image):
            name = parse_image(self.image).untagged
            raise ValueError(f"a service with secrets runs pinned images only; write {name}@sha256:…, or its id")

    def artifacts_wanted(self) -> dict[str, str]:
        """What it deploys."""
        return {} if self.artifact is None else {"artifact": self.artifact}

    def check_name(self) -> str | None:
        """A deployment decides the check `healthy`."""
        return "healthy"


def run(config: Config, context: StepContext) -> StepResult:
    """Deploy; refused while anything upstream has not passed for this very commit and graph, or the rules say no."""
    # Imported here: the database's libraries are slow to load, and `penstock check` reads this file's model.
    from penstock.environments.admission import Intent, admit

    if not context.platform_up:
        return StepResult("skipped", reason="deployments need the platform: `penstock up`, then push")
    if undecided := context.undecided(config.name):
        raise StepFailure(
            f"not deployed: no pass is on record for {', '.join(undecided)} at commit {context.run.partition}",
            remedy="run what it needs first",
        )
    for name in config.secret_env.values():
        context.secret(name)  # one that is not there is said before anything begins
    service = Service(context.run.project, config.environment, config.service or context.run.project)
    pinned = config.target != "docker" or is_pinned(config.image or "")
    admitted = admit(Intent(config.name, service.environment, service.name, config.target, pinned), context)
    if isinstance(admitted, StepResult):
        return admitted
    return admitted.carried_out(lambda within: _deployed(config, within, service, admitted), context)


def _deployed(config: Config, context: StepContext, service: Service, admitted: "Admitted") -> StepResult:
    from penstock.deploy.rollout import deploy

    plan = _container_plan(config, context, service) if config.target == "docker" else _plan(config, context, service)
    try:
        release = deploy(
            admitted.applied(plan),
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
    from penstock.deploy.rollouts import rollout_of

    url = service_url(context.database, service) or ""
    evidence: dict[str, str | int | float] = {"release": release.number, "environment": service.environment, "url": url}
    evidence |= {"digest": release.digest, "strategy": release.configuration.strategy.name}
    with context.database.connect() as connection:
        rollout = rollout_of(connection, release.id)
    if rollout:
        words = {None: "not asked", True: "passed", False: "failed"}
        evidence |= {"verification": words[rollout.verified], "smoke tests": words[rollout.smoked]}
        evidence["health"] = rollout.probe
    return StepResult(
        "succeeded",
        outputs={"url": url, "release": str(release.number), "digest": release.digest},
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


def _plan(config: Config, context: StepContext, service: Service) -> DeploymentPlan:
    artifact = _artifact(config, context)
    return DeploymentPlan(
        service=service,
        commit=context.run.commit,
        digest=artifact.digest,
        graph_hash=context.run.graph_hash,
        run_id=context.run.id,
        source=lambda folder: context.store.fetch_tree(artifact.digest, folder),
        configuration=_configuration(config, context, None),
    )


def _container_plan(config: Config, context: StepContext, service: Service) -> DeploymentPlan:
    found = _image(config, context)
    container = ContainerSettings(
        image=found.name,
        image_id=found.image_id,
        port=config.port or 0,
        volumes=config.volumes,
        memory_bytes=config.memory or DEFAULT_MEMORY_BYTES,
        cpus=config.cpu,
        pids=config.pids or DEFAULT_PIDS,
        read_only=config.read_only,
        user=config.user,
        capabilities=config.capabilities,
    )
    return DeploymentPlan(
        service=service,
        commit=context.run.commit,
        digest=found.digest,
        graph_hash=context.run.graph_hash,
        run_id=context.run.id,
        source=None,
        configuration=_configuration(config, context, container),
    )


def _image(config: Config, context: StepContext) -> "FoundImage":
    """What the name stands for now; fetched, with the step's login if it has one, when it is not on the engine."""
    from penstock.deploy.targets.docker import check_engine_is_here
    from penstock.deploy.targets.docker_images import find_image
    from penstock.engines.docker_server import connected
    from penstock.images.labels import check_origin
    from penstock.images.stopping import Limit

    check_engine_is_here(context.settings)
    account, name = account_of(config, context.secret), config.image or ""
    with connected(context.settings) as server:
        found = find_image(server, name, account, Limit(float(config.timeout), context.token))
    if not is_pinned(name):
        check_origin(name, found.labels, context.run)
    context.log.line(f"{name} is {found.digest}")
    return found


def _configuration(config: Config, context: StepContext, container: ContainerSettings | None) -> ServiceConfiguration:
    env = {**context.defaults_env, **config.env}
    return ServiceConfiguration(
        command=config.command,
        env={name: value for name, value in env.items() if name not in config.secret_env},
        secret_env=dict(config.secret_env),
        health=config.health.check(),
        drain_s=float(config.drain),
        replicas=config.replicas,
        strategy=config.strategy.settings(),
        verify=tuple(question.check() for question in config.verify),
        smoke=tuple(question.check() for question in config.smoke),
        watch_s=float(config.watch),
        domains=config.domains,
        target=config.target,
        container=container,
    )
