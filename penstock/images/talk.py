"""What the docker SDK does not offer: a long answer of the engine, read line by line, that can be cut off."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import attrs

from penstock.engines.docker_client import engine_errors
from penstock.engines.docker_server import Server
from penstock.errors import PenstockError, PlatformError, StepFailure
from penstock.images.stopping import Limit

if TYPE_CHECKING:
    import requests

Message = Mapping[str, Any]
FULL_DISK = "no space left on device"
READ_SIZE = 256 * 1024


@contextmanager
def told_plainly(where: str) -> Iterator[None]:
    """
    The SDK's errors as Penstock's.

    where: how the engine is addressed.
    Raises: PlatformError when the engine is away, broken or out of space; StepFailure for what it refused.
    """
    import docker.errors

    with engine_errors(where):
        try:
            yield
        except docker.errors.APIError as error:
            if error.is_server_error():
                raise
            raise StepFailure(str(error.explanation or error), where=where) from error


def refusal(text: str, *, where: str, broken: bool) -> PenstockError:
    """What the engine said, as an error: a StepFailure unless the engine itself is `broken` or its disk is full."""
    if FULL_DISK in text:
        return PlatformError(text, where=where, remedy="make room where Docker keeps its data")
    return (PlatformError if broken else StepFailure)(text, where=where)


@attrs.frozen
class Call:
    """A POST to the engine. path: below its API's version. body: what is sent, if anything."""

    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: IO[bytes] | None = None


@contextmanager
def messages(server: Server, call: Call, limit: Limit) -> Iterator[Iterator[Message]]:
    """
    The engine's answer: one JSON object after the other, while it works.

    The connection is cut when the time is over or the run is cancelled; the engine then drops the work.
    """
    with told_plainly(server.host):
        response = _posted(server, call, limit)
    try:
        with limit.stopping(response.raw.shutdown), told_plainly(server.host):
            _refuse(response, server.host)
            yield _objects(response)
    finally:
        response.close()


def _posted(server: Server, call: Call, limit: Limit) -> "requests.Response":
    api = server.client.api
    url = f"{api.base_url}/v{api.api_version}{call.path}"
    data = _pieces(call.body, limit) if call.body else None
    made: requests.Response = api.post(
        url, params=dict(call.params), headers=dict(call.headers), data=data, stream=True, timeout=None
    )
    return made


def _pieces(body: IO[bytes], limit: Limit) -> Iterator[bytes]:
    """What is sent, asking before each piece whether to go on."""
    while piece := body.read(READ_SIZE):
        limit.check()
        yield piece


def _refuse(response: "requests.Response", host: str) -> None:
    if response.status_code >= 400:
        try:
            text = str(response.json()["message"])
        except (ValueError, KeyError, TypeError):
            text = response.text[:500]
        raise refusal(text, where=host, broken=response.status_code >= 500)


def _objects(response: "requests.Response") -> Iterator[Message]:
    rest = b""
    for chunk in response.iter_content(chunk_size=None):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())
    if rest.strip():
        yield json.loads(rest)
