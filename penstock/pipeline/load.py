"""Bytes of a `penstock.yaml` → a validated `Spec`, or one line that says where, what and the remedy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from pydantic import BaseModel, TypeAdapter, ValidationError

from penstock.errors import SpecError
from penstock.pipeline.checks import check_steps
from penstock.pipeline.complaints import in_words, shortened, suggestion
from penstock.pipeline.document import SIZE_LIMIT, Document, read_document
from penstock.pipeline.matrix import combinations, expand
from penstock.pipeline.source import Source
from penstock.pipeline.spec import Include, Matrix, Spec, StepFields
from penstock.pipeline.templates import NO_LIBRARY, Library, merged, template_of

__all__ = ["FILE", "SIZE_LIMIT", "load_spec"]

FILE = "penstock.yaml"
_INCLUDES = TypeAdapter(tuple[Include, ...])


def load_spec(
    data: bytes,
    *,
    file: str = FILE,
    library: Library = NO_LIBRARY,
    look_at: Callable[[StepFields, Source], None] | None = None,
) -> Spec:
    """
    Read and validate a pipeline, with its templates and its matrix unfolded.

    data: the file's bytes, UTF-8. file: what errors call it. library: where templates are found.
    look_at: sees each step with its place, once all is well so far, and may raise a SpecError too.
    Raises: SpecError for the first thing that is wrong.
    """
    document = read_document(data, file)
    values = document.values()
    templates = [template_of(document, at, one, library) for at, one in enumerate(_includes(document, values))]
    values, sources = merged(document, values, templates)
    if not sources:
        where = document.where(("steps",) if "steps" in values else ())
        raise SpecError("there are no steps", where=where, remedy="list at least one under `steps:`")
    for source in sources:
        if "combination" in source.values:
            raise SpecError(
                '"combination" is not known here', where=source.where(("combination",)), remedy="leave it out"
            )
    sources = expand(sources, _combinations(document, values))
    steps = tuple(_read_step(source) for source in sources)
    try:
        spec = Spec.model_validate({**values, "steps": steps})
    except ValidationError as error:
        raise _from_validation(Source(values, ((document, ()),)), error, Spec) from error
    check_steps(Source(values, ((document, ()),)), spec, sources)
    if look_at is not None:
        for step, source in zip(steps, sources, strict=True):
            look_at(step, source)
    return spec


def _includes(document: Document, values: Mapping[str, Any]) -> tuple[Include, ...]:
    given = values.get("include", [])
    try:
        return _INCLUDES.validate_python(given if isinstance(given, list) else [given])
    except ValidationError as error:
        raise _from_validation(Source({}, ((document, ("include",)),)), error, Include) from error


def _combinations(document: Document, values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if "matrix" not in values:
        return ()
    source = Source({}, ((document, ("matrix",)),))
    try:
        matrix = Matrix.model_validate(values["matrix"])
    except ValidationError as error:
        raise _from_validation(source, error, Matrix) from error
    return combinations(matrix, source)


def _read_step(source: Source) -> StepFields:
    from penstock.steps import SPELLINGS, step_types

    types = step_types()
    known = source.values.get("type")
    if isinstance(known, str) and known in SPELLINGS:
        known = SPELLINGS[known]
        source = attrs.evolve(source, values={**source.values, "type": known})
    if not isinstance(known, str) or known not in types:
        raise _unknown_type(source, known, list(types))
    model = types[known].model
    try:
        return model.model_validate(source.values)
    except ValidationError as error:
        raise _from_validation(source, error, model) from error


def _unknown_type(source: Source, known: object, types: Sequence[str]) -> SpecError:
    if known is None:
        return SpecError("a step needs a type", where=source.where(()), remedy=f"one of {', '.join(types)}")
    what = f'there is no step type "{shortened(known)}"'
    return SpecError(what, where=source.where(("type",)), remedy=suggestion(str(known), types))


def _from_validation(source: Source, error: ValidationError, model: type[BaseModel]) -> SpecError:
    found = error.errors(include_url=False, include_context=True)
    # A word that is not known is often the one that is missing, misspelt.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    what, remedy = in_words(first, model)
    inner = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
    return SpecError(what, where=source.where(inner), remedy=remedy)
