"""The house's own rules, held as tests: lint, format, types, imports, and how much of the code is Dagster's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ROOMS = ("penstock", "definitions", "assets", "resources", "sensors", "dashboards", "bench")
DAGSTER_SHARE = 0.25


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-cache"),
    ],
    ids=" ".join,
)
def test_house_rule_holds(command: tuple[str, ...]) -> None:
    """Lint, format, strict types and import contracts are part of the tests."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_quarter_of_the_lines_at_most_is_dagsters() -> None:
    """Lines in files that import Dagster are at most a quarter of the Python lines outside of tests."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    lines = {path: path.read_text().count("\n") for path in files}
    dagster = [path for path in files if re.search(r"^\s*(import|from) dagster\b", path.read_text(), re.MULTILINE)]
    assert dagster
    assert sum(lines[path] for path in dagster) <= DAGSTER_SHARE * sum(lines.values())


def test_no_package_host_is_named() -> None:
    """The lock holds names, versions and hashes, and no address."""
    locks = [ROOT / "requirements.lock", *(ROOT / "penstock").rglob("*.lock")]
    assert len(locks) > 5
    for lock in locks:
        assert not re.search(r"https?://|^-", lock.read_text(), re.MULTILINE), lock
