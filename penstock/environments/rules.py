"""May this be deployed there now? Pure: (environment, what is to be deployed, now) → admission, with its reasons."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import attrs

from penstock.environments.model import Environment, Freeze, Refs
from penstock.pipeline.patterns import matches

Verdict = Literal["open", "people", "later", "refused"]
Strategy = Literal["branch", "tag", "pull_request"]
_LOOK_AGAIN_S = 30.0
_CHAIN_LIMIT = 200  # freezes that follow each other without a gap; nobody means more


@attrs.frozen
class Origin:
    """
    From where a deployment comes.

    strategy: branch, tag or pull_request. name: of the branch or tag, or the branch that the pull request goes to.
    """

    strategy: Strategy
    name: str
    fork: bool = False

    def __str__(self) -> str:
        if self.strategy == "pull_request":
            return f"a pull request to {self.name}" + (" from a fork" if self.fork else "")
        return f"the {self.strategy} {self.name}"


@attrs.frozen
class Standing:
    """
    How a commit stands in another environment.

    state: `never` was there; `undone`: rolled back; `unwell`: live and not healthy; `live`, or `former`: it was.
    healthy_s: seconds that it has been live and well, or was live until something newer came.
    """

    state: Literal["never", "undone", "unwell", "live", "former"]
    healthy_s: float = 0.0


@attrs.frozen
class Lifted:
    """Somebody has lifted a freeze until then."""

    freeze: str
    until: datetime


@attrs.frozen
class Facts:
    """
    What is to be deployed, and how things stand.

    target: what the step asks for. standings: predecessor → how the commit stands there. approved: whether people, or
    the condition in their place, have said yes.
    """

    project: str
    origin: Origin
    target: str
    standings: Mapping[str, Standing] = attrs.field(factory=dict)
    lifted: Sequence[Lifted] = ()
    approved: bool = False


@attrs.frozen
class Admission:
    """
    open; people: waits for them; later: waits until `at`, or, where that is None, until the environment is let go;
    refused. reasons: one line each; none where it is open.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    at: datetime | None = None

    def __str__(self) -> str:
        return "; ".join(self.reasons) or self.verdict


OPEN = Admission("open")


def judge(environment: Environment, facts: Facts, now: datetime) -> Admission:
    """
    May it be deployed?

    What will never be is refused at once; people are asked before a time is waited for, so that the time can be used.
    """
    refused = [*_refusals(environment, facts), *(ends := _order(environment, facts, now)).refused]
    if refused:
        return Admission("refused", tuple(refused))
    if environment.rules.approval is not None and not facts.approved:
        return Admission("people", (f"{environment.name} asks for an approval",))
    return _times(environment, facts, now, ends)


def _times(environment: Environment, facts: Facts, now: datetime, soaking: "_Soaking") -> Admission:
    if hold := environment.hold:
        why = f": {hold.why}" if hold.why else ""
        return Admission("later", (f"{environment.name} is held by {hold.by}{why}",))
    if soaking.until and soaking.until > now:
        return Admission("later", soaking.reasons, soaking.until)
    frozen = _frozen(environment.rules.freezes, facts.lifted, now)
    if not frozen:
        return OPEN
    at = thawed_at(environment.rules.freezes, facts.lifted, now)
    reasons = tuple(f"{environment.name} is frozen: {freeze.name}, {freeze.in_words()}" for freeze in frozen)
    if at is None:
        return Admission("refused", (*reasons, "its freezes leave no time to deploy; change them"))
    return Admission("later", reasons, at)


def _refusals(environment: Environment, facts: Facts) -> Iterable[str]:
    rules, name = environment.rules, environment.name
    if rules.projects and not matches(facts.project, rules.projects):
        yield f"{name} takes no deployments of {facts.project}; it takes {', '.join(rules.projects)}"
    if not _comes_from(rules.refs, facts.origin):
        yield f"{name} takes no deployments from {facts.origin}; it takes {allowed(rules.refs)}"
    elif facts.origin.fork and (rules.production or rules.secret_env):
        yield f"{name} takes no deployments from {facts.origin}; deploy from a branch of the repository"
    if rules.target and rules.target.name != facts.target:
        yield f"{name} runs on the target {rules.target.name}, and the step asks for {facts.target}"


def _comes_from(refs: Refs, origin: Origin) -> bool:
    if refs.is_open:
        return True
    patterns = {"branch": refs.branches, "tag": refs.tags, "pull_request": refs.pull_requests}[origin.strategy]
    return bool(patterns) and matches(origin.name, patterns)


def allowed(refs: Refs) -> str:
    """In words, from where deployments may come."""
    named = {"branches": refs.branches, "tags": refs.tags, "pull requests to": refs.pull_requests}
    return "; ".join(f"{what} {', '.join(patterns)}" for what, patterns in named.items() if patterns) or "every ref"


@attrs.frozen
class _Soaking:
    """What the order says: refused, or not before `until`."""

    refused: tuple[str, ...] = ()
    until: datetime | None = None
    reasons: tuple[str, ...] = ()


def _order(environment: Environment, facts: Facts, now: datetime) -> _Soaking:
    order = environment.rules.order
    if not order.after:
        return _Soaking()
    each = {name: _predecessor(name, facts.standings.get(name, Standing("never")), order.soak) for name in order.after}
    never = [why for why, left_s in each.values() if left_s is None]
    left = {why: left_s for why, left_s in each.values() if left_s is not None}
    if order.need == "all" and never:
        return _Soaking(refused=tuple(never))
    if not left:
        return _Soaking(refused=(f"none of {', '.join(order.after)} has had this commit: {'; '.join(never)}",))
    decisive = max(left.values()) if order.need == "all" else min(left.values())
    reasons = tuple(why for why, left_s in left.items() if left_s > 0)
    return _Soaking(until=now + timedelta(seconds=decisive), reasons=reasons)


def _predecessor(name: str, standing: Standing, soak_s: float) -> tuple[str, float | None]:
    """Why not yet, and the seconds that are missing; None when they will never come by themselves."""
    match standing.state:
        case "never":
            return f"this commit has not been live in {name}; deploy it there first", None
        case "undone":
            return f"this commit was rolled back in {name}; deploy it there again first", None
        case "unwell":
            return f"this commit is not healthy in {name} right now", max(soak_s, _LOOK_AGAIN_S)
        case "former" if standing.healthy_s < soak_s:
            has = f"this commit was live in {name} for {spoken(standing.healthy_s)} of {spoken(soak_s)}"
            return f"{has} and something newer is now; deploy that, or this one there again", None
    left_s = max(0.0, soak_s - standing.healthy_s)
    return f"this commit has been well in {name} for {spoken(standing.healthy_s)} of {spoken(soak_s)}", left_s


def _frozen(freezes: Iterable[Freeze], lifted: Sequence[Lifted], at: datetime) -> list[Freeze]:
    """The freezes that hold at a moment, without those that somebody has lifted for it."""
    free = {one.freeze for one in lifted if one.until > at}
    return [freeze for freeze in freezes if freeze.name not in free and freeze.holds_until(at)]


def thawed_at(freezes: Sequence[Freeze], lifted: Sequence[Lifted], now: datetime) -> datetime | None:
    """The first moment from now on in which nothing is frozen; None when there is none in sight."""
    at = now
    for _ in range(_CHAIN_LIMIT):
        ends = [end for freeze in _frozen(freezes, lifted, at) if (end := freeze.holds_until(at))]
        if not ends:
            return at
        at = max(ends)
    return None


def spoken(seconds: float) -> str:
    """`90 s`, `45 min`, `6 h`, `3 days`."""
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{int(seconds // 86_400)} days"
