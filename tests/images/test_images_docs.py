"""The pages say what the steps do: their examples compile, their tables name every field and output."""

import re
from pathlib import Path

import pytest

from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import compile_graph
from penstock.pipeline.spec import StepFields
from penstock.steps import step_types

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_example_compiles(example: str):
    """As it stands."""
    assert compile_graph(load_spec(example.encode())).steps


@pytest.mark.parametrize("name", ["step.docker_build", "step.docker_push", "step.docker_run"])
def test_every_field_and_output_is_told(name: str):
    """None is left out."""
    model = step_types()[name].model
    for word in (set(model.model_fields) - set(StepFields.model_fields)) | set(model.outputs):
        assert f"`{word}`" in PAGE, word
