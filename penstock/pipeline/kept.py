"""Workspaces of steps that failed, kept for a while so that a person can look into them."""

from pathlib import Path

from penstock.errors import NotFoundError
from penstock.folders import remove_tree

KEPT_RUNS = 10


def kept_workspace(home: Path, run_id: str, step: str) -> Path:
    """
    The workspace that a step left when it failed.

    Raises: NotFoundError when it is not there any more.
    """
    path = _folder(home) / run_id / step
    if not path.is_dir():
        raise NotFoundError(
            f"the workspace of {step} in run {run_id[:8]} was not kept",
            remedy=f"only steps that failed in the last {KEPT_RUNS} such runs are; run it again",
        )
    return path


def keep_workspace(home: Path, run_id: str, step: str, workspace: Path) -> None:
    """Move a workspace to where it is kept; the oldest runs' go."""
    target = _folder(home) / run_id / step
    remove_tree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if workspace.is_dir():
        workspace.rename(target)
    for old in sorted(_folder(home).iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_RUNS:]:
        remove_tree(old)


def _folder(home: Path) -> Path:
    return home / "kept"
