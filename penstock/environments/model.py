"""What an environment is, as the API, the command line and YAML files write it."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import attrs
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from penstock.deploy.sandbox import RESERVED
from penstock.environments.windows import Span, Weekly, parse_weekly, span_of, weekly_spans
from penstock.errors import InputError
from penstock.people import NAME
from penstock.pipeline.approval_rules import WEEK_S, ApprovalRule
from penstock.pipeline.expressions import NAMES, Scope, check_expression
from penstock.pipeline.spec import Duration, EnvName, EnvValue, Model, OneOrMany, SecretName, StepName, seconds

PRODUCTION_NAMES = ("production", "prod")
LARGEST_VALUE = 32 * 1024
TargetKind = Literal["process", "docker", "kubernetes"]
# What a platform's condition may name: what every expression may, but for a file's own matrix and inputs.
_CONDITION_NAMES = frozenset(NAMES) - {"matrix", "inputs"} | {"tests", "scan", "findings"}


class _AnyStep(frozenset[str]):
    """A condition of the platform may name steps of whatever pipeline comes."""

    def __contains__(self, _: object) -> bool:
        return True


def _condition(source: str) -> str:
    try:
        scope = Scope(steps=_AnyStep(), names=_CONDITION_NAMES, functions=frozenset({"env"}))
        check_expression(source, scope)
    except InputError as error:
        raise ValueError(f"{error.what}; {error.remedy}") from error
    return source


@lru_cache(maxsize=64)
def zone_named(name: str) -> ZoneInfo:
    """Raises: ValueError for what is none of the IANA's."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        what = "".join(character if character.isprintable() else "?" for character in name[:40])
        raise ValueError(f'"{what}" is no time zone; write one such as Europe/Berlin') from None


def _zone(name: str) -> str:
    zone_named(name)
    return name


def _wall_time(value: object) -> object:
    """YAML reads some times as such; a text is read here. Without a zone: the freeze has one."""
    if isinstance(value, str):
        value = _read_time(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime) and value.tzinfo is not None:
        raise ValueError("the time has a zone of its own; leave it out, `zone` says it")
    if isinstance(value, datetime) and not 1971 <= value.year <= 9000:
        raise ValueError(f"the year {value.year} is too far away; write one from 1971 to 9000")
    return value


def _read_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f'"{text[:40]}" is no time; write 2026-12-23 18:00') from None


def _weekly(text: str) -> str:
    return str(parse_weekly(text))


def _env_names(given: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in given:
        if name in RESERVED:
            raise ValueError(f'"{name}" is given by Penstock; leave it out')
    return given


Line = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x1f]*$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Patterns = Annotated[tuple[Pattern, ...], OneOrMany(), Field(max_length=100)]
Who = Annotated[str, StringConstraints(pattern=NAME)]
People = Annotated[tuple[Who, ...], OneOrMany(), Field(max_length=100)]
Value = Annotated[EnvValue, StringConstraints(max_length=LARGEST_VALUE, pattern=r"^[^\x00]*$")]
Zone = Annotated[str, AfterValidator(_zone)]
_SOAK = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}]}
Soak = Annotated[int, BeforeValidator(seconds), Field(ge=0, le=90 * 86400), WithJsonSchema(_SOAK, mode="validation")]
_WALL = {"type": "string", "examples": ["2026-12-23 18:00"]}
WallTime = Annotated[datetime, BeforeValidator(_wall_time), WithJsonSchema(_WALL)]


class Order(Model):
    """What a commit must have come through before."""

    after: Annotated[tuple[StepName, ...], OneOrMany()] = Field(
        (), max_length=20, description="Environments in which the same commit must be, or have been, well."
    )
    need: Literal["all", "any"] = Field("all", description="Of them all, or one.")
    soak: Soak = Field(0, description="For how long it must have been live and healthy there.")


class Refs(Model):
    """From where deployments may come. All three empty: from everywhere."""

    branches: Patterns = Field((), description="Branches, as patterns such as release/*.")
    tags: Patterns = Field((), description="Tags, as patterns such as v*.")
    pull_requests: Patterns = Field((), description="Branches that pull requests go to, as patterns such as main.")

    @property
    def is_open(self) -> bool:
        """Whether every ref may come."""
        return not (self.branches or self.tags or self.pull_requests)


class DockerTarget(Model):
    """An engine of containers. Without a host: that of this Penstock."""

    host: str | None = Field(
        None,
        max_length=500,
        pattern=r"^(unix:///|tcp://|ssh://)[!-~]+$",
        description="unix:///path, tcp://host:port or ssh://user@host.",
    )
    ca_secret: SecretName | None = Field(None, description="For tcp: a secret that holds whom to trust, as PEM.")
    cert_secret: SecretName | None = Field(None, description="For tcp: a secret that holds our certificate, as PEM.")
    key_secret: SecretName | None = Field(None, description="For tcp: a secret that holds its key, as PEM.")
    network: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", description="A network that must be there."
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        given = [self.ca_secret, self.cert_secret, self.key_secret]
        if any(given) and not (self.host or "").startswith("tcp://"):
            raise ValueError("certificates are for an engine by tcp; write host: tcp://host:port")
        if any(given) and not all(given):
            raise ValueError("certificate, key and authority go together; name ca_secret, cert_secret and key_secret")
        return self


class KubernetesTarget(Model):
    """A namespace of a cluster. Without a kubeconfig: the one of this Penstock."""

    kubeconfig_secret: SecretName | None = Field(None, description="A secret that holds a kubeconfig.")
    context: Line | None = Field(None, description="The kubeconfig's context; default: its current one.")
    namespace: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = Field(
        None, description="Default: PENSTOCK_KUBERNETES_NAMESPACE."
    )


class Target(Model):
    """What runs the releases. A step that asks for another one is refused."""

    name: TargetKind
    docker: DockerTarget | None = None
    kubernetes: KubernetesTarget | None = None

    @model_validator(mode="after")
    def _is_of_one(self) -> Self:
        for name in ("docker", "kubernetes"):
            if getattr(self, name) is not None and name != self.name:
                raise ValueError(f"`{name}` is of another target than {self.name}; leave it out")
        return self


class Approval(Model):
    """Who has to say yes to a deployment. Without `users` and `groups`, anybody whom Penstock lets approve."""

    count: int = Field(1, ge=1, le=20, description="How many people.")
    users: People = Field((), description="These people.")
    groups: People = Field((), description="People in these groups, as they are when they answer.")
    not_author: bool = Field(
        default=False, description="Neither who wrote the commit nor who set the run off may approve it."
    )
    within: Duration = Field(WEEK_S, description="From when people are asked; then it has expired.")
    auto: Annotated[str, AfterValidator(_condition)] | None = Field(
        None, max_length=1000, description="A condition in CEL: where it holds, nobody is asked."
    )

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if self.users and not self.groups and self.count > len(set(self.users)):
            raise ValueError(f"{self.count} people are needed and {len(set(self.users))} may; name more in `users`")
        return self

    def rule(self) -> ApprovalRule:
        """The same as the platform judges it."""
        return ApprovalRule(self.count, self.users, self.groups, self.not_author, int(self.within))


class Freeze(Model):
    """A time in which nothing is deployed: once (`begins` and `ends`) or every week. Times are of the zone's clocks."""

    name: StepName
    zone: Zone = Field("UTC", description="A time zone of the IANA, such as Europe/Berlin.")
    begins: WallTime | None = Field(None, description="Such as 2026-12-23 18:00.")
    ends: WallTime | None = Field(None, description="Such as 2027-01-04 08:00.")
    weekly: Annotated[str, AfterValidator(_weekly)] | None = Field(
        None, max_length=60, description="Such as Fri 16:00 – Mon 08:00."
    )
    users: People = Field((), description="Who may lift it for once, saying why.")
    groups: People = Field((), description="Who may too: people in these groups.")

    @model_validator(mode="after")
    def _is_one_time(self) -> Self:
        once = (self.begins is None, self.ends is None)
        if (self.weekly is None) == all(once) or any(once) != all(once):
            raise ValueError("a freeze is once or weekly; write `begins` and `ends`, or `weekly`")
        if self.begins and self.ends and self.ends <= self.begins:
            raise ValueError("the freeze ends before it begins; write `ends` later than `begins`")
        return self

    @property
    def repetition(self) -> Weekly | None:
        """The part of the week that it holds."""
        return None if self.weekly is None else parse_weekly(self.weekly)

    def spans(self, now: datetime) -> Iterable[Span]:
        """The times around a moment in which it holds."""
        zone = zone_named(self.zone)
        if weekly := self.repetition:
            return weekly_spans(weekly, zone, now)
        assert self.begins is not None
        assert self.ends is not None
        return (span_of(self.begins, self.ends, zone),)

    def holds_until(self, now: datetime) -> datetime | None:
        """When the time ends that a moment lies in; None when it lies in none."""
        return max((span.ends for span in self.spans(now) if span.holds(now)), default=None)

    def in_words(self) -> str:
        """`Fri 16:00 – Mon 08:00 Europe/Berlin`."""
        span = self.weekly or f"{self.begins:%Y-%m-%d %H:%M} – {self.ends:%Y-%m-%d %H:%M}"
        return f"{span} {self.zone}"


class Rules(Model):
    """An environment, but for its name and what happens to it."""

    description: Line = ""
    production: bool = Field(
        default=False, description="Whether it serves the people for whom all this is done. Default: by its name."
    )
    group: StepName | None = Field(None, description="What it belongs together with.")
    order: Order = Field(default_factory=Order)
    refs: Refs = Field(default_factory=Refs)
    projects: Patterns = Field((), description="Projects that may be deployed here, as patterns; none: all.")
    env: Annotated[dict[EnvName, Value], AfterValidator(_env_names)] = Field(
        {}, max_length=200, description="Variables of every service here; they win over a step's."
    )
    secret_env: Annotated[dict[EnvName, SecretName], AfterValidator(_env_names)] = Field(
        {}, max_length=200, description="Variables that hold a secret of the vault, read when an instance starts."
    )
    target: Target | None = Field(None, description="What runs the releases; none: what the step says.")
    approval: Approval | None = None
    freezes: tuple[Freeze, ...] = Field((), max_length=50)

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        names = [freeze.name for freeze in self.freezes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f'a freeze is called "{twice}" twice; give each a name of its own')
        if both := sorted(self.env.keys() & self.secret_env.keys()):
            raise ValueError(f'"{both[0]}" stands in env and in secret_env; leave one of both out')
        return self

    @property
    def target_name(self) -> TargetKind | None:
        """The target that steps must ask for."""
        return self.target.name if self.target else None

    def freeze(self, name: str) -> Freeze | None:
        """The freeze of this name."""
        return next((freeze for freeze in self.freezes if freeze.name == name), None)


class NamedRules(Rules):
    """An environment as somebody writes it."""

    name: StepName

    @model_validator(mode="before")
    @classmethod
    def _by_its_name(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "production" not in given:
            return {**given, "production": given.get("name") in PRODUCTION_NAMES}
        return given

    def rules(self) -> Rules:
        """Without the name."""
        return Rules.model_validate({field: getattr(self, field) for field in Rules.model_fields})


@attrs.frozen
class Hold:
    """Somebody holds the environment: nothing is deployed there by a run until it is let go."""

    by: str
    why: str
    at: datetime


@attrs.frozen
class Environment:
    """
    An environment as it is kept.

    version: counts up with every change, and with holding and letting go. created_by, changed_by: people, or `Penstock`
    for one that came to be with its first deployment.
    """

    name: str
    rules: Rules
    version: int
    hold: Hold | None
    created_by: str
    created_at: datetime
    changed_by: str
    changed_at: datetime

    @property
    def named_rules(self) -> NamedRules:
        """As somebody would write it."""
        return NamedRules(name=self.name, **{field: getattr(self.rules, field) for field in Rules.model_fields})


def default_rules(name: str) -> Rules:
    """Of an environment of which nobody has said anything."""
    return NamedRules.model_validate({"name": name}).rules()


def written_out(rules: Rules) -> dict[str, Any]:
    """What differs from the defaults, as YAML and JSON have it; `production` always: its default is the name's."""
    return {**rules.model_dump(mode="json", exclude_defaults=True), "production": rules.production}
