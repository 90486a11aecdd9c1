"""The documentation's pipelines are right, and name every field and type that there is."""

import re
from pathlib import Path

import pytest

from penstock.pipeline.load import load_spec
from penstock.pipeline.spec import ContainedFields, StepFields
from penstock.pipeline.templates import Library
from penstock.steps import step_types

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "pipelines.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
TEMPLATE = next(block for block in BLOCKS if block.startswith("# ci/python.yaml"))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith("version:")])
def test_example_is_a_pipeline(block: str):
    """As it stands in the documentation."""
    library = Library(lambda path: TEMPLATE.encode() if path == "ci/python.yaml" else None, lambda _pinned: None)
    assert load_spec(block.encode(), library=library).steps


def test_every_field_and_type_is_named():
    """What can be written is written of."""
    names = {*StepFields.model_fields, *ContainedFields.model_fields} - {"combination"}
    assert not [name for name in names if f"`{name}`" not in TEXT]
    assert not [name for name in step_types() if f"`{name}`" not in TEXT]
