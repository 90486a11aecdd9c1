"""What a step says of its plugin, held against the plugin's manifest: before anything runs, and again when it does."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from penstock import __version__
from penstock.errors import SpecError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.expressions import expressions_in
from penstock.pipeline.source import Source
from penstock.plugins.manifest import Manifest
from penstock.plugins.resolve import Resolver, not_installed, parse_reference
from penstock.plugins.schemas import Complaint, check_value
from penstock.steps.plugin import Config

_GIVEN = "with"


def check_step(config: Config, manifest: Manifest) -> Iterator[Complaint]:
    """What does not fit. Inputs that are expressions are looked at when they have been worked out."""
    for complaint in check_value(manifest.input_schema, config.given, _GIVEN):
        if not _is_open(config.given, complaint.where):
            yield complaint
    yield from _check_secrets(config, manifest)
    if manifest.environments and config.environment is None:
        allowed = ", ".join(manifest.environments)
        yield Complaint("environment", "the plugin runs in an environment", f"name one of the type {allowed}")
    if manifest.needs_newer(__version__):
        what = f"it needs Penstock {manifest.minimum_penstock}, and this is {__version__}"
        yield Complaint("plugin", what, "upgrade Penstock, or use an older version of the plugin")


def _check_secrets(config: Config, manifest: Manifest) -> Iterator[Complaint]:
    grants = config.grants()
    asked = {secret.name: secret for secret in manifest.secrets}
    for name in grants:
        if name not in asked:
            yield Complaint("secrets", f'the plugin asks for no secret "{name}"', suggestion(name, list(asked)))
    for name, secret in asked.items():
        if secret.required and name not in grants:
            yield Complaint("secrets", f'the plugin needs the secret "{name}": {secret.why}', f"grant {name}: NAME")


def _is_open(inputs: Mapping[str, Any], where: str) -> bool:
    """Whether an expression stands at a place, or below it."""
    value: Any = inputs
    for part in where.split(".")[1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return value is not inputs and any(_expressions(value))


def _expressions(value: Any) -> Iterator[str]:
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            todo += one
        elif isinstance(one, str):
            yield from expressions_in(one)


@attrs.define
class PluginCheck:
    """
    Looks at the steps of a pipeline. installed: None where there is no platform to ask.

    missing: lines on plugins that are not installed here, which only a platform that runs them must have.
    """

    installed: Resolver | None
    missing: list[str] = attrs.field(factory=list)

    def __call__(self, step: object, source: Source) -> None:
        """Raises: SpecError for the first thing that does not fit."""
        if not isinstance(step, Config):
            return
        name, version = parse_reference(step.plugin)
        found = self.installed.find(name, version) if self.installed else None
        if found is None:
            versions = self.installed.versions(name) if self.installed else ()
            names = self.installed.names() if self.installed else ()
            error = not_installed(name, version, versions, names)
            if versions:
                raise SpecError(error.what, where=source.where(("plugin",)), remedy=error.remedy)
            self.missing.append(f"{source.where(('plugin',))}: {error.what} here, so its inputs were not checked")
            return
        for complaint in check_step(step, found.manifest):
            path = _path(complaint.where)
            raise SpecError(_words(complaint), where=source.where(path), remedy=complaint.remedy)


def _path(where: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in where.split("."))


def _words(complaint: Complaint) -> str:
    last = complaint.where.rpartition(".")[2]
    return f'"{last}" {complaint.what}' if complaint.what.startswith("is ") else complaint.what
