"""Running the tool that a plugin wraps: its output in the log, its end in words, and stopped when the run is."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.sdk.ending import BadConfiguration, Failed

if TYPE_CHECKING:
    from penstock.sdk.plugin import Plugin

STOP_S = 2.0


def run(
    plugin: Plugin,
    words: Sequence[str],
    *,
    ok: Collection[int] = (0,),
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> int:
    """
    Run a command to its end; what it prints goes to the log.

    ok: exit codes that are no failure. env: instead of the plugin's own. folder: where it starts; the checkout.
    Returns: its exit code. Raises: BadConfiguration when there is no such command, Failed for another exit code, or
    when the run was stopped.
    """
    try:
        process = subprocess.Popen(words, cwd=folder or plugin.workspace, env=env, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise BadConfiguration(f"there is no command {words[0]}") from error
    with process:
        while process.poll() is None:
            if plugin.wait(0.05):
                _stop(process)
                raise Failed("stopped")
    if process.returncode not in ok:
        raise Failed(f"{words[0]} exited with {process.returncode}")
    return process.returncode


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
