"""step.gate: what comes after it waits for a condition, for people, or for either."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from penstock.errors import InputError, StepFailure
from penstock.people import NAME
from penstock.pipeline.approval_rules import WEEK_S, ApprovalRule
from penstock.pipeline.spec import Duration, Kind, Model, StepFields
from penstock.steps.context import StepContext, StepResult

Who = Annotated[str, StringConstraints(pattern=NAME)]


class Approval(Model):
    """Who has to say yes. Without `users` and `groups`, anybody whom Penstock lets approve."""

    count: int = Field(1, ge=1, le=20, description="How many people.")
    users: tuple[Who, ...] = Field((), max_length=50, description="These people.")
    groups: tuple[Who, ...] = Field(
        (), max_length=50, description="People in these groups, as they are when they answer."
    )
    not_author: bool = Field(
        default=False, description="Neither who wrote the commit nor who set the run off may approve it."
    )
    within: Duration = Field(WEEK_S, description="From when people are asked; then it has expired.")

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if self.users and not self.groups and self.count > len(set(self.users)):
            raise ValueError(f"{self.count} people are needed and {len(set(self.users))} may; name more in `users`")
        return self

    def rule(self) -> ApprovalRule:
        """The same as the platform judges it."""
        return ApprovalRule(self.count, self.users, self.groups, self.not_author, int(self.within))


class Config(StepFields):
    """
    What opens the gate.

    The condition is CEL over the checks of the steps upstream: `tests.passed`, `scan.passed`, `findings.critical == 0`,
    `steps.NAME.passed`, over what is live: `env("staging").healthy_s > 3600`, and what every expression may name. With
    an approval too, people are asked only where the condition does not hold.
    """

    kind: ClassVar[Kind] = "report"
    summary: ClassVar[str] = "Go on only when a condition holds or people approve."
    conditions: ClassVar[frozenset[str]] = frozenset({"condition"})
    condition_names: ClassVar[frozenset[str]] = frozenset({"tests", "scan", "findings"})
    condition_functions: ClassVar[frozenset[str]] = frozenset({"env"})

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
    from penstock.pipeline.approvals import digest_upstream

    digest = digest_upstream(config.name, context)  # before anything is judged: what comes later was not seen
    if undecided := context.undecided(config.name):
        raise StepFailure(f"no pass is on record for {', '.join(undecided)}", remedy="run what it needs first")
    if config.condition:
        try:
            held = context.holds(config.name, config.condition)
        except InputError as error:
            raise StepFailure(error.what, where="condition", remedy=error.remedy) from error
        if held:
            context.log.line(f"open: {config.condition}")
            return _open("condition", config.condition, digest)
        if config.approval is None:
            return StepResult("failed", reason=f"{config.condition} does not hold")
        context.log.line(f"{config.condition} does not hold: people are asked")
    assert config.approval is not None
    return _by_people(config.name, config.approval.rule(), context, digest)


def _open(opened_by: str, produced: str, digest: str) -> StepResult:
    """Open for what is built now, and for nothing that is built later."""
    from penstock.pipeline.approvals import SEEN

    return StepResult("succeeded", outputs={"opened_by": opened_by, SEEN: digest}, produced=produced)


def _by_people(step: str, rule: ApprovalRule, context: StepContext, digest: str) -> StepResult:
    from penstock.pipeline.approvals import closed, heard

    answer = heard(step, rule, context, digest)
    if answer.state != "approved":
        return closed(answer, rule, context, step)
    people = ", ".join(answer.approved_by)
    context.log.line(f"approved by {people}")
    return _open(people, f"approved by {people}", digest)
