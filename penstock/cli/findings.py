"""`penstock findings`: read, compare and rewrite scanners' reports; `findings_kept` has what the warehouse keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli import findings_kept
from penstock.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from penstock.findings import Finding, Quarantined, Scope, Summary
    from penstock.findings.baseline import Diff

app = typer.Typer(name="findings", help="Read, compare, list and suppress what scanners found.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="SARIF 2.1.0 reports.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Root = Annotated[
    list[str] | None,
    typer.Option(
        "--root", metavar="DIR", help="Where the repository was checked out when the scanner ran; repeatable."
    ),
]
Category = Annotated[
    str | None, typer.Option("--category", help="What the reports are about; by default what they say themselves.")
]
SourceA = Annotated[Path | None, typer.Option("--source-a", metavar="DIR", help="The code that A is about.")]
SourceB = Annotated[Path | None, typer.Option("--source-b", metavar="DIR", help="The code that B is about.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Rows of the table; 0 shows all.")]
_QUARANTINED_SHOWN = 3
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}


@app.callback()
def findings() -> None:
    """Read, compare, list and suppress what scanners found."""


@app.command()
def read(files: Files, as_json: Json = False, root: Root = None, category: Category = None, limit: Limit = 100) -> None:
    """
    Print the findings of reports, and how many there are.

    A report that cannot be read is one line on standard error; the others are read, and the exit code is 2.

    Examples:

        penstock findings read trivy.sarif semgrep.sarif
        penstock findings read --json report.sarif
        penstock findings read --root /builds/shop/web --category web eslint.sarif
    """
    from penstock.findings import Summary

    scope = _scope(root, category)
    total, failed, shown = Summary(), [], []
    for path in files:
        try:
            summary, some = _print_lines(path, scope) if as_json else _take(path, scope)
        except ReportError as error:
            failed.append(error)
            typer.echo(f"penstock: {error}", err=True)
        else:
            total += summary
            shown += some
    if len(failed) < len(files):
        _print_summary(total, len(files), len(failed)) if as_json else _print_findings(shown, total, limit)
    if failed:
        raise typer.Exit(ReportError.exit_code)


def _scope(root: list[str] | None, category: str | None) -> Scope:
    from penstock.findings import Scope

    return Scope(roots=tuple(root or ()), category=category)


def _print_lines(path: Path, scope: Scope) -> tuple[Summary, list[Finding]]:
    """One JSON line per finding, printed as they are read, so that memory does not grow with a large report."""
    import msgspec

    from penstock.findings import open_report
    from penstock.findings.finding import FindingLine

    stream = open_report(path, scope=scope)
    encode = msgspec.json.Encoder().encode_lines
    for portion in stream.portions():
        typer.echo(encode([FindingLine.of(finding) for finding in portion]), nl=False)
    _print_quarantined(path, stream.quarantined)
    return stream.summary, []


def _take(path: Path, scope: Scope) -> tuple[Summary, list[Finding]]:
    from penstock.findings import open_report

    stream = open_report(path, scope=scope)
    found = [finding for portion in stream.portions() for finding in portion]
    _print_quarantined(path, stream.quarantined)
    return stream.summary, found


def _print_quarantined(path: Path, quarantined: Sequence[Quarantined]) -> None:
    for one in quarantined[:_QUARANTINED_SHOWN]:
        place = f"runs[{one.run}].results[{one.index}]"
        typer.echo(f"penstock: {path}: {place} is left out: {_printable(one.reason)}", err=True)
    more = len(quarantined) - _QUARANTINED_SHOWN
    if more > 0:
        typer.echo(f"penstock: {path}: {more} more results are left out", err=True)


def _print_summary(total: Summary, files: int, failed: int) -> None:
    counts = {
        "files": files,
        "files_failed": failed,
        "results": total.results,
        "findings": total.findings,
        "not_findings": total.not_findings,
        "quarantined": total.quarantined,
        "suppressed": total.suppressed,
        "severities": total.severities,
    }
    typer.echo(json.dumps({"summary": counts}))


def _print_findings(found: list[Finding], total: Summary, limit: int) -> None:
    ordered = _worst_first(found)
    shown = ordered[:limit] if limit else ordered
    if shown:
        _print_table(_table(shown))
    if len(shown) < len(found):
        typer.echo(f"{len(found) - len(shown)} more; --limit 0 shows all, --json prints them for programs")
    by_severity = ", ".join(f"{count} {name}" for name, count in total.severities.items() if count)
    parts = [f"{total.findings} findings" + (f" ({by_severity})" if by_severity else "")]
    parts += [f"{total.suppressed} of them suppressed"] if total.suppressed else []
    parts += [f"{total.not_findings} results are no findings"] if total.not_findings else []
    parts += [f"{total.quarantined} broken results left out"] if total.quarantined else []
    typer.echo("; ".join(parts))


def _table(found: Iterable[Finding], heading: str | None = None) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", pad_edge=False, expand=True)
    for name, ratio in (("severity", None), ("tool", 2), ("rule", 4), ("where", 5), ("message", 8)):
        table.add_column(name, ratio=ratio, overflow="fold" if name == "where" else "ellipsis", no_wrap=name != "where")
    for one in found:
        severity = Text(one.severity, style=_STYLES[one.severity])
        severity.append(" (suppressed)" if one.suppressed else "", style="dim")
        cells = (one.tool, one.rule_id, _where(one), one.message)
        table.add_row(severity, *(Text(_printable(cell)) for cell in cells))
    return table


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _where(one: Finding) -> str:
    place = one.path or one.logical_location or ""
    place = f"{place}:{one.line}" if one.path and one.line else place
    return f"{place} {one.package}".strip() if one.package and one.package not in place else place


def _printable(text: str) -> str:
    return findings_kept.printable(text)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="The report of the older commit.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="The report of the newer commit.", show_default=False)],
    *,
    as_json: Json = False,
    source_a: SourceA = None,
    source_b: SourceB = None,
    root: Root = None,
    category: Category = None,
) -> None:
    """
    Print what B introduced and fixed, compared with A.

    With the sources of both commits, findings are followed through moved, renamed and edited code. Without, the
    reports alone have to do.

    Examples:

        penstock findings diff main.sarif branch.sarif
        penstock findings diff --source-a ../main --source-b . main.sarif branch.sarif
        penstock findings diff --json main.sarif branch.sarif
    """
    from penstock.findings import read_report
    from penstock.findings.baseline import diff_findings
    from penstock.findings.checkout import folder_source

    scope = _scope(root, category)
    sources = [None if folder is None else folder_source(folder) for folder in (source_a, source_b)]
    reports = [read_report(path, scope=scope) for path in (before, after)]
    found = diff_findings(reports[0].findings, reports[1].findings, *sources)
    (_print_diff_lines if as_json else _print_diff)(found)


def _print_diff_lines(found: Diff) -> None:
    import msgspec

    from penstock.findings.finding import FindingLine

    changes = {"introduced": found.introduced, "fixed": found.fixed, "unchanged": found.unchanged}
    for change, some in changes.items():
        for one in some:
            line = {"change": change, **msgspec.to_builtins(FindingLine.of(one))}
            typer.echo(msgspec.json.encode(line).decode())
    counts = {change: len(some) for change, some in changes.items()}
    typer.echo(json.dumps({"summary": {**counts, "matched_by": dict(found.tiers)}}))


def _print_diff(found: Diff) -> None:
    for heading, some in (("introduced", found.introduced), ("fixed", found.fixed)):
        if some:
            _print_table(_table(_worst_first(some), heading))
    counts = f"{len(found.introduced)} introduced, {len(found.fixed)} fixed, {len(found.unchanged)} unchanged"
    tiers = ", ".join(f"{count} by {tier}" for tier, count in found.tiers.items())
    typer.echo(f"{counts} (matched {tiers})" if tiers else counts)


@app.command()
def export(
    files: Files,
    *,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Write SARIF 2.1.0.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default standard output.")
    ] = None,
    root: Root = None,
    category: Category = None,
) -> None:
    """
    Write the findings of reports as one document: made regular, paths relative, severities settled.

    All reports must be readable, for the document would not tell what is missing.

    Examples:

        penstock findings export --sarif -o all.sarif trivy.sarif semgrep.sarif
        penstock findings export --csv report.sarif
    """
    from penstock.errors import InputError
    from penstock.findings.sheet import to_csv
    from penstock.findings.write import to_sarif

    if as_sarif == as_csv:
        raise InputError("one format is needed", where="findings export", remedy="give --sarif or --csv")
    scope = _scope(root, category)
    found = [one for path in files for one in _take(path, scope)[1]]
    data = to_sarif(found) + b"\n" if as_sarif else to_csv(found).encode()
    if output is None:
        typer.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", where=str(output), remedy="check the folder"
        ) from error


app.command("list")(findings_kept.list_command)
app.command("import")(findings_kept.import_command)
app.command("suppress")(findings_kept.suppress)
app.command("unsuppress")(findings_kept.unsuppress)
app.command("blame")(findings_kept.blame)


def _worst_first(found: Iterable[Finding]) -> list[Finding]:
    from penstock.findings.finding import SEVERITY_RANK

    return sorted(found, key=lambda one: (SEVERITY_RANK[one.severity], one.path or "", one.line or 0))
