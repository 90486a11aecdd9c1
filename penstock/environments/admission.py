"""Before a deployment: the environment's rules are asked, and what it gives its services is put into the plan."""

from collections.abc import Callable, Mapping

import attrs
import msgspec

from penstock.deploy.plan import DeploymentPlan
from penstock.engines.docker_client import DEFAULT_HOST
from penstock.environments import store
from penstock.environments.facts import Deploying, facts_of
from penstock.environments.model import Approval, Environment
from penstock.environments.rules import Admission, judge
from penstock.environments.waiting import begin_waiting, in_words, take_place
from penstock.errors import InputError, PenstockError
from penstock.pipeline.approvals import asked
from penstock.pipeline.attempts import MaskedLog
from penstock.pipeline.log import utc_now
from penstock.steps.context import StepContext, StepResult, Verdict


@attrs.frozen
class Intent:
    """
    What a step is about to deploy.

    pinned: whether what runs is named by its content (files are, an image may be).
    """

    step: str
    environment: str
    service: str
    target: str
    pinned: bool = True


@attrs.frozen
class Admitted:
    """A deployment that may begin. values: of the environment's secrets, so that no log shows them."""

    environment: Environment
    values: Mapping[str, bytes] = attrs.field(repr=False)

    def applied(self, plan: DeploymentPlan) -> DeploymentPlan:
        """The plan with the environment's variables and secrets, which win over the step's."""
        rules, configuration = self.environment.rules, plan.configuration
        ours = rules.env.keys() | rules.secret_env.keys()
        given = msgspec.structs.replace(
            configuration,
            env={**_without(configuration.env, ours), **rules.env},
            secret_env={**_without(configuration.secret_env, ours), **rules.secret_env},
        )
        return attrs.evolve(plan, configuration=given)

    def carried_out(self, work: Callable[[StepContext], StepResult], context: StepContext) -> StepResult:
        """Do the work, with the environment's secrets masked in what it logs, gives back and raises."""
        if not self.values:
            return work(context)
        from penstock.vault.masking import Masker

        masked = MaskedLog(context.log, Masker(self.values.values()))
        try:
            return masked.without_secrets(work(attrs.evolve(context, log=masked)))
        except PenstockError as error:
            remedy = error.remedy and masked.masked(error.remedy)
            raise type(error)(masked.masked(error.what), where=error.where, remedy=remedy) from None
        finally:
            masked.close()


def admit(intent: Intent, context: StepContext) -> Admitted | StepResult:
    """
    Ask the environment's rules.

    Returns: how the step ends when it may not be deployed, or not yet; what waits for a time goes on by itself.
    Raises: NotFoundError for a secret that the vault does not have; what the vault raises.
    """
    environment = _environment(intent, context)
    if environment is None:
        absent = f'nobody has made the environment "{intent.environment}", and only known ones may be deployed to'
        return _refused(absent, f"make it with `penstock environment add {intent.environment}`")
    what = Deploying(context.run, intent.environment, intent.service, intent.target)
    admission = _judged(environment, what, context, approved=False)
    if admission.verdict == "people" and environment.rules.approval:
        if (ended := _approved(environment.rules.approval, intent, context)) is not None:
            return ended
        admission = _judged(environment, what, context, approved=True)
    if admission.verdict == "refused":
        return _refused(*admission.reasons)
    if admission.verdict == "later":
        begin_waiting(context.database, what, intent.step, admission)
        return StepResult("waiting", reason=in_words(admission))
    return _open(environment, intent, what, context)


def _open(environment: Environment, intent: Intent, what: Deploying, context: StepContext) -> Admitted | StepResult:
    if trouble := _unfit(environment, intent, context):
        return _refused(trouble)
    secrets = environment.rules.secret_env.values()
    values: Mapping[str, bytes] = {}
    if secrets:
        from penstock.vault import granted, open_vault

        values = granted(open_vault(context.settings), context.run.project, secrets)
    take_place(context.database, what)
    return Admitted(environment, values)


def _unfit(environment: Environment, intent: Intent, context: StepContext) -> str:
    """Why what the environment gives cannot be used with what is deployed; empty when it can."""
    rules, name = environment.rules, environment.name
    if rules.secret_env and not intent.pinned:
        return f"{name} gives its services secrets, and those run pinned images only; name it by its digest"
    docker = rules.target.docker if rules.target else None
    ours = context.settings.docker_host or DEFAULT_HOST
    if docker and docker.host and docker.host != ours:
        return f"{name} is on the engine {docker.host}, and this Penstock runs services on {ours}"
    return ""


def _environment(intent: Intent, context: StepContext) -> Environment | None:
    with context.database.begin() as connection:
        if context.settings.environments == "known":
            return store.find_environment(connection, intent.environment)
        return store.ensure(connection, intent.environment)


def _judged(environment: Environment, what: Deploying, context: StepContext, *, approved: bool) -> Admission:
    now = utc_now()
    with context.database.connect() as connection:
        return judge(environment, facts_of(connection, environment, what, now, approved=approved), now)


def _approved(approval: Approval, intent: Intent, context: StepContext) -> StepResult | None:
    """None when the condition holds or people have said yes; a condition that has no answer asks people."""
    if approval.auto:
        try:
            if context.holds(intent.step, approval.auto):
                context.log.line(f"{intent.environment} asks nobody: {approval.auto}")
                return None
            context.log.line(f"{intent.environment} asks people: {approval.auto} does not hold")
        except InputError as error:
            context.log.line(f"{intent.environment} asks people: {error}")
    return asked(intent.step, approval.rule(), context)


def _refused(*reasons: str) -> StepResult:
    told = "not deployed: " + "; ".join(reasons)
    return StepResult("failed", reason=told, verdict=Verdict("healthy", passed=False, summary=told))


def _without(values: Mapping[str, str], names: frozenset[str] | set[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}
