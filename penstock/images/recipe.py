"""What to build: everything that decides what comes out, checked and inside of the workspace."""

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from penstock.errors import StepFailure
from penstock.folders import remove_tree
from penstock.images.logins import Credentials
from penstock.images.names import auth_address


@attrs.frozen
class Recipe:
    """
    One build.

    context, dockerfile: absolute, links followed. tags: the first is the image's name.
    beside: a folder of this machine that the build does not see, for what the docker command needs.
    args, labels: name → value. secrets: id → value, for `RUN --mount=type=secret`.
    logins: registry → who reads base images and caches there.
    cache_from: images whose layers may be used again. target: a stage. platforms: `linux/arm64`.
    network: whether RUN may use it. pull: ask for newer base images. epoch_s: the commit's time, Unix seconds.
    """

    context: Path
    dockerfile: Path
    tags: tuple[str, ...]
    beside: Path
    args: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    logins: Mapping[str, Credentials] = attrs.field(factory=dict)
    cache_from: tuple[str, ...] = ()
    target: str | None = None
    platforms: tuple[str, ...] = ()
    network: bool = False
    pull: bool = False
    epoch_s: int | None = None

    @contextmanager
    def private_folder(self) -> Iterator[Path]:
        """A folder for the docker command alone; no secret is ever written there."""
        folder = Path(tempfile.mkdtemp(prefix=".docker-", dir=self.beside))
        try:
            yield folder
        finally:
            remove_tree(folder)

    def docker_config(self) -> bytes:
        """The logins as docker's config.json."""
        auths = {auth_address(registry): {"auth": _packed(login)} for registry, login in self.logins.items()}
        return json.dumps({"auths": auths}).encode()


def _packed(login: Credentials) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def check_recipe(context: Path, dockerfile: Path, *written: str) -> None:
    """
    See that there is something to build.

    written: context and Dockerfile as the pipeline has them, for the message.
    Raises: StepFailure.
    """
    if not context.is_dir():
        raise StepFailure(f'there is no folder "{written[0]}" in the workspace', remedy="mend context")
    if not dockerfile.is_file():
        raise StepFailure(f'there is no Dockerfile "{written[1]}" in the workspace', remedy="mend dockerfile")
