"""Runs the image steps as a session does, for tests."""

import io
import tarfile
import threading
from pathlib import Path
from typing import Any

import attrs
import docker

from penstock.processes import wait_until
from penstock.steps import step_types
from penstock.steps.context import StepContext, StepResult

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LIMIT_S = 60.0
PASSWORD = "p4ss w0rd/with+all"  # of the user ada at the locked registry


@attrs.define
class Bench:
    """A context, the log that it writes, and the engine as the test sees it."""

    context: StepContext
    log_path: Path
    client: docker.DockerClient

    def run(self, kind: str, **fields: Any) -> StepResult:
        """One step of type step.KIND; what it raises is raised."""
        step = step_types()[f"step.{kind}"]
        config = step.model(name=fields.pop("name", kind.replace("_", "-")), type=step.name, **fields)
        return step.run(config, self.context)

    def log(self) -> str:
        """What the log has so far."""
        return self.log_path.read_text()

    def cancel_when(self, word: str) -> threading.Thread:
        """Cancel the run from another thread as soon as the log has `word`; join it."""

        def watch() -> None:
            wait_until(lambda: word in self.log(), limit_s=LIMIT_S)
            self.context.token.cancel("enough")

        thread = threading.Thread(target=watch)
        thread.start()
        return thread


def printed(client: docker.DockerClient, image: str, command: list[str] | None = None) -> bytes:
    """
    What a container of the image prints, read when it has ended.

    Not `containers.run`, which follows the log: an engine may lose the words of a container that ends at once.
    """
    container = client.containers.create(image, command)
    try:
        container.start()
        container.wait(timeout=LIMIT_S)
        output: bytes = container.logs()
        return output
    finally:
        container.remove(force=True)


def saved_bytes(client: docker.DockerClient, image: str) -> bytes:
    """Everything that the saved image holds: manifest, configuration, and each layer unpacked."""
    archive = b"".join(client.images.get(image).save())
    found = [archive]
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        for member in outer.getmembers():
            if member.isfile() and member.name.endswith(".tar"):
                data = outer.extractfile(member)
                found.append(data.read() if data else b"")
    return b"".join(found)
