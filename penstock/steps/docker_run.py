"""step.docker_run: a container of an image as it is, to its end or as a service for the steps after it."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from penstock import engines
from penstock.errors import StepFailure
from penstock.images.container import Container, Port, Volume, parse_port, parse_volume
from penstock.images.names import EXPRESSION, ImageText, is_pinned, parse_image
from penstock.pipeline.spec import Capability, EnvName, EnvValue, Kind, OneOrMany, Probe, SecretName, Size, StepFields
from penstock.steps.context import StepContext, StepResult
from penstock.steps.workspace import tail_of

if TYPE_CHECKING:
    from penstock.images.running import Address


def _words(value: object) -> object:
    """A port may be written as a number."""
    given = value if isinstance(value, list | tuple) else [value]
    return [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in given]


class Config(StepFields):
    """Which image to run, with what, and whether to wait for its end."""

    kind: ClassVar[Kind] = "build"
    summary: ClassVar[str] = "Run a container to its end, or as a service until the run ends."
    outputs: ClassVar[tuple[str, ...]] = ("exit_code", "host", "port", "address", "ports")

    image: ImageText = Field(description="The image: one that an earlier step built, or one of a registry.")
    command: Annotated[tuple[str, ...], OneOrMany()] | None = Field(
        None, description="Words for the image's entrypoint; default: the image's own."
    )
    entrypoint: Annotated[tuple[str, ...], OneOrMany()] | None = Field(
        None, description="What to start instead of the image's own entrypoint."
    )
    env: dict[EnvName, EnvValue] = Field({}, description="Variables of the container.")
    secret_env: dict[EnvName, SecretName] = Field({}, description="Variables that hold a secret named in `secrets`.")
    wait_for_exit: bool = Field(
        True, description="true: the exit code decides. false: a service that stays until the run ends."
    )
    ready: Probe | None = Field(None, description="How to tell that a service is ready; default: when it has started.")
    ports: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        (), max_length=50, description="Ports of the container to publish on this machine alone: 80, or 8080:80."
    )
    volumes: Annotated[tuple[str, ...], OneOrMany()] = Field(
        (), max_length=50, description="./folder:/path of the workspace, or name:/path that the run's steps share."
    )
    network: bool = Field(False, description="Whether it may reach the network; with ports it can.")
    user: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$", description="Default: the image's.")
    read_only: bool = Field(False, description="Whether its file system, but for volumes and /tmp, is read-only.")
    capabilities: tuple[Capability, ...] = Field((), description="What root inside may do; default: nothing special.")
    cpu: float | None = Field(None, gt=0, le=1024, description="Processors at most; 0.5 is half of one.")
    memory: Size | None = Field(None, description="Memory at most: 512m, 2g.")
    pids: int | None = Field(None, ge=8, le=1_000_000, description="Processes and threads at most.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self.parsed_ports()
        self.parsed_volumes()
        if missing := [name for name in self.secret_env.values() if name not in self.secrets]:
            raise ValueError(f'"{missing[0]}" is no secret of this step; name it in `secrets` too')
        if self.ready and self.wait_for_exit:
            raise ValueError("`ready` is for a service; write `wait_for_exit: false`")
        if self.secrets and EXPRESSION not in self.image and not is_pinned(self.image):
            name = parse_image(self.image).untagged
            raise ValueError(f"a step with secrets runs pinned images only; write {name}@sha256:…, or the image's id")
        return self

    def parsed_ports(self) -> tuple[Port, ...]:
        """Those whose value is known already."""
        return tuple(parse_port(text) for text in self.ports if EXPRESSION not in text)

    def parsed_volumes(self) -> tuple[Volume, ...]:
        """Those whose value is known already."""
        return tuple(parse_volume(text) for text in self.volumes if EXPRESSION not in text)


def run(config: Config, context: StepContext) -> StepResult:
    """Run the container; a service is left running, for the session to remove when the run ends."""
    # Imported here: what talks to Docker is slow to load, and `penstock check` reads this file's model.
    from penstock.engines.docker_server import connected
    from penstock.images.leftovers import note_run
    from penstock.images.running import Place, run_to_end, start_service
    from penstock.images.stopping import Limit

    words = config.command or config.entrypoint or (config.image,)
    secrets = {name: context.secrets[name] for name in config.secrets}
    job = context.job(config.name, words, image=config.image, secrets=secrets, memory_bytes=config.memory)
    place = Place(context.settings, job, context.log, Limit(float(config.timeout), context.token))
    note_run(context.settings, context.run.id)
    with connected(context.settings) as server:
        container = _container(config, context)
        if config.wait_for_exit:
            return _result(run_to_end(server, container, place), config, context)
        return _serving(start_service(server, container, place, _probe(config.ready)), config, context)


def _probe(ready: Probe | None) -> engines.Probe | None:
    if ready is None:
        return None
    return engines.Probe(
        port=ready.tcp,
        http=ready.http,
        command=ready.command,
        interval_s=float(ready.interval),
        limit_s=float(ready.within),
    )


def _container(config: Config, context: StepContext) -> Container:
    secret_env = {variable: context.secret(name) for variable, name in config.secret_env.items()}
    return Container(
        image=config.image,
        entrypoint=config.entrypoint,
        command=config.command,
        env={**context.ci_env(config.name), **context.defaults_env, **config.env, **secret_env},
        ports=config.parsed_ports(),
        volumes=config.parsed_volumes(),
        network=config.network,
        user=config.user,
        read_only=config.read_only,
        capabilities=config.capabilities,
        cpus=config.cpu,
        memory_bytes=config.memory,
        pids=config.pids or engines.DEFAULT_PIDS,
    )


def _result(ended: engines.Exit, config: Config, context: StepContext) -> StepResult:
    outputs = {"exit_code": str(ended.code)}
    if ended.state == "cancelled":
        return StepResult("cancelled", reason="cancelled", exit_code=ended.code)
    if ended.state == "timed_out":
        reason = f"took longer than its limit of {config.timeout} s"
        return StepResult("timed_out", reason=reason, exit_code=ended.code, outputs=outputs)
    if ended.state == "out_of_memory":
        raise StepFailure("it needed more memory than it may have", remedy="give it more with `memory:`")
    if ended.code:
        tail = tail_of(context.log)
        reason = f"exit code {ended.code}" + (f": {tail}" if tail else "")
        return StepResult("failed", reason=reason, exit_code=ended.code, outputs=outputs)
    return StepResult("succeeded", exit_code=0, outputs=outputs)


def _serving(address: "Address", config: Config, context: StepContext) -> StepResult:
    ports = ",".join(f"{inside}={outside}" for inside, outside in address.ports.items())
    outputs = {"host": address.host, "ports": ports}
    if asked := config.parsed_ports():
        port = address.ports[asked[0].container]
        outputs |= {"port": str(port), "address": f"{address.host}:{port}"}
    where = outputs.get("address", "no published port")
    context.log.line(f"the service runs until the run ends: {where}")
    return StepResult("succeeded", outputs=outputs, produced=f"{config.image} at {where}")
