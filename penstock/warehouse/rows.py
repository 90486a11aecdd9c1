"""
The rows of the warehouse as frozen values; schema.sql says the grain of each table.

Times are timezone-aware. Every field is a column of the same name.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import UnionType
from typing import Any, ClassVar, Protocol, Union, get_args, get_origin, get_type_hints

import attrs
import pyarrow as pa
from attrs import field, frozen

from penstock.errors import InputError

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of no bytes: the report of a scanner that wrote none."""


def _aware(_: object, attribute: "attrs.Attribute[Any]", value: datetime | None) -> None:
    if value is not None and value.tzinfo is None:
        raise InputError(f"{attribute.name} has no time zone", remedy="use UTC")


class Row(Protocol):
    """What can be written: an attrs value that knows its table and what makes it the same row again."""

    __attrs_attrs__: ClassVar[Any]
    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]


@frozen(kw_only=True)
class Commit:
    """A commit of a project."""

    TABLE: ClassVar[str] = "commits"
    KEY: ClassVar[tuple[str, ...]] = ("commit", "project")

    project: str
    commit: str
    ref: str | None = None
    author: str | None = None
    message: str | None = None
    committed_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Run:
    """A run, in whatever state it is now; writing it again replaces it."""

    TABLE: ClassVar[str] = "runs"
    KEY: ClassVar[tuple[str, ...]] = ("run_id",)

    run_id: str
    project: str
    commit: str
    state: str
    ref: str | None = None
    event: str | None = None
    trigger: str | None = None
    author: str | None = None
    reason: str | None = None
    queued_at: datetime | None = field(default=None, validator=_aware)
    started_at: datetime | None = field(default=None, validator=_aware)
    finished_at: datetime | None = field(default=None, validator=_aware)
    duration_s: float | None = None
    graph_hash: str | None = None
    structure_hash: str | None = None


@frozen(kw_only=True)
class Step:
    """One attempt at a step; writing it again replaces it."""

    TABLE: ClassVar[str] = "steps"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "attempt")

    run_id: str
    project: str
    commit: str
    step: str
    state: str
    attempt: int = 1
    kind: str | None = None
    type: str | None = None
    reason: str | None = None
    queued_at: datetime | None = field(default=None, validator=_aware)
    started_at: datetime | None = field(default=None, validator=_aware)
    finished_at: datetime | None = field(default=None, validator=_aware)
    seconds: float | None = None
    exit_code: int | None = None
    reused_from: str | None = None
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None


@frozen(kw_only=True)
class Scan:
    """
    One report of one tool and category.

    state: "succeeded" or "failed"; a failed scan says nothing about findings: it fixes none.
    committed_at: orders the commits of a branch; a scan of an older commit never changes what a newer one said.
    report_sha256: what the report is archived under; EMPTY_SHA256 when the tool wrote none.
    roots, base_branch: of an imported report: where the repository lay, and what the branch is merged into.
    """

    TABLE: ClassVar[str] = "scans"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "tool", "category", "report_sha256", "state")

    project: str
    commit: str
    branch: str
    run_id: str
    step: str
    tool: str
    category: str
    state: str = field(validator=attrs.validators.in_(("succeeded", "failed")))
    committed_at: datetime = field(validator=_aware)
    scanned_at: datetime = field(validator=_aware)
    tool_version: str | None = None
    reason: str | None = None
    results: int = 0
    findings: int = 0
    not_findings: int = 0
    quarantined: int = 0
    report_sha256: str = EMPTY_SHA256
    author: str | None = None
    roots: tuple[str, ...] | None = None
    base_branch: str | None = None


@frozen(kw_only=True)
class Sbom:
    """
    A list of components: what a step found a checkout or an image to be made of.

    source: `checkout`, or the image's name without its tag. image_digest: `sha256:…`, None of a checkout.
    report_sha256: what the list is archived under. quarantined: entries that could not be read.
    """

    TABLE: ClassVar[str] = "sboms"
    KEY: ClassVar[tuple[str, ...]] = ("commit", "project", "branch", "step", "source")

    project: str
    commit: str
    branch: str
    run_id: str
    step: str
    source: str
    committed_at: datetime = field(validator=_aware)
    listed_at: datetime = field(validator=_aware)
    components: int = 0
    quarantined: int = 0
    image_digest: str | None = None
    tool: str | None = None
    report_sha256: str | None = None


@frozen(kw_only=True)
class ListedComponent:
    """
    A component of a commit's source, as `penstock.components.Component` says; a newer list of the same commit, step
    and source replaces all of them.
    """

    TABLE: ClassVar[str] = "components"
    KEY: ClassVar[tuple[str, ...]] = ("commit", "project", "step", "source")

    project: str
    commit: str
    run_id: str
    step: str
    source: str
    ecosystem: str
    name: str
    version: str
    kind: str
    listed_at: datetime = field(validator=_aware)
    purl: str | None = None
    namespace: str | None = None
    licences: tuple[str, ...] = ()
    path: str | None = None
    direct: bool | None = None
    image_digest: str | None = None


@frozen(kw_only=True)
class Image:
    """
    An image that a step built or pushed, under one of its names.

    image_id: of its configuration. digest: of its manifest in a registry. size_bytes: unpacked. platform: os/cpu.
    """

    TABLE: ClassVar[str] = "images"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "name")

    project: str
    commit: str
    run_id: str
    step: str
    name: str
    image_id: str
    digest: str | None = None
    size_bytes: int | None = None
    layers: int | None = None
    platform: str | None = None
    made_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Coverage:
    """How much of a file a step's tests reached; writing a step's coverage again replaces all of that step."""

    TABLE: ClassVar[str] = "coverage"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step")

    project: str
    commit: str
    run_id: str
    step: str
    path: str
    lines: int
    lines_covered: int
    branches: int = 0
    branches_covered: int = 0
    measured_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class TestResult:
    """One test of a run; writing a step's tests again replaces all of that step."""

    __test__: ClassVar[bool] = False
    TABLE: ClassVar[str] = "test_results"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step")

    project: str
    commit: str
    run_id: str
    step: str
    name: str
    state: str
    suite: str | None = None
    seconds: float | None = None
    message: str | None = None
    file: str | None = None
    finished_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Release:
    """A release in its present state; writing it again replaces it."""

    TABLE: ClassVar[str] = "releases"
    KEY: ClassVar[tuple[str, ...]] = ("project", "environment", "service", "number")

    project: str
    environment: str
    service: str
    number: int
    commit: str
    state: str
    created_at: datetime = field(validator=_aware)
    run_id: str | None = None
    artifact_digest: str | None = None
    graph_hash: str | None = None
    live_at: datetime | None = field(default=None, validator=_aware)
    ended_at: datetime | None = field(default=None, validator=_aware)
    reason: str | None = None
    approved_by: str | None = None
    strategy: str | None = None
    replicas: int | None = None
    previous_number: int | None = None
    rollback_of: int | None = None


@frozen(kw_only=True)
class Rollout:
    """
    A rollout in its present state; writing it again replaces it.

    number, from_number, source_number: of the release that takes over, of the one before, of what is taken up again.
    """

    TABLE: ClassVar[str] = "rollouts"
    KEY: ClassVar[tuple[str, ...]] = ("rollout",)

    rollout: str
    project: str
    environment: str
    service: str
    kind: str
    strategy: str
    state: str
    created_at: datetime = field(validator=_aware)
    number: int | None = None
    from_number: int | None = None
    source_number: int | None = None
    actor: str | None = None
    why: str | None = None
    reason: str | None = None
    seconds: float | None = None
    began_at: datetime | None = field(default=None, validator=_aware)
    ended_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Artifact:
    """Something that a step of a run produced."""

    TABLE: ClassVar[str] = "artifacts"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "name")

    project: str
    commit: str
    run_id: str
    step: str
    name: str
    digest: str
    size_bytes: int | None = None
    media_type: str | None = None
    created_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Approval:
    """
    What was said about a gate: approved, rejected, withdrawn (an approval), cancelled (the request) or expired.

    how: cli, api, page, mail, or clock when nobody said it. digest: SHA-256 of what the gate would let pass.
    """

    TABLE: ClassVar[str] = "approvals"
    KEY: ClassVar[tuple[str, ...]] = ("request", "number")

    project: str
    commit: str
    run_id: str
    step: str
    request: int
    number: int
    graph_hash: str
    digest: str
    person: str | None
    decision: str
    why: str
    how: str
    author: str | None = None
    asked_at: datetime | None = field(default=None, validator=_aware)
    answered_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class PluginMetric:
    """One metric; writing a step's metrics again replaces all of that step. labels: a JSON object as text."""

    TABLE: ClassVar[str] = "plugin_metrics"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "plugin")

    project: str
    commit: str
    run_id: str
    step: str
    plugin: str
    name: str
    value: float | None = None
    unit: str | None = None
    labels: str | None = None
    measured_at: datetime | None = field(default=None, validator=_aware)
    tenant: str | None = "default"
    environment: str | None = None
    kind: str | None = None
    received_at: datetime | None = field(default=None, validator=_aware)
    seq: int | None = None


@frozen(kw_only=True)
class PluginDatum:
    """A thing that a plugin told; writing a step's data again replaces all of that step. value: JSON as text."""

    TABLE: ClassVar[str] = "plugin_data"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "plugin")

    project: str
    commit: str
    run_id: str
    step: str
    plugin: str
    kind: str
    tenant: str = "default"
    environment: str | None = None
    key: str | None = None
    value: str | None = None
    received_at: datetime | None = field(default=None, validator=_aware)
    seq: int | None = None


@frozen(kw_only=True)
class IngestError:
    """A part of a report that was left out. source: the tool or parser; location: where in the report."""

    TABLE: ClassVar[str] = "ingest_errors"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "step", "source", "report_sha256")

    project: str
    commit: str
    run_id: str
    step: str
    source: str
    message: str
    report_sha256: str | None = None
    location: str | None = None
    occurred_at: datetime | None = field(default=None, validator=_aware)


@frozen(kw_only=True)
class Suppression:
    """
    Somebody's decision that a finding need not be acted on, on all branches of a project.

    until: when it ends by itself; None is never. ended_at, ended_by: when it was ended, and by whom or by `expiry`.
    """

    TABLE: ClassVar[str] = "suppressions"
    KEY: ClassVar[tuple[str, ...]] = ("project", "fingerprint", "created_at")

    project: str
    fingerprint: str
    reason: str
    created_by: str
    created_at: datetime = field(validator=_aware)
    until: datetime | None = field(default=None, validator=_aware)
    ended_at: datetime | None = field(default=None, validator=_aware)
    ended_by: str | None = None


ROW_TYPES: tuple[type[Row], ...] = (
    Commit,
    Run,
    Step,
    Scan,
    Sbom,
    ListedComponent,
    Image,
    Coverage,
    TestResult,
    Release,
    Rollout,
    Approval,
    Artifact,
    PluginMetric,
    PluginDatum,
    IngestError,
    Suppression,
)

_ARROW = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", "UTC"),
}


def arrow_schema(row_type: type[Row]) -> pa.Schema:
    """The Arrow schema of a kind of row, in the order of its fields."""
    hints = get_type_hints(row_type)
    return pa.schema([(each.name, _arrow_type(hints[each.name])) for each in attrs.fields(row_type)])


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return pa.list_(pa.string()) if get_origin(hint) is tuple else _ARROW[hint]


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows of one kind as an Arrow table; at least one."""
    schema = arrow_schema(type(rows[0]))
    columns = [[_storable(getattr(row, name)) for row in rows] for name in schema.names]
    return pa.Table.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema
    )


def _storable(value: Any) -> Any:
    # Half of a surrogate pair (a report cut in the middle of an emoji) is no UTF-8.
    if isinstance(value, tuple):
        return [_storable(one) for one in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def last_of_each_key(rows: Iterable[Row]) -> list[Row]:
    """Rows without those that a later one of the same key replaces; all rows of a kind whose key names a group."""
    rows = list(rows)
    if isinstance(rows[0], TestResult | ListedComponent | Coverage | PluginMetric | PluginDatum | IngestError):
        return rows
    return list({tuple(getattr(row, name) for name in row.KEY): row for row in rows}.values())
