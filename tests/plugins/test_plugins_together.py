"""Plugins that come with Penstock beside one that somebody made, in one pipeline; one reads what another told."""

import json
from pathlib import Path

import pytest
from plugin_runs import Bench

from penstock.plugins.beginning import write_plugin
from penstock.plugins.catalog import Catalog
from penstock.plugins.usage import uses_of

PIPELINE = {
    "size": {"plugin": "code-size@1.0.0"},
    "components": {"plugin": "sbom@1.0.0"},
    "licences": {"plugin": "licenses@1.0.0", "needs": ["components"], "with": {"unknown": "allow"}},
    "coverage": {"plugin": "coverage@1.0.0", "with": {"report": "coverage.json", "at_least": 50}},
    "mine": {"plugin": "my-files@0.1.0", "needs": ["size"], "with": {"suffix": ".py"}},
}
FILES = {
    "app.py": "def answer():\n    return 42\n",
    "requirements.txt": "requests==2.31.0\n",
    "coverage.json": '{"files": {"app.py": {"executed_lines": [1, 2], "missing_lines": []}}}',
}


@pytest.mark.timeout(300)
def test_delivered_and_own_plugins_run_in_one_pipeline(bench: Bench, tmp_path: Path) -> None:
    """Four from the catalog and one of `penstock plugin new`; licences reads what sbom told of the same commit."""
    catalog = Catalog.open(bench.services.settings, bench.services.database, bench.services.store)
    for name in ("code-size", "sbom", "licenses", "coverage"):
        catalog.install(catalog.offer(name), actor="ann")
    bench.install(write_plugin(tmp_path / "my-files", "my-files", "python"))
    bench.repository.commit(FILES)
    steps = [{"name": name, "type": "plugin", **step} for name, step in PIPELINE.items()]
    first, *others = (json.dumps(step) for step in steps)
    named = {key: value for key, value in steps[0].items() if key not in ("name", "type", "plugin")}
    seen = bench.run(plugin="code-size@1.0.0", after="".join(f"  - {step}\n" for step in [first, *others]), **named)
    for name in PIPELINE:
        assert seen.step(name).state == "succeeded", f"{name}: {seen.step(name).reason}\n{seen.log(name)}"
    assert seen.outputs("components") == {"components": 1}
    assert seen.outputs("licences") == {"components": 1, "refused": 0}
    assert seen.outputs("coverage") == {"per_cent": 100}
    assert seen.outputs("mine") == {"files": 1}
    (use,) = uses_of(bench.services.database, "licenses")
    assert (use.project, use.step, use.version, use.runs, use.failures) == ("shop", "licences", "1.0.0", 1, 0)
    assert use.last_run == seen.info.id
