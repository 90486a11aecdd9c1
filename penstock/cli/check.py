"""`penstock check`: is this penstock.yaml right?"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import InputError, PlatformError

if TYPE_CHECKING:
    from penstock.pipeline.templates import Library


def check(
    path: Annotated[Path, typer.Argument(help="A penstock.yaml, or a folder that holds one.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the compiled graph as JSON.")] = False,
) -> None:
    """
    Validate a pipeline: one line with file, line and remedy if it is wrong.

    Examples:

        penstock check
        penstock check examples/shop --json
    """
    from penstock.pipeline.load import load_spec
    from penstock.pipeline.plan import compile_graph
    from penstock.pipeline.templates import Library, read_template
    from penstock.settings import load_settings

    file = path / "penstock.yaml" if path.is_dir() else path
    templates = load_settings(cwd=file.parent.absolute()).templates_path
    library = Library(lambda name: _beside(file, name), lambda pinned: read_template(templates, pinned))
    data = read_spec(file)
    graph = compile_graph(load_spec(data, file=str(file), library=library))
    if any(step.type == "step.plugin" for step in graph.steps):
        _check_plugins(data, file, library)
    if as_json:
        import json

        typer.echo(json.dumps({"hash": graph.hash, "structure_hash": graph.structure_hash, **graph.to_values()}))
        return
    typer.echo(f"{file}: {len(graph.steps)} steps, graph {graph.hash[:12]}")
    for step in graph.steps:
        typer.echo(f"  {step.name}  {step.type}" + (f"  after {', '.join(step.needs)}" if step.needs else ""))


def _check_plugins(data: bytes, file: Path, library: "Library") -> None:
    """
    Once more, with the manifests of the plugins that are installed here; what is not installed is told.

    Raises: SpecError for inputs, secrets or a version that do not fit.
    """
    from penstock.pipeline.load import load_spec
    from penstock.plugins.checking import PluginCheck
    from penstock.plugins.resolve import InstalledPlugins
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database, is_there

    settings = load_settings(cwd=file.parent.absolute())
    look = PluginCheck(None)
    with ExitStack() as stack:
        if is_there(settings):
            try:
                look = PluginCheck(InstalledPlugins(stack.enter_context(hosted_database(settings))))
            except PlatformError as error:
                typer.echo(f"warning: {error}", err=True)
        load_spec(data, file=str(file), library=library, look_at=look)
    for line in look.missing:
        typer.echo(f"warning: {line}", err=True)


def _beside(file: Path, name: str) -> bytes | None:
    """A template of the same repository: its paths begin where the pipeline is."""
    path = file.parent / name
    return read_spec(path) if path.is_file() else None


def read_spec(file: Path) -> bytes:
    """
    The file's bytes, no more than a pipeline may have.

    Raises: InputError when there is none or it is too large.
    """
    from penstock.pipeline.load import SIZE_LIMIT

    try:
        if file.stat().st_size > SIZE_LIMIT:
            raise InputError(
                f"{file.stat().st_size / 1e6:.0f} MB is too large", where=str(file), remedy="keep it below 1 MB"
            )
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read it: {error.strerror}", where=str(file), remedy="write one with `penstock init`"
        ) from error
