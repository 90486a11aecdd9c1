"""
The step types: one file each, and this registry.

A type is a model that extends `StepFields` (its own words in penstock.yaml, its `kind` of asset and a
one-line summary) and a `run(config, context) -> StepResult`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import attrs

from penstock.pipeline.spec import Kind, StepFields
from penstock.steps.context import StepContext, StepResult

_FILES = {
    "step.shell_exec": "shell_exec",
    "step.artifact_push": "artifact_push",
    "step.artifact_pull": "artifact_pull",
    "step.docker_build": "docker_build",
    "step.docker_push": "docker_push",
    "step.docker_run": "docker_run",
    "step.scan_sast": "scan_sast",
    "step.scan_container": "scan_container",
    "step.scan_deps": "scan_deps",
    "step.deploy": "deploy",
    "step.gate": "gate",
    "step.plugin": "plugin",
}
SPELLINGS = {"plugin": "step.plugin"}
"""What else a type may be called in a penstock.yaml."""


@attrs.frozen
class StepType:
    """A registered type: its name, its model and the function that does the work."""

    name: str
    model: type[StepFields]
    run: Callable[[Any, StepContext], StepResult]

    @property
    def kind(self) -> Kind:
        """The kind of asset that a step of this type makes."""
        return self.model.kind


@cache
def step_types() -> Mapping[str, StepType]:
    """Every step type by its name."""
    found = {}
    for name, file in _FILES.items():
        module = import_module(f"penstock.steps.{file}")
        found[name] = StepType(name, module.Config, module.run)
    return found
