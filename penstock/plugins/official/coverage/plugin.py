"""Reads a coverage report; see docs/index.md."""

import json
import xml.parsers.expat
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from penstock import sdk

LARGEST_BYTES = 256 * 1024 * 1024
Lines = dict[str, dict[int, bool]]


def main(plugin: sdk.Plugin) -> None:
    """Tell each file and the whole; too little is a failure."""
    path = plugin.workspace / plugin.inputs["report"]
    total = covered = 0
    for name, lines in sorted(read(path, str(plugin.inputs["report"])).items()):
        run = sum(lines.values())
        plugin.data("file", {"lines": len(lines), "covered": run}, key=name)
        total, covered = total + len(lines), covered + run
    if not total:
        raise sdk.BadConfiguration(f"{plugin.inputs['report']} tells of no line")
    per_cent = round(100 * covered / total, 2)
    plugin.metric("coverage", per_cent)
    plugin.metric("lines", total)
    plugin.metric("covered", covered)
    plugin.output("per_cent", per_cent)
    if per_cent < plugin.inputs["at_least"]:
        raise sdk.Failed(f"{per_cent:g} % of the lines were run, at least {plugin.inputs['at_least']:g} % should be")


def read(path: Path, name: str) -> Lines:
    """File → line → whether it was run. Raises: BadConfiguration for what is none of the three formats."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise sdk.BadConfiguration(f"{name} has more than {LARGEST_BYTES} bytes")
        data = path.read_bytes()
        return reader_of(data)(data)
    except OSError as error:
        raise sdk.BadConfiguration(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, xml.parsers.expat.ExpatError, RecursionError) as error:
        raise sdk.BadConfiguration(f"{name} is no Cobertura, LCOV or coverage.py report: {error}") from error


def reader_of(data: bytes) -> Callable[[bytes], Lines]:
    """By how it begins."""
    begin = data.lstrip()[:1]
    return {b"<": read_cobertura, b"{": read_coverage_py}.get(begin, read_lcov)


def read_cobertura(data: bytes) -> Lines:
    """XML; entities, with which a small file can become a large one, are refused."""
    found: Lines = defaultdict(dict)
    here = ""

    def start(tag: str, given: dict[str, str]) -> None:
        nonlocal here
        if tag == "class":
            here = given["filename"]
        elif tag == "line" and here:
            number, run = int(given["number"]), int(given["hits"]) > 0
            found[here][number] = found[here].get(number, False) or run

    def refuse(*_: object) -> None:
        raise ValueError("it declares entities")

    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = start, refuse
    parser.Parse(data, True)
    return found


def read_lcov(data: bytes) -> Lines:
    """Text: SF names a file, DA a line and how often it was run."""
    found: Lines = defaultdict(dict)
    here = ""
    for line in data.decode("utf-8").splitlines():
        if line.startswith("SF:"):
            here = line[3:]
        elif line.startswith("DA:") and here:
            number, hits = line[3:].split(",")[:2]
            found[here][int(number)] = found[here].get(int(number), False) or int(hits) > 0
    return found


def read_coverage_py(data: bytes) -> Lines:
    """What `coverage json` writes."""
    files = json.loads(data)["files"]
    return {
        name: {**dict.fromkeys(told["missing_lines"], False), **dict.fromkeys(told["executed_lines"], True)}
        for name, told in files.items()
    }


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
