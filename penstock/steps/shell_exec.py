"""step.shell_exec: commands in a fresh workspace."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import attrs
from pydantic import AfterValidator, Field

from penstock.engines import Exit
from penstock.errors import ReportError, StepFailure
from penstock.pipeline.junit import CaseResult, failures_in_words, read_junit
from penstock.pipeline.spec import ArtifactOut, ContainedFields, Kind, Patterns, Reports
from penstock.steps.caches import restore_caches, save_caches
from penstock.steps.context import State, StepContext, StepResult, Verdict
from penstock.steps.outputs import OUTPUTS_FILE, read_outputs
from penstock.steps.workspace import inside, store_artifact, tail_of

POST_LIMIT_S = 300.0


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
    reports: Reports = Field(Reports(), description="Reports to read: JUnit.")

    def artifact_keys(self) -> tuple[str, ...]:
        """Those of `artifacts_out`."""
        return tuple(out.key for out in self.artifacts_out)

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
    tests = _read_tests(config, context)
    state, reason = outcome(ended, config, tests, tail_of(context.log))
    outs = config.artifacts_out if state == "succeeded" else ()
    return StepResult(
        state=state,
        reason=reason,
        exit_code=ended.code,
        artifacts=tuple(store_artifact(context, out.key, out.path) for out in outs),
        outputs=read_outputs(context.workspace),
        verdict=_verdict(config, state, reason, tests),
        tests=tests,
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
    return tuple(case for path in _matches(context, config) for case in _read_or_say(path, context))


def _matches(context: StepContext, config: Config) -> Iterator[Path]:
    root = context.workspace.resolve()
    for path in sorted(root.glob(config.reports.junit or "")):
        if path.is_file() and path.resolve().is_relative_to(root):
            yield path


def _read_or_say(path: Path, context: StepContext) -> tuple[CaseResult, ...]:
    try:
        return read_junit(path)
    except ReportError as error:
        context.log.line(f"this report was not read: {error}")
        return ()


def _verdict(config: Config, state: State, reason: str | None, tests: Sequence[CaseResult]) -> Verdict | None:
    if config.check_name() is None or state in ("cancelled", "infra_error"):
        return None
    broken = [case.label for case in tests if case.broken]
    evidence: dict[str, str | int | float] = {"tests": len(tests), "failed": len(broken)}
    evidence["skipped"] = sum(case.state == "skipped" for case in tests)
    if broken:
        evidence["failing"] = ", ".join(broken[:20])
    passed = state == "succeeded"
    counted = f"{len(tests)} test{'' if len(tests) == 1 else 's'} passed"
    return Verdict("tests", passed, counted if passed else (reason or state), evidence)
