"""How a plugin is started on each engine: its image's own command in a container, its own command on this machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from penstock.engines import Engine, Mount
from penstock.engines.process import bubblewrap
from penstock.errors import AccessError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.spec import WORKSPACE
from penstock.plugins.contract import CI, LABEL, PLUGIN
from penstock.plugins.manifest import Manifest
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.engines.docker_server import Server


@attrs.frozen
class Launch:
    """
    What to run and where.

    folder: where it starts, as it sees it. ci, workspace: where it finds /ci and the checkout.
    apart: whether it sees nothing but what it is given.
    """

    argv: tuple[str, ...]
    folder: str
    ci: str = CI
    workspace: str = WORKSPACE
    image: str | None = None
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict)
    apart: bool = True


@attrs.frozen
class ImageFacts:
    """An image on the engine. id: what cannot change. digests: by which it may be known. label: None without one."""

    id: str
    digests: frozenset[str]
    argv: tuple[str, ...]
    folder: str
    label: str | None


def look_at_image(settings: Settings, image: str, token: CancelToken) -> ImageFacts:
    """
    What the engine knows of an image, fetched when it is not there.

    Raises: StepFailure, PlatformError as an engine's.
    """
    from penstock.engines.docker_images import inspected
    from penstock.engines.docker_server import connected

    with connected(settings) as server:
        return _facts(server, image, inspected(server, image, token))


def _facts(server: "Server", image: str, found: Mapping[str, object]) -> ImageFacts:
    from penstock.engines.docker_images import digest

    config = found.get("Config") or {}
    assert isinstance(config, dict)
    known = f"sha256:{str(found['Id']).removeprefix('sha256:')}"
    return ImageFacts(
        id=known,
        digests=frozenset({known, digest(server, image, CancelToken())}),
        argv=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        folder=str(config.get("WorkingDir") or "/"),
        label=(config.get("Labels") or {}).get(LABEL),
    )


def launch_image(manifest: Manifest, facts: ImageFacts, ci: Path, expected: str | None) -> Launch:
    """
    The image's own command, in its own folder.

    expected: the digest that it had when it was installed.
    Raises: AccessError for an image that is not the one that was installed, StepFailure for one with no command.
    """
    if expected is not None and expected not in facts.digests:
        raise AccessError(
            f"the image {manifest.image} is not the one that was installed: it was {expected}, and is {facts.id}",
            where=manifest.full_name,
            remedy="see who changed it, then install the plugin again",
        )
    if not facts.argv:
        raise StepFailure("its image names no command", where=manifest.full_name, remedy="give it an ENTRYPOINT")
    return Launch(facts.argv, facts.folder, image=facts.id, mounts=(Mount(CI, ci, writable=True),))


def launch_command(manifest: Manifest, folder: Path, workspace: Path, ci: Path, packages: Path | None = None) -> Launch:
    """
    The manifest's command, in the plugin's folder: at /plugin inside of bubblewrap, else where it really is.

    packages: the environment of its own packages, whose commands come first.
    Raises: StepFailure for a plugin that has none.
    """
    if manifest.command is None:
        raise StepFailure(
            "the plugin has an image alone, and the process engine runs commands of this machine",
            where=manifest.full_name,
            remedy="use the docker engine, or a version of the plugin with `command:`",
        )
    if bubblewrap() is None:
        return Launch(manifest.command, str(folder), str(ci), str(workspace), env=_path(packages), apart=False)
    own = (Mount(str(packages), packages),) if packages else ()
    mounts = (Mount(CI, ci, writable=True), Mount(PLUGIN, folder), *own)
    return Launch(manifest.command, PLUGIN, mounts=mounts, env=_path(packages))


def _path(packages: Path | None) -> Mapping[str, str]:
    return {"PATH": f"{packages}/bin:{os.environ.get('PATH', os.defpath)}"} if packages else {}


def check_engine(engine: Engine) -> None:
    """Raises: StepFailure for an engine on which no plugin can be kept apart."""
    if engine.name not in ("docker", "process"):
        raise StepFailure(
            f"plugins do not run on the {engine.name} engine", remedy="use the docker or the process engine"
        )
