"""Runs Trivy over the checkout; see docs/index.md."""

import json
import os
import tempfile
from pathlib import Path

from penstock import sdk


def main(plugin: sdk.Plugin) -> None:
    """Trivy exits with 0 also when it found something; anything else is a scan that could not look."""
    report = plugin.ci / "results" / "trivy.sarif"
    with tempfile.TemporaryDirectory() as home, plugin.group("trivy"):
        env = {**os.environ, "HOME": home, "TRIVY_CACHE_DIR": f"{home}/cache"}
        sdk.run(plugin, words(plugin, report), env=env)
    found = sum(len(run.get("results") or ()) for run in json.loads(report.read_text(encoding="utf-8"))["runs"])
    plugin.metric("findings", found)
    plugin.output("findings", found)


def words(plugin: sdk.Plugin, report: Path) -> list[str]:
    """The command; the checks that come with Trivy, none from the network."""
    looked_for = ",".join(plugin.inputs["look_for"])
    skipped = [word for folder in plugin.inputs["skip_dirs"] for word in ("--skip-dirs", folder)]
    options = ["--skip-check-update", "--offline-scan", "--disable-telemetry", "--skip-version-check", "--no-progress"]
    places = ["--format", "sarif", "--output", str(report)]
    return ["trivy", "filesystem", "--scanners", looked_for, *options, *skipped, *places, plugin.inputs["path"]]


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
