"""The image of a release: what its name stands for now, fetched when it is not there, and kept for the way back."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from penstock.engines.docker_container import home_mark
from penstock.engines.docker_images import digest, refusal
from penstock.engines.docker_server import Server
from penstock.errors import PlatformError, StepFailure
from penstock.images.logins import Account
from penstock.images.names import ImageName, is_image_id, parse_image
from penstock.images.push import auth_header
from penstock.images.stopping import Limit
from penstock.images.talk import Call, messages


@attrs.frozen
class FoundImage:
    """
    What a name stands for on this engine. image_id: what runs.

    digest: the registry's; the id for an image that was built here and never pushed. labels: of the image.
    """

    name: str
    image_id: str
    digest: str
    labels: Mapping[str, str]


def find_image(server: Server, name: str, account: Account | None, limit: Limit) -> FoundImage:
    """
    The image on the engine; fetched when it is not there.

    Raises: StepFailure when there is none or the registry refuses, PlatformError when registry or engine are away.
    """
    found = _inspected(server, name)
    if found is None:
        if is_image_id(name):
            raise StepFailure(f"there is no image {name} on the engine", remedy="name the step that builds it in needs")
        _pull(server, parse_image(name), account, limit)
        found = server.client.api.inspect_image(name)
    labels = (found.get("Config") or {}).get("Labels") or {}
    return FoundImage(name, _image_id(found), digest(server, name, limit.token), labels)


def _inspected(server: Server, name: str) -> dict[str, Any] | None:
    from docker.errors import ImageNotFound, NotFound

    try:
        found: dict[str, Any] = server.client.api.inspect_image(name)
    except (ImageNotFound, NotFound):
        return None
    return found


def _image_id(found: Mapping[str, Any]) -> str:
    image_id = str(found["Id"])
    return image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"


def _pull(server: Server, name: ImageName, account: Account | None, limit: Limit) -> None:
    # What talks to clouds is slow to load.
    from penstock.images.registries import registry_http
    from penstock.images.tokens import credentials_for

    credentials = None
    if account is not None:
        with registry_http(name.registry) as http:
            credentials = credentials_for(account, name.registry, http)
    params = {"fromImage": name.untagged, "tag": name.digest or name.tag}
    if server.podman and name.loopback:
        params["tlsVerify"] = "false"
    call = Call("/images/create", params, {"X-Registry-Auth": auth_header(name, credentials)})
    try:
        with messages(server, call, limit) as answer:
            for message in answer:
                if "error" in message:
                    raise StepFailure(str(message["error"]))
    except (StepFailure, PlatformError) as error:
        raise refusal(str(name), error.what, server.host) from error


def keep_image(server: Server, home: Path, release_id: str, image_id: str) -> None:
    """
    Give the image a name of the release's own, so that nobody's tidying takes the way back.

    Raises: StepFailure when it is gone.
    """
    from docker.errors import ImageNotFound, NotFound

    try:
        server.client.api.tag(image_id, _kept_name(home), release_id, force=True)
    except (ImageNotFound, NotFound) as error:
        raise StepFailure(f"the image {image_id} is gone from the engine", remedy="build it again") from error


def forget_images(server: Server, home: Path, release_ids: Collection[str]) -> None:
    """Take the releases' own names away; an image that has no other one goes."""
    from docker.errors import APIError

    wanted = {f"{_kept_name(home)}:{release_id}" for release_id in release_ids}
    for image in server.client.api.images(name=_kept_name(home)):
        for name in image.get("RepoTags") or ():
            if name.removeprefix("localhost/") not in wanted:
                continue
            try:
                server.client.api.remove_image(name)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or in use: the next deployment tries again
                    raise


def _kept_name(home: Path) -> str:
    return f"penstock-release/{home_mark(home)}"
