"""Bytes of YAML → values, and the place of each in the file, so that an error can say its line."""

from collections.abc import Sequence
from typing import Any

import attrs
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from penstock.errors import SpecError
from penstock.pipeline.complaints import shortened

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
class Document:
    """The file's tree, kept beside the values so that an error can say its line."""

    name: str
    root: Node

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line: steps.name.field` of the deepest node on `path` that is there."""
        line, words = self._place(path)
        return f"{self.name}:{line}" + (f": {'.'.join(words)}" if words else "")

    def has(self, path: Sequence[str | int]) -> bool:
        """Whether something stands at `path`."""
        node: Node | None = self.root
        for part in path:
            found = _child(node, part) if node is not None else None
            if found is None:
                return False
            node = found[0]
        return True

    def values(self) -> dict[str, Any]:
        """
        The file's plain values.

        Raises: SpecError for what cannot be read.
        """
        value = _value(self, self.root, (), [0])
        assert isinstance(value, dict)
        return value

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


def read_document(data: bytes, file: str) -> Document:
    """
    The tree of a YAML file whose root is a mapping.

    data: UTF-8. file: what errors call it.
    Raises: SpecError for what is no such file.
    """
    return Document(file, _compose(data, file))


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
    if line <= len(lines) and "${{" in lines[line - 1]:
        return SpecError(str(problem), where=f"{file}:{line}", remedy="put a text with ${{ }} in quotes")
    return SpecError(str(problem), where=f"{file}:{line}", remedy="mend the YAML there or on the line above")


def _value(document: Document, node: Node, path: tuple[str | int, ...], seen: list[int]) -> Any:
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


def _mapping(document: Document, node: MappingNode, path: tuple[str | int, ...], seen: list[int]) -> dict[str, Any]:
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


def _scalar(document: Document, node: Node, path: tuple[str | int, ...]) -> Any:
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
