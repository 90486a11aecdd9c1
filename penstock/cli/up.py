"""`penstock up`: the whole platform on this machine."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.run import EXIT_CODES, report
from penstock.cli.show import Progress
from penstock.cli.show import console as make_console
from penstock.deploy.releases import live_releases, service_url
from penstock.errors import Cancelled, PlatformError
from penstock.pipeline import records
from penstock.pipeline.log import log_path, read_tail
from penstock.platform.example import connect_example, push_example
from penstock.platform.supervisor import is_up
from penstock.platform.up import platform
from penstock.settings import Settings, load_settings, require_git
from penstock.state.database import create_engine

RUN_APPEARS_WITHIN_S = 90.0


def up(
    once: Annotated[bool, typer.Option("--once", help="Run the example, then stop everything; exit 0 or 1.")] = False,
    example: Annotated[bool, typer.Option(help="Connect the bundled example and push a commit to it.")] = True,
) -> None:
    """
    Start Penstock: database, Dagster, API, dashboards, router. Ctrl-C stops all of it.

    Where Penstock runs already on this PENSTOCK_HOME, that one is used.

    Examples:

        penstock up
        penstock up --once
        penstock up --no-example
    """
    require_git()
    settings = load_settings()
    console = make_console()
    with _signals_interrupt():
        if is_up(settings):
            console.print(f"Penstock runs already on {settings.home}")
            _use(console, settings, create_engine(settings), once=True, example=example)
        else:
            _start_and_use(console, settings, once=once, example=example)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the platform, also when the shell started it with SIGINT ignored; once is enough."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: object) -> None:
        for number in signals:  # the orderly stop that begins now is not cut short by a second one
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_and_use(console: Console, settings: Settings, *, once: bool, example: bool) -> None:
    began = time.monotonic()

    def ready(name: str) -> None:
        console.print(Text.assemble(("✔", "green"), f" {name} ", (f"{time.monotonic() - began:.1f} s", "bright_black")))

    def event(text: str) -> None:
        console.print(Text(f"! {text}", style="yellow"))

    console.print(f"starting Penstock in {settings.home}")
    try:
        with platform(settings, ready, event) as database:
            _use(console, settings, database, once=once, example=example)
    except KeyboardInterrupt:
        console.print("stopped")
        if once:
            raise typer.Exit(Cancelled.exit_code) from None


def _use(console: Console, settings: Settings, database: sa.Engine, *, once: bool, example: bool) -> None:
    code = _run_example(console, settings, database) if example else 0
    _addresses(console, settings, database)
    if once:
        raise typer.Exit(code)
    console.print("Ctrl-C stops everything")
    threading.Event().wait()


def _run_example(console: Console, settings: Settings, database: sa.Engine) -> int:
    repository, project = connect_example(database, settings)
    commit = push_example(repository)
    console.print(f"pushed commit {commit[:12]} to {repository.bare}")
    run = _await_run(database, project.name, commit)
    _follow(console, settings, database, run.info.id)
    run = records.load_run(database, run.info.id)
    report(console, settings, records.list_steps(database, run.info.id), run.state, run_id=run.info.id)
    return 0 if EXIT_CODES[run.state] == 0 else 1


def _await_run(database: sa.Engine, project: str, commit: str) -> records.RunRecord:
    deadline = time.monotonic() + RUN_APPEARS_WITHIN_S
    while time.monotonic() < deadline:
        if found := records.list_runs(database, project=project, commit=commit, limit=1):
            return found[0]
        time.sleep(0.1)
    raise PlatformError(f"no run began for commit {commit[:12]}", remedy="see logs/api.log in PENSTOCK_HOME")


def _follow(console: Console, settings: Settings, database: sa.Engine, run_id: str) -> None:
    """Show the run's steps as they begin and end, until it is closed."""
    seen: dict[str, str] = {}
    with Progress(console) as progress:
        while True:
            over = records.load_run(database, run_id).state not in records.UNFINISHED
            for step in records.list_steps(database, run_id):
                if seen.get(step.step) != step.state:
                    seen[step.step] = step.state
                    _show(progress, step)
                elif step.state == "running":
                    _last_line(progress, settings, run_id, step.step)
            if over:
                return
            time.sleep(0.1)


def _show(progress: Progress, step: records.StepRecord) -> None:
    if step.state == "running":
        progress.began(step.step)
    elif step.state != "queued":
        progress.ended(step.step, step.state, step.reason or step.produced)


def _last_line(progress: Progress, settings: Settings, run_id: str, step: str) -> None:
    if lines := read_tail(log_path(settings.home, run_id, step), 1):
        progress.line(step, lines[-1].text)


def _addresses(console: Console, settings: Settings, database: sa.Engine) -> None:
    rows = [
        ("Dagster", settings.dagster_url),
        ("dashboards", settings.dashboards_url),
        ("API", f"{settings.api_url}/docs"),
    ]
    for release in live_releases(database):
        name = f"{release.service.name} ({release.service.environment}, release {release.number})"
        rows.append((name, service_url(database, release.service) or ""))
    for name, url in rows:
        console.print(Text.assemble((f"{name:<40}", "bold"), url))
