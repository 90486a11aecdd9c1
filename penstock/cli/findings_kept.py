"""`penstock findings list`, `import`, `suppress` and `unsuppress`: what the warehouse keeps of findings."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import InputError, PenstockError, ReportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.warehouse import Warehouse
    from penstock.warehouse.imports import About, Imported

Project = Annotated[str, typer.Option("--project", "-p", help="The project.", show_default=False)]
Fingerprint = Annotated[str, typer.Argument(help="The finding; its first 8 digits are enough.", show_default=False)]
By = Annotated[str | None, typer.Option("--by", help="Who decides; by default you.")]


def list_command(
    *,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    branch: Annotated[str | None, typer.Option("--branch", "-b", help="Only this branch.")] = None,
    severity: Annotated[
        list[str] | None, typer.Option("--severity", help="critical, high, medium, low or info; repeatable.")
    ] = None,
    tool: Annotated[str | None, typer.Option("--tool", help="Only what this scanner found.")] = None,
    state: Annotated[str, typer.Option("--state", help="open, suppressed, fixed or all.")] = "open",
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Introduced since: 2026-03-01, or 14d.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array with one object per finding.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Findings at most; 0 prints all.")] = 100,
) -> None:
    """
    Print the findings that the warehouse knows, worst first, one per branch that has them.

    Examples:

        penstock findings list --project shop --branch main --severity critical --severity high

        penstock findings list --state suppressed --json

        penstock findings list --since 14d --csv --limit 0 > new.csv
    """
    from penstock.cli.sql import print_answer
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.warehouse import connect, warehouse_location
    from penstock.warehouse.listing import Wanted, list_findings
    from penstock.warehouse.sql import Answer

    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other", remedy="choose one")
    wanted = Wanted(
        project=project,
        branch=branch,
        severity=_severities(severity),
        tool=tool,
        state=_state(state),
        since=moment(since, past=True) if since else None,
    )
    settings = load_settings()
    with hosted_database(settings), connect(warehouse_location(settings), read_only=True) as lake:
        columns, rows = list_findings(lake, wanted, limit + 1 if limit else None)
    shown = rows[:limit] if limit else rows
    if as_json or as_csv:
        print_answer(Answer(columns, tuple(shown), len(shown) < len(rows)), sys.stdout, as_json=as_json, as_csv=as_csv)
        return
    _print_rows([dict(zip(columns, row, strict=True)) for row in shown])
    if len(shown) < len(rows):
        typer.echo(f"more than {limit}; --limit 0 shows all", err=True)


def _severities(said: list[str] | None) -> tuple[str, ...] | None:
    from penstock.findings import SEVERITIES

    for one in said or ():
        if one not in SEVERITIES:
            raise InputError(f'"{one}" is no severity', where="--severity", remedy=f"one of {', '.join(SEVERITIES)}")
    return tuple(said) if said else None


def _state(said: str) -> str | None:
    from penstock.warehouse.listing import STATES

    if said not in (*STATES, "all"):
        raise InputError(f'"{said}" is no state', where="--state", remedy=f"one of {', '.join(STATES)} or all")
    return None if said == "all" else said


def _print_rows(rows: list[dict[str, object]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo("no such findings")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name, ratio in (
        ("finding", None),
        ("severity", None),
        ("state", None),
        ("branch", 2),
        ("where", 5),
        ("rule", 4),
    ):
        table.add_column(name, ratio=ratio, overflow="fold" if name == "where" else "ellipsis", no_wrap=name != "where")
    for row in rows:
        place = str(row["path"] or row["package"] or "")
        place += f":{row['line']}" if row["path"] and row["line"] else ""
        cells = (
            str(row["fingerprint"])[:12],
            row["severity"],
            row["state"],
            f"{row['project']} {row['branch']}",
            place,
        )
        table.add_row(*(Text(printable(str(cell or ""))) for cell in (*cells, row["rule_id"])))
    Console().print(table)


def printable(text: str) -> str:
    """A text on one line, without what would command the terminal: a report may come from an attacker."""
    return " ".join("".join(char if char.isprintable() or char.isspace() else "?" for char in text).split())


def moment(said: str, *, past: bool = False) -> datetime:
    """
    `2026-03-01`, `2026-03-01T12:00Z`, or a span such as `14d` or `6h`: ago if `past`, else from now.

    Raises: InputError for anything else.
    """
    units = {"d": "days", "h": "hours", "w": "weeks"}
    if said[:-1].isdecimal() and said[-1:] in units:
        span = timedelta(**{units[said[-1]]: min(int(said[:-1]), 36_500)})
        return datetime.now(UTC) - span if past else datetime.now(UTC) + span
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        raise InputError(f'"{said[:40]}" is no time', remedy="write 2026-03-01, or a span such as 14d") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def import_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="SARIF 2.1.0 reports.", show_default=False)],
    *,
    project: Project,
    commit: Annotated[str, typer.Option("--commit", help="The commit that was scanned.", show_default=False)],
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch that it is on.")] = "main",
    base: Annotated[str | None, typer.Option("--base", help="The branch that this one is merged into.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", help="Only this tool's runs of the reports.")] = None,
    category: Annotated[
        str | None, typer.Option("--category", help="What the reports are about; by default what they say themselves.")
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="DIR", help="Where the repository was checked out; repeatable."),
    ] = None,
    committed: Annotated[
        str | None,
        typer.Option("--committed", metavar="WHEN", help="When the commit was made, if git cannot tell here."),
    ] = None,
) -> None:
    """
    Bring reports of scanners that ran elsewhere into the warehouse, as scans of a commit.

    The same report of the same commit counts once. A report that cannot be read is one line on standard error; the
    others are imported, and the exit code is 2.

    Examples:

        penstock findings import trivy.sarif semgrep.sarif --project shop --commit $(git rev-parse HEAD)

        penstock findings import old.sarif -p shop --commit 4f0588f -b main --committed 2025-11-03
    """
    from penstock.artifacts.store import open_store
    from penstock.settings import load_settings
    from penstock.warehouse.imports import About, import_report, record_commit

    commit, when, author = _commit(commit, committed)
    about = About(
        project=project,
        commit=commit,
        branch=branch,
        committed_at=when,
        author=author,
        tool=tool,
        category=category,
        roots=tuple(root or ()),
        base_branch=base,
    )
    failed: list[PenstockError] = []
    store = open_store(load_settings().artifacts_path)
    with writer() as warehouse:
        for path in files:
            try:
                _say_imported(path, about, import_report(warehouse, path, about, store.put_bytes))
            except ReportError as error:
                failed.append(error)
                typer.echo(f"penstock: {error}", err=True)
        if len(failed) < len(files):
            record_commit(warehouse, about)
    if failed:
        raise typer.Exit(ReportError.exit_code)


def _say_imported(path: Path, about: About, brought: list[Imported]) -> None:
    if not brought:
        typer.echo(f"{path}: no run of {about.tool}")
    for one in brought:
        what = f"{one.tool} {one.category}".strip()
        said = f"{one.findings} findings" if one.is_new else "was imported before"
        typer.echo(f"{path}: {printable(what)}: {said}")


def _commit(named: str, committed: str | None) -> tuple[str, datetime, str | None]:
    """
    Hash, time and author of a commit, by git where the commit is in this folder's repository.

    Raises: InputError when neither git nor the caller knows its time.
    """
    if not named or named.startswith("-") or not named.isalnum():
        raise InputError(f'"{named[:60]}" is no commit', where="--commit", remedy="give its hash")
    words = ["git", "show", "-s", "--no-show-signature", "--format=%H%n%cI%n%an", named, "--"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        lines = done.stdout.splitlines() if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    if len(lines) >= 3:
        return lines[0], moment(committed or lines[1]), lines[2]
    if committed is None:
        remedy = "run it in the repository, or give --committed"
        raise InputError(f"it is not known when {named} was made", where="--commit", remedy=remedy)
    return named, moment(committed), None


@contextmanager
def writer() -> Iterator[Warehouse]:
    """A writer of this home's warehouse, with the database up."""
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.warehouse import Warehouse, warehouse_location

    settings = load_settings()
    with hosted_database(settings), Warehouse(warehouse_location(settings)) as warehouse:
        yield warehouse


def suppress(
    fingerprint: Fingerprint,
    *,
    project: Project,
    reason: Annotated[str, typer.Option("--reason", help="Why it need not be acted on.", show_default=False)],
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="It opens again then: 2026-12-31, or 90d.")
    ] = None,
    by: By = None,
) -> None:
    """
    Say that a finding need not be acted on, on every branch of a project, with a reason.

    Examples:

        penstock findings suppress 3fa1b2c4 -p shop --reason "only reached from tests" --until 90d

        penstock findings suppress 3fa1b2c4 -p shop --reason "accepted, see the risk register" --by security@acme
    """
    from penstock.warehouse import Suppression
    from penstock.warehouse.suppressions import suppress as record
    from penstock.warehouse.suppressions import whole_fingerprint

    ends = moment(until) if until else None
    with writer() as warehouse:
        whole = warehouse.write(lambda lake: whole_fingerprint(lake, project, fingerprint.lower()))
        decision = Suppression(
            project=project,
            fingerprint=whole,
            reason=reason,
            created_by=by or getpass.getuser(),
            created_at=datetime.now(UTC),
            until=ends,
        )
        branches = record(warehouse, decision)
    typer.echo(f"{whole} is suppressed{f' until {ends:%Y-%m-%d}' if ends else ''}; it was open on {branches} branches")


def unsuppress(fingerprint: Fingerprint, *, project: Project, by: By = None) -> None:
    """
    Open a finding again that somebody suppressed.

    Examples:

        penstock findings unsuppress 3fa1b2c4 -p shop
    """
    from penstock.warehouse.suppressions import unsuppress as end
    from penstock.warehouse.suppressions import whole_fingerprint

    with writer() as warehouse:
        whole = warehouse.write(lambda lake: whole_fingerprint(lake, project, fingerprint.lower()))
        branches = end(warehouse, project, whole, by=by or getpass.getuser(), at=datetime.now(UTC))
    typer.echo(f"{whole} counts again; it is open on {branches} branches")


def blame(
    fingerprint: Fingerprint,
    *,
    project: Project,
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch that has it.")] = "main",
    repository: Annotated[Path, typer.Option("--repository", metavar="DIR", help="A checkout of it.")] = Path(),
) -> None:
    """
    Print which commit wrote the line of a finding, and who did, by git in a checkout of the repository.

    Examples:

        penstock findings blame 3fa1b2c4 -p shop
    """
    from penstock.findings.blame import blame_line
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.warehouse import connect, warehouse_location
    from penstock.warehouse.listing import locate_finding
    from penstock.warehouse.suppressions import whole_fingerprint

    settings = load_settings()
    with hosted_database(settings), connect(warehouse_location(settings), read_only=True) as lake:
        whole = whole_fingerprint(lake, project, fingerprint.lower())
        place = locate_finding(lake, project, branch, whole)
    found = blame_line(repository, place.commit, place.path, place.line)
    said = {"fingerprint": whole, "path": place.path, "line": place.line}
    written = {"commit": found.commit, "author": found.author, "at": found.at.isoformat()}
    typer.echo(json.dumps({**said, **written}, ensure_ascii=False))
