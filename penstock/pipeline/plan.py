"""A spec compiled to an immutable graph, with a hash of what it does and a hash of its shape."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from penstock.errors import NotFoundError, SpecError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.load import FILE, SIZE_LIMIT, load_spec
from penstock.pipeline.spec import Kind, Spec, StepFields
from penstock.sources.git import Repository


def canonical_json(value: object) -> bytes:
    """The one way in which a value is written before it is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@attrs.frozen(slots=False)
class Graph:
    """The steps of one commit's pipeline, each after all that it needs."""

    steps: tuple[StepFields, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that the steps do."""
        return hashlib.sha256(canonical_json(self.to_values())).hexdigest()

    @cached_property
    def structure_hash(self) -> str:
        """SHA-256 of names, kinds and needs alone: commits that share it share Dagster's assets."""
        return self.structure.hash

    @cached_property
    def structure(self) -> "Structure":
        """The shape without what the steps do."""
        return Structure(
            tuple(Node(s.name, s.type, s.kind, tuple(sorted(s.needs)), s.check_name()) for s in self.steps)
        )

    def step(self, name: str) -> StepFields:
        """Raises: NotFoundError with the nearest name."""
        for step in self.steps:
            if step.name == name:
                return step
        raise NotFoundError(f'no step is called "{name}"', remedy=suggestion(name, [s.name for s in self.steps]))

    def upstream(self, name: str) -> tuple[str, ...]:
        """Every step that `name` needs, directly or through others, in the graph's order."""
        wanted, todo = set(), list(self.step(name).needs)
        while todo:
            need = todo.pop()
            if need not in wanted:
                wanted.add(need)
                todo.extend(self.step(need).needs)
        return tuple(step.name for step in self.steps if step.name in wanted)

    def to_values(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_values` reads them back."""
        steps = [step.model_dump(mode="json", exclude_defaults=True) for step in self.steps]
        return {"version": 1, "env": dict(self.env), "steps": steps}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Graph":
        """The graph that `to_values` wrote."""
        from penstock.steps import step_types

        types = step_types()
        steps = tuple(types[step["type"]].model.model_validate(step) for step in values["steps"])
        return cls(steps, values["env"])


@attrs.frozen
class Node:
    """One step's place: what Dagster's asset graph needs to know of it."""

    name: str
    type: str
    kind: Kind
    needs: tuple[str, ...]
    check: str | None


@attrs.frozen(slots=False)
class Structure:
    """The shape of a graph: its nodes, each after all that it needs."""

    nodes: tuple[Node, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the shape, whatever order the file lists the steps in."""
        return hashlib.sha256(canonical_json(sorted(self.to_values(), key=lambda node: node["name"]))).hexdigest()

    def to_values(self) -> list[dict[str, Any]]:
        """Plain values, for JSON."""
        return [{**attrs.asdict(node), "needs": list(node.needs)} for node in self.nodes]

    @classmethod
    def from_values(cls, values: list[dict[str, Any]]) -> "Structure":
        """The structure that `to_values` wrote."""
        return cls(tuple(Node(**{**value, "needs": tuple(value["needs"])}) for value in values))


def compile_graph(spec: Spec) -> Graph:
    """Apply the defaults and put the steps in an order that respects their needs (the file's where it can)."""
    steps = [_with_defaults(step, spec) for step in spec.steps]
    return Graph(_in_order(steps), dict(spec.defaults.env))


def _with_defaults(step: StepFields, spec: Spec) -> StepFields:
    if spec.defaults.timeout is None or "timeout" in step.model_fields_set:
        return step
    return step.model_copy(update={"timeout": spec.defaults.timeout})


def _in_order(steps: list[StepFields]) -> tuple[StepFields, ...]:
    waiting = {step.name: set(step.needs) for step in steps}
    users: dict[str, list[str]] = {step.name: [] for step in steps}
    for step in steps:
        for need in set(step.needs):
            users[need].append(step.name)
    place = {step.name: index for index, step in enumerate(steps)}
    ready = sorted((place[name] for name, needs in waiting.items() if not needs))
    ordered: list[StepFields] = []
    while ready:
        step = steps[ready.pop(0)]
        ordered.append(step)
        for user in users[step.name]:
            waiting[user].discard(step.name)
            if not waiting[user]:
                ready.append(place[user])
        ready.sort()
    return tuple(ordered)


def read_graph(repository: Repository, commit: str) -> Graph:
    """
    The graph that a commit's own penstock.yaml describes.

    Raises: SpecError when there is none or it is wrong.
    """
    data = repository.read_file(commit, FILE, limit_bytes=SIZE_LIMIT)
    if data is None:
        raise SpecError(f"commit {commit[:12]} has no {FILE}", remedy="write one with `penstock init` and commit it")
    return compile_graph(load_spec(data))
