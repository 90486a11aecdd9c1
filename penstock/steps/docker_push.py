"""step.docker_push: an image into a registry, verified there."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from penstock.errors import StepFailure
from penstock.images.logins import Login, account_of
from penstock.images.names import ImageText, TagText, is_image_id, parse_image
from penstock.pipeline.spec import Kind, OneOrMany, StepFields
from penstock.steps.context import StepContext, StepResult

if TYPE_CHECKING:
    from penstock.engines.docker_server import Server


class Config(Login, StepFields):
    """What to push, where to, and who logs in."""

    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "Push an image to a registry and verify its digest there."
    outputs: ClassVar[tuple[str, ...]] = ("digest", "reference", "image")

    image: ImageText = Field(description="An image that an earlier step built, by its name or its id.")
    to: Annotated[tuple[TagText, ...], OneOrMany()] = Field(
        (), max_length=20, description="Names in registries; default: the image's own name."
    )
    insecure: bool = Field(
        False, description="Whether the registry may be asked by plain HTTP; on this machine it always may."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if missing := [name for name in self.secret_names if name not in self.secrets]:
            raise ValueError(f'"{missing[0]}" is no secret of this step; name it in `secrets` too')
        if is_image_id(self.image) and not self.to:
            raise ValueError("an image's id says not where to push it; give a name in `to`")
        return self


def run(config: Config, context: StepContext) -> StepResult:
    """Push; refused while anything upstream has not passed for this very commit and graph."""
    # Imported here: what talks to Docker is slow to load, and `penstock check` reads this file's model.
    from penstock.engines.docker_server import connected
    from penstock.images.described import image_made
    from penstock.images.push import Push, push_image
    from penstock.images.stopping import Limit

    if undecided := context.undecided(config.name):
        raise StepFailure(
            f"not pushed: no pass is on record for {', '.join(undecided)} at commit {context.run.partition}",
            remedy="run what it needs first",
        )
    limit = Limit(float(config.timeout), context.token)
    account = account_of(config, context.secret)
    targets = tuple(parse_image(target) for target in config.to or (config.image,))
    with connected(context.settings) as server:
        image_id = _own_image(config, context, server)
        push = Push(image_id, targets, account, insecure=config.insecure)
        pushed = push_image(push, server, context.log.line, limit)
        made = tuple(image_made(server, str(one.name), image_id, one.digest) for one in pushed)
    outputs = {"digest": pushed[0].digest, "reference": pushed[0].reference, "image": str(pushed[0].name)}
    return StepResult("succeeded", outputs=outputs, produced=pushed[0].reference, images=made)


def _own_image(config: Config, context: StepContext, server: "Server") -> str:
    """The id of what the name stands for now, so that a name that moves meanwhile does not matter."""
    from docker.errors import ImageNotFound

    from penstock.images.labels import check_origin

    try:
        found = server.client.api.inspect_image(config.image)
    except ImageNotFound as error:
        raise StepFailure(
            f"there is no image {config.image} on the engine",
            remedy="build it with step.docker_build, and name that step in needs",
        ) from error
    check_origin(config.image, (found.get("Config") or {}).get("Labels"), context.run)
    return str(found["Id"])
