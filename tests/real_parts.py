"""What the shared fixtures are made of."""

import tempfile
from pathlib import Path

import attrs

from penstock.state.embedded import EmbeddedPostgres


def short_folder() -> Path:
    """A folder under /tmp: a unix socket's path may have no more than 107 characters, which pytest's own exceed."""
    folder = Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))
    folder.chmod(0o711)  # the database's own user passes through
    return folder


def server_url(server: EmbeddedPostgres, database: str) -> str:
    """The address of a database of this server."""
    return f"postgresql://postgres@/{database}?host={server.socket_dir}"


@attrs.frozen
class Isolation:
    """Whether jobs are isolated by bubblewrap, or by nothing."""

    bwrap: bool
