"""`penstock plugin`: write, check, test and install plugins."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from penstock.cli.plugin_catalog import From, Unsigned, asked_for, install_offer, opened_catalog, search, show, upgrade
from penstock.errors import InputError, PenstockError, PlatformError, StepFailure
from penstock.settings import Settings, create_home, load_settings

if TYPE_CHECKING:
    from penstock.plugins.folder import PluginFolder
    from penstock.plugins.kit import Came, Case

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The plugin's folder.")]


class Language(StrEnum):
    """What a new plugin can be written in."""

    PYTHON = "python"
    SHELL = "shell"
    NODE = "node"


class EngineName(StrEnum):
    """Where a plugin is tested."""

    DOCKER = "docker"
    PROCESS = "process"


@app.callback()
def plugin() -> None:
    """
    Write, check and test plugins; look for others, and install them.

    Examples:

        penstock plugin search licence
        penstock plugin install licenses
        penstock plugin new licence-report
        penstock plugin check licence-report
        penstock plugin test licence-report
        penstock plugin install licence-report
    """


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Small letters, digits and -.")],
    language: Annotated[Language, typer.Option(help="What it is written in.")] = Language.PYTHON,
    into: Annotated[Path, typer.Option(help="Where its folder is made.")] = Path(),
) -> None:
    """
    Make a plugin that works: manifest, code, tests, docs, Dockerfile.

    Examples:

        penstock plugin new licence-report
        penstock plugin new todo-count --language shell
    """
    from penstock.plugins.beginning import write_plugin

    folder = write_plugin(into / name, name, language.value)
    typer.echo(f"{folder}: try it with `penstock plugin test {folder}`")


@app.command()
def check(folder: Folder = Path()) -> None:
    """
    Say everything that keeps a plugin out of a catalog, one line each; also compare its image's label, if it is here.

    Examples:

        penstock plugin check licence-report
    """
    from penstock.plugins.folder import examine

    examined = examine(folder)
    if examined.folder is not None:
        label = _label(load_settings(), examined.folder)
        examined = examine(folder, label) if label is not None else examined
    for complaint in examined.complaints:
        typer.echo(str(complaint))
    if examined.complaints:
        raise typer.Exit(InputError.exit_code)
    assert examined.folder is not None
    typer.echo(f"{examined.folder.manifest.full_name}: fine")


@app.command()
def label(folder: Folder = Path()) -> None:
    """
    Print the manifest as the image carries it, for `docker build --label dev.penstock.plugin="…"`.

    Examples:

        penstock plugin label todo-count
    """
    from penstock.plugins.folder import open_folder
    from penstock.plugins.label import label_of

    typer.echo(label_of(open_folder(folder).manifest))


@app.command("test")
def try_out(
    folder: Folder = Path(),
    *,
    engine: Annotated[
        EngineName | None, typer.Option(help="Default: docker when its image is there, else process.")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Build the image first, with its label.")] = False,
    only: Annotated[str | None, typer.Option("--case", help="Run this case alone.")] = None,
    given: Annotated[list[str] | None, typer.Option("--input", help="NAME=VALUE: no case, but these inputs.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="With --input: the checkout that it sees.")] = None,
) -> None:
    """
    Run a plugin as the platform would, on the cases of tests/cases, and check what it leaves against the contract.

    Examples:

        penstock plugin test licence-report
        penstock plugin test licence-report --engine process --input 'limit=3' --workspace .
    """
    from penstock.plugins.folder import open_folder
    from penstock.plugins.kit import read_cases

    opened = open_folder(folder)
    settings = load_settings()
    if build:
        _build(settings, opened)
    chosen = engine.value if engine else _engine_for(settings, opened)
    cases = [_given_case(given, workspace)] if given is not None or workspace is not None else read_cases(folder)
    cases = [case for case in cases if only in (None, case.name)]
    if not cases:
        raise InputError(f'no case is called "{only}"', where="--case", remedy="leave it out to run all")
    with _own_home(settings, chosen) as own:
        broken = sum(not _passes(opened, case, own) for case in cases)
    if broken:
        raise StepFailure(f"{broken} of {len(cases)} cases failed", where=opened.manifest.full_name)
    typer.echo(f"{opened.manifest.full_name}: {len(cases)} cases passed on the {chosen} engine")


@app.command()
def sdk(folder: Folder = Path()) -> None:
    """
    Copy this Penstock's SDK into a plugin in Python, in place of the one that it has.

    Examples:

        penstock plugin sdk licence-report
    """
    from penstock.plugins.beginning import bring_sdk

    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), remedy="name the plugin's folder")
    bring_sdk(folder)
    typer.echo(f"{folder / 'penstock' / 'sdk'}: written")


app.command()(search)
app.command()(show)
app.command()(upgrade)


@app.command()
def install(
    what: Annotated[str, typer.Argument(help="A folder, or a plugin of a registry: name or name@version.")] = ".",
    registry: From = None,
    unsigned: Unsigned = False,
) -> None:
    """
    Let pipelines use a plugin, after all checks: one in a folder, or one of the registries.

    Examples:

        penstock plugin install ./licence-report
        penstock plugin install code-size
        penstock plugin install licences@1.2.0 --registry hub
    """
    if Path(what).is_dir() and registry is None:
        _install_folder(Path(what))
    else:
        install_offer(what, registry, unsigned=unsigned)


def _install_folder(folder: Path) -> None:
    from penstock.artifacts import open_store
    from penstock.people.users import system_account
    from penstock.plugins.declared import define_metrics
    from penstock.plugins.folder import open_folder
    from penstock.plugins.installing import Installation, install_folder
    from penstock.plugins.registries.local import LOCAL
    from penstock.state.database import hosted_database

    opened, settings = open_folder(folder), load_settings()
    create_home(settings)
    installation = Installation(LOCAL, system_account(), _image_digest(settings, opened))
    with hosted_database(settings) as database:
        store = open_store(settings.artifacts_path)
        installed = install_folder(database, store, opened, installation)
        define_metrics(settings, opened.manifest)
    typer.echo(f"{installed.manifest.full_name}: installed, package {installed.digest[:12]}")
    for line in asked_for(installed.manifest):
        typer.echo(line)


@app.command()
def uninstall(reference: Annotated[str, typer.Argument(help="name@version")]) -> None:
    """
    Let no pipeline use a version of a plugin any more.

    Examples:

        penstock plugin uninstall licence-report@0.1.0
    """
    from penstock.people.users import system_account
    from penstock.plugins.resolve import parse_reference

    name, version = parse_reference(reference)
    with opened_catalog() as catalog:
        catalog.uninstall(name, version, actor=system_account())
    typer.echo(f"{reference}: uninstalled")


@app.command("list")
def list_() -> None:
    """
    List the plugins that pipelines may use.

    Examples:

        penstock plugin list
    """
    from penstock.plugins.resolve import InstalledPlugins
    from penstock.state.database import hosted_database

    with hosted_database(load_settings()) as database:
        known = InstalledPlugins(database)
        for name in sorted(known.names()):
            for version in sorted(known.versions(name)):
                found = known.find(name, version)
                if found is not None:
                    typer.echo(f"{name}@{version}  {found.manifest.kind}  {found.state}  {found.manifest.summary}")


def _label(settings: Settings, opened: "PluginFolder") -> str | None:
    """The label of the plugin's image, empty when it has none; None when there is no such image, or no engine here."""
    from penstock.engines.docker_client import open_docker

    if opened.manifest.image is None:
        return None
    from docker.errors import DockerException

    try:
        client = open_docker(settings, timeout_s=5)
        try:
            labels = client.api.inspect_image(opened.manifest.image)["Config"].get("Labels") or {}
        finally:
            client.close()
    except (PlatformError, DockerException):
        return None
    from penstock.plugins.contract import LABEL

    return str(labels.get(LABEL, ""))


def _engine_for(settings: Settings, opened: "PluginFolder") -> str:
    return "docker" if opened.manifest.command is None or _label(settings, opened) is not None else "process"


def _image_digest(settings: Settings, opened: "PluginFolder") -> str | None:
    """What the plugin's image is now, its label compared; None where no engine has it."""
    from penstock.pipeline.cancel import CancelToken
    from penstock.plugins.folder import examine
    from penstock.plugins.launch import look_at_image

    label = _label(settings, opened)
    if label is None or opened.manifest.image is None:
        return None
    for complaint in examine(opened.path, label).complaints:
        raise InputError(complaint.what, where=complaint.where, remedy=complaint.remedy)
    facts = look_at_image(settings, opened.manifest.image, CancelToken())
    return next((one for one in sorted(facts.digests) if one != facts.id), facts.id)


def _build(settings: Settings, opened: "PluginFolder") -> None:
    from penstock.engines.docker_client import DEFAULT_HOST
    from penstock.plugins.contract import LABEL
    from penstock.plugins.label import label_of

    if opened.manifest.image is None or not (opened.path / "Dockerfile").is_file():
        raise InputError("it has no image or no Dockerfile to build", where=str(opened.path), remedy="add both")
    words = ["docker", "--host", settings.docker_host or DEFAULT_HOST, "build", "--tag", opened.manifest.image]
    words += ["--label", f"{LABEL}={label_of(opened.manifest)}", str(opened.path)]
    if shutil.which("docker") is None:
        raise PlatformError("the docker command was not found", remedy="install it, or build the image yourself")
    if subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode:
        raise StepFailure("the image could not be built", where=str(opened.path / "Dockerfile"), remedy="mend it")


def _given_case(given: list[str] | None, workspace: Path | None) -> "Case":
    from penstock.plugins.kit import Case

    inputs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f'"{text}" is no input', where="--input", remedy="write NAME=VALUE")
        try:
            inputs[name] = json.loads(value)
        except ValueError:
            inputs[name] = value
    return Case(name="given", **{"with": inputs}, workspace=str(workspace.absolute()) if workspace else None)


@contextmanager
def _own_home(settings: Settings, engine: str) -> Iterator[Settings]:
    """A home for the tests alone, where nothing of the platform's is."""
    with tempfile.TemporaryDirectory(prefix="penstock-plugin-test-") as folder:
        own = attrs.evolve(settings, home=Path(folder), engine=engine)
        create_home(own)
        yield own


def _passes(opened: "PluginFolder", case: "Case", settings: Settings) -> bool:
    from penstock.cli.run import stopped_by_signals
    from penstock.plugins.kit import run_case

    typer.echo(f"case {case.name}")
    with stopped_by_signals() as token:
        try:
            came = run_case(opened, case, settings, lambda line: typer.echo(f"  │ {line}"), token)
        except PenstockError as error:
            typer.echo(f"  ✗ {error}")
            return False
    for line in came.wrong:
        typer.echo(f"  ✗ {line}")
    typer.echo(f"  {'✗' if came.wrong else '✓'} {_in_words(came)}")
    return not came.wrong


def _in_words(came: "Came") -> str:
    counted = {"metrics": came.metrics, "data": came.data, "findings": came.findings, "artifacts": came.artifacts}
    parts = [f"exit code {came.ended.exit.code}", *(f"{len(some)} {name}" for name, some in counted.items() if some)]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in came.outputs.items())])
