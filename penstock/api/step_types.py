"""/step-types: what a step can be, and what each type takes."""

from fastapi import APIRouter

from penstock.api.models import Name, StepTypeOut
from penstock.api.problems import problems
from penstock.errors import NotFoundError
from penstock.pipeline.complaints import suggestion
from penstock.steps import step_types

router = APIRouter(tags=["pipelines"])


@router.get("/step-types")
def list_step_types() -> list[StepTypeOut]:
    """Every step type with the JSON Schema of what may stand in its step."""
    return [StepTypeOut.of(found) for found in step_types().values()]


@router.get("/step-types/{name}", responses=problems(404))
def show_step_type(name: Name) -> StepTypeOut:
    """One step type."""
    types = step_types()
    if name not in types:
        raise NotFoundError(f'there is no step type "{name}"', remedy=suggestion(name, list(types)))
    return StepTypeOut.of(types[name])
