"""The hash of files in a workspace, as keys of caches want it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from penstock.errors import InputError


def hash_files(workspace: Path, *patterns: str) -> str:
    """
    SHA-256 over the sorted relative paths and contents of the files that match; empty when none does.

    patterns: globs such as `**/package-lock.json`. Links, `.git` and what is outside of the workspace do not count.
    Raises: InputError for a pattern that leads out, and for files that cannot be read.
    """
    found = hashlib.sha256()
    try:
        files = sorted({path for pattern in patterns for path in _matches(workspace, pattern)}, key=os.fsencode)
        for path in files:
            found.update(os.fsencode(path.relative_to(workspace)) + b"\0")
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, RecursionError) as error:
        what = getattr(error, "strerror", None) or "folders are nested too deeply"
        raise InputError(f"cannot hash the files: {what}", where=f"hash_files({', '.join(patterns)})") from error
    return found.hexdigest() if files else ""


def _matches(workspace: Path, pattern: str) -> Iterator[Path]:
    parts = PurePosixPath(pattern).parts
    if not parts or pattern.startswith("/") or ".." in parts or "\0" in pattern:
        raise InputError(f'"{pattern}" is no pattern for files of the workspace', remedy="write one such as **/*.lock")
    try:
        yield from (path for path in workspace.glob(pattern) if _is_inside(path, workspace))
    except (ValueError, NotImplementedError) as error:
        raise InputError(f'"{pattern}" is no pattern: {str(error).lower()}', where="hash_files") from error


def _is_inside(path: Path, workspace: Path) -> bool:
    """A regular file to which no link leads."""
    return (
        path.is_file()
        and path.relative_to(workspace).parts[0] != ".git"
        and path.resolve() == workspace.resolve() / path.relative_to(workspace)
    )
