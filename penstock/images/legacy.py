"""Builds by the engine's own API: what Podman has, and a machine without a docker command of the right kind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from penstock.engines.docker_server import Server
from penstock.errors import PenstockError, PlatformError, StepFailure
from penstock.images.push import away_in
from penstock.images.recipe import Recipe
from penstock.images.stopping import Limit
from penstock.images.talk import FULL_DISK, Call, Message, messages, told_plainly

if TYPE_CHECKING:
    from penstock.steps.context import StepLog

_OUTSIDE = ".penstock.Dockerfile"  # the name of a Dockerfile that lies outside of its context


def build_the_old_way(recipe: Recipe, server: Server, log: "StepLog", limit: Limit) -> str:
    """
    Build without BuildKit; containers of single steps go with the build, also when it is stopped.

    Returns: the image's id, `sha256:…`.
    Raises: as `build_image`.
    """
    with packed_context(recipe) as archive:
        call = Call("/build", parameters(recipe), {"Content-Type": "application/x-tar"}, archive)
        with messages(server, call, limit) as answer:
            for message in answer:
                _say(message, log)
    with told_plainly(server.host):
        return str(server.client.api.inspect_image(recipe.tags[0])["Id"])


def packed_context(recipe: Recipe) -> IO[bytes]:
    """
    The context as a tar archive, without what its .dockerignore names; links stay links.

    Raises: StepFailure when a file cannot be read.
    """
    from docker.utils import tar

    outside = not recipe.dockerfile.is_relative_to(recipe.context)
    added = (_OUTSIDE, recipe.dockerfile.read_text()) if outside else (_dockerfile_name(recipe), None)
    try:
        made: IO[bytes] = tar(str(recipe.context), exclude=_ignored(recipe.context), dockerfile=added)
    except OSError as error:
        raise StepFailure(f"cannot read the context: {error}", where=recipe.context.name) from error
    return made


def _dockerfile_name(recipe: Recipe) -> str:
    if recipe.dockerfile.is_relative_to(recipe.context):
        return recipe.dockerfile.relative_to(recipe.context).as_posix()
    return _OUTSIDE


def _ignored(context: Path) -> list[str]:
    """Patterns of the context's .dockerignore; one that leads elsewhere by a link is not read."""
    path = context / ".dockerignore"
    if not path.is_file() or not path.resolve().is_relative_to(context):
        return []
    lines = (line.strip() for line in path.read_text(errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def parameters(recipe: Recipe) -> Mapping[str, Any]:
    """The query of the engine's build call."""
    return {
        "t": list(recipe.tags),
        "dockerfile": _dockerfile_name(recipe),
        "buildargs": json.dumps(dict(recipe.args)),
        "labels": json.dumps(dict(recipe.labels)),
        "cachefrom": json.dumps(list(recipe.cache_from)),
        "rm": "1",
        "forcerm": "1",
        **({"target": recipe.target} if recipe.target else {}),
        **({"platform": recipe.platforms[0]} if recipe.platforms else {}),
        **({"pull": "1"} if recipe.pull else {}),
        **({} if recipe.network else {"networkmode": "none"}),
    }


def _say(message: Message, log: "StepLog") -> None:
    if text := message.get("error"):
        raise _failure(" ".join(str(text).split()))
    if said := message.get("stream"):
        log.output(str(said).encode())
    elif (status := message.get("status")) and not message.get("progressDetail"):
        log.line(f"{message.get('id', '')} {status}".strip())


def _failure(text: str) -> PenstockError:
    if FULL_DISK in text:
        return PlatformError("the engine's disk is full", remedy="free space, for example with `docker system prune`")
    if "BuildKit" in text:
        return StepFailure(text, remedy="install docker-buildx on Penstock's machine, beside a Docker engine")
    if away_in(text) and "returned a non-zero code" not in text:
        return PlatformError(f"a base image cannot be fetched: {text}", remedy="see whether its registry is there")
    return StepFailure(text)
