"""`penstock events`: what came in, and what a delivery of a forge means."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from attrs import frozen

from penstock.errors import EventError, InputError, PenstockError
from penstock.forges.event import GitEvent, Ignored, Parsed
from penstock.forges.registry import forge_named, leading

if TYPE_CHECKING:
    from penstock.events.inbox import EventRecord
    from penstock.webhooks.deliveries import Delivery, State

app = typer.Typer(no_args_is_help=True, help="Git events of the connected forges.")

_STREAM = "-"
WIDE = 400  # columns, where the output is no terminal


class _Line(msgspec.Struct, frozen=True):
    """One line of a stream; body is the payload as an object, or its exact text as a string."""

    body: msgspec.Raw
    forge: str | None = None
    event: str | None = None
    headers: dict[str, Any] | None = None


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed for an event: always these keys, null where there is nothing to say."""

    forge: str
    kind: str
    repository: str | None = None
    ref: str | None = None
    commit: str | None = None
    before: str | None = None
    number: int | None = None
    source: str | None = None
    target: str | None = None
    fork: bool | None = None
    action: str | None = None
    reason: str | None = None


class SeveralEventsLine(EventLine, frozen=True, kw_only=True):
    """The same for a delivery that changed more than one ref; the further ones are under `also`."""

    also: tuple[EventLine, ...]


@app.callback()
def events() -> None:
    """Git events of the connected forges."""


@app.command("list")
def list_(
    *,
    project: Annotated[str | None, typer.Option("--project", help="Of this project alone.")] = None,
    ignored: Annotated[
        bool, typer.Option("--ignored", help="Only what started nothing, also of deliveries that were rejected.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """
    List events, the newest first, with what became of each and why.

    Examples:

        penstock events list
        penstock events list --ignored --project shop
    """
    from penstock.events.inbox import list_events
    from penstock.settings import load_settings
    from penstock.state.database import hosted_database
    from penstock.webhooks.deliveries import list_deliveries

    with hosted_database(load_settings()) as database:
        found = list_events(database, project=project, state="ignored" if ignored else None, limit=limit)
        states: tuple[State, ...] = ("ignored", "rejected")
        left_out = list_deliveries(database, project=project, states=states, limit=limit) if ignored else ()
    rows = [*map(_event_row, found), *map(_delivery_row, left_out)]
    _print_rows(sorted(rows, key=lambda row: row.at, reverse=True)[:limit])


@frozen
class _Row:
    """What is listed of an event, or of a delivery that made none."""

    at: datetime
    cells: tuple[str, ...]


def _event_row(event: EventRecord) -> _Row:
    became = f"run {event.run_id[:8]}" if event.run_id else event.state
    what = (f"event {event.id}", event.project, event.kind, event.ref, event.commit[:12], became, event.reason or "")
    return _Row(event.received_at, what)


def _delivery_row(delivery: Delivery) -> _Row:
    told = next(iter(delivery.events), {})
    of = (str(told.get("ref") or ""), str(told.get("commit") or "")[:12])
    what = (f"delivery {delivery.id}", delivery.project, str(told.get("kind") or ""), *of, delivery.state)
    return _Row(delivery.received_at, (*what, delivery.reason or ""))


def _print_rows(rows: Sequence[_Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from penstock.cli.findings_kept import printable

    titles = ("what", "project", "kind", "ref", "commit", "became", "why", "came")
    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row.cells), f"{row.at:%Y-%m-%d %H:%M:%S}")
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


@app.command(no_args_is_help=True)
def parse(
    forge: Annotated[
        str, typer.Argument(metavar="[FORGE]", help="github, gitlab, bitbucket-cloud, …; may be left out with -.")
    ],
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A payload; - reads JSON lines.")] = None,
    event: Annotated[str | None, typer.Option(help="The event's name, where no header gives it.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="K=V; may be given again.")] = None,
) -> None:
    """
    Print what a webhook delivery means, as JSON.

    FILE - reads JSON lines of {forge, event, headers, body} and prints one line each, in their order.
    Exits 2 when a payload is no event of its forge; the other lines are printed all the same.

    Examples:

        penstock events parse github --event push push.json

        penstock events parse gitlab --header X-Gitlab-Event="Push Hook" push.json

        penstock events parse - < deliveries.jsonl
    """
    headers = _headers(header or [])
    if file == _STREAM or (forge == _STREAM and file is None):
        default_forge = forge if forge != _STREAM else None
        if not _print_stream(sys.stdin.buffer, default_forge, event, headers):
            raise typer.Exit(EventError.exit_code)
    else:
        _print_file(forge, file, event, headers)


def _headers(pairs: list[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, parted, value = pair.partition("=")
        if not parted or not name.strip():
            raise InputError(f'--header "{pair}" is not K=V', remedy="write --header X-GitHub-Event=push")
        headers[name.strip()] = value
    return headers


def _print_file(forge: str, file: str | None, event: str | None, headers: Mapping[str, str]) -> None:
    if file is None:
        raise InputError(f'no FILE after "{forge}"', remedy="write penstock events parse FORGE FILE")
    try:
        body = Path(file).read_bytes()
    except OSError as fault:
        raise InputError(fault.strerror or "cannot be read", where=file, remedy="name a readable file") from fault
    typer.echo(msgspec.json.encode(_line_for(forge, body, event, headers)).decode())


def _print_stream(lines: Iterable[bytes], forge: str | None, event: str | None, headers: Mapping[str, str]) -> bool:
    """Prints one line for each that is not blank. Returns: False where any was refused."""
    all_understood = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            answer: msgspec.Struct | dict[str, str] = _answer(line, forge, event, headers)
        except PenstockError as fault:
            all_understood = False
            answer = {"error": f"line {number}: {fault}"}
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()
    return all_understood


def _answer(line: bytes, forge: str | None, event: str | None, headers: Mapping[str, str]) -> EventLine:
    try:
        told = msgspec.json.decode(line, type=_Line)
        body = _body(bytes(told.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise EventError(f"no JSON object of forge, event, headers and body: {fault}") from fault
    name = told.forge or forge
    if name is None:
        raise EventError('the line has no "forge"')
    own = {key: _header_text(value) for key, value in (told.headers or {}).items() if value}
    return _line_for(name, body, told.event or event, {**headers, **own})


def _header_text(value: object) -> str:
    # Recorders that keep repeated headers apart write lists; what we read comes once.
    return str(value[0] if isinstance(value, list) else value)


def _body(raw: bytes) -> bytes:
    if not raw.startswith(b'"'):
        return raw
    return msgspec.json.decode(raw, type=str).encode("utf-8", "replace")


def _line_for(forge: str, body: bytes, event: str | None, headers: Mapping[str, str]) -> EventLine:
    told = leading(forge_named(forge).parse_all(body, headers, event))
    first, *also = (_event_line(forge, each) for each in told)
    if not also:
        return first
    return SeveralEventsLine(**msgspec.structs.asdict(first), also=tuple(also))


def _event_line(forge: str, parsed: Parsed) -> EventLine:
    if isinstance(parsed, Ignored):
        return EventLine(forge=forge, kind="ignored", reason=parsed.reason)
    return _git_event_line(parsed)


def _git_event_line(event: GitEvent) -> EventLine:
    request = event.pull_request
    return EventLine(
        forge=event.forge,
        kind=event.kind,
        repository=event.repository,
        ref=event.ref,
        commit=event.commit,
        before=event.before,
        number=request.number if request else None,
        source=request.source if request else None,
        target=request.target if request else None,
        fork=request.fork if request else None,
        action=event.action,
    )
