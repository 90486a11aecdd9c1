"""docs/secrets.md tells what the commands do."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "secrets.md"
PIPED = re.compile(r"\$ (?:printf '(?P<piped>[^']*)' \| )?penstock secret (?P<words>.*)")


def test_commands_of_the_docs_do_what_they_show(secret: Callable[..., "subprocess.CompletedProcess[bytes]"]):
    """Line by line, as they stand there."""
    (block,) = re.findall(r"```console\n(.*?)```", DOCS.read_text(), re.DOTALL)
    pairs = re.findall(r"(\$ .*)\n([^$].*\n)", block)
    assert len(pairs) == block.count("$ ")
    for command, shown in pairs:
        match = PIPED.fullmatch(command)
        assert match
        done = secret(*match["words"].split(), piped=(match["piped"] or "").encode())
        assert done.stdout.decode() == shown
