"""What plugins of the tests tell."""

from penstock.plugins.data import Scope


def scope(project: str = "shop", tenant: str = "default", plugin: str = "lint", run_id: str = "run-1") -> Scope:
    """Of a step of a run of a project."""
    return Scope(tenant, project, run_id, "scan", "c" * 40, plugin)


def metrics(*values: float, name: str = "findings") -> list[bytes]:
    """Lines of one metric."""
    return [f'{{"name": "{name}", "value": {value}, "labels": {{"tool": "ruff"}}}}'.encode() for value in values]
