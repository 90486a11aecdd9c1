"""`penstock run`: the pipeline of a repository, here and now, without a server."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.show import Progress, print_log, sign, step_table
from penstock.cli.show import console as make_console
from penstock.errors import InputError
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.local import check_chosen, run_graph
from penstock.pipeline.local_runs import at_work, close_abandoned
from penstock.pipeline.plan import Graph, read_graph
from penstock.pipeline.records import StepRecord, list_steps
from penstock.pipeline.session import RunSession, new_run_id, open_services
from penstock.settings import Settings, load_settings, repository_root, require_git
from penstock.sources.git import Repository, WorkTree
from penstock.state.database import hosted_database
from penstock.steps.context import RunInfo

EXIT_CODES = {"succeeded": 0, "failed": 1, "infra_error": 3, "timed_out": 4, "waiting": 5, "cancelled": 130}


def run(
    path: Annotated[Path, typer.Argument(help="A git repository with a penstock.yaml.")] = Path(),
    commit: Annotated[str | None, typer.Option(help="A branch, tag or hash; default: the work tree as it is.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--step", help="Run only this step, on what earlier runs of the commit made.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Steps at once.")] = 4,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every line that the steps print.")] = False,
) -> None:
    """
    Run a repository's pipeline without a server.

    Uncommitted changes are run too. Deployments are left to the platform (`penstock up`).

    Exit code: 0 succeeded, 1 failed, 2 wrong input, 3 Penstock's own error, 4 timed out, 5 waits for an approval,
    130 cancelled.

    Examples:

        penstock run
        penstock run ../shop --commit v1.2 --verbose
        penstock run --step test
    """
    require_git()
    settings = load_settings(cwd=path.absolute())
    info, graph, repository, words = _what_to_run(settings, path, commit, new_run_id())
    chosen = {graph.step(name).name for name in only} if only else None
    console = make_console()
    with hosted_database(settings) as database:
        if chosen:
            check_chosen(database, info, graph, chosen)
        close_abandoned(settings, database)
        services = open_services(settings, database, platform_up=False)
        console.print(f"{info.project}, {words}; isolation: {services.engine.isolation()}", soft_wrap=True)
        with (
            Progress(console, verbose=verbose) as progress,
            stopped_by_signals() as token,
            at_work(settings, info.id),
        ):
            session = RunSession.start(services, info, graph, repository, on_line=progress.line, only=chosen)
            try:
                run_graph(session, token, on_step=progress.step, max_parallel=parallel, only=chosen)
            finally:
                state = session.finish(cancelled=token.reason or None)
        report(console, settings, list_steps(database, info.id), state, run_id=info.id, verbose=verbose)
    raise typer.Exit(EXIT_CODES[state])


def _what_to_run(
    settings: Settings, path: Path, commit: str | None, run_id: str
) -> tuple[RunInfo, Graph, Repository, str]:
    """The run, its graph, the repository, and in words which commit it is."""
    tree = _work_tree(path)
    repository = tree.repository
    full = repository.resolve(commit) if commit else tree.snapshot()
    changed = () if commit else tree.changed_files()
    graph = read_graph(repository, full, settings.templates_path)
    about = repository.info(full)
    info = RunInfo(
        id=run_id,
        project=tree.root.name,
        commit=full,
        ref=tree.branch(),
        graph_hash=graph.hash,
        structure_hash=graph.structure_hash,
        trigger="manual",
        event="manual",
        author=about.author,
        title=about.title,
        committed_at=about.committed_at,
    )
    extra = f" with {len(changed)} uncommitted changes" if changed else ""
    return info, graph, repository, f"commit {repository.resolve(commit or 'HEAD')[:12]}{extra}"


def _work_tree(path: Path) -> WorkTree:
    root = repository_root(path)
    if not (root / ".git").exists():
        raise InputError("this is no git repository", where=str(path.absolute()), remedy="run `git init` and commit")
    return WorkTree(root)


@contextmanager
def stopped_by_signals() -> Iterator[CancelToken]:
    """A token that Ctrl-C and SIGTERM cancel; the block goes on to its orderly end."""
    token = CancelToken()

    def stop(number: int, _: object) -> None:
        # A thread, because stopping takes locks that the interrupted main thread may hold.
        name = signal.Signals(number).name
        threading.Thread(target=token.cancel, args=(f"stopped by {name}",), daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield token
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report(
    console: Console,
    settings: Settings,
    steps: Sequence[StepRecord],
    state: str,
    *,
    run_id: str,
    verbose: bool = False,
) -> None:
    """The log of what failed, then the table of steps, then the run's state."""
    for step in steps:
        if step.state in ("failed", "timed_out", "infra_error") and not verbose:
            print_log(console, settings, run_id, step.step, last=60)
    console.print(step_table(steps))
    console.print(Text.assemble("run ", run_id, " ", sign(state)))
