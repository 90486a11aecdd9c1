"""The bundled example: its weaknesses are found, and none of them stops its pipeline."""

import shutil
from pathlib import Path

import pytest

from penstock.pipeline.load import load_spec
from penstock.steps.context import StepContext
from penstock.steps.scan_sast import run

SHOP = Path(__file__).parents[2] / "examples" / "shop"
EXPECTED = {
    "scan-semgrep": {
        ("medium", "shop/baskets.py", "python.hard-coded-secret"),
        ("medium", "shop/baskets.py", "python.insecure-random"),
        ("low", "shop/__main__.py", "python.bind-all-interfaces"),
        ("medium", "shop/app.js", "javascript.inner-html"),
    },
    "scan-bandit": {
        ("low", "shop/baskets.py", "B105"),
        ("low", "shop/baskets.py", "B311"),
        ("medium", "shop/__main__.py", "B104"),
    },
}


@pytest.mark.parametrize("step", EXPECTED)
def test_weaknesses_on_purpose_are_found_and_reported_only(step: str, context: StepContext, workspace: Path):
    """Exactly those that the shop's README lists."""
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".penstock", "dist", "reports")
    shutil.copytree(SHOP, workspace, dirs_exist_ok=True, ignore=ignored)
    spec = load_spec((SHOP / "penstock.yaml").read_bytes())
    (config,) = (found for found in spec.steps if found.name == step)
    result = run(config, context)
    assert result.state == "succeeded", result.reason
    assert {(one.severity, one.path, one.rule_id) for one in result.scans[0].report.findings} == EXPECTED[step]
