"""The connection to a Docker Engine, or to what speaks its API (Podman), and its errors in Penstock's words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.errors import PlatformError, SettingsError
from penstock.settings import Settings

if TYPE_CHECKING:
    import docker

REQUEST_LIMIT_S = 60.0
OLDEST_API = (1, 40)  # Docker Engine 19.03
DEFAULT_HOST = "unix:///var/run/docker.sock"
_SETTING, _WRITE = "PENSTOCK_DOCKER_HOST", "write unix:///path or tcp://host:port"
_ADDRESSES = ("http+unix:", "unix:", "http:", "https:", "tcp:")
_REMEDY = "start the engine, or set PENSTOCK_DOCKER_HOST to where it listens"


def open_docker(settings: Settings, *, timeout_s: float = REQUEST_LIMIT_S) -> "docker.DockerClient":
    """
    The Docker SDK's client, connected to the engine that the settings name; close it after use.

    timeout_s: of each request, seconds; streams may take longer.
    Raises: PlatformError when nobody answers there, we may not, or the engine is too old; SettingsError for an
    address that is none.
    """
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    host = settings.docker_host or DEFAULT_HOST
    tls = _tls(host)
    with engine_errors(host):
        # The SDK would ask /version, which takes Podman a third of a second.
        asking = docker.APIClient(base_url=host, version=_written(OLDEST_API), timeout=timeout_s, tls=tls)
        with asking:
            found = _numbers(about(asking).get("Api-Version") or "0")
        if found < OLDEST_API:
            raise PlatformError(
                f"this engine's API {_written(found)} is too old", where=host, remedy="use Docker 19.03 or later"
            )
        version = _written(min(found, _numbers(DEFAULT_DOCKER_API_VERSION)))
        return docker.DockerClient(base_url=host, version=version, timeout=timeout_s, tls=tls)


def about(api: "docker.APIClient") -> Mapping[str, str]:
    """The headers of the engine's quickest answer: `Api-Version`, `Server`."""
    answer = api.get(f"{api.base_url}/_ping")
    answer.raise_for_status()
    headers: Mapping[str, str] = answer.headers
    return headers


def _tls(host: str) -> Any:
    """Whether and how to encrypt, from Docker's own DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env, parse_host

    try:
        if not parse_host(host).startswith(_ADDRESSES):
            raise SettingsError(f'"{host}" is no address', where=_SETTING, remedy=_WRITE)
        return kwargs_from_env().get("tls", False) if host.startswith(("tcp:", "https:")) else False
    except DockerException as error:
        raise SettingsError(str(error), where=_SETTING, remedy=_WRITE) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


@contextmanager
def engine_errors(host: str) -> Iterator[None]:
    """
    What the SDK raises in the block, as PlatformError in one line. What the caller means to handle, it catches inside.

    host: how the engine is addressed; the message begins with it.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (DockerException, RequestException, HTTPError, OSError) as error:
        raise platform_error(error, host) from error


def platform_error(error: BaseException, host: str) -> PlatformError:
    """The words for an error of the SDK or of the connection below it."""
    from docker.errors import APIError

    text = str(error.explanation or error) if isinstance(error, APIError) else _reasons(error)
    if "no space left on device" in text.lower():
        return PlatformError(
            "the engine's disk is full", where=host, remedy="free space, for example with `docker system prune`"
        )
    if isinstance(error, APIError):
        return PlatformError(f"the engine refused: {text}", where=host)
    for sign, words in _AWAY.items():
        if sign in text:
            return PlatformError(words, where=host, remedy=_REMEDY if "permission" not in words else _MAY_NOT)
    return PlatformError(f"lost the engine: {text}", where=host, remedy=_REMEDY)


_MAY_NOT = "let the user who runs Penstock use this socket, for example by the group `docker`"
_AWAY = {
    "FileNotFoundError": "no engine is there: there is no such socket",
    "ConnectionRefusedError": "no engine is there: nobody listens",
    "PermissionError": "no permission to talk to the engine",
    "timed out": "the engine does not answer in time",
    "ConnectionResetError": "the engine went away",
    "RemoteDisconnected": "the engine went away",
    "BrokenPipeError": "the engine went away",
    "Connection aborted": "the engine went away",
}


def _reasons(error: BaseException) -> str:
    """The chain of what caused it, with the names of the errors, which say more than their words."""
    found: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(found) < 8:
        found.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return " ".join(" | ".join(found).split())
