"""docs/events.md says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from penstock.forges.registry import FORGES

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "events.md").read_text()


def test_the_documented_stream_prints_what_is_documented():
    """The example of docs/events.md is run and compared, byte for byte."""
    given, printed = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    command = [sys.executable, "-c", "from penstock.cli import main; main()", "events", "parse", "-"]
    answer = subprocess.run(command, input=given.encode(), capture_output=True, check=False, cwd=ROOT, timeout=60)
    assert answer.stdout.decode() == printed
    assert answer.returncode == 2


def test_every_forge_is_documented():
    """By the name that the command takes."""
    assert all(f"`{name}`" in DOCS for name in FORGES)
