"""`penstock demo-data`: history that nobody lived through, to try dashboards on."""

from typing import Annotated

import typer

from penstock.settings import load_settings
from penstock.state.database import hosted_database


def demo_data(
    projects: Annotated[int, typer.Option(min=1, max=1000, help="Projects.")] = 20,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days of history, up to today.")] = 180,
    seed: Annotated[int, typer.Option(help="Another seed, another history; the same seed, the same.")] = 1,
    findings: Annotated[int, typer.Option(min=0, help="Open findings of an average project.")] = 110,
    force: Annotated[bool, typer.Option("--force", help="Also beside real projects.")] = False,
) -> None:
    """
    Make up history for trying dashboards, notebooks and SQL.

    Names of its projects begin with demo-; what was made up before is replaced. A home with real projects is refused:
    name one for it, as in PENSTOCK_HOME=.penstock-demo.

    Examples:

        penstock demo-data --projects 20 --days 180 --seed 1

        penstock demo-data --projects 3 --days 30
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from penstock.demo import Scale, write_demo

    settings = load_settings()
    scale = Scale(projects=projects, days=days, seed=seed, findings=findings)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with hosted_database(settings) as database, Progress(*bar, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("making up history", total=projects)
        made = write_demo(settings, database, scale, force=force, on_project=lambda _: shown.advance(task))
    typer.echo(
        f"made up {made.projects} projects: {made.commits} commits, {made.runs} runs, {made.tests} test results, "
        f"{made.findings} findings with {made.events} changes, {made.releases} releases"
    )
