"""How step.deploy says in what way a release takes over, and what is asked of it on the way."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema, core_schema

from penstock.deploy.analysis import Analysis, Query
from penstock.deploy.strategies import CanaryStep, Name, Settings, check_settings
from penstock.deploy.verification import Check
from penstock.errors import InputError
from penstock.pipeline.spec import Duration, Model, seconds

_PAUSE_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}]
}
Pause = Annotated[
    int, BeforeValidator(seconds), Field(ge=0, le=7 * 24 * 3600), WithJsonSchema(_PAUSE_SCHEMA, mode="validation")
]
"""A duration that may be none: 0s."""
Share = Annotated[int | str, Field(description="A count, or per cent of the replicas: 25%.")]
_OF: dict[Name, frozenset[str]] = {
    "recreate": frozenset(),
    "rolling": frozenset({"max_surge", "max_unavailable"}),
    "blue_green": frozenset({"keep"}),
    "canary": frozenset({"steps", "failure_limit", "inconclusive_limit", "analysis"}),
}


class Stage(Model):
    """One stage of a canary."""

    weight: int = Field(ge=1, le=100, description="Per cent of the requests that go to the new release.")
    hold: Duration | Literal["promotion"] = Field(
        60, description="For how long; `promotion` waits until somebody promotes it."
    )


class AnalysisQuery(Model):
    """One SELECT over the warehouse that gives one number, or true or false."""

    name: str = Field(min_length=1, max_length=80, description="What the log calls it.")
    sql: str = Field(
        min_length=1,
        max_length=10_000,
        description="{project}, {environment}, {service}, {release} and {commit} stand for the new release's.",
    )
    at_least: float | None = Field(None, description="What passes; without both limits, true or any number but 0.")
    at_most: float | None = Field(None, description="What passes.")


class Measured(Model):
    """What is measured while a stage is held, and what passes. What is left out is not asked."""

    every: Duration = Field(10, description="Between two measurements.")
    min_requests: int = Field(50, ge=1, le=1_000_000, description="Fewer of a release say nothing about it.")
    max_error_rate: float | None = Field(None, ge=0, le=1, description="Answers of 500 and above, from 0 to 1.")
    max_error_rate_above_old: float | None = Field(
        None, ge=0, le=1, description="By how much that may be more than the former release's."
    )
    max_p95_s: float | None = Field(
        None, ge=0.001, le=3600, description="Seconds in which 95 of 100 requests are answered."
    )
    max_p95_times_old: float | None = Field(
        None, ge=0.1, le=1000, description="That, as a multiple of the former release's."
    )
    queries: tuple[AnalysisQuery, ...] = Field((), max_length=20, description="Questions to the warehouse.")

    def analysis(self) -> Analysis:
        """The same for the deployment."""
        same = ("min_requests", "max_error_rate", "max_error_rate_above_old", "max_p95_s", "max_p95_times_old")
        queries = tuple(Query(**query.model_dump()) for query in self.queries)
        return Analysis(every_s=float(self.every), queries=queries, **{name: getattr(self, name) for name in same})


class Strategy(Model):
    """How the release takes over from the one before. A name alone stands for its defaults."""

    name: Name = Field(description="recreate, rolling, blue_green or canary.")
    max_surge: Share = Field(1, description="rolling: how many instances more than wanted there may be, or per cent.")
    max_unavailable: Share = Field(0, description="rolling: how many fewer may be ready meanwhile, or per cent.")
    keep: Pause = Field(0, description="blue_green: how long the former release is kept after the switch.")
    steps: tuple[Stage, ...] = Field((), max_length=50, description="canary: its stages, in order.")
    failure_limit: int = Field(0, ge=0, le=100, description="canary: how many measurements may fail in a stage.")

    inconclusive_limit: int = Field(
        5, ge=0, le=1000, description="canary: after how many in a row that say nothing a person is waited for."
    )
    analysis: Measured | None = Field(None, description="canary: what is measured; without it only time counts.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        others = {field for fields in _OF.values() for field in fields} - _OF[self.name]
        fields = type(self).model_fields
        if given := sorted(name for name in others if getattr(self, name) != fields[name].default):
            raise ValueError(f"`{given[0]}` is not of the strategy {self.name}; leave it out, or name another strategy")
        try:
            check_settings(self.settings())
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def settings(self) -> Settings:
        """The same for the deployment."""
        stages = tuple(CanaryStep(weight=one.weight, hold_s=_hold_s(one)) for one in self.steps)
        return Settings(
            name=self.name,
            max_surge=self.max_surge,
            max_unavailable=self.max_unavailable,
            keep_s=float(self.keep),
            steps=stages,
            failure_limit=self.failure_limit,
            inconclusive_limit=self.inconclusive_limit,
            analysis=self.analysis.analysis() if self.analysis else None,
        )


def _hold_s(stage: Stage) -> float | None:
    return None if isinstance(stage.hold, str) else float(stage.hold)


class NameAlone:
    """Marks a strategy for which its name may stand, for the reader and for the JSON Schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_whole, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"enum": sorted(_OF)}, handler(schema)]}


def _whole(value: object) -> object:
    """`canary` is `{name: canary}`."""
    return {"name": value} if isinstance(value, str) else value


class Question(Model):
    """One thing that is asked of the release: a page of it, or a command where it runs."""

    name: str = Field(min_length=1, max_length=80, description="What the log calls it.")
    http: str | None = Field(None, pattern=r"^/[!-~]*$", description="The path that is fetched.")
    status: int = Field(200, ge=100, le=599, description="What must come back.")
    body: str = Field("", max_length=10_000, description="What must stand in the answer.")
    command: tuple[str, ...] | str | None = Field(
        None, description="Words, or a line for /bin/sh, run inside a new instance; must exit with 0."
    )
    timeout: Duration = Field(10, description="For the whole answer.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.http is None) == (self.command is None):
            raise ValueError("a question asks one way; write `http` or `command`")
        return self

    def check(self) -> Check:
        """The same for the deployment."""
        return Check(
            name=self.name,
            path=self.http,
            status=self.status,
            body=self.body,
            command=self.command,
            timeout_s=float(self.timeout),
        )
