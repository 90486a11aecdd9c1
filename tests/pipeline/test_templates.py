"""Templates: steps of another file, overridden step by step."""

from pathlib import Path

import pytest

from penstock.errors import SpecError
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import Graph, compile_graph
from penstock.pipeline.templates import Library, keep_template, list_templates, read_template

TEMPLATE = """\
description: How Python is built here.
inputs: {python: "3.12", folder: null}
defaults: {timeout: 5m, env: {LANG: C, REGION: eu}}
services: {db: {image: postgres}}
steps:
  - name: lint
    type: step.shell_exec
    commands: ["ruff check ${{ inputs.folder }}"]
  - name: test
    type: step.shell_exec
    needs: [lint]
    image: python:${{ inputs.python }}
    env: {A: "1", B: "2"}
    commands: [pytest]
"""
PIPELINE = """\
version: 1
include: {file: ci/python.yaml, with: {folder: src}}
defaults: {env: {REGION: us}}
steps:
  - name: test
    env: {B: "3"}
    commands: [pytest -x]
  - name: package
    type: step.shell_exec
    needs: [test]
    commands: [make]
"""


def compiled(text: str, files: dict[str, str] | None = None, folder: Path = Path("/nowhere")) -> Graph:
    found = {"ci/python.yaml": TEMPLATE} if files is None else files
    library = Library(
        lambda path: found[path].encode() if path in found else None, lambda pinned: read_template(folder, pinned)
    )
    return compile_graph(load_spec(text.encode(), library=library))


def test_template_is_overridden_step_by_step():
    """Fields replace the template's, variables are merged, what is not named stays."""
    graph = compiled(PIPELINE)
    assert [step.name for step in graph.steps] == ["lint", "test", "package"]
    test = graph.step("test")
    assert (test.image, test.commands, test.env) == ("python:3.12", ("pytest -x",), {"A": "1", "B": "3"})
    assert (test.needs, test.timeout) == (("lint",), 300)
    assert graph.step("lint").commands == ("ruff check src",)
    assert graph.env == {"LANG": "C", "REGION": "us"}
    assert "db" in graph.services


def test_template_of_the_library_is_pinned_by_hash(tmp_path: Path):
    """What it says cannot change under those who include it; a newer version is another one."""
    pinned = keep_template(tmp_path, "python", TEMPLATE.encode())
    text = PIPELINE.replace("file: ci/python.yaml", f"template: {pinned}")
    before = compiled(text, folder=tmp_path).hash
    newer = keep_template(tmp_path, "python", TEMPLATE.replace("ruff", "flake8").encode())
    assert compiled(text, folder=tmp_path).hash == before
    assert sorted(list_templates(tmp_path)) == sorted([pinned, newer])
    (tmp_path / f"{pinned}.yaml").write_text(TEMPLATE.replace("ruff", "true"))
    with pytest.raises(SpecError, match="library has no such template"):
        compiled(text, folder=tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "template", "told"),
    [
        (PIPELINE.replace("with: {folder: src}", "with: {}"), TEMPLATE, 'the input "folder" is missing'),
        (PIPELINE.replace("folder: src", "fodler: src"), TEMPLATE, 'the template has no input "fodler"'),
        (PIPELINE.replace("ci/python", "ci/pyhton"), TEMPLATE, 'the commit has no such file: "ci/pyhton.yaml"'),
        (PIPELINE, TEMPLATE.replace("inputs.python", "inputs.pyhton"), 'did you mean "python"'),
        (PIPELINE, TEMPLATE.replace('commands: ["ruff', 'comands: ["ruff'), "ci/python.yaml:8: steps.lint.comands"),
        (PIPELINE, TEMPLATE + "include: []\n", '"include" cannot stand in a template'),
        (PIPELINE.replace("pytest -x", "'${{ nonsense }}'"), TEMPLATE, "penstock.yaml:7: steps.test.commands"),
        (PIPELINE.replace("file: ci/python.yaml", "template: python"), TEMPLATE, "write NAME@HASH"),
        (PIPELINE.replace("file: ci/python.yaml, ", ""), TEMPLATE, "write `file:` or `template:`"),
    ],
)
def test_wrong_include_is_one_line_with_its_place(pipeline: str, template: str, told: str):
    """In the file where it is wrong."""
    with pytest.raises(SpecError) as caught:
        compiled(pipeline, {"ci/python.yaml": template})
    assert told in str(caught.value)


def test_steps_may_all_come_from_a_template():
    """A pipeline of one line."""
    graph = compiled("version: 1\ninclude: {file: ci/python.yaml, with: {folder: .}}\n")
    assert [step.name for step in graph.steps] == ["lint", "test"]
