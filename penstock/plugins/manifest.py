"""`plugin.yaml`: what a plugin is, takes, gives, asks for and may reach."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import attrs
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from penstock.errors import InputError, SpecError
from penstock.pipeline.complaints import in_words
from penstock.pipeline.document import Document, read_document
from penstock.pipeline.spec import Model, OneOrMany
from penstock.plugins.contract import MANIFEST, MANIFEST_BYTES, TOKEN
from penstock.plugins.network import parse_rule
from penstock.plugins.registries.wire import check_name, check_version, precedence
from penstock.plugins.schemas import SCALARS, Complaint, Schema, check_schema, closed

PLUGIN_KINDS = ("scanner", "report", "deployer", "notify", "build", "test", "policy", "other")
_SECRET = r"^[A-Za-z][A-Za-z0-9_-]{0,127}$"
_METRIC = r"^[A-Za-z_][A-Za-z0-9_.:/-]{0,127}$"


def _says(value: object, refuse: Any) -> Any:
    try:
        refuse(value)
    except InputError as error:
        raise ValueError(f"{error.what}; {error.remedy or 'mend it'}") from error
    return value


Name = Annotated[str, AfterValidator(lambda value: _says(value, check_name))]
SemanticVersion = Annotated[str, AfterValidator(lambda value: _says(value, check_version))]
Host = Annotated[str, AfterValidator(lambda value: _says(value, parse_rule))]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300, pattern=r"^[^\r\n]*$")]
PluginKind = Literal["scanner", "report", "deployer", "notify", "build", "test", "policy", "other"]
MetricName = Annotated[str, StringConstraints(pattern=_METRIC)]


class Secret(Model):
    """A secret that a plugin asks for."""

    name: Annotated[str, StringConstraints(pattern=_SECRET)] = Field(description="The file's name in /ci/secrets.")
    why: Line = Field(description="What it is for: whoever grants it reads this.")
    required: bool = Field(True, description="Whether the plugin cannot do without.")


class Manifest(Model):
    """A `plugin.yaml`. inputs, outputs: JSON Schema of an object. metrics, data: name → JSON Schema of a value."""

    contract: Literal[1] = Field(1, description="The version of this contract.")
    name: Name = Field(description="Small letters, digits and -.")
    version: SemanticVersion = Field(description="A semantic version, such as 1.4.0.")
    kind: PluginKind = Field(description="What it is for.")
    summary: Line = Field(description="One line for the catalog.")
    inputs: dict[str, Any] = Field({}, description="JSON Schema of `with:`.")
    outputs: dict[str, Any] = Field({}, description="JSON Schema of output.json.")
    metrics: dict[MetricName, dict[str, Any]] = Field(
        {}, description="Each metric's name, and JSON Schema of its value with `unit` and `kind`."
    )
    data: dict[MetricName, dict[str, Any]] = Field({}, description="Each kind of data, and JSON Schema of its value.")
    reads: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,63})$")], ...], OneOrMany()
    ] = Field((), description="Plugins whose metrics and data it reads; * for any.")
    secrets: tuple[Secret, ...] = Field((), max_length=50, description="Secrets that it asks for, and why.")
    network: tuple[Host, ...] = Field(
        (), max_length=100, description="Hosts that it may reach: host, host:port, .domain for all below it."
    )
    environments: tuple[Line, ...] = Field((), description="Types of environments that it may run in; none: all.")
    minimum_penstock: SemanticVersion = Field("0.1.0", description="The oldest Penstock that it works with.")
    maintainer: Line = Field(description="Who answers for it: a name and an address.")
    licence: Line = Field(description="An SPDX expression, such as Apache-2.0.")
    image: Line | None = Field(None, description="The image for engines of containers.")
    command: tuple[str, ...] | None = Field(
        None, min_length=1, description="The command for the process engine; it starts in the plugin's folder."
    )

    @model_validator(mode="after")
    def _runs_somewhere(self) -> Self:
        if self.image is None and self.command is None:
            raise ValueError("it has nothing to run; write `image:`, `command:` or both")
        if any(secret.name == TOKEN for secret in self.secrets):
            raise ValueError(f'the name "{TOKEN}" is taken; choose another')
        return self

    @property
    def full_name(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def input_schema(self) -> Schema:
        """What `with:` must fit."""
        return closed(self.inputs)

    @property
    def output_schema(self) -> Schema:
        """What output.json must fit."""
        return closed(self.outputs)

    def needs_newer(self, penstock: str) -> bool:
        """Whether this Penstock is too old for it."""
        return precedence(penstock) < precedence(self.minimum_penstock)

    def reads_of(self, plugin: str) -> bool:
        """Whether it asks to read what another plugin wrote."""
        return "*" in self.reads or plugin in self.reads


@attrs.frozen
class ReadManifest:
    """A manifest, or why there is none; and what else is wrong with it."""

    manifest: Manifest | None
    complaints: tuple[Complaint, ...]


def parse_manifest(data: bytes, file: str = MANIFEST) -> Manifest:
    """
    A manifest that is sound.

    Raises: SpecError for the first thing that is wrong.
    """
    found = read_manifest(data, file)
    if found.complaints:
        first = found.complaints[0]
        raise SpecError(first.what, where=first.where, remedy=first.remedy)
    assert found.manifest is not None
    return found.manifest


def load_manifest(values: Mapping[str, Any]) -> Manifest:
    """A manifest from the values that `stored_values` gave."""
    return Manifest.model_validate(values)


def stored_values(manifest: Manifest) -> dict[str, Any]:
    """Plain values, for JSON."""
    return manifest.model_dump(mode="json", exclude_defaults=True)


def read_manifest(data: bytes, file: str = MANIFEST) -> ReadManifest:
    """Everything that is wrong with a `plugin.yaml`, each with its line."""
    try:
        document = _document(data, file)
        values = document.values()
    except SpecError as error:
        return ReadManifest(None, (Complaint(error.where or file, error.what, error.remedy or "mend it"),))
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        return ReadManifest(None, tuple(_from_validation(document, error)))
    wrong = [attrs.evolve(one, where=_where(document, one.where)) for one in _check(manifest)]
    return ReadManifest(manifest, tuple(wrong))


def _document(data: bytes, file: str) -> Document:
    if len(data) > MANIFEST_BYTES:
        raise SpecError(
            f"{len(data) // 1024} KiB is too large", where=file, remedy=f"keep it below {MANIFEST_BYTES // 1024} KiB"
        )
    try:
        return read_document(data, file)
    except SpecError as error:
        if error.remedy and "penstock init" in error.remedy:  # the words are those of a pipeline
            raise SpecError("this is no manifest", where=error.where, remedy="see `penstock plugin new`") from error
        raise


def _from_validation(document: Document, error: ValidationError) -> Iterator[Complaint]:
    for one in error.errors(include_url=False, include_context=True):
        what, remedy = in_words(one, Manifest)
        inner = one["loc"][:-1] if one["type"] == "missing" else one["loc"]
        yield Complaint(document.where(inner), what, remedy or "mend it")


def _where(document: Document, place: str) -> str:
    parts: list[str | int] = list(place.split("."))
    line = document.line(parts)
    return f"{document.name}:{line}: {place}"


def _check(manifest: Manifest) -> Iterator[Complaint]:
    """What each part on its own could not tell."""
    for name in ("inputs", "outputs"):
        schema = getattr(manifest, name)
        yield from check_schema(schema, name)
        if schema and schema.get("type", "object") != "object":
            yield Complaint(f"{name}.type", f"{name} are an object", "write `type: object` with `properties:`")
    yield from _check_variables(manifest)
    for metric, schema in manifest.metrics.items():
        yield from _check_metric(schema, f"metrics.{metric}")
    for kind, schema in manifest.data.items():
        yield from check_schema(schema, f"data.{kind}")
    names = [secret.name for secret in manifest.secrets]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Complaint("secrets", f'"{name}" is there twice', "keep one")


def _check_metric(schema: dict[str, Any], where: str) -> Iterator[Complaint]:
    yield from check_schema(schema, where)
    if schema.get("type", "number") not in ("number", "integer"):
        yield Complaint(f"{where}.type", "a metric is a number", "write number or integer; other values are data")
    if "unit" in schema and not isinstance(schema["unit"], str):
        yield Complaint(f"{where}.unit", "a unit is a text", 'write one such as "s", "bytes", "1"')
    if schema.get("kind", "gauge") not in ("gauge", "counter", "histogram"):
        yield Complaint(f"{where}.kind", "this is no kind of metric", "write gauge, counter or histogram")


def _check_variables(manifest: Manifest) -> Iterator[Complaint]:
    taken: dict[str, str] = {}
    for name, schema in (manifest.inputs.get("properties") or {}).items():
        kinds = schema.get("type", ()) if isinstance(schema, dict) else ()
        if not ({kinds} if isinstance(kinds, str) else set(kinds)) & SCALARS:
            continue
        variable = variable_of(name)
        if variable in taken:
            what = f'"{name}" and "{taken[variable]}" would both be ${variable}'
            yield Complaint(f"inputs.properties.{name}", what, "rename one")
        taken[variable] = name


def variable_of(name: str) -> str:
    """The environment variable of an input: `max-lines` → `PLUGIN_MAX_LINES`."""
    letters = (char if char.isascii() and char.isalnum() else "_" for char in name)
    return f"PLUGIN_{''.join(letters).upper()}"
