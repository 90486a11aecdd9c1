"""Images on a Docker Engine: there, fetched when they are not, and what their names stand for."""

import threading
from typing import Any

import attrs

from penstock.engines.docker_client import platform_error
from penstock.engines.docker_server import Server
from penstock.errors import Cancelled, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken

_ASK_EVERY_S = 0.1
_NOT_THERE = (
    *("not found", "manifest unknown", "name unknown", "repository does not exist", "no matching manifest"),
    *("no such image", "invalid reference", "short-name", "no image found", "did not resolve to an alias"),
)
_NOT_ALLOWED = ("unauthorized", "access denied", "authentication required", "no basic auth", "forbidden")
_AWAY = (
    *("no such host", "connection refused", "i/o timeout", "timeout", "timed out", "tls:", "x509", "reset by peer"),
    *("network is unreachable", "no route to host", "toomanyrequests", "server misbehaving", "eof", "proxyconnect"),
    *("server gave http response to https client",),
)


def pull(server: Server, image: str, token: CancelToken) -> None:
    """
    Fetch an image.

    Raises: StepFailure when there is no such image or it may not be read, PlatformError when its registry or the
    engine is away or its disk full, Cancelled at once when the run is (the engine ends the download by itself).
    """
    pulling = _Pull(server, image)
    thread = threading.Thread(target=pulling.run, name=f"pull of {image}", daemon=True)
    thread.start()
    while thread.is_alive():
        if token.cancelled:
            raise Cancelled(token.reason)
        thread.join(_ASK_EVERY_S)
    if pulling.error:
        raise pulling.error


@attrs.define
class _Pull:
    server: Server
    image: str
    error: StepFailure | PlatformError | None = None

    def run(self) -> None:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            for line in self.server.client.api.pull(self.image, stream=True, decode=True):
                if "error" in line:
                    self.error = refusal(self.image, str(line["error"]), self.server.host)
        except APIError as error:
            self.error = refusal(self.image, str(error.explanation or error), self.server.host)
        except (DockerException, RequestException, OSError) as error:
            self.error = platform_error(error, self.server.host)


def refusal(image: str, text: str, host: str) -> StepFailure | PlatformError:
    """What an engine's words for a failed pull mean, and whose fault it is."""
    low = text.lower()
    if "no space left" in low:
        return PlatformError(f"no room for the image {image}: the engine's disk is full", where=host)
    if any(sign in low for sign in _AWAY):
        return PlatformError(f"the registry of the image {image} cannot be reached: {text}", where=host)
    if any(sign in low for sign in _NOT_THERE):
        return StepFailure(
            f"there is no image {image}: {text}", remedy="mend `image`, or log the engine in to its registry"
        )
    if any(sign in low for sign in _NOT_ALLOWED):
        return StepFailure(
            f"the image {image} may not be read: {text}", remedy="log in with `docker login` as Penstock's user"
        )
    return PlatformError(f"cannot fetch the image {image}: {text}", where=host)


def digest(server: Server, image: str, token: CancelToken) -> str:
    """
    `sha256:…` of what the name stands for on this engine: the registry's digest, or the image's own id when it
    was built here and never pushed. Fetched when it is not there.
    """
    found = inspected(server, image, token)
    repository = _repository(image)
    digests = [str(one) for one in found.get("RepoDigests") or ()]
    own = [one for one in digests if _repository(one) == repository] or [
        one for one in digests if _repository(one).endswith(f"/{repository}")
    ]
    told = own[0].rpartition("@")[2] if own else str(found["Id"])
    return told if told.startswith("sha256:") else f"sha256:{told}"


def inspected(server: Server, image: str, token: CancelToken) -> dict[str, Any]:
    """What the engine knows of an image, fetched when it is not there."""
    from docker.errors import ImageNotFound, NotFound

    try:
        found: dict[str, Any] = server.client.api.inspect_image(image)
    except (ImageNotFound, NotFound):
        pull(server, image, token)
        found = server.client.api.inspect_image(image)
    return found


def _repository(name: str) -> str:
    """`registry/name` without tag or digest."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
