"""What `${{ }}` and `when` may know of a run, and a step with all of it worked out."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from penstock.errors import InputError, StepFailure
from penstock.pipeline.complaints import in_words
from penstock.pipeline.expressions import Functions, as_text, evaluate, expressions_in, fill, holds, to_variables
from penstock.pipeline.patterns import any_matches, matches
from penstock.pipeline.plan import Graph
from penstock.pipeline.spec import ContainedFields, StepFields, When
from penstock.steps.context import RunInfo

_TAGS, _BRANCHES = "refs/tags/", "refs/heads/"
_UNTOUCHED = ("name", "type", "needs", "when", "combination")


def facts_of(
    info: RunInfo, env: Mapping[str, str], outcomes: Mapping[str, tuple[str, Mapping[str, str]]]
) -> dict[str, Any]:
    """
    Values by name.

    outcomes: step → state and outputs, of the steps upstream.
    """
    steps = {name: {"state": state, "outputs": dict(outputs)} for name, (state, outputs) in outcomes.items()}
    return {
        "commit": info.commit,
        "short_commit": info.partition,
        "ref": info.ref,
        "branch": info.ref.removeprefix(_BRANCHES) if info.ref.startswith(_BRANCHES) else "",
        "tag": info.ref.removeprefix(_TAGS) if info.ref.startswith(_TAGS) else "",
        "event": info.event,
        "project": info.project,
        "run": info.id,
        "author": info.author or "",
        "pull_request": dict(info.about.get("pull_request") or {}),
        "env": dict(env),
        "steps": {**{name.replace("-", "_"): one for name, one in steps.items()}, **steps},
    }


def checks_of(
    decided: Mapping[str, tuple[bool, Mapping[str, Any]]], steps: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """
    What a gate may name besides: `tests`, `scan`, `findings`, and `passed` of each step.

    decided: step → whether it passed, and its evidence. A step that was skipped or only allowed to fail has not
    passed; checks of which there are none have not passed either.
    """
    passed = {name: ok and not ({"allowed", "unneeded"} & set(evidence)) for name, (ok, evidence) in decided.items()}
    tests = [name for name, (_, evidence) in decided.items() if "tests" in evidence]
    scans = [name for name, (_, evidence) in decided.items() if "critical" in evidence]

    def total(names: Sequence[str], what: str) -> int:
        return sum(int(decided[name][1].get(what, 0)) for name in names)

    return {
        "tests": {
            "passed": bool(tests) and all(passed[name] for name in tests),
            "count": total(tests, "tests"),
            "failed": total(tests, "failed"),
        },
        "scan": {"passed": bool(scans) and all(passed[name] for name in scans)},
        "findings": {severity: total(scans, severity) for severity in ("critical", "high", "medium", "low", "info")},
        "steps": {name: {**one, "passed": passed.get(name, False)} for name, one in steps.items()},
    }


def group_of(graph: Graph, info: RunInfo) -> str | None:
    """The text that runs of a project share which must not overlap."""
    if graph.concurrency is None:
        return None
    return as_text(fill(graph.concurrency.group, facts_of(info, graph.env, {})))[:500]


def why_not(conditions: Sequence[When], values: Mapping[str, Any], changed: Callable[[], Sequence[str] | None]) -> str:
    """
    Why none of the conditions holds; empty when one does, or there are none.

    changed: the files that differ from the commit before, None when that is not known (then every path fits).
    """
    reasons = [_unmet(condition, values, changed) for condition in conditions]
    return "" if not reasons or "" in reasons else f"not needed: {'; '.join(reasons)}"


def _unmet(condition: When, values: Mapping[str, Any], changed: Callable[[], Sequence[str] | None]) -> str:
    for name in ("event", "branch", "tag"):
        patterns, value = getattr(condition, name), str(values[name])
        if patterns and not (value and matches(value, patterns)):
            return f"{name} is {value or 'none'}, not {', '.join(patterns)}"
    if condition.paths:
        files = changed()
        if files is not None and not any_matches(files, condition.paths):
            return f"no changed file fits {', '.join(condition.paths)}"
    if condition.condition and not holds(condition.condition, values):
        return f"{condition.condition} does not hold"
    return ""


def worked_out(config: StepFields, facts: Callable[[], Mapping[str, Any]], functions: Functions) -> StepFields:
    """
    The step with its expressions worked out. What a shell reads gets them as variables, never as text.

    facts: asked only if there is an expression.
    Raises: StepFailure when one cannot be, or gives what cannot stand there.
    """
    written = config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if not any(expressions_in(text) for text in _texts(written)):
        return config
    values = facts()
    place, found = itertools.count(1), dict[str, str]()
    shell = config.shell if isinstance(config, ContainedFields) else frozenset()
    filled: dict[str, Any] = {}
    try:
        for field, value in written.items():
            if field in _UNTOUCHED:
                filled[field] = value
            elif field in shell or (field == "command" and isinstance(value, str)):
                filled[field] = _with_variables(value, place, found)
            else:
                filled[field] = _filled(value, values, functions)
        if found:
            variables = {name: as_text(evaluate(source, values, functions)) for name, source in found.items()}
            filled["env"] = {**filled.get("env", {}), **variables}
    except InputError as error:
        raise StepFailure(error.what, where=config.name, remedy=error.remedy) from error
    try:
        return type(config).model_validate(filled)
    except ValidationError as error:
        what, remedy = in_words(error.errors(include_url=False)[0], type(config))
        raise StepFailure(f"once worked out: {what}", where=config.name, remedy=remedy) from error


def _with_variables(value: Any, place: Iterator[int], found: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_variables(one, place, found) for one in value]
    text, variables = to_variables(value, place)
    found |= variables
    return text


def _filled(value: Any, values: Mapping[str, Any], functions: Functions) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, values, functions) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, values, functions) for one in value]
    return fill(value, values, functions) if isinstance(value, str) and expressions_in(value) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value
