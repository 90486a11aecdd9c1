"""Builds an image from a folder of the workspace: by BuildKit where it can be had, else by the engine's old builder."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engines.docker_server import Server
from penstock.errors import PenstockError, PlatformError, StepFailure
from penstock.images.buildkit import BuildCommand, build_command
from penstock.images.legacy import build_the_old_way
from penstock.images.push import away_in
from penstock.images.recipe import Recipe
from penstock.images.stopping import Limit
from penstock.images.talk import FULL_DISK
from penstock.processes import signal_group, spawn

if TYPE_CHECKING:
    import subprocess

    from penstock.steps.context import StepLog

READ_SIZE = 64 * 1024
_REMEDY = "install docker-buildx (or Docker 20.10's own client) on Penstock's machine, beside a Docker engine"
# What the docker command needs of this machine; nothing else of its environment reaches it.
_PASSED_ON = (
    *("PATH", "LANG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_ENGINE_AWAY = ("cannot connect to the docker daemon", "error during connect", "code = unavailable", "session closed")


def build_image(recipe: Recipe, server: Server, log: "StepLog", limit: Limit) -> str:
    """
    Build, tag, and leave the image on the engine.

    Returns: the image's id, `sha256:…`.
    Raises: StepFailure when the build fails or needs what this machine cannot do, StepTimeout and Cancelled when it
    was stopped, PlatformError when the engine, its disk or a base image's registry failed.
    """
    # Podman's service speaks Docker's API, but not BuildKit's.
    command = None if server.podman else build_command(os.environ.get("PATH", os.defpath))
    if command is None:
        _refuse_what_needs_buildkit(recipe)
        log.line("no BuildKit here: the engine's own builder is used")
        return build_the_old_way(recipe, server, log, limit)
    return _by_buildkit(recipe, command, server, log, limit)


def _refuse_what_needs_buildkit(recipe: Recipe) -> None:
    if recipe.secrets:
        raise StepFailure("build secrets need BuildKit, which is not to be had here", remedy=_REMEDY)
    if recipe.logins:
        raise StepFailure("registry logins of a build need BuildKit, which is not to be had here", remedy=_REMEDY)
    if len(recipe.platforms) > 1:
        raise StepFailure("several platforms need BuildKit, which is not to be had here", remedy=_REMEDY)


def _by_buildkit(recipe: Recipe, command: BuildCommand, server: Server, log: "StepLog", limit: Limit) -> str:
    if len(recipe.platforms) > 1 and not command.buildx:
        raise StepFailure("this docker command builds for one platform at a time", remedy="install docker-buildx")
    with recipe.private_folder() as folder, ExitStack() as open_files:
        secrets = {name: _in_memory(value, open_files) for name, value in recipe.secrets.items()}
        login = _in_memory(recipe.docker_config(), open_files)
        (folder / "config.json").symlink_to(f"/proc/self/fd/{login}")
        _borrow_plugins(folder)
        id_file = folder / "image-id"
        argv = [command.path, "build", *build_words(recipe, secrets, id_file)]
        code = _watched(argv, _env(folder, server.host), (*secrets.values(), login), log, limit)
        if code:
            raise _why_not(code, server, log)
        return id_file.read_text().strip()


def _in_memory(value: bytes, open_files: ExitStack) -> int:
    """A file that has no name and is gone with the last process that has it open: nothing to leave behind."""
    descriptor = os.memfd_create("penstock", os.MFD_CLOEXEC)
    open_files.callback(os.close, descriptor)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(value)
    return descriptor


def _borrow_plugins(folder: Path) -> None:
    """buildx may be installed for the user alone; of the user's docker configuration nothing else is read."""
    plugins = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins"
    if plugins.is_dir():
        (folder / "cli-plugins").symlink_to(plugins)


def _env(folder: Path, docker_host: str) -> dict[str, str]:
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {"HOME": str(folder), "DOCKER_CONFIG": str(folder), "DOCKER_BUILDKIT": "1"}
    env |= {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}  # they hold the time of the build: no digest would come twice
    return {**env, "DOCKER_HOST": docker_host}


def build_words(recipe: Recipe, secrets: Mapping[str, int], id_file: Path) -> list[str]:
    """
    docker build's words.

    secrets: id → descriptor of an open file, so that no value is in the words.
    """
    return [
        *("--progress=plain", f"--iidfile={id_file}", f"--file={recipe.dockerfile}"),
        *(f"--tag={tag}" for tag in recipe.tags),
        *(f"--build-arg={name}={value}" for name, value in _arguments(recipe).items()),
        *(f"--label={name}={value}" for name, value in recipe.labels.items()),
        *(f"--secret=id={name},src=/proc/self/fd/{number}" for name, number in secrets.items()),
        *(f"--cache-from={name}" for name in recipe.cache_from),
        *([f"--target={recipe.target}"] if recipe.target else []),
        *([f"--platform={','.join(recipe.platforms)}"] if recipe.platforms else []),
        *(["--pull"] if recipe.pull else []),
        *([] if recipe.network else ["--network=none"]),
        str(recipe.context),
    ]


def _arguments(recipe: Recipe) -> dict[str, str]:
    own = {"BUILDKIT_INLINE_CACHE": "1"} if recipe.cache_from else {}
    if recipe.epoch_s is not None:  # a BuildKit before 0.11 takes no notice
        own["SOURCE_DATE_EPOCH"] = str(recipe.epoch_s)
    return {**own, **recipe.args}


def _watched(argv: Sequence[str], env: Mapping[str, str], files: Sequence[int], log: "StepLog", limit: Limit) -> int:
    """Run the command to its end. The engine stops the build when its client is gone. Returns: the exit code."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as output:
        try:
            process = spawn(argv, output=write_end, env=env, pass_fds=files)
        except OSError as error:
            raise PlatformError(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(write_end)
        try:
            with limit.stopping(lambda: _kill(process)):
                for chunk in _chunks(output.fileno()):
                    log.output(chunk)
                return process.wait()
        finally:
            _kill(process)
            process.wait()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    signal_group(process.pid, signal.SIGKILL)


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, READ_SIZE):
        yield chunk


def _why_not(code: int, server: Server, log: "StepLog") -> PenstockError:
    server.client.ping()  # an engine that went away is the reason by itself
    return build_failure(log.tail(20), code)


def build_failure(lines: Sequence[str], code: int) -> PenstockError:
    """
    What the last lines of a build that failed say.

    code: the docker command's exit code.
    """
    said = [line.strip() for line in lines if line.strip()]
    last = next((line for line in reversed(said) if _is_verdict(line)), said[-1] if said else "")
    text = last.removeprefix("ERROR:").strip() or f"docker build ended with exit code {code}"
    if FULL_DISK in text:
        return PlatformError("the engine's disk is full", remedy="free space, for example with `docker system prune`")
    if any(sign in text.lower() for sign in _ENGINE_AWAY):
        return PlatformError(f"lost the engine during the build: {text}")
    if away_in(text) and "executor failed" not in text and "did not complete" not in text:
        return PlatformError(f"a base image cannot be fetched: {text}", remedy="see whether its registry is there")
    return StepFailure(text, remedy=_remedy(text))


def _is_verdict(line: str) -> bool:
    return line.startswith(("ERROR", "failed to ", "error ", "Error ", "failed with", "unable to "))


def _remedy(text: str) -> str | None:
    return "the log has the command's output" if "exit code" in text else None
