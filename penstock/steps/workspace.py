"""What steps do with their workspace: artifacts in, artifacts out."""

import re
from pathlib import Path

from penstock.errors import InputError, StepFailure
from penstock.steps.context import Artifact, StepContext, StepLog

TAIL_CHARS = 300
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def store_artifact(context: StepContext, key: str, path: str, *, published: bool = False) -> Artifact:
    """
    Store a file or folder of the workspace.

    Raises: StepFailure when it is not there, InputError when it is neither or leads out of the workspace.
    """
    source = inside(context.workspace, path)
    if not source.exists():
        raise StepFailure(f'there is no "{path}" in the workspace', where=f"artifact {key}", remedy="check the path")
    blob, kind = context.store.put_path(source)
    return Artifact(key, path, kind, blob.digest, blob.size_bytes, published)


def place_artifact(context: StepContext, artifact: Artifact, path: str | None = None) -> None:
    """Put an artifact where it belongs in the workspace, or at `path`."""
    target = inside(context.workspace, path or artifact.path)
    context.store.fetch_path(artifact.digest, artifact.kind, target)


def inside(workspace: Path, path: str) -> Path:
    """
    `path` in the workspace, links followed.

    Raises: InputError when it leads out of it.
    """
    root = workspace.resolve()
    target = (root / path).resolve()
    if not target.is_relative_to(root):
        raise InputError(f'"{path}" leads out of the workspace', remedy="give a path inside it, without such links")
    return target


def tail_of(log: StepLog, lines: int = 3) -> str:
    """The last lines that the step printed, on one line, without colours and what else is not for reading."""
    return " | ".join(_readable(line) for line in log.tail(lines))


def _readable(line: str) -> str:
    text = "".join(char if char.isprintable() else " " for char in _COLOURS.sub("", line))
    return text if len(text) <= TAIL_CHARS else f"{text[:TAIL_CHARS]}…"
