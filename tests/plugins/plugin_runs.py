"""Plugins of the tests' own, installed and run in a pipeline."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import attrs
from git_builder import GitRepository

from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.local import run_graph
from penstock.pipeline.log import log_path, read_log
from penstock.pipeline.plan import read_graph
from penstock.pipeline.session import RunSession, Services, new_run_id
from penstock.plugins.folder import open_folder
from penstock.plugins.installing import Installation, install_folder
from penstock.plugins.launch import look_at_image
from penstock.plugins.resolve import Installed
from penstock.sources.git import WorkTree
from penstock.steps.context import RunInfo

DOCKERFILE = 'FROM busybox:tests\nCOPY . /plugin\nWORKDIR /plugin\nENTRYPOINT ["/bin/sh", "/plugin/plugin.sh"]\n'


def write_plugin(folder: Path, script: str, **manifest: Any) -> Path:
    """A plugin in shell whose manifest says just what a test is about. JSON is YAML."""
    said = {
        "name": "probe",
        "version": "1.0.0",
        "kind": "other",
        "summary": "A plugin of the tests.",
        "maintainer": "tests",
        "licence": "Apache-2.0",
        "command": ["/bin/sh", "./plugin.sh"],
        **manifest,
    }
    (folder / "docs").mkdir(parents=True)
    (folder / "plugin.yaml").write_text(json.dumps({name: one for name, one in said.items() if one is not None}))
    (folder / "README.md").write_text("# Probe\nOne script.\n")
    (folder / "docs" / "index.md").write_text("# Probe\nFor tests alone.\n")
    (folder / "plugin.sh").write_text(f"#!/bin/sh\nci=$PENSTOCK_CI_DIR\n{script}\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def build_image(host: str, folder: Path, tag: str, *labels: str) -> None:
    """The image of a plugin, on the tests' engine."""
    words = ["docker", "--host", host, "build", "--quiet", "--tag", tag]
    for label in labels:
        words += ["--label", label]
    subprocess.run(
        [*words, str(folder)], check=True, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"}, timeout=120
    )


@attrs.frozen
class Bench:
    """Installs plugins, and runs them in a pipeline of one step called `probe`."""

    services: Services
    repository: GitRepository

    def install(self, folder: Path) -> Installed:
        """As `penstock plugin install` does."""
        opened, image_digest = open_folder(folder), None
        if self.services.engine.name == "docker" and opened.manifest.image:
            image_digest = look_at_image(self.services.settings, opened.manifest.image, CancelToken()).id
        installation = Installation(str(folder), "tests", image_digest)
        return install_folder(self.services.database, self.services.store, opened, installation)

    def run(
        self, *, plugin: str = "probe@1.0.0", after: str = "", facts: dict[str, Any] | None = None, **fields: Any
    ) -> "Seen":
        """Commit the pipeline and run it. fields: of the step. after: further steps, in YAML."""
        step = {"name": "probe", "type": "plugin", "plugin": plugin, **fields}
        self.repository.commit({"penstock.yaml": f"version: 1\nsteps:\n  - {json.dumps(step)}\n{after}"})
        tree = WorkTree(self.repository.root)
        commit = tree.snapshot()
        graph = read_graph(tree.repository, commit)
        info = RunInfo(new_run_id(), "shop", commit, tree.branch(), graph.hash, graph.structure_hash)
        session = RunSession.start(
            self.services, attrs.evolve(info, **(facts or {})), graph, tree.repository, on_line=lambda _s, _l: None
        )
        run_graph(session, CancelToken(), on_step=lambda _s, _r: None)
        session.finish()
        return Seen(self.services, session.info)


@attrs.frozen
class Seen:
    """What is on record of a run."""

    services: Services
    info: RunInfo

    def step(self, name: str = "probe") -> records.StepRecord:
        """A step's record."""
        return next(one for one in records.list_steps(self.services.database, self.info.id) if one.step == name)

    def outputs(self, name: str = "probe") -> Any:
        """What it put out."""
        return records.outcomes(self.services.database, self.info.id)[name][1]

    def log(self, name: str = "probe") -> str:
        """Everything in its log."""
        path = log_path(self.services.settings.home, self.info.id, name)
        return "\n".join(line.text for line in read_log(path)[0])
