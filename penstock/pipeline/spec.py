"""
What may stand in `penstock.yaml`, as models: the one place where the file's words are defined.

The fields that only one step type knows are in that type's own model (`penstock/steps/`), which
extends `StepFields`.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, core_schema

WORKSPACE = "/workspace"
_SIZE = re.compile(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

Kind = Literal["build", "report", "image", "deployment"]
# What the start scripts of common service images need to become their own user; nothing that reaches out.
Capability = Literal["CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_BIND_SERVICE", "SETGID", "SETUID"]


def seconds(value: object) -> object:
    """`300`, `"300s"`, `"5m"`, `"1h30m"` → whole seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("this is no duration; write 90s, 5m or 1h30m")  # noqa: TRY004 - pydantic wants it
    if isinstance(value, int):
        return value
    match = _DURATION.fullmatch(value.strip())
    if not match or not any(match.groups()):
        raise ValueError(f'"{value[:60]}" is no duration; write 90s, 5m or 1h30m')
    if len(value) > 20:
        raise ValueError("the duration is too long; write 90s, 5m or 1h30m")
    hours, minutes, secs = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + secs


def path_in_workspace(value: object) -> object:
    """A path relative to the workspace, or below `/workspace`; anything that leaves it is refused."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("this is no path; give one inside the workspace")
    path = PurePosixPath(value)
    if path.is_absolute():
        if not path.is_relative_to(WORKSPACE):
            raise ValueError(f'"{value[:60]}" leaves the workspace; give a path below {WORKSPACE}')
        path = path.relative_to(WORKSPACE)
    if ".." in path.parts:
        raise ValueError(f'"{value[:60]}" leaves the workspace; give a path without ".."')
    return str(path)


def glob_pattern(value: str) -> str:
    """A pattern that `Path.glob` takes."""
    if value == "." or any("**" in part and part != "**" for part in PurePosixPath(value).parts):
        raise ValueError(f'"{value}" is no pattern for files; write reports/*.xml or reports/**/*.xml')
    return value


def known_version(value: object) -> object:
    """Only the number 1: neither `1.0`, nor `true`, which are equal to it."""
    if type(value) is not int or value != 1:
        raise ValueError("this Penstock knows version 1; write `version: 1`")
    return value


def as_list(value: object) -> object:
    """One thing where a list may stand is a list of it."""
    return value if isinstance(value, list | tuple) else [value]


class OneOrMany:
    """Marks a tuple for which one thing may stand that is no list, for the reader and for the JSON Schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(as_list, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def size_bytes(value: object) -> object:
    """`512m`, `2g`, or a number of bytes → bytes; k, m and g are powers of 1024, as in Docker."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if not match:
        raise ValueError("this is no size; write 512m or 2g")
    return int(match[1]) * 1024 ** " kmgt".index(match[2] or " ")


def _env_value(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


_DURATION_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}]
}
Duration = Annotated[
    int, BeforeValidator(seconds), Field(gt=0, le=7 * 24 * 3600), WithJsonSchema(_DURATION_SCHEMA, mode="validation")
]
Size = Annotated[
    int,
    BeforeValidator(size_bytes),
    Field(ge=4 * 1024 * 1024, le=2**50),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^\d+[kmgt]?i?b?$"}, mode="validation"),
]
WorkspacePath = Annotated[str, BeforeValidator(path_in_workspace)]
_STEP_NAME = r"^[a-z][a-z0-9_-]{0,62}$"
_TEMPLATE = r"^[a-z][a-z0-9_-]{0,62}@[0-9a-f]{12,64}$"
_ARTIFACT_KEY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_SECRET_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,127}$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
PATTERNS_IN_WORDS = {
    _STEP_NAME: "use small letters, digits, - and _, a letter first, 63 at most",
    _TEMPLATE: "write NAME@HASH, as `penstock template add` printed it",
    _ARTIFACT_KEY: "use letters, digits, ., - and _, a letter or digit first, 128 at most",
    _SECRET_NAME: "use letters, digits, - and _, a letter first, 128 at most",
    _ENV_NAME: "use letters, digits and _, no digit first",
}
StepName = Annotated[str, StringConstraints(pattern=_STEP_NAME)]
ArtifactKey = Annotated[str, StringConstraints(pattern=_ARTIFACT_KEY)]
EnvName = Annotated[str, StringConstraints(pattern=_ENV_NAME)]
SecretName = Annotated[str, StringConstraints(pattern=_SECRET_NAME)]
Patterns = Annotated[tuple[str, ...], OneOrMany()]
WorkspacePattern = Annotated[WorkspacePath, AfterValidator(glob_pattern)]
Version = Annotated[Literal[1], BeforeValidator(known_version)]
EnvValue = Annotated[
    str, BeforeValidator(_env_value), WithJsonSchema({"type": ["string", "number", "boolean"]}, mode="validation")
]


class Model(BaseModel):
    """Frozen, and strict about words it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactOut(Model):
    """A file or folder of the workspace that a step leaves to those that need it."""

    key: ArtifactKey = Field(description="The artifact's name, unique within the step.")
    path: WorkspacePath = Field(description="A file or folder in the workspace.")


class Reports(Model):
    """Files that a step writes for Penstock to read."""

    junit: WorkspacePattern | None = Field(None, description="JUnit XML: a file, or a pattern such as reports/*.xml.")
    coverage: WorkspacePattern | None = Field(
        None, description="Coverage as Cobertura XML, LCOV or coverage.py's JSON: a file, or a pattern."
    )
    sbom: WorkspacePath | None = Field(None, description="A list of components (SBOM) as CycloneDX JSON: a file.")


class Retry(Model):
    """Whether a step that did not succeed is tried again."""

    max: int = Field(ge=1, le=10, description="How many more attempts.")
    on: Annotated[tuple[Literal["infra", "failure"], ...], OneOrMany()] = Field(
        ("infra",),
        description="infra: Penstock, its engine or a server failed. failure: the step did, or its time ran out.",
    )


Event = Literal["push", "tag", "pull_request", "release", "schedule", "manual"]


class When(Model):
    """A condition; all its fields must hold. A list of conditions holds when one of them does."""

    event: Annotated[tuple[Event, ...], OneOrMany()] = Field((), description="Kinds of events.")
    branch: Patterns = Field((), description="Branches, as patterns such as release/*.")
    tag: Patterns = Field((), description="Tags, as patterns such as v*.")
    paths: Patterns = Field((), description="Changed files, as patterns such as src/**; one that matches is enough.")
    condition: str | None = Field(None, alias="if", max_length=1000, description="A CEL expression that is true.")


class CacheEntry(Model):
    """Folders kept from run to run. A missing or damaged one is as if there were none."""

    key: str = Field(
        min_length=1, max_length=500, description="The exact name; with ${{ hash_files('...') }} of what it depends on."
    )
    restore: tuple[str, ...] = Field((), description="Beginnings of keys to fall back to, best first.")
    paths: tuple[WorkspacePath, ...] = Field(min_length=1, description="Files and folders in the workspace.")


class Combination(Model):
    """Which combination of the matrix a step is; written by the compiler. limit: how many run at once."""

    of: str
    values: dict[str, str | int | float | bool]
    limit: int | None = None


class Matrix(Model):
    """Values to combine: `python: ["3.11", "3.12"]`, and what to add to or take from the combinations."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, tuple[str | int | float | bool, ...]]

    include: tuple[dict[str, str | int | float | bool], ...] = Field((), description="More combinations, whole ones.")
    exclude: tuple[dict[str, str | int | float | bool], ...] = Field((), description="Combinations that are left out.")
    limit: int | None = Field(None, ge=1, description="How many combinations run at once.")


class StepFields(Model):
    """What every step may say."""

    kind: ClassVar[Kind] = "build"
    summary: ClassVar[str] = ""
    outputs: ClassVar[
        tuple[str, ...]
    ] = ()  # what it puts out for ${{ steps.NAME.outputs.X }}; others by the step itself

    conditions: ClassVar[frozenset[str]] = frozenset()  # fields that hold CEL without ${{ }}
    condition_names: ClassVar[frozenset[str]] = frozenset()  # what they may name besides
    condition_functions: ClassVar[frozenset[str]] = frozenset()  # and which functions of ours

    name: StepName = Field(description="Unique in the file; small letters, digits, - and _.")
    type: str = Field(description="One of the step types, such as step.shell_exec.")
    needs: tuple[StepName, ...] = Field((), description="Steps that must succeed first; their artifacts are there.")
    timeout: Duration = Field(3600, description="How long the step may take: 90s, 5m, 1h30m.")
    when: Annotated[tuple[When, ...], OneOrMany()] = Field(
        (), description="Run only if one of these conditions holds; else the step is skipped."
    )
    retry: Retry | None = Field(None, description="Try again when it did not succeed.")
    continue_on_error: bool = Field(
        False, description="Whether the run goes on, and may succeed, when this step fails."
    )
    secrets: tuple[SecretName, ...] = Field((), description="Secrets of the vault that the step gets.")
    combination: SkipJsonSchema[Combination | None] = None

    def check_name(self) -> str | None:
        """The blocking check that this step decides (tests, findings, healthy); None if it decides none."""
        return None

    def artifact_keys(self) -> tuple[str, ...]:
        """Keys of what it puts out for the steps that need it."""
        return ()

    def artifacts_wanted(self) -> dict[str, str]:
        """Field → key of an artifact that a step upstream must put out."""
        return {}


class ContainedFields(StepFields):
    """What every step may say that runs a program of the pipeline's in an image."""

    shell: ClassVar[frozenset[str]] = frozenset({"commands", "pre", "post"})  # fields that a shell reads

    image: str | None = Field(None, description="The image for engines of containers; the process engine has none.")
    work_dir: WorkspacePath = Field(".", description="Where the commands start.")
    env: dict[EnvName, EnvValue] = Field({}, description="Variables for this step.")
    secret_env: dict[EnvName, SecretName] = Field({}, description="Variables that hold a secret named in `secrets`.")
    network: bool = Field(False, description="Whether the commands may reach the network.")
    services: tuple[StepName, ...] = Field((), description="Services of the file that run beside this step.")
    cpu: float | None = Field(None, gt=0, le=1024, description="Processors at most; 0.5 is half of one.")
    memory: Size | None = Field(None, description="Memory at most: 512m, 2g.")
    pids: int | None = Field(None, ge=8, le=1_000_000, description="Processes and threads at most.")
    cache: Annotated[tuple[CacheEntry, ...], OneOrMany()] = Field((), description="Folders kept from run to run.")


class Probe(Model):
    """How a service is asked whether it is ready: a TCP port, a path over HTTP on it, or a command inside it."""

    tcp: int | None = Field(None, ge=1, le=65535, description="A port that takes connections when it is ready.")
    http: str | None = Field(None, pattern=r"^/[!-~]*$", description="A path on that port that answers 200 to 399.")
    command: tuple[str, ...] | None = Field(None, min_length=1, description="A command inside it that exits 0.")
    interval: Duration = Field(1, description="Between two questions.")
    within: Duration = Field(60, description="A service that is not ready by then has failed.")


class Service(Model):
    """What runs beside a step, is reached by its name, and ends with the step."""

    image: str | None = Field(None, description="The image for engines of containers.")
    command: tuple[str, ...] | None = Field(None, min_length=1, description="What starts it; default: the image's own.")
    env: dict[EnvName, EnvValue] = Field({}, description="Variables of the service.")
    ready: Probe | None = Field(None, description="How to tell that it is ready; default: when it has started.")


class Filter(Model):
    """Which branches, tags or changed files a trigger is for; patterns with a leading ! take back."""

    branches: Patterns = Field((), description="Branches (of a pull request: its target), such as main, release/*.")
    tags: Patterns = Field((), description="Tags, such as v*.")
    paths: Patterns = Field((), description="Changed files; one that fits is enough, such as src/**.")


class Schedule(Model):
    """A time at which a branch's newest commit runs."""

    cron: str = Field(description="Minute, hour, day, month, weekday, in UTC: 0 3 * * *.")
    branch: str | None = Field(None, description="Default: the default branch.")

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        from croniter import croniter

        if len(value.split()) != 5 or not croniter.is_valid(value):
            raise ValueError(f'"{value[:60]}" is no time; write minute, hour, day, month, weekday, such as 0 3 * * *')
        return value


class Triggers(Model):
    """What starts a run. A kind of event that is not named starts none."""

    push: Filter | None = None
    tag: Filter | None = None
    pull_request: Filter | None = None
    release: Filter | None = None
    schedule: Annotated[tuple[Schedule, ...], OneOrMany()] = ()
    manual: Filter | None = Field(default_factory=Filter, description="Started by a person; always possible.")

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: object) -> object:
        """`push`, `[push, tag]` and `{push: }` mean each of them without a filter."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return {one: {} for one in value}
        if isinstance(value, dict):
            return {key: {} if one is None else one for key, one in value.items()}
        return value


class Concurrency(Model):
    """Runs that must not overlap."""

    group: str = Field(
        min_length=1, max_length=300, description="Runs with the same text do not overlap; may hold ${{ }}."
    )
    mode: Literal["queue", "latest", "cancel"] = Field(
        "queue",
        description="queue: one after the other. latest: of those that wait, only the newest. "
        "cancel: the running one is stopped, unless it deploys.",
    )


class Include(Model):
    """A template whose steps are part of this file: from this repository, or from the platform's library."""

    file: WorkspacePath | None = Field(None, description="A file of this repository.")
    template: str | None = Field(
        None, pattern=_TEMPLATE, description="NAME@HASH of the platform's library; the hash pins what it says."
    )
    inputs: dict[EnvName, str | int | float | bool] = Field(
        {}, alias="with", description="What its ${{ inputs.NAME }} stand for."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.template is None):
            raise ValueError("an include names one source; write `file:` or `template:`")
        return self


class Defaults(Model):
    """Values for steps that do not say otherwise."""

    timeout: Duration | None = None
    env: dict[EnvName, EnvValue] = {}
    image: str | None = None
    cpu: float | None = Field(None, gt=0, le=1024)
    memory: Size | None = None
    pids: int | None = Field(None, ge=8, le=1_000_000)
    retry: Retry | None = None


class Spec(Model):
    """The whole file."""

    version: Version = Field(description="The version of this format: 1.")
    on: Triggers | None = Field(None, description="What starts a run; default: pushes and pull requests.")
    concurrency: Concurrency | None = Field(None, description="Runs that must not overlap.")
    include: Annotated[tuple[Include, ...], OneOrMany()] = Field((), description="Templates.")
    matrix: Matrix | None = Field(None, description="Steps that name ${{ matrix.x }} run once per combination.")
    services: dict[StepName, Service] = Field({}, description="What steps may have beside them, by name.")
    defaults: Defaults = Defaults()
    steps: tuple[Any, ...] = Field(min_length=1, max_length=2000)
