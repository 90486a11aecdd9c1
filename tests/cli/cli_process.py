"""Runs the `penstock` command as people do: as a process."""

import os
import subprocess
import sys
from pathlib import Path

import attrs

COMMAND = Path(sys.executable).with_name("penstock")


@attrs.frozen
class Penstock:
    """The command with an environment of its own; `cwd` is where it is called."""

    env: dict[str, str]
    cwd: Path

    def process(self, *words: str) -> "subprocess.Popen[str]":
        """Started in a group of its own, as a shell does."""
        # With PYTHONDONTWRITEBYTECODE, as some machines set it, each start would compile everything anew.
        hidden = ("PENSTOCK_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        return subprocess.Popen(
            [str(COMMAND), *words],
            cwd=self.cwd,
            env={**inherited, "COLUMNS": "200", **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        process = self.process(*words)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)
