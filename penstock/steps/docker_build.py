"""step.docker_build: an image from a folder of the workspace."""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from penstock.images.logins import Login
from penstock.images.names import ImageText, TagText, parse_image
from penstock.pipeline.spec import EnvName, EnvValue, Kind, SecretName, StepFields, WorkspacePath
from penstock.steps.context import StepContext, StepResult
from penstock.steps.workspace import inside

if TYPE_CHECKING:
    from penstock.images.logins import Credentials
    from penstock.images.recipe import Recipe

Target = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$", max_length=60)]

RegistryHost = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$", max_length=255)]


class Config(StepFields):
    """What to build, and what to call it."""

    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "Build a container image from a Dockerfile."
    outputs: ClassVar[tuple[str, ...]] = ("image", "digest")

    context: WorkspacePath = Field(".", description="The folder whose files the Dockerfile may use.")
    dockerfile: WorkspacePath | None = Field(
        None, description="The Dockerfile, from the workspace's root; default: Dockerfile in the context."
    )
    tags: tuple[TagText, ...] = Field(
        min_length=1, max_length=50, description="Names for the image; the first is what later steps call it."
    )
    build_args: dict[EnvName, EnvValue] = Field({}, description="Values for ARG. They can be read from the image.")
    build_secrets: dict[SecretName, SecretName] = Field(
        {}, description="Id in `RUN --mount=type=secret,id=…` → secret. Default: each of `secrets` by its own name."
    )
    cache_from: tuple[ImageText, ...] = Field((), max_length=20, description="Images whose layers may be used again.")
    target: Target | None = Field(None, description="The stage of the Dockerfile to build; default: the last.")
    platforms: tuple[Platform, ...] = Field(
        (), max_length=10, description="Such as linux/arm64, where the engine can; default: the engine's own."
    )
    registries: dict[RegistryHost, Login] = Field({}, description="Registry → login, for base images and caches.")
    network: bool = Field(False, description="Whether RUN may reach the network. Base images are fetched either way.")
    pull: bool = Field(False, description="Whether to ask for newer base images.")

    @model_validator(mode="after")
    def _secrets_are_granted(self) -> Self:
        wanted = [*self.build_secrets.values(), *(n for login in self.registries.values() for n in login.secret_names)]
        if missing := [name for name in wanted if name not in self.secrets]:
            raise ValueError(f'"{missing[0]}" is no secret of this step; name it in `secrets` too')
        return self

    def mounted_secrets(self) -> dict[str, str]:
        """Id → secret, of those that RUN may mount: the passwords of registries are not among them."""
        logins = {name for login in self.registries.values() for name in login.secret_names}
        return dict(self.build_secrets) or {name: name for name in self.secrets if name not in logins}


def run(config: Config, context: StepContext) -> StepResult:
    """Build; the image stays on the engine for the steps after this one."""
    # Imported here: what talks to Docker is slow to load, and `penstock check` reads this file's model.
    from penstock.engines.docker_server import connected
    from penstock.images.build import build_image
    from penstock.images.described import image_made
    from penstock.images.stopping import Limit

    limit = Limit(float(config.timeout), context.token)
    recipe = _recipe(config, context)
    with connected(context.settings) as server:
        image_id = build_image(recipe, server, context.log, limit)
        made = tuple(image_made(server, name, image_id) for name in recipe.tags)
    name = recipe.tags[0]
    context.log.line(f"built {name}: {image_id}")
    return StepResult("succeeded", outputs={"image": name, "digest": image_id}, produced=name, images=made)


def _recipe(config: Config, context: StepContext) -> "Recipe":
    from penstock.images.labels import image_labels
    from penstock.images.recipe import Recipe, check_recipe

    folder = inside(context.workspace, config.context)
    written = config.dockerfile or str(PurePosixPath(config.context, "Dockerfile"))
    dockerfile = inside(context.workspace, written)
    check_recipe(folder, dockerfile, config.context, written)
    committed_at = context.run.committed_at
    return Recipe(
        context=folder,
        dockerfile=dockerfile,
        tags=tuple(str(parse_image(tag)) for tag in config.tags),
        beside=context.workspace.parent,
        args=config.build_args,
        labels=image_labels(context.run, context.database),
        secrets={name: context.secrets[secret] for name, secret in config.mounted_secrets().items()},
        logins=_logins(config, context),
        cache_from=tuple(config.cache_from),
        target=config.target,
        platforms=config.platforms,
        network=config.network,
        pull=config.pull,
        epoch_s=int(committed_at.timestamp()) if committed_at else None,
    )


def _logins(config: Config, context: StepContext) -> "dict[str, Credentials]":
    from penstock.images.logins import account_of
    from penstock.images.registries import registry_http
    from penstock.images.tokens import credentials_for

    found = {}
    for registry, login in config.registries.items():
        if account := account_of(login, context.secret):
            with registry_http(registry) as http:
                found[registry] = credentials_for(account, registry, http)
    return found
