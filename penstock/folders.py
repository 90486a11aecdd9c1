"""Folders that others have filled."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """
    Remove a folder whatever is in it; one that is not there is fine, what cannot be removed stays.

    A step may have nested folders deeper than `shutil.rmtree` recurses, or have taken the right to write from
    them, as Go's module cache does.
    """
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir() and not folder.is_symlink():
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(folder)], check=False, capture_output=True)
