"""What writers that were killed leave behind: half files in a folder, half uploads in a bucket, old claims."""

import fcntl
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.artifacts import claims, multipart

if TYPE_CHECKING:
    from penstock.artifacts.store import ArtifactStore


def sweep(store: "ArtifactStore", before: datetime) -> int:
    """Remove those from before then. Returns: how many. Raises: BaseError, OSError, PlatformError."""
    removed = _old_notes(store, before)
    if store.folder is not None:
        return removed + sum(_remove_abandoned(path, before) for path in (store.folder / "incoming").iterdir())
    if store.s3 is not None:
        removed += multipart.abort_uploads(store.backend, store.s3, before)
    return removed


def _old_notes(store: "ArtifactStore", before: datetime) -> int:
    import obstore

    removed = 0
    for folder in ("claims", "marks"):
        for page in obstore.list(store.backend, folder):
            for found in page:
                if found["last_modified"] < before:
                    claims.drop(store.backend, found["path"])
                    removed += 1
    return removed


def _remove_abandoned(path: Path, before: datetime) -> bool:
    """Unless its writer lives, which holds a lock on it."""
    # FileNotFoundError: the writer has just given it its name. BlockingIOError: the lock is its writer's.
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_mtime < before.timestamp():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
    return False
