"""One container of a job, from its start to its end: its output, its limits, its cancel."""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import attrs

from penstock.engines import Exit, ExitState, Job, OnOutput
from penstock.engines.docker_client import platform_error
from penstock.engines.docker_container import STOP_GRACE_S
from penstock.engines.docker_server import Server
from penstock.engines.docker_stream import Stream, attached
from penstock.errors import PlatformError
from penstock.pipeline.cancel import CancelToken

GIVE_UP_S = 4.0  # after the grace: an engine that has not killed it by then does not answer
LATE_S = 30.0  # a busy engine may take a while to say that a container has ended
ASK_EVERY_S = 5.0
KILLED = 137
NOT_FOUND, NOT_RUNNABLE = 127, 126

_NO_SUCH = re.compile(r"executable file.*not found|no such file or directory", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"permission denied|exec format error|is a directory", re.IGNORECASE)


@attrs.define
class Running:
    """A container that was created for a job, and is started here."""

    server: Server
    container_id: str
    job: Job
    stream: Stream
    _state: ExitState = "exited"
    _stopped_at: float = 0.0
    _started_at: float = attrs.field(factory=time.monotonic)

    def to_end(self, on_output: OnOutput, token: CancelToken, *, limited: bool = True) -> Exit:
        """
        Read the output of the started container to its end.

        limited: whether the job's limit of time counts.
        Raises: PlatformError when the engine goes away meanwhile.
        """
        watch = threading.Timer(self.job.timeout_s, self._stop, ("timed_out",))
        watch.daemon = True
        if limited:
            watch.start()
        try:
            with token.stopping(self._cancel):
                self.stream.read(on_output)
                return self._ended(self._wait())
        except PlatformError as error:
            raise self._went_away(error) from error
        finally:
            watch.cancel()

    def _cancel(self) -> None:
        """Whoever cancels a run stops all of its jobs at once, not one after the other."""
        threading.Thread(target=self._stop, args=("cancelled",), name=f"stop of {self.job.step}", daemon=True).start()

    def _stop(self, state: ExitState) -> None:
        """Ask it to end, then kill it. The first reason counts."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        if self._state == "exited":
            self._state, self._stopped_at = state, time.monotonic()
        give_up = threading.Timer(STOP_GRACE_S + GIVE_UP_S, self.stream.shut)
        give_up.daemon = True
        give_up.start()
        with suppress(DockerException, RequestException, OSError):  # `_wait` says what is wrong with the engine
            self.server.client.api.stop(self.container_id, timeout=STOP_GRACE_S)
            give_up.cancel()

    def _wait(self) -> Mapping[str, Any]:
        """How the engine says that it ended; its output has ended before. Asked again and again: it may be gone."""
        from docker.errors import DockerException, NotFound
        from requests.exceptions import ConnectionError as Unreachable
        from requests.exceptions import ReadTimeout, RequestException

        while True:
            try:
                self.server.client.api.wait(self.container_id, timeout=ASK_EVERY_S)
                found: Mapping[str, Any] = self.server.client.api.inspect_container(self.container_id)["State"]
            except (ReadTimeout, Unreachable) as error:
                late = self._stopped_at and time.monotonic() - self._stopped_at > LATE_S
                if late or not _is_timeout(error):
                    raise platform_error(error, self.server.host) from error
            except NotFound as error:
                if self._state != "exited":  # whoever stopped the run from elsewhere has removed it already
                    return {"ExitCode": KILLED}
                raise PlatformError("somebody removed its container", where=self.server.host) from error
            except (DockerException, RequestException) as error:
                raise platform_error(error, self.server.host) from error
            else:
                return found

    def _ended(self, state: Mapping[str, Any]) -> Exit:
        code = int(state["ExitCode"])
        ended: ExitState = self._state
        if ended == "exited" and code and self._out_of_memory(state, code):
            ended = "out_of_memory"
        return Exit(ended, code, time.monotonic() - self._started_at)

    def _out_of_memory(self, state: Mapping[str, Any], code: int) -> bool:
        """Podman does not say: a kill that nobody here has asked for, under a limit of memory, is taken for one."""
        return bool(state.get("OOMKilled")) or (code == KILLED and self.server.podman and bool(self.job.memory_bytes))

    def _went_away(self, error: PlatformError) -> PlatformError:
        return PlatformError(
            f"lost the container while {self.job.step} ran: {error.what}",
            where=self.server.host,
            remedy="run it again when the engine is back; what is left there of this run is removed then",
        )


def _is_timeout(error: Exception) -> bool:
    return "timed out" in str(error).lower()


def unusable_command(text: str, command: str) -> int | None:
    """126 or 127, as a shell has it, when the engine's words are about the job's own command; else None."""
    if command not in text and "exec" not in text:
        return None
    if "mount" in text.lower():
        return None
    if _NO_SUCH.search(text):
        return NOT_FOUND
    return NOT_RUNNABLE if _NOT_ALLOWED.search(text) else None


@contextmanager
def started(
    server: Server, container_id: str, job: Job, on_output: OnOutput, *, terminal: bool = False
) -> Iterator[Running | Exit]:
    """
    Attach to a container and start it.

    Gives an Exit when its image has no such command: that ends it at once, in a shell's words, with its exit code.
    Raises: docker.errors.APIError for whatever else hinders the engine.
    """
    from docker.errors import APIError

    began = time.monotonic()
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(attached(server, container_id, terminal=terminal))
            running: Running | Exit = Running(server, container_id, job, stream)
            server.client.api.start(container_id)
        except APIError as error:  # Docker says so at the start, Podman as soon as it is attached to
            code = unusable_command(str(error.explanation or error), job.argv[0])
            if code is None:
                raise
            words = "not found in" if code == NOT_FOUND else "cannot be run in"
            on_output(f"{job.argv[0]}: {words} the image {job.image}\n".encode())
            running = Exit("exited", code, time.monotonic() - began)
        yield running
