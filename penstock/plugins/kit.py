"""
The contract's test kit: a plugin run as the platform would, on cases that are files, in whatever language it is.

A case is `tests/cases/NAME.yaml`: `with`, `files` (or `workspace`, a folder beside the case), `secrets`,
`environment`, and `expect`: `exit`, `outputs`, `metrics`, `data`, `findings`, `artifacts`, `log`.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import attrs
import yaml
from pydantic import Field, ValidationError

from penstock.engines import Engine, Gateway, open_engine
from penstock.errors import InputError, PenstockError, ReportError, StepFailure
from penstock.findings import Scope, read_report
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.complaints import in_words
from penstock.pipeline.log import FileLog
from penstock.pipeline.spec import Model, WorkspacePath
from penstock.plugins.contract import DATA, METRICS, PIPES
from penstock.plugins.data import DataLimits
from penstock.plugins.data.lines import Datum, Metric, Refused, datum_reader, metric_reader
from penstock.plugins.folder import PluginFolder
from penstock.plugins.invocation import Ended, Invocation, Limits, run_plugin, with_defaults
from penstock.plugins.launch import Launch, check_engine, launch_command, launch_image, look_at_image
from penstock.plugins.manifest import Manifest
from penstock.plugins.network import parse_rule
from penstock.plugins.packages import packages_of
from penstock.plugins.pipes import read_messages
from penstock.plugins.proxy import Proxy
from penstock.plugins.results import Left
from penstock.plugins.results import Report as SarifFile
from penstock.plugins.schemas import check_value
from penstock.plugins.told import Told
from penstock.settings import Settings
from penstock.steps.context import RunInfo

T = TypeVar("T")

CASES = "tests/cases"
FIRST_PAUSE_S = 0.05


class Expectation(Model):
    """What must come of a case; what is not named may be anything."""

    exit: int = 0
    outputs: dict[str, Any] | None = None
    metrics: dict[str, float] | None = Field(None, description="The last value of each of these.")
    data: dict[str, int] | None = Field(None, description="How many of each kind.")
    findings: tuple[str, ...] | None = Field(None, description="Rules, one for each finding, in any order.")
    artifacts: tuple[str, ...] | None = None
    log: tuple[str, ...] = Field((), description="Texts that must be printed.")


class Case(Model):
    """One run of a plugin, and what must come of it."""

    name: str = ""
    inputs: dict[str, Any] = Field({}, alias="with")
    files: dict[WorkspacePath, str] = Field({})
    workspace: str | None = None
    secrets: dict[str, str] = Field({})
    environment: dict[str, str] | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    expect: Expectation = Expectation()


@attrs.frozen
class Came:
    """What came of a case. wrong: breaches of the contract, and of what the case expects."""

    ended: Ended
    outputs: Mapping[str, Any]
    metrics: Sequence[Metric]
    data: Sequence[Datum]
    findings: Sequence[str]
    artifacts: Sequence[str]
    wrong: Sequence[str]


def read_cases(folder: Path) -> tuple[Case, ...]:
    """
    The cases of a plugin, by name; one without anything when it has none.

    Raises: InputError for one that cannot be read.
    """
    files = sorted((folder / CASES).glob("*.yaml"))
    return tuple(_read_case(path) for path in files) or (Case(name="no inputs"),)


def _read_case(path: Path) -> Case:
    try:
        case = Case.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("this is no YAML", where=str(path), remedy="mend it") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what, remedy = in_words(first, Case)
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {what}", where=str(path), remedy=remedy) from error
    beside = str(path.parent / case.workspace) if case.workspace else None
    return case.model_copy(update={"name": case.name or path.stem, "workspace": beside})


def run_case(
    plugin: PluginFolder, case: Case, settings: Settings, on_line: Callable[[str], None], token: CancelToken
) -> Came:
    """
    Run the plugin on the engine of the settings, in a folder of its own under their home.

    Raises: StepFailure, PlatformError when it cannot be run at all.
    """
    if wrong := check_value(plugin.manifest.input_schema, case.inputs, "with"):
        raise StepFailure(f"{wrong[0].where} {wrong[0].what}", where=f"case {case.name}", remedy=wrong[0].remedy)
    engine = open_engine(settings)
    check_engine(engine)
    printed: list[str] = []

    def line(text: str) -> None:
        printed.append(text)
        on_line(text)

    with tempfile.TemporaryDirectory(prefix="case-", dir=settings.home) as folder:
        workspace = Path(folder) / "workspace"
        _fill(workspace, case)
        with FileLog(Path(folder) / "log", line) as log:
            launch = _launch(plugin, engine, settings, workspace, line)
            gateway = _gateway(plugin.manifest, settings, line)
            invocation = _invocation(plugin.manifest, case, launch, gateway, workspace)
            ended = run_plugin(invocation, engine, log, token)
        return _came(plugin.manifest, case, ended, printed)


def _fill(workspace: Path, case: Case) -> None:
    if case.workspace is None:
        workspace.mkdir()
    else:
        try:
            shutil.copytree(case.workspace, workspace, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise InputError("cannot copy its workspace", where=f"case {case.name}", remedy="mend it") from error
    for name, text in case.files.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _gateway(manifest: Manifest, settings: Settings, say: Callable[[str], None]) -> Gateway | None:
    rules = [parse_rule(host) for host in manifest.network]
    return Proxy(rules, settings.allow_private_hosts, say).serve if rules else None


def _invocation(manifest: Manifest, case: Case, launch: Launch, gateway: Gateway | None, workspace: Path) -> Invocation:
    nothing = "0" * 40
    return Invocation(
        manifest=manifest,
        info=RunInfo(f"test-{uuid.uuid4()}", "test", nothing, "refs/heads/main", nothing, nothing, event="manual"),
        step="case",
        inputs=with_defaults(manifest, case.inputs),
        launch=launch,
        workspace=workspace,
        ci=_ci(workspace),
        limits=Limits(timeout_s=case.timeout),
        env={"CI": "true"},
        secrets={name: value.encode() for name, value in case.secrets.items()},
        environment=case.environment,
        gateway=gateway,
        first_pause_s=FIRST_PAUSE_S,
    )


def _ci(workspace: Path) -> Path:
    return workspace.with_name("ci")


def _launch(
    plugin: PluginFolder, engine: Engine, settings: Settings, workspace: Path, say: Callable[[str], None]
) -> Launch:
    manifest = plugin.manifest
    if engine.name == "docker":
        if manifest.image is None:
            raise StepFailure("it has no image", where=manifest.full_name, remedy="add `image:`, or test its command")
        return launch_image(manifest, look_at_image(settings, manifest.image, CancelToken()), _ci(workspace), None)
    folder = plugin.path.absolute()
    packages = packages_of(settings, manifest.name, folder, CancelToken(), say)
    return launch_command(manifest, folder, workspace, _ci(workspace), packages)


def _came(manifest: Manifest, case: Case, ended: Ended, printed: Sequence[str]) -> Came:
    reader = _Reader(manifest, ended.wrote)
    came = Came(
        ended=ended,
        outputs=reader.outputs() if ended.has_results else {},
        metrics=reader.metrics() if ended.has_results else (),
        data=reader.data() if ended.has_results else (),
        findings=reader.findings() if ended.has_results else (),
        artifacts=reader.artifacts() if ended.has_results else (),
        wrong=reader.wrong,
    )
    return attrs.evolve(came, wrong=[*reader.wrong, *_unexpected(case.expect, came, printed)])


def _unexpected(expect: Expectation, came: Came, printed: Sequence[str]) -> Iterator[str]:
    code = came.ended.exit.code if came.ended.exit.state == "exited" else -1
    if code != expect.exit:
        yield f"exit: expected {expect.exit}, it was {came.ended.exit.code} ({came.ended.reason or came.ended.state})"
    if expect.outputs is not None and dict(came.outputs) != expect.outputs:
        yield f"outputs: expected {expect.outputs}, they are {dict(came.outputs)}"
    last = {metric.name: metric.value for metric in came.metrics}
    for name, value in (expect.metrics or {}).items():
        if last.get(name) != value:
            yield f"metric {name}: expected {value:g}, it is {last.get(name, 'not there')}"
    kinds = [datum.kind for datum in came.data]
    for kind, number in (expect.data or {}).items():
        if kinds.count(kind) != number:
            yield f"data of kind {kind}: expected {number}, there are {kinds.count(kind)}"
    if expect.findings is not None and sorted(expect.findings) != sorted(came.findings):
        yield f"findings: expected {sorted(expect.findings)}, they are {sorted(came.findings)}"
    if expect.artifacts is not None and sorted(expect.artifacts) != sorted(came.artifacts):
        yield f"artifacts: expected {sorted(expect.artifacts)}, they are {sorted(came.artifacts)}"
    text = "\n".join(printed)
    for wanted in expect.log:
        if wanted not in text:
            yield f'log: "{wanted}" was not printed'


@attrs.frozen
class _Reader:
    """Reads what a plugin left, and notes every breach of the contract."""

    manifest: Manifest
    left: Left
    wrong: list[str] = attrs.field(factory=list)

    def outputs(self) -> Mapping[str, Any]:
        return self._noted(lambda: self.left.outputs(self.manifest), {})

    def artifacts(self) -> Sequence[str]:
        return self._noted(lambda: [path.name for path in self.left.artifacts()], [])

    def metrics(self) -> Sequence[Metric]:
        told, limits = Told(self.manifest), DataLimits()
        lines: list[bytes] = self._noted(lambda: list(told.metrics([*self.left.lines(METRICS), *self._pipes()[0]])), [])
        found = self._read(METRICS, lines, metric_reader(limits.line_bytes, limits.depth).read, told)
        return [one for one in found if isinstance(one, Metric)]

    def data(self) -> Sequence[Datum]:
        told, limits = Told(self.manifest), DataLimits()
        lines: list[bytes] = self._noted(lambda: list(told.data([*self.left.lines(DATA), *self._pipes()[1]])), [])
        found = self._read(DATA, lines, datum_reader(limits.line_bytes, limits.depth).read, told)
        return [one for one in found if isinstance(one, Datum)]

    def findings(self) -> Sequence[str]:
        found: list[str] = []
        none: tuple[SarifFile, ...] = ()
        for report in self._noted(self.left.reports, none):
            try:
                read = read_report(report.data, scope=Scope(), where=f"{report.name}.sarif")
            except ReportError as error:
                self.wrong.append(str(error))
                continue
            self.wrong.extend(f"{report.name}.sarif: result {one.index}: {one.reason}" for one in read.quarantined)
            found += [finding.rule_id for finding in read.findings]
        return found

    def _pipes(self) -> tuple[Sequence[bytes], Sequence[bytes]]:
        lines = read_messages(self.left.lines(PIPES), self.manifest, lambda _: None)
        return lines.metrics, lines.data

    def _read(
        self,
        file: str,
        lines: Sequence[bytes],
        read: Callable[[int, bytes, datetime], Metric | Datum | Refused],
        told: Told,
    ) -> Iterator[Metric | Datum]:
        self.wrong.extend(f"{file}: {reason}" for reason in told.reasons)
        now = datetime.now(UTC)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            one = read(number, line, now)
            if isinstance(one, Refused):
                self.wrong.append(f"{file}: {one}")
            else:
                yield one

    def _noted(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except PenstockError as error:
            self.wrong.append(str(error))
            return otherwise
