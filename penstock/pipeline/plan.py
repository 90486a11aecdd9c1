"""A spec compiled to an immutable graph, with a hash of what it does and a hash of its shape."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from pydantic import BaseModel

from penstock.errors import NotFoundError, SpecError
from penstock.pipeline.complaints import suggestion
from penstock.pipeline.load import FILE, SIZE_LIMIT, load_spec
from penstock.pipeline.spec import Concurrency, ContainedFields, Filter, Kind, Service, Spec, StepFields, Triggers
from penstock.pipeline.templates import Library, read_template
from penstock.sources.git import Repository


def canonical_json(value: object) -> bytes:
    """The one way in which a value is written before it is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@attrs.frozen(slots=False)
class Graph:
    """
    The steps of one commit's pipeline, each after all that it needs.

    triggers, concurrency: when it runs, which is no part of what it does and of its hash.
    """

    steps: tuple[StepFields, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)
    services: Mapping[str, Service] = attrs.field(factory=dict)
    triggers: Triggers = attrs.field(factory=Triggers)
    concurrency: Concurrency | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that the steps do."""
        done = {key: value for key, value in self.to_values().items() if key not in ("on", "concurrency")}
        return hashlib.sha256(canonical_json(done)).hexdigest()

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
        values = {
            "version": 1,
            "env": dict(self.env),
            "services": {name: _values_of(service) for name, service in self.services.items()},
            "steps": [_values_of(step) for step in self.steps],
            "on": _values_of(self.triggers),
            "concurrency": _values_of(self.concurrency) if self.concurrency else None,
        }
        return {key: value for key, value in values.items() if value or key in ("env", "steps", "on")}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Graph":
        """The graph that `to_values` wrote."""
        from penstock.steps import step_types

        types = step_types()
        steps = tuple(types[step["type"]].model.model_validate(step) for step in values["steps"])
        services = {name: Service.model_validate(one) for name, one in values.get("services", {}).items()}
        concurrency = values.get("concurrency")
        return cls(
            steps,
            values["env"],
            services,
            Triggers.model_validate(values.get("on", {})),
            Concurrency.model_validate(concurrency) if concurrency else None,
        )


def _values_of(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_defaults=True, by_alias=True)


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
    triggers = spec.on or Triggers(push=Filter(), pull_request=Filter())
    return Graph(_in_order(steps), dict(spec.defaults.env), dict(spec.services), triggers, spec.concurrency)


def _with_defaults(step: StepFields, spec: Spec) -> StepFields:
    names = ["timeout", "retry", *(("image", "cpu", "memory", "pids") if isinstance(step, ContainedFields) else ())]
    given = {name: getattr(spec.defaults, name) for name in names if name not in step.model_fields_set}
    given = {name: value for name, value in given.items() if value is not None}
    return step.model_copy(update=given) if given else step


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


def read_graph(repository: Repository, commit: str, templates: Path | None = None) -> Graph:
    """
    The graph that a commit's own penstock.yaml describes.

    templates: the folder of the platform's library.
    Raises: SpecError when there is none or it is wrong.
    """
    data = repository.read_file(commit, FILE, limit_bytes=SIZE_LIMIT)
    if data is None:
        raise SpecError(f"commit {commit[:12]} has no {FILE}", remedy="write one with `penstock init` and commit it")
    library = Library(
        lambda path: repository.read_file(commit, path, limit_bytes=SIZE_LIMIT),
        lambda pinned: read_template(templates, pinned) if templates else None,
    )
    return compile_graph(load_spec(data, library=library))
