"""What must hold between the parts of a pipeline: names, needs, services, artifacts, secrets, expressions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.errors import InputError, SpecError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.expressions import NAMES, Scope, check_expression, expressions_in
from penstock.pipeline.source import Source
from penstock.pipeline.spec import ContainedFields, Spec, StepFields

OF_THE_EVENT = frozenset(NAMES) - {"steps", "matrix", "inputs"}
ONLY_AFTER_CHECKOUT = "hash_files"


def check_steps(whole: Source, spec: Spec, sources: Sequence[Source]) -> None:
    """
    See that the steps fit together.

    sources: one for each step of `spec`, in its order.
    Raises: SpecError for the first thing that does not.
    """
    steps: Sequence[StepFields] = spec.steps
    _check_names(steps, sources)
    _check_needs(steps, sources)
    _check_cycle(steps, sources)
    upstream = _upstream({step.name: step.needs for step in steps})
    putting = {step.name: step.artifact_keys() for step in steps}
    for step, source in zip(steps, sources, strict=True):
        _check_contained(step, source, spec)
        _check_artifacts(step, source, [key for name in upstream[step.name] for key in putting[name]])
        _check_expressions(step, source, frozenset(upstream[step.name]))
    if spec.concurrency:
        _check_text(spec.concurrency.group, Scope(names=OF_THE_EVENT), whole, ("concurrency", "group"))


def _check_names(steps: Sequence[StepFields], sources: Sequence[Source]) -> None:
    seen: dict[str, int] = {}
    for index, step in enumerate(steps):
        same = step.name.replace("-", "_")  # Dagster, as many others, knows no -
        if same in seen:
            raise SpecError(
                f'a step is already called "{steps[seen[same]].name}", on line {sources[seen[same]].line(("name",))}',
                where=sources[index].where(("name",)),
                remedy="give each step a name of its own",
            )
        seen[same] = index


def _check_needs(steps: Sequence[StepFields], sources: Sequence[Source]) -> None:
    names = [step.name for step in steps]
    for step, source in zip(steps, sources, strict=True):
        for place, need in enumerate(step.needs):
            where = source.where(("needs", place))
            if need in step.needs[:place]:
                raise SpecError(f'"{need}" is here twice', where=where, remedy="keep one")
            if need not in names:
                others = [name for name in names if name != step.name]
                raise SpecError(f'no step is called "{need}"', where=where, remedy=suggestion(need, others))


def _check_cycle(steps: Sequence[StepFields], sources: Sequence[Source]) -> None:
    if cycle := find_cycle({step.name: step.needs for step in steps}):
        index = next(i for i, step in enumerate(steps) if step.name == cycle[0])
        raise SpecError(
            f"the steps wait for each other: {' → '.join(_ends(cycle))}",
            where=sources[index].where(("needs",)),
            remedy="remove one of these needs",
        )


def _ends(cycle: Sequence[str]) -> Sequence[str]:
    return cycle if len(cycle) <= 9 else (*cycle[:4], "…", *cycle[-4:])


def find_cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """A cycle in a graph of names, its first name repeated at the end; None if there is none. No recursion."""
    done: set[str] = set()
    for start in needs:
        trail: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                trail.pop()
                done.add(name)
            elif name in trail:
                return (*trail[trail.index(name) :], name)
            elif name not in done:
                trail.append(name)
                stack.append((name, True))
                stack.extend((need, False) for need in needs[name])
    return None


def _upstream(needs: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Everything that each step needs, directly or through others; the graph has no cycle."""
    found: dict[str, set[str]] = {}
    for start in needs:
        todo = [start]
        while todo:
            name = todo[-1]
            waiting = [need for need in needs[name] if need not in found]
            if waiting and name not in found:
                todo += waiting
                continue
            todo.pop()
            found.setdefault(name, set(needs[name]).union(*(found[need] for need in needs[name])))
    return found


def _check_contained(step: StepFields, source: Source, spec: Spec) -> None:
    if not isinstance(step, ContainedFields):
        return
    for at, name in enumerate(step.services):
        if name not in spec.services:
            where = source.where(("services", at))
            raise SpecError(f'there is no service "{name}"', where=where, remedy=suggestion(name, spec.services))
    for variable, secret in step.secret_env.items():
        if secret not in step.secrets:
            where = source.where(("secret_env", variable))
            raise SpecError(f'"{secret}" is not among the step\'s secrets', where=where, remedy="name it in `secrets:`")
    image = step.image or spec.defaults.image
    if step.secrets and image and "@sha256:" not in image:
        what = "a step with secrets runs pinned images only"
        raise SpecError(what, where=source.where(("image",)), remedy=f"write {image.split(':')[0]}@sha256:…")


def _check_artifacts(step: StepFields, source: Source, known: Sequence[str]) -> None:
    """A key that no needed step puts out is seen before anything runs."""
    for field, key in step.artifacts_wanted().items():
        if key not in known and not any("${{" in one for one in (key, *known)):
            what = f'no step that "{step.name}" needs puts out an artifact "{key}"'
            raise SpecError(what, where=source.where((field,)), remedy=suggestion(key, known))


def _check_expressions(step: StepFields, source: Source, upstream: frozenset[str]) -> None:
    for path, text in _texts(source.values, ()):
        if path[0] == "when" and path[-1] == "if":
            _check_one(text, Scope(upstream), source, path, before_checkout=True)
        elif path[0] in step.conditions:
            names = frozenset(NAMES) | step.condition_names
            _check_one(text, Scope(upstream, names=names, functions=step.condition_functions), source, path)
        else:
            _check_text(text, Scope(upstream), source, path)


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, (*path, key))
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            yield from _texts(one, (*path, at))
    elif isinstance(value, str):
        yield path, value


def _check_text(text: str, scope: Scope, source: Source, path: Sequence[str | int]) -> None:
    for expression in expressions_in(text):
        _check_one(expression, scope, source, path)


def _check_one(
    expression: str, scope: Scope, source: Source, path: Sequence[str | int], *, before_checkout: bool = False
) -> None:
    try:
        check_expression(expression, scope)
    except InputError as error:
        raise SpecError(error.what, where=source.where(path), remedy=error.remedy) from error
    if before_checkout and ONLY_AFTER_CHECKOUT in expression:
        what = "a condition is asked before there is a workspace"
        raise SpecError(what, where=source.where(path), remedy=f"use {ONLY_AFTER_CHECKOUT} in `cache:` or a command")
