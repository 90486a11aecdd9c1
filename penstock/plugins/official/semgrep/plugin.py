"""Runs Semgrep over the checkout; see docs/index.md."""

import json
import os
import tempfile
from pathlib import Path

from penstock import sdk

OWN_RULES = Path(__file__).parent / "rules"


def main(plugin: sdk.Plugin) -> None:
    """Semgrep exits with 0 also when it found something; anything else is a scan that could not look."""
    report = plugin.ci / "results" / "semgrep.sarif"
    with tempfile.TemporaryDirectory() as home, plugin.group("semgrep"):
        env = {**os.environ, "HOME": home, "SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0"}
        sdk.run(plugin, words(plugin, report), env=env)
    run = json.loads(report.read_text(encoding="utf-8"))["runs"][0]
    found = len(run.get("results") or ())
    plugin.metric("findings", found)
    plugin.metric("rules", len(run["tool"]["driver"].get("rules") or ()))
    plugin.output("findings", found)


def words(plugin: sdk.Plugin, report: Path) -> list[str]:
    """The command; nothing is asked of the network."""
    rules = plugin.inputs.get("rules") or str(OWN_RULES)
    excluded = [word for pattern in plugin.inputs["exclude"] for word in ("--exclude", pattern)]
    options = ["--metrics=off", "--disable-version-check", "--no-git-ignore", "--sarif", "--output", str(report)]
    return ["semgrep", "scan", "--config", rules, *options, *excluded, *plugin.inputs["paths"]]


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
