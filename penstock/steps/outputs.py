"""What a step's commands put out by name: `NAME=VALUE` lines in the file that `$CI_OUTPUTS` names."""

import re
from pathlib import Path

from penstock.errors import StepFailure

OUTPUTS_FILE = ".penstock-outputs"
SIZE_LIMIT = 64 * 1024
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})=(.*)")


def read_outputs(workspace: Path) -> dict[str, str]:
    """
    The outputs by name; the last line of a name counts.

    Raises: StepFailure for a line that is none, or a file that is too large.
    """
    path = workspace / OUTPUTS_FILE
    if path.is_symlink() or not path.is_file():
        return {}
    if path.stat().st_size > SIZE_LIMIT:
        raise StepFailure(
            "the outputs are larger than 64 kB", where="$CI_OUTPUTS", remedy="put out an artifact instead"
        )
    outputs: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise StepFailure(f"line {number} is no output", where="$CI_OUTPUTS", remedy="write NAME=VALUE")
        outputs[match[1]] = match[2]
    return outputs
