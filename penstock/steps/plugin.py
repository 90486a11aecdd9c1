"""step.plugin: a plugin that the platform has installed, with the inputs that the pipeline gives it."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic.json_schema import SkipJsonSchema

from penstock.errors import InputError
from penstock.pipeline.spec import ArtifactKey, Kind, SecretName, Size, StepFields
from penstock.steps.context import StepContext, StepResult
from penstock.steps.scanning import Severity

_SECRETS_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": {"type": "string"}},
    ]
}


def _reference(text: str) -> str:
    # Imported here: `penstock check` reads this file's model, mostly for pipelines without plugins.
    from penstock.plugins.resolve import parse_reference

    try:
        parse_reference(text)
    except InputError as error:
        raise ValueError(f"{error.what}; {error.remedy}") from error
    return text


class Config(StepFields):
    """Which plugin runs, with which inputs, and what it is granted."""

    kind: ClassVar[Kind] = "report"
    summary: ClassVar[str] = "Run an installed plugin."

    plugin: Annotated[str, AfterValidator(_reference)] = Field(description="The plugin: name@version.")
    given: dict[str, Any] = Field({}, alias="with", description="What its manifest calls inputs.")
    secrets: Annotated[tuple[SecretName, ...], WithJsonSchema(_SECRETS_SCHEMA, mode="validation")] = Field(
        (), description="Secrets of the vault that it gets: a list, or ITS_NAME: NAME_IN_THE_VAULT."
    )
    granted: SkipJsonSchema[dict[SecretName, SecretName]] = Field({})
    environment: str | None = Field(None, max_length=128, description="The environment that it works on.")
    fail_on_severity: Severity = Field(
        "none", description="Fail when it reports a finding of this severity or worse; none: only report."
    )
    artifacts_out: tuple[ArtifactKey, ...] = Field(
        (), max_length=100, description="Artifacts that it must leave, for steps that name them."
    )
    cpu: float | None = Field(None, gt=0, le=1024, description="Processors at most; 0.5 is half of one.")
    memory: Size | None = Field(None, description="Memory at most: 512m, 4g; default 2g.")
    pids: int | None = Field(None, ge=8, le=1_000_000, description="Processes and threads at most; default 512.")

    @model_validator(mode="before")
    @classmethod
    def _grants(cls, values: Any) -> Any:
        """`secrets: {ITS_NAME: NAME}` names the vault's secrets, and which of the plugin's each is."""
        if isinstance(values, dict) and isinstance(values.get("secrets"), dict):
            given = values["secrets"]
            return {**values, "secrets": tuple(dict.fromkeys(given.values())), "granted": given}
        return values

    @model_validator(mode="after")
    def _granted_are_named(self) -> Self:
        if missing := [name for name in self.granted.values() if name not in self.secrets]:
            raise ValueError(f'"{missing[0]}" is no secret of this step; name it in `secrets`')
        return self

    def grants(self) -> dict[str, str]:
        """The plugin's name of a secret → its name in the vault."""
        renamed = set(self.granted.values())
        return {**{name: name for name in self.secrets if name not in renamed}, **self.granted}

    def artifact_keys(self) -> tuple[str, ...]:
        """Those that it must leave."""
        return self.artifacts_out

    def check_name(self) -> str | None:
        """With a limit for findings it decides the check `findings`."""
        return None if self.fail_on_severity == "none" else "findings"


def run(config: Config, context: StepContext) -> StepResult:
    """
    Run the plugin and take what it leaves.

    Raises: NotFoundError for a plugin that is not installed, StepFailure for inputs, secrets or an environment that do
    not fit its manifest, or results that do not; AccessError for an image that is not the one that was installed.
    """
    from penstock.plugins.running import run_step

    return run_step(config, context)
