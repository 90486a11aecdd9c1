"""Bytes of a `penstock.yaml` → a validated `Spec`, or one line that says where, what and the remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from penstock.errors import SpecError
from penstock.pipeline.complaints import in_words, shortened, suggestion
from penstock.pipeline.spec import Spec, StepFields

FILE = "penstock.yaml"
SIZE_LIMIT = 1024 * 1024
NODE_LIMIT = 100_000
DEPTH_LIMIT = 60
WORDS_LIMIT = 8  # names in the place that an error tells
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.CSafeLoader):
    """Safe YAML 1.1, but `on`, `off`, `yes` and `no` stay words, as in YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, rules in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@attrs.frozen
class _Document:
    """The file's tree, kept beside the values so that an error can say its line."""

    name: str
    root: Node

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line: steps.name.field` of the deepest node on `path` that is there."""
        line, words = self._place(path)
        return f"{self.name}:{line}" + (f": {'.'.join(words)}" if words else "")

    def line(self, path: Sequence[str | int]) -> int:
        """The line, from 1, of the deepest node on `path` that is there."""
        return self._place(path)[0]

    def _place(self, path: Sequence[str | int]) -> tuple[int, list[str]]:
        node, line, words = self.root, self.root.start_mark.line, []
        for part in path[:WORDS_LIMIT]:
            found = _child(node, part)
            if found is None:
                break
            words.append(_word(node, part))
            node, line = found
        return line + 1, words


def load_spec(data: bytes, *, file: str = FILE) -> Spec:
    """
    Read and validate a pipeline.

    data: the file's bytes, UTF-8. file: what errors call it.
    Raises: SpecError for the first thing that is wrong.
    """
    document = _Document(file, _compose(data, file))
    values = _plain(document)
    steps = _read_steps(document, values)
    try:
        spec = Spec.model_validate({**values, "steps": steps})
    except ValidationError as error:
        raise _from_validation(document, error, (), Spec) from error
    _check_names(document, spec.steps)
    _check_needs(document, spec.steps)
    _check_cycle(document, spec.steps)
    return spec


def _compose(data: bytes, file: str) -> Node:
    if len(data) > SIZE_LIMIT:
        raise SpecError(f"{len(data) / 1e6:.0f} MB is too large", where=file, remedy="keep it below 1 MB")
    if not data.strip():
        raise SpecError("the file is empty", where=f"{file}:1", remedy="write one with `penstock init`")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError("this is not UTF-8 text", where=f"{file}:{line}", remedy="save it as UTF-8") from error
    try:
        _check_depth(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        raise _from_yaml(error, text, file) from error
    if not isinstance(root, MappingNode):
        raise SpecError(
            "expected `version: 1` and `steps:`", where=f"{file}:1", remedy="write one with `penstock init`"
        )
    return root


def _check_depth(text: str, file: str) -> None:
    """Refuse deep nesting before anything recurses: libyaml's composer would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_LIMIT:
            where = f"{file}:{event.start_mark.line + 1 if event.start_mark else 1}"
            raise SpecError("nested too deeply", where=where, remedy="flatten it")


def _from_yaml(error: Exception, text: str, file: str) -> SpecError:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.encode()[: error.position].count(b"\n") + 1
        return SpecError("holds a character that YAML forbids", where=f"{file}:{line}", remedy="save it as plain text")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return SpecError("a tab indents this line", where=f"{file}:{line}", remedy="indent with spaces")
    problem = getattr(error, "problem", None) or "this is no YAML"
    return SpecError(str(problem), where=f"{file}:{line}", remedy="mend the YAML there or on the line above")


def _plain(document: _Document) -> dict[str, Any]:
    seen: list[int] = [0]
    value = _value(document, document.root, (), seen)
    assert isinstance(value, dict)
    return value


def _value(document: _Document, node: Node, path: tuple[str | int, ...], seen: list[int]) -> Any:
    seen[0] += 1
    if seen[0] > NODE_LIMIT or len(path) > DEPTH_LIMIT:
        raise SpecError("too large when its aliases are unfolded", where=document.where(path), remedy="use fewer")
    if not isinstance(node, ScalarNode) and node.tag not in _COLLECTION_TAGS:
        where = document.where(path)
        raise SpecError(f"the tag {shortened(node.tag)} is not read", where=where, remedy="leave it out")
    if isinstance(node, MappingNode):
        return _mapping(document, node, path, seen)
    if isinstance(node, SequenceNode):
        return [_value(document, item, (*path, index), seen) for index, item in enumerate(node.value)]
    return _scalar(document, node, path)


def _mapping(document: _Document, node: MappingNode, path: tuple[str | int, ...], seen: list[int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, item in node.value:
        line = f"{document.name}:{key.start_mark.line + 1}"
        if not isinstance(key, ScalarNode):
            raise SpecError("a key must be a word", where=line, remedy="write `word: value`")
        if key.tag == "tag:yaml.org,2002:merge":
            raise SpecError(
                "`<<` is not read", where=line, remedy="write the fields out, or use *alias for a whole value"
            )
        if key.value in values:
            raise SpecError(f'"{shortened(key.value)}" is here twice', where=line, remedy="keep one")
        values[key.value] = _value(document, item, (*path, key.value), seen)
    return values


def _scalar(document: _Document, node: Node, path: tuple[str | int, ...]) -> Any:
    if "\0" in node.value:
        raise SpecError("holds a NUL character", where=document.where(path), remedy="leave it out")
    if path[-2:-1] == ("env",):
        # Variables are texts: 0755 stays 0755, and 12:30 does not become the number 750.
        return "" if node.tag == "tag:yaml.org,2002:null" else node.value
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.constructor.ConstructorError, ValueError) as error:
        what = f'cannot read the value "{shortened(node.value)}"'
        raise SpecError(what, where=document.where(path), remedy="quote it") from error


def _read_steps(document: _Document, values: Mapping[str, Any]) -> tuple[StepFields, ...]:
    steps = values.get("steps")
    if not isinstance(steps, list) or not steps:
        where = document.where(("steps",) if "steps" in values else ())
        raise SpecError("there are no steps", where=where, remedy="list at least one under `steps:`")
    return tuple(_read_step(document, index, step) for index, step in enumerate(steps))


def _read_step(document: _Document, index: int, step: object) -> StepFields:
    from penstock.steps import step_types

    path: tuple[str | int, ...] = ("steps", index)
    if not isinstance(step, dict):
        where = document.where(path)
        raise SpecError("a step is a mapping", where=where, remedy="give it a `name` and a `type`")
    types = step_types()
    known = step.get("type")
    if not isinstance(known, str) or known not in types:
        raise _unknown_type(document, path, known, list(types))
    model = types[known].model
    try:
        return model.model_validate(step)
    except ValidationError as error:
        raise _from_validation(document, error, path, model) from error


def _unknown_type(document: _Document, path: tuple[str | int, ...], known: object, types: Sequence[str]) -> SpecError:
    if known is None:
        return SpecError("a step needs a type", where=document.where(path), remedy=f"one of {', '.join(types)}")
    return SpecError(
        f'there is no step type "{shortened(known)}"',
        where=document.where((*path, "type")),
        remedy=suggestion(str(known), types),
    )


def _from_validation(
    document: _Document, error: ValidationError, path: tuple[str | int, ...], model: type[BaseModel]
) -> SpecError:
    first = error.errors(include_url=False, include_context=True)[0]
    what, remedy = in_words(first, model)
    inner = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
    return SpecError(what, where=document.where((*path, *inner)), remedy=remedy)


def _check_names(document: _Document, steps: Sequence[StepFields]) -> None:
    seen: dict[str, int] = {}
    for index, step in enumerate(steps):
        same = step.name.replace("-", "_")  # Dagster, as many others, knows no -
        if same in seen:
            first = document.line(("steps", seen[same], "name"))
            raise SpecError(
                f'a step is already called "{steps[seen[same]].name}", on line {first}',
                where=document.where(("steps", index, "name")),
                remedy="give each step a name of its own",
            )
        seen[same] = index


def _check_needs(document: _Document, steps: Sequence[StepFields]) -> None:
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        for place, need in enumerate(step.needs):
            where = document.where(("steps", index, "needs", place))
            if need in step.needs[:place]:
                raise SpecError(f'"{need}" is here twice', where=where, remedy="keep one")
            if need not in names:
                others = [name for name in names if name != step.name]
                raise SpecError(f'no step is called "{need}"', where=where, remedy=suggestion(need, others))


def _check_cycle(document: _Document, steps: Sequence[StepFields]) -> None:
    needs = {step.name: step.needs for step in steps}
    if cycle := find_cycle(needs):
        index = next(i for i, step in enumerate(steps) if step.name == cycle[0])
        raise SpecError(
            f"the steps wait for each other: {' → '.join(_ends(cycle))}",
            where=document.where(("steps", index, "needs")),
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


def _child(node: Node, part: str | int) -> tuple[Node, int] | None:
    """What stands at `part` of a node, and its line; a block's line is its key's."""
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark.line
    return None


def _word(node: Node, part: str | int) -> str:
    """A step is called by its name rather than its place."""
    if isinstance(part, int) and isinstance(node, SequenceNode) and part < len(node.value):
        name = _child(node.value[part], "name")
        return shortened(name[0].value) if name and name[0].value and isinstance(name[0], ScalarNode) else str(part + 1)
    return shortened(part)
