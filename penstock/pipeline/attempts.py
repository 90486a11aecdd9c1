"""One step of a run, tried as often as it may be: workspace, secrets, expressions, the work itself."""

import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from penstock.errors import Cancelled, PenstockError, PlatformError, StepFailure, StepTimeout
from penstock.folders import remove_tree
from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.facts import worked_out
from penstock.pipeline.log import FileLog, utc_now
from penstock.pipeline.reuse import inputs_of, keep_inputs, keep_result, known_result, result_key
from penstock.pipeline.spec import StepFields
from penstock.steps import step_types
from penstock.steps.context import State, StepContext, StepLog, StepResult
from penstock.steps.workspace import place_artifact

if TYPE_CHECKING:
    from penstock.pipeline.session import RunSession
    from penstock.vault.masking import Masker

LONGEST_WAIT_S = 60.0
_WORTH_IT: Mapping[str, frozenset[State]] = {
    "infra": frozenset({"infra_error"}),
    "failure": frozenset({"failed", "timed_out"}),
}


@attrs.frozen
class Attempt:
    """A step about to be run."""

    session: "RunSession"
    config: StepFields
    workspace: Path
    log: FileLog
    token: CancelToken


def try_step(attempt: Attempt) -> StepResult:
    """Run the step unless it is not needed, and again while it is worth it."""
    retry = attempt.config.retry
    for number in range(retry.max + 1 if retry else 1):
        result = _guarded(attempt)
        again = retry and any(result.state in _WORTH_IT[what] for what in retry.on)
        if not (retry and again) or number == retry.max:
            break
        wait_s = min(2.0**number, LONGEST_WAIT_S)
        attempt.log.line(f"{result.state}: {result.reason}; attempt {number + 2} of {retry.max + 1} in {wait_s:.0f} s")
        if attempt.token.wait(wait_s):
            return StepResult("cancelled", reason=attempt.token.reason)
        records.retry_step(attempt.session.services.database, attempt.session.info.id, attempt.config.name)
    return result


def _guarded(attempt: Attempt) -> StepResult:
    try:
        if unmet := attempt.session.unmet(attempt.config):
            return StepResult("skipped", reason=unmet, unneeded=True)
        return _run(attempt)
    except PenstockError as error:
        return StepResult(_state_of(error, attempt.token), reason=str(error))
    except Exception as error:  # noqa: BLE001 - the boundary: a defect in a step type ends the step, not the run
        attempt.log.line(traceback.format_exc())
        return StepResult("infra_error", reason=f"defect in {attempt.config.type}: {type(error).__name__}: {error}")


def _run(attempt: Attempt) -> StepResult:
    secrets = _secrets(attempt)
    if not secrets:
        return _work(attempt, _context(attempt, attempt.log, {}))
    from penstock.vault.masking import Masker

    masked = MaskedLog(attempt.log, Masker(secrets.values()))
    try:
        return masked.without_secrets(_work(attempt, _context(attempt, masked, secrets)))
    except PenstockError as error:
        raise type(error)(
            masked.masked(error.what), where=error.where, remedy=error.remedy and masked.masked(error.remedy)
        ) from None
    finally:
        masked.close()


def _work(attempt: Attempt, context: StepContext) -> StepResult:
    session, written = attempt.session, attempt.config
    remove_tree(attempt.workspace)
    written_out = session.repository.check_out(session.info.commit, attempt.workspace)
    if note := written_out.lfs_note():
        context.log.line(note)
    inputs = inputs_of(written)
    files = session.repository.files(session.info.commit) if inputs else {}
    if inputs:
        keep_inputs(attempt.workspace, files, inputs)
    upstream = [made for made in session.upstream_artifacts(written.name) if not made.published]
    for artifact in upstream:
        place_artifact(context, artifact)
    config = worked_out(
        written, partial(session.facts, written.name), {"hash_files": partial(_hash_files, attempt.workspace)}
    )
    key = result_key(config, context, files, upstream)
    if key and (known := known_result(context.database, context, key)):
        context.log.line(f"not run again: run {known.reused_from} gave this result for the same inputs")
        return known
    result: StepResult = step_types()[config.type].run(config, context)
    if key and result.state == "succeeded":
        keep_result(context.database, session.info, config.name, key)
    return result


def _hash_files(workspace: Path, *patterns: str) -> str:
    from penstock.artifacts.inputs import hash_files

    return hash_files(workspace, *patterns)


def _secrets(attempt: Attempt) -> Mapping[str, bytes]:
    """
    The secrets that the step names.

    Raises: StepFailure for a pull request from a fork; NotFoundError for one that is not there.
    """
    if not attempt.config.secrets:
        return {}
    info, settings = attempt.session.info, attempt.session.services.settings
    if info.from_fork:
        raise StepFailure("a pull request from a fork gets no secrets", remedy="run it from a branch of the repository")
    from penstock.vault import granted, open_vault

    return granted(open_vault(settings), info.project, attempt.config.secrets)


def _context(attempt: Attempt, log: StepLog, secrets: Mapping[str, bytes]) -> StepContext:
    session, services = attempt.session, attempt.session.services
    return StepContext(
        run=session.info,
        settings=services.settings,
        workspace=attempt.workspace,
        engine=services.engine,
        store=services.store,
        log=log,
        token=attempt.token,
        defaults_env=session.graph.env,
        find_published=lambda key, ref: records.find_published(services.database, session.info, key, ref),
        upstream_artifacts=session.upstream_artifacts,
        undecided=session.undecided,
        suppressed=partial(_suppressed, attempt),
        holds=session.holds,
        database=services.database,
        platform_up=services.platform_up,
        default_branch=session.default_branch,
        services=session.graph.services,
        secrets=secrets,
    )


def _suppressed(attempt: Attempt) -> Mapping[str, str]:
    from penstock.warehouse.home import warehouse_location
    from penstock.warehouse.suppressions import in_force

    location = warehouse_location(attempt.session.services.settings)
    return in_force(location, attempt.session.info.project, utc_now())


def _state_of(error: PenstockError, token: CancelToken) -> State:
    if token.cancelled or isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, StepTimeout):
        return "timed_out"
    return "infra_error" if isinstance(error, PlatformError) else "failed"


class MaskedLog:
    """A log in which secrets are stars, in whatever form they are printed."""

    def __init__(self, log: StepLog, masker: "Masker") -> None:
        self._log, self._masker = log, masker

    def line(self, text: str) -> None:
        """A line of Penstock's own."""
        self._log.line(self._masker.mask(text))

    def output(self, chunk: bytes) -> None:
        """Bytes that the step printed."""
        if given := self._masker.feed(chunk):
            self._log.output(given)

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines that were printed, without Penstock's own."""
        self.close()
        return self._log.tail(lines)

    def close(self) -> None:
        """Write what was held back because it might have become a secret."""
        if rest := self._masker.flush():
            self._log.output(rest)

    def masked(self, text: str) -> str:
        """A text of Penstock's own that may quote what the step printed."""
        return self._masker.mask(text)

    def without_secrets(self, result: StepResult) -> StepResult:
        """The result with every text masked that people read."""
        outputs = self._masked_parts(dict(result.outputs))
        verdict = result.verdict and attrs.evolve(
            result.verdict,
            summary=self.masked(result.verdict.summary),
            evidence={
                name: self.masked(value) if isinstance(value, str) else value
                for name, value in result.verdict.evidence.items()
            },
        )
        reason = result.reason and self.masked(result.reason)
        tests = tuple(
            attrs.evolve(case, message=self.masked(case.message)) if case.message else case for case in result.tests
        )
        listed = {"bills": self._masked_parts(result.bills), "coverage": self._masked_parts(result.coverage)}
        return attrs.evolve(result, outputs=outputs, verdict=verdict, reason=reason, tests=tests, **listed)

    def _masked_parts(self, value: Any) -> Any:
        """A value of Penstock's own with every text in it masked, however deep."""
        if isinstance(value, str):
            return self.masked(value)
        if isinstance(value, tuple | list):
            return type(value)(self._masked_parts(one) for one in value)
        if isinstance(value, dict):
            return {name: self._masked_parts(one) for name, one in value.items()}
        if attrs.has(type(value)):
            names = [each.name for each in attrs.fields(type(value))]
            return attrs.evolve(value, **{name: self._masked_parts(getattr(value, name)) for name in names})
        return value
