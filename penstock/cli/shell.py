"""`penstock shell`: a shell where a failed step ran."""

import sys
from typing import Annotated

import typer

from penstock.cli.runs import find_run
from penstock.engines import Job, open_engine
from penstock.errors import InputError
from penstock.pipeline import records
from penstock.pipeline.kept import kept_workspace
from penstock.pipeline.spec import ContainedFields
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.steps.context import sidecar


def shell(
    run: Annotated[str, typer.Argument(help="A run; its first digits are enough.")],
    step: Annotated[str, typer.Argument(help="A step of it that failed or took too long.")],
    command: Annotated[str, typer.Option(help="What to run there.")] = "/bin/sh",
) -> None:
    """
    Open a shell in the workspace that a failed step left.

    It has the step's image, variables and services. Secrets are not there. The workspaces of the last ten
    runs with a failed step are kept.

    Examples:

        penstock shell 19f2a3 test
    """
    settings = load_settings()
    with hosted_database(settings) as database:
        run_id = find_run(database, run)
        graph = records.load_graph(database, run_id)
    config = graph.step(step)
    if not isinstance(config, ContainedFields):
        raise InputError(f"{step} is a {config.type}, which runs no commands", remedy="choose a step.shell_exec")
    workspace = kept_workspace(settings.home, run_id, step)
    job = Job(
        run_id=run_id,
        step=f"{step}-shell",
        argv=("/bin/sh", "-c", command) if command != "/bin/sh" else ("/bin/sh",),
        workspace=workspace,
        work_dir=config.work_dir,
        env={**graph.env, **config.env, "CI_RUN": run_id, "CI_STEP": step},
        image=config.image,
        network=config.network,
        services=tuple(sidecar(name, graph.services[name]) for name in config.services),
        cpus=config.cpu,
        memory_bytes=config.memory,
    )
    sys.exit(open_engine(settings).shell(job))
