"""Lists components with Trivy; see docs/index.md."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock import sdk

ARTIFACT = "sbom.cdx.json"


def main(plugin: sdk.Plugin) -> None:
    """The document as an artifact, each component as data."""
    document = plugin.artifacts / ARTIFACT
    with tempfile.TemporaryDirectory() as home, plugin.group("trivy"):
        env = {**os.environ, "HOME": home, "TRIVY_CACHE_DIR": f"{home}/cache"}
        sdk.run(plugin, words(plugin, document), env=env)
    counted: Counter[str] = Counter()
    for purl, told in components(json.loads(document.read_text(encoding="utf-8"))):
        counted[str(told["ecosystem"])] += 1
        plugin.data("component", told, key=purl)
    for ecosystem, number in sorted(counted.items()):
        plugin.metric("components", number, labels={"ecosystem": ecosystem})
        plugin.log(f"{number} components of {ecosystem}")
    plugin.output("components", counted.total())


def words(plugin: sdk.Plugin, document: Path) -> list[str]:
    """The command; nothing is asked of the network."""
    skipped = [word for folder in plugin.inputs["skip_dirs"] for word in ("--skip-dirs", folder)]
    options = ["--offline-scan", "--disable-telemetry", "--skip-version-check", "--no-progress", "--include-dev-deps"]
    places = ["--format", "cyclonedx", "--output", str(document)]
    return ["trivy", "filesystem", *options, *skipped, *places, plugin.inputs["path"]]


def components(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Package URL, and what is known of the package; what has no package URL is a file, not a component."""
    for one in document.get("components") or ():
        purl = one.get("purl")
        if purl:
            told = {
                "name": "/".join(filter(None, (one.get("group"), one.get("name", "")))),
                "version": str(one.get("version") or ""),
                "ecosystem": purl.removeprefix("pkg:").partition("/")[0],
                "licences": sorted(set(licences(one))),
            }
            yield purl, told


def licences(component: dict[str, Any]) -> Iterator[str]:
    """SPDX identifiers, expressions or names."""
    for one in component.get("licenses") or ():
        licence = one.get("license") or {}
        if said := one.get("expression") or licence.get("id") or licence.get("name"):
            yield said


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
