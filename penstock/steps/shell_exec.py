"""step.shell_exec: commands in a fresh workspace."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import attrs
from pydantic import AfterValidator, Field

from penstock.coverage import FileCoverage, merged, read_coverage, summarise
from penstock.engines import Exit
from penstock.errors import ReportError, StepFailure
from penstock.pipeline.junit import CaseResult, failures_in_words, read_junit
from penstock.pipeline.spec import WORKSPACE, ArtifactOut, ContainedFields, Kind, Patterns, Reports
from penstock.steps.caches import restore_caches, save_caches
from penstock.steps.context import State, StepContext, StepResult, Verdict
from penstock.steps.listing import SUFFIX, Listed, list_components
from penstock.steps.outputs import OUTPUTS_FILE, read_outputs
from penstock.steps.workspace import inside, store_artifact, tail_of

POST_LIMIT_S = 300.0
REPORT_LIMIT_BYTES = 256 * 1024 * 1024


def _unique_keys(outs: tuple[ArtifactOut, ...]) -> tuple[ArtifactOut, ...]:
    keys = [out.key for out in outs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f'two artifacts have the key "{twice[0]}"; give each its own')
    return outs


class Config(ContainedFields):
    """Commands, run by /bin/sh one after the other until one fails."""

    kind: ClassVar[Kind] = "build"
    summary: ClassVar[str] = "Run commands in a fresh workspace."

    commands: tuple[str, ...] = Field(min_length=1, description="Shell commands, run until one fails.")
    pre: tuple[str, ...] = Field((), description="Shell commands before them; if one fails, the step does.")
    post: tuple[str, ...] = Field((), description="Shell commands after them, also when the step failed or timed out.")
    inputs: Patterns = Field(
        (),
        description="The files that the result depends on: only these are in the workspace, and a result that is known "
        "for them is used again.",
    )
    artifacts_out: Annotated[tuple[ArtifactOut, ...], AfterValidator(_unique_keys)] = Field(
        (), description="What steps that need this one find in place."
    )
    reports: Reports = Field(Reports(), description="Reports to read: tests, coverage, components.")

    def artifact_keys(self) -> tuple[str, ...]:
        """Those of `artifacts_out`, and its list of components."""
        listed = (f"{self.name}{SUFFIX}",) if self.reports.sbom else ()
        return (*(out.key for out in self.artifacts_out), *listed)

    def check_name(self) -> str | None:
        """A step with a JUnit report decides the check `tests`."""
        return "tests" if self.reports.junit else None


def run(config: Config, context: StepContext) -> StepResult:
    """Run the commands, read the reports, store what is put out."""
    if config.image and context.engine.name == "process":
        context.log.line(f"image {config.image} is not used: the process engine runs this machine's own tools")
    if not inside(context.workspace, config.work_dir).is_dir():
        raise StepFailure(f'there is no folder "{config.work_dir}" in the workspace', remedy="mend work_dir")
    restored = restore_caches(config, context)
    try:
        result = _commands(config, context)
    finally:
        after = _post(config, context)
    if result.state == "succeeded" and after:
        result = attrs.evolve(result, state="failed", reason=after)
    if result.state == "succeeded":
        save_caches(config, context, restored)
    return result


def _commands(config: Config, context: StepContext) -> StepResult:
    lines = script((*config.pre, *config.commands))
    job = context.contained_job(config, ("/bin/sh", "-c", lines))
    ended = context.engine.run(job, context.log.output, context.token)
    tests, covered, listed = _read_tests(config, context), _read_coverage(config, context), _read_sbom(config, context)
    state, reason = outcome(ended, config, tests, tail_of(context.log))
    if state == "succeeded" and (missing := _missing(config, covered, listed)):
        state, reason = "failed", missing
    outs = config.artifacts_out if state == "succeeded" else ()
    figures = _figures(covered)
    return StepResult(
        state=state,
        reason=reason,
        exit_code=ended.code,
        artifacts=(
            *(store_artifact(context, out.key, out.path) for out in outs),
            *([listed.artifact] if listed else ()),
        ),
        outputs={**{name: str(value) for name, value in figures.items()}, **read_outputs(context.workspace)},
        verdict=_verdict(config, state, reason, tests, figures),
        tests=tests,
        bills=(listed.outcome,) if listed else (),
        coverage=covered,
        cpu_s=ended.cpu_s,
        memory_peak_bytes=ended.memory_peak_bytes,
    )


def _post(config: Config, context: StepContext) -> str:
    """Run what comes after, whatever came before; a run that was cancelled has no after. Returns: why it failed."""
    if not config.post or context.token.cancelled:
        return ""
    job = context.contained_job(config, ("/bin/sh", "-c", script(config.post)), timeout_s=POST_LIMIT_S)
    ended = context.engine.run(job, context.log.output, context.token)
    if ended.state == "exited" and not ended.code:
        return ""
    return f"post: {ended_in_words(ended, int(POST_LIMIT_S), job.memory_bytes)}"


def script(commands: Sequence[str]) -> str:
    """One shell script that says each command before it runs it and stops at the first that fails."""
    lines = ["set -e", f'CI_OUTPUTS="${{WORKSPACE:-/workspace}}/{OUTPUTS_FILE}"; export CI_OUTPUTS']
    for command in commands:
        lines += [f"printf '%s\\n' {shlex.quote('$ ' + command.rstrip())}", command]
    return "\n".join(lines)


def outcome(ended: Exit, config: Config, tests: Sequence[CaseResult], tail: str) -> tuple[State, str | None]:
    """The step's state, and why it is not `succeeded`."""
    if ended.state == "cancelled":
        return "cancelled", "cancelled"
    words = ended_in_words(ended, config.timeout, config.memory)
    if ended.state != "exited":
        return "timed_out" if ended.state == "timed_out" else "failed", words
    if ended.code:
        return "failed", failures_in_words(tests) or words + (f": {tail}" if tail else "")
    if config.reports.junit and not tests:
        return "failed", f"no test was found in {config.reports.junit}"
    if words := failures_in_words(tests):
        return "failed", words
    return "succeeded", None


def ended_in_words(ended: Exit, limit_s: int, memory_bytes: int | None) -> str:
    """Why a job that did not end well did not."""
    if ended.state == "timed_out":
        return f"took longer than its limit of {limit_s} s"
    if ended.state == "out_of_memory":
        limit = f" its limit of {memory_bytes // 2**20} MiB" if memory_bytes else " what there is"
        return f"out of memory: it needed more than{limit}; raise `memory:`"
    return f"exit code {ended.code}"


def _read_tests(config: Config, context: StepContext) -> tuple[CaseResult, ...]:
    if config.reports.junit is None:
        return ()
    return tuple(case for path in _matches(context, config.reports.junit) for case in _read_or_say(path, context))


def _read_coverage(config: Config, context: StepContext) -> tuple[FileCoverage, ...]:
    if config.reports.coverage is None:
        return ()
    found: list[FileCoverage] = []
    for path in _matches(context, config.reports.coverage):
        try:
            found += read_coverage(_report_bytes(path), path.name, (WORKSPACE, str(context.workspace)))
        except ReportError as error:
            context.log.line(f"this report was not read: {error}")
    return merged(found)


def _read_sbom(config: Config, context: StepContext) -> Listed | None:
    if config.reports.sbom is None:
        return None
    path = inside(context.workspace, config.reports.sbom)
    try:
        return list_components(config.name, context, _report_bytes(path)) if path.is_file() else None
    except ReportError as error:
        context.log.line(f"this list was not read: {error}")
        return None


def _report_bytes(path: Path) -> bytes:
    """Raises: ReportError for a file that no report is as large as."""
    if path.stat().st_size > REPORT_LIMIT_BYTES:
        raise ReportError(f"larger than {REPORT_LIMIT_BYTES // 2**20} MiB", where=path.name)
    return path.read_bytes()


def _missing(config: Config, covered: Sequence[FileCoverage], listed: Listed | None) -> str | None:
    """What the file says that the step writes, and it did not."""
    if config.reports.coverage and not covered:
        return f"no coverage was found in {config.reports.coverage}"
    return f"no component list was found in {config.reports.sbom}" if config.reports.sbom and not listed else None


def _figures(covered: Sequence[FileCoverage]) -> Mapping[str, int | float]:
    """What outputs and evidence say of coverage; nothing where there is none."""
    if not covered:
        return {}
    total = summarise(covered)
    found: dict[str, int | float] = {} if total.percent is None else {"coverage": total.percent}
    found |= {"lines": total.lines, "lines_covered": total.lines_covered}
    return found | ({"branches": total.branches, "branches_covered": total.branches_covered} if total.branches else {})


def _matches(context: StepContext, pattern: str) -> Iterator[Path]:
    root = context.workspace.resolve()
    for path in sorted(root.glob(pattern)):
        if path.is_file() and path.resolve().is_relative_to(root):
            yield path


def _read_or_say(path: Path, context: StepContext) -> tuple[CaseResult, ...]:
    try:
        return read_junit(path)
    except ReportError as error:
        context.log.line(f"this report was not read: {error}")
        return ()


def _verdict(
    config: Config, state: State, reason: str | None, tests: Sequence[CaseResult], figures: Mapping[str, int | float]
) -> Verdict | None:
    if config.check_name() is None or state in ("cancelled", "infra_error"):
        return None
    broken = [case.label for case in tests if case.broken]
    evidence: dict[str, str | int | float] = {"tests": len(tests), "failed": len(broken)}
    evidence["skipped"] = sum(case.state == "skipped" for case in tests)
    evidence |= figures
    if broken:
        evidence["failing"] = ", ".join(broken[:20])
    passed = state == "succeeded"
    counted = f"{len(tests)} test{'' if len(tests) == 1 else 's'} passed"
    return Verdict("tests", passed, counted if passed else (reason or state), evidence)
