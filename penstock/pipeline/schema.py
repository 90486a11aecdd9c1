"""The JSON Schema of `penstock.yaml`, made from the models, so that editors complete and check it."""

from typing import Any

from penstock.pipeline.spec import Spec, Triggers
from penstock.steps import SPELLINGS, step_types

ADDRESS = "https://json-schema.org/draft/2020-12/schema"


def pipeline_schema() -> dict[str, Any]:
    """The schema of the whole file; a step is one of the step types, told apart by its `type`."""
    whole = Spec.model_json_schema()
    definitions = dict(whole.pop("$defs", {}))
    for name, step_type in step_types().items():
        model = step_type.model.model_json_schema()
        definitions |= model.pop("$defs", {})
        spelled = [*(one for one, known in SPELLINGS.items() if known == name), name]
        said: dict[str, Any] = {"enum": spelled} if len(spelled) > 1 else {"const": name}
        model["properties"]["type"] = {**said, "description": step_type.model.summary}
        definitions[name] = model
    kinds = list(Triggers.model_fields)
    short = [{"enum": kinds}, {"type": "array", "items": {"enum": kinds}}]
    definitions["Triggers"] = {"anyOf": [*short, definitions["Triggers"]]}
    steps = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in step_types()]}
    whole["properties"]["steps"] = {"type": "array", "minItems": 1, "maxItems": 2000, "items": steps}
    return {"$schema": ADDRESS, **whole, "title": "penstock.yaml", "$defs": definitions}
