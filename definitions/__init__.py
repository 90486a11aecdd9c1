"""
The one place that puts Dagster together: definitions, executor, launcher.

`workspace.yaml` names `defs` in this file. It is made when it is asked for, because Dagster's other
processes import the launcher from this package without wanting the definitions.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "defs":
        from definitions.catalog import definitions

        return definitions()
    raise AttributeError(name)
