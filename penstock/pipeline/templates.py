"""Templates: files whose steps become part of a pipeline, which may override them step by step."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from penstock.errors import InputError, SpecError
from penstock.pipeline.complaints import shortened
from penstock.pipeline.document import Document, read_document
from penstock.pipeline.expressions import put_in
from penstock.pipeline.source import Source
from penstock.pipeline.spec import Include

_PARTS = frozenset({"version", "description", "inputs", "defaults", "services", "steps", "matrix"})
_MAPPINGS = ("defaults", "services", "env")  # merged by key; other fields replace the template's


@attrs.frozen
class Library:
    """
    Where templates are found.

    file: a path in the repository, at the same commit → its bytes, None when there is none.
    template: NAME@HASH → the bytes of the platform's library that have this hash, None when there are none.
    """

    file: Callable[[str], bytes | None]
    template: Callable[[str], bytes | None]


NO_LIBRARY = Library(lambda _path: None, lambda _pinned: None)


@attrs.frozen
class Template:
    """A template with its inputs put in."""

    document: Document
    values: dict[str, Any]


def template_of(document: Document, at: int, include: Include, library: Library) -> Template:
    """
    The template that the `at`-th include of a file names.

    Raises: SpecError when it is not there, or an input is missing or unknown.
    """
    where = document.where(("include", at))
    name = include.file or include.template or ""
    data = library.file(name) if include.file else library.template(name)
    if data is None:
        lost = "the commit has no such file" if include.file else "the platform's library has no such template"
        remedy = "check the path" if include.file else "list them with `penstock template list`"
        raise SpecError(f'{lost}: "{shortened(name)}"', where=where, remedy=remedy)
    found = read_document(data, name)
    values = found.values()
    if unknown := sorted(set(values) - _PARTS):
        what = f'"{shortened(unknown[0])}" cannot stand in a template'
        raise SpecError(what, where=found.where((unknown[0],)), remedy=f"there are: {', '.join(sorted(_PARTS))}")
    inputs = _inputs(values.pop("inputs", {}), include, where)
    values.pop("version", None)
    values.pop("description", None)
    return Template(found, put_in_all(values, {"inputs": inputs}, found))


def _inputs(declared: object, include: Include, where: str) -> dict[str, Any]:
    """Inputs by name: those given, else their defaults. A template declares them as `inputs: {name: default}`."""
    known = declared if isinstance(declared, dict) else {}
    if unknown := sorted(set(include.inputs) - set(known)):
        raise SpecError(
            f'the template has no input "{unknown[0]}"', where=where, remedy=f"it has: {', '.join(known) or 'none'}"
        )
    inputs = {**known, **include.inputs}
    if missing := [name for name, value in inputs.items() if value is None]:
        raise SpecError(f'the input "{missing[0]}" is missing', where=where, remedy="give it under `with:`")
    return inputs


def put_in_all(
    value: Any, known: Mapping[str, Mapping[str, Any]], document: Document, path: tuple[str | int, ...] = ()
) -> Any:
    """A tree of values with `matrix.x` or `inputs.x` replaced in every text."""
    if isinstance(value, dict):
        return {key: put_in_all(one, known, document, (*path, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [put_in_all(one, known, document, (*path, at)) for at, one in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return put_in(value, known)
    except InputError as error:
        raise SpecError(error.what, where=document.where(path), remedy=error.remedy) from error


def merged(
    document: Document, values: dict[str, Any], templates: Sequence[Template]
) -> tuple[dict[str, Any], list[Source]]:
    """
    The file with its templates: values of the whole, and the steps, each where it was first named.

    Raises: SpecError for a step that is none.
    """
    whole: dict[str, Any] = {}
    sources: dict[Any, Source] = {}
    for part in (*templates, Template(document, values)):
        whole = {**whole, **_over(whole, {key: one for key, one in part.values.items() if key != "steps"})}
        for at, step in enumerate(_steps(part)):
            source = Source(step, ((part.document, ("steps", at)),))
            key = _key(step, part.document, at, sources if part.document is document else {})
            sources[key] = _overridden(sources[key], source) if key in sources else source
    return {**whole, "steps": values.get("steps")}, list(sources.values())


def _steps(part: Template) -> list[dict[str, Any]]:
    steps = part.values.get("steps", [])
    if not isinstance(steps, list):
        raise SpecError(
            "there are no steps", where=part.document.where(("steps",)), remedy="list at least one under `steps:`"
        )
    for at, step in enumerate(steps):
        if not isinstance(step, dict):
            where = part.document.where(("steps", at))
            raise SpecError("a step is a mapping", where=where, remedy="give it a `name` and a `type`")
    return steps


def _key(step: Mapping[str, Any], document: Document, at: int, known: Mapping[Any, Source]) -> object:
    """A step of the file's own overrides a template's of its name; two of one file do not override each other."""
    name = step.get("name")
    ours = isinstance(name, str) and name in known and known[name].places[0][0] is not document
    return name if ours or (isinstance(name, str) and name not in known) else (name, id(document), at)


def _overridden(former: Source, over: Source) -> Source:
    return Source({**former.values, **_over(former.values, over.values)}, (*over.places, *former.places))


def _over(former: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """What stands over what was there: mappings of names are merged by key."""
    both = (key for key in _MAPPINGS if isinstance(former.get(key), dict) and isinstance(over.get(key), dict))
    return {**over, **{key: {**former[key], **_over(former[key], over[key])} for key in both}}


def read_template(folder: Path, pinned: str) -> bytes | None:
    """The library's template NAME@HASH; None when there is none whose bytes have this hash (its beginning will do)."""
    name, _, wanted = pinned.partition("@")
    for path in sorted(folder.glob(f"{name}@*.yaml")) if folder.is_dir() else ():
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest().startswith(wanted):
            return data
    return None


def keep_template(folder: Path, name: str, data: bytes) -> str:
    """
    Put a template into the library, beside its former versions.

    Returns: NAME@HASH, by which pipelines include it.
    Raises: SpecError when it cannot be read.
    """
    read_document(data, f"{name}.yaml").values()
    digest = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}@{digest[:16]}.yaml"
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
    return f"{name}@{digest[:16]}"


def list_templates(folder: Path) -> tuple[str, ...]:
    """NAME@HASH of everything in the library, by name."""
    return tuple(path.stem for path in sorted(folder.glob("*@*.yaml"))) if folder.is_dir() else ()
