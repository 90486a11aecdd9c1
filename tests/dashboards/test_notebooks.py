"""The notebooks, run from the first cell to the last over a real warehouse."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import nbformat
import pytest
from dashboard_site import ROOT, Site, configure
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(path: Path, home: Path) -> str:
    """Everything that a notebook shows over a PENSTOCK_HOME. Raises: CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute(env={**os.environ, "PENSTOCK_HOME": str(home)})
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(str(output.get("data") or output.get("text")) for output in shown)


def test_findings_over_a_history(filled: Site):
    """Over a history it shows tables and charts, and no hint that something is missing."""
    shown = run(ROOT / "notebooks/findings.ipynb", filled.settings.home)
    assert "vega" in shown
    assert "Introduced (above) and fixed (below)" in shown
    assert "test_total_is_rounded_once" in shown
    assert "> " not in [line[:2] for line in shown.splitlines()]


def test_nbmake_runs_every_notebook(filled: Site):
    """`pytest --nbmake notebooks` passes for anybody who has a PENSTOCK_HOME."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-kernel=python3", "-p", "no:cacheprovider", "-q"]
    env = {**os.environ, "PENSTOCK_HOME": str(filled.settings.home)}
    done = subprocess.run(
        [*command, "notebooks"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(NOTEBOOKS)} passed" in done.stdout


def test_findings_without_anything_say_what_to_do():
    """Over an empty PENSTOCK_HOME every question ends in a hint, not in an error."""
    with ExitStack() as stack:
        shown = run(ROOT / "notebooks/findings.ipynb", configure(stack).home)
    assert "penstock run" in shown
    assert "step.deploy" in shown
    assert "vega" not in shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_holds_outputs(path: Path):
    """A notebook is kept without outputs and counts, so that a change in it can be read."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
