"""`penstock events`: what a delivery of a forge means, without a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from penstock.errors import EventError, InputError, PenstockError
from penstock.forges.event import GitEvent, Ignored, Parsed
from penstock.forges.registry import forge_named, leading

app = typer.Typer(no_args_is_help=True, help="Git events of the connected forges.")

_STREAM = "-"


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
