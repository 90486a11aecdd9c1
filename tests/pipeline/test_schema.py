"""The published schema: a golden file, and the pipelines of the examples pass it."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.pipeline.document import read_document
from penstock.pipeline.schema import pipeline_schema

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "docs" / "penstock.schema.json"


def test_golden_schema_is_the_published_one() -> None:
    """docs/penstock.schema.json is what the models say; `make golden` writes it anew."""
    text = json.dumps(pipeline_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("PENSTOCK_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("penstock.yaml")), ids=lambda path: path.parent.name)
def test_example_passes_the_schema(file: Path) -> None:
    """What editors are told fits what really runs."""
    jsonschema.validate(read_document(file.read_bytes(), str(file)).values(), pipeline_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2, "steps": [{"name": "a", "type": "step.shell_exec", "commands": ["true"]}]},
        {"version": 1, "steps": []},
        {"version": 1, "steps": [{"name": "a", "type": "step.nothing"}]},
        {"version": 1, "steps": [{"name": "a", "type": "step.shell_exec", "commands": ["true"], "netwrok": True}]},
    ],
)
def test_wrong_pipeline_fails_the_schema(wrong: dict[str, Any]) -> None:
    """An editor shows what `penstock check` would refuse."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, pipeline_schema())
