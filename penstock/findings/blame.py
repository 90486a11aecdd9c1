"""Who wrote a line: `git blame` where a checkout is."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from penstock.errors import InputError, NotFoundError

_LIMIT_S = 120


@frozen
class Blame:
    """The commit that wrote a line, its author, and when."""

    commit: str
    author: str
    at: datetime


def blame_line(repository: Path, commit: str, path: str, line: int) -> Blame:
    """
    Which commit wrote a line of a file as it is at `commit`, moved and copied lines followed within a file.

    Raises: InputError without git or a repository; NotFoundError when it has no such commit, file or line.
    """
    if not commit.isalnum():
        raise InputError(f'"{commit[:60]}" is no commit', where=path, remedy="give its hash")
    # A report names the path and a forge the commit: neither may be an option, nor the repository's own settings run.
    safe = ["-c", "core.fsmonitor=false", "-c", "blame.ignoreRevsFile="]
    words = ["git", *safe, "blame", "--porcelain", "-w", "-M", f"-L{line},{line}", commit]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            [*words, "--", path], cwd=repository, env=env, capture_output=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"git cannot be asked: {error}", where=str(repository), remedy="check git and folder"
        ) from None
    if done.returncode != 0:
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["git failed"])[-1]
        remedy = "give --repository a checkout that has the commit"
        raise NotFoundError(f"{path}:{line} at {commit[:12]}: {said}", where=str(repository), remedy=remedy)
    return _parsed(done.stdout.decode("utf-8", "replace"))


def _parsed(text: str) -> Blame:
    head, *rest = text.splitlines()
    said = dict(line.split(" ", 1) for line in rest if " " in line and not line.startswith("\t"))
    return Blame(head.split()[0], said["author"], datetime.fromtimestamp(int(said["author-time"]), UTC))
