"""step.gate: what comes after it waits for a condition, for people, or for either."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from penstock.errors import InputError, StepFailure
from penstock.pipeline.spec import Duration, Kind, Model, StepFields
from penstock.steps.context import StepContext, StepResult


class Approval(Model):
    """Who has to say yes."""

    count: int = Field(1, ge=1, le=20, description="How many people.")
    within: Duration = Field(7 * 24 * 3600, description="From when the gate first asked; then it stays shut.")


class Config(StepFields):
    """
    What opens the gate.

    The condition is CEL over the checks of the steps upstream: `tests.passed`, `scan.passed`, `findings.critical == 0`,
    `steps.NAME.passed`, and what every expression may name. With an approval too, people are asked only where the
    condition does not hold.
    """

    kind: ClassVar[Kind] = "report"
    summary: ClassVar[str] = "Go on only when a condition holds or people approve."
    conditions: ClassVar[frozenset[str]] = frozenset({"condition"})
    condition_names: ClassVar[frozenset[str]] = frozenset({"tests", "scan", "findings"})

    condition: str | None = Field(None, max_length=1000, description="A CEL expression that is true.")
    approval: Approval | None = Field(None, description="Ask people.")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.condition is None and self.approval is None:
            raise ValueError("the gate asks nothing; give it a `condition` or an `approval`")
        return self


def run(config: Config, context: StepContext) -> StepResult:
    """
    Open, wait for people, or stay shut. What upstream did not pass is not for a gate to forgive.

    Raises: StepFailure when it stays shut.
    """
    if undecided := context.undecided(config.name):
        raise StepFailure(f"no pass is on record for {', '.join(undecided)}", remedy="run what it needs first")
    if config.condition:
        try:
            held = context.holds(config.name, config.condition)
        except InputError as error:
            raise StepFailure(error.what, where="condition", remedy=error.remedy) from error
        if held:
            context.log.line(f"open: {config.condition}")
            return StepResult("succeeded", outputs={"opened_by": "condition"}, produced=config.condition)
        if config.approval is None:
            return StepResult("failed", reason=f"{config.condition} does not hold")
        context.log.line(f"{config.condition} does not hold: people are asked")
    assert config.approval is not None
    return _asked(config.name, config.approval, context)


def _asked(step: str, approval: Approval, context: StepContext) -> StepResult:
    from penstock.pipeline.approvals import ask

    answer = ask(context.database, context.run, step, count=approval.count, within_s=approval.within)
    if answer.rejected_by:
        why = f": {answer.why}" if answer.why else ""
        return StepResult("failed", reason=f"rejected by {answer.rejected_by}{why}")
    if len(answer.approved_by) >= approval.count:
        people = ", ".join(answer.approved_by)
        return StepResult("succeeded", outputs={"opened_by": people}, produced=f"approved by {people}")
    if answer.expired:
        return StepResult("failed", reason=f"nobody approved within {approval.within // 3600} h")
    missing = approval.count - len(answer.approved_by)
    command = f"penstock approve {context.run.id[:8]} {step}"
    people = "one person" if missing == 1 else f"{missing} people"
    return StepResult("waiting", reason=f"waits for {people} to approve: {command}")
