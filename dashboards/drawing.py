"""A pipeline as a picture, for Graphviz."""

from collections.abc import Mapping, Sequence
from typing import Any

_SHAPES = {"build": "box", "report": "note", "image": "box3d", "gate": "diamond", "deployment": "house"}


def dot(steps: Sequence[Mapping[str, Any]]) -> str:
    """The graph in Graphviz's language: one node per step, an edge from what it needs."""
    lines = ["digraph pipeline {", "rankdir=LR", 'bgcolor="transparent"']
    lines.append('node [fontname="sans-serif" fontsize=11 color="#5c8a7d" fontcolor="#5c8a7d" shape=box]')
    lines.append('edge [color="#8aa39c" arrowsize=0.7]')
    for step in steps:
        label = f"{_quoted(step['name'])[:-1]}\\n{_quoted(step['type'].removeprefix('step.'))[1:]}"
        lines.append(f"{_quoted(step['name'])} [label={label} shape={_SHAPES.get(step['kind'], 'box')}]")
        lines += [f"{_quoted(needed)} -> {_quoted(step['name'])}" for needed in step["needs"]]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
