"""Logs over HTTP: in three forms, from any offset, for as long as the step writes, and no longer."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from api_calls import API, problem_of

from penstock.pipeline import records
from penstock.pipeline.log import FileLog, log_path
from penstock.processes import wait_until
from penstock.settings import Settings
from penstock.steps.context import RunInfo, StepResult

URL = f"{API}/runs/run-1/steps/hello/logs"
NDJSON = {"Accept": "application/x-ndjson"}
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def path(settings: Settings, run: RunInfo) -> Path:
    """Where the running step's log lies."""
    return log_path(settings.home, run.id, "hello")


@pytest.fixture
def written(path: Path) -> bytes:
    """Three lines, one of them Penstock's own, one with a character of several bytes."""
    with FileLog(path) as log:
        log.output("one\nzwölf 🦆\n".encode())
        log.line("done")
    return path.read_bytes()


def end(database: sa.Engine, run: RunInfo) -> None:
    records.finish_step(database, run, "hello", StepResult("succeeded", exit_code=0))


def lines_of(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.text.splitlines() if line]


def test_log_is_read_from_offset_to_offset_as_one_value(api: httpx.Client, path: Path, run: RunInfo, database) -> None:
    """Each line once, complete lines only; complete once the step has ended and nothing is left."""
    url = f"{API}/runs/run-1/steps/hello/log"
    assert api.get(url).json() == {"lines": [], "next_offset": 0, "complete": False}
    with FileLog(path) as log:
        log.output(b"one\ntwo\nthr")
        first = api.get(url).json()
        log.output(b"ee\n")
        log.line("done")
        second = api.get(f"{url}?offset={first['next_offset']}").json()
    assert [line["text"] for line in first["lines"]] == ["one", "two"]
    assert [(line["text"], line["own"]) for line in second["lines"]] == [("three", False), ("done", True)]
    end(database, run)
    last = api.get(f"{url}?offset={second['next_offset']}").json()
    assert last == {"lines": [], "next_offset": second["next_offset"], "complete": True}


def test_text_is_the_file_from_any_byte_on(api: httpx.Client, written: bytes) -> None:
    """Who has received n bytes goes on at offset + n, whatever lies there."""
    for accept in ("*/*", "text/*", "text/plain", "text/html, text/plain;q=0.5", "a/b,*/*;q=.1"):
        for offset in range(0, len(written) + 1, 7):
            answer = api.get(f"{URL}?offset={offset}", headers={"Accept": accept})
            assert (answer.status_code, answer.content) == (200, written[offset:])
            assert answer.headers["content-type"].startswith("text/plain")


def test_every_line_of_ndjson_says_where_to_go_on(api: httpx.Client, written: bytes) -> None:
    """The rest of the log follows from there; from inside of a line it is the next one."""
    answer = api.get(URL, headers={"Accept": "text/plain;q=0.1, application/*"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    told = lines_of(answer)
    assert [(line["text"], line["own"]) for line in told] == [("one", False), ("zwölf 🦆", False), ("done", True)]
    assert told[-1]["next_offset"] == len(written)
    starts = [0, *(int(str(line["next_offset"])) for line in told)]
    for number, (start, following) in enumerate(pairwise(starts)):
        assert lines_of(api.get(f"{URL}?offset={start}", headers=NDJSON)) == told[number:]
        assert lines_of(api.get(f"{URL}?offset={start + 3}", headers=NDJSON)) == told[number + 1 :]
        assert written[start:following].decode().split(" ", 1)[1].strip().removeprefix("» ") == told[number]["text"]


def test_followed_log_has_every_line_and_ends_with_its_step(
    api: httpx.Client, path: Path, run: RunInfo, database: sa.Engine
) -> None:
    """Also what it writes last, from before there was a file; between lines comes a sign of life."""
    with ThreadPoolExecutor() as threads, api.stream("GET", f"{URL}?follow=true", headers=NDJSON) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ""
        with FileLog(path) as log:
            log.output(b"first\n")
            assert json.loads(next(line for line in lines if line))["text"] == "first"
            log.output(b"unfini")
            assert list(islice(lines, 2)) == ["", ""]
            log.output(b"shed\nlast")
        threads.submit(end, database, run).result()
        assert [json.loads(line)["text"] for line in lines if line] == ["unfinished", "last"]


def test_followed_text_is_the_file(api: httpx.Client, path: Path, run: RunInfo, database: sa.Engine) -> None:
    """Byte for byte: no sign of life is mixed in."""

    def write() -> None:
        with FileLog(path) as log:
            for number in range(300):
                log.output(b"line %d\n" % number)
        end(database, run)

    writer = threading.Thread(target=write)
    writer.start()
    received = api.get(f"{URL}?follow=true").content
    writer.join()
    assert received == path.read_bytes()
    assert received.count(b"\n") == 300


def test_log_of_a_step_that_is_at_work_ends_at_once_unless_it_is_followed(api: httpx.Client, written: bytes) -> None:
    """What is there by now."""
    assert api.get(URL).content == written


def events_of(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            event["comment"] = line
        elif line:
            name, _, value = line.partition(": ")
            event[name] = value
        else:
            yield event
            event = {}


def test_events_can_be_resumed_and_say_how_the_step_ended(
    api: httpx.Client, written: bytes, run: RunInfo, database: sa.Engine
) -> None:
    """They follow without being asked to; the id of the last event is where a new connection goes on."""
    with api.stream("GET", URL, headers=EVENTS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        events = events_of(answer.iter_lines())
        first = next(event for event in events if "data" in event)
        rest = [next(event for event in events if "data" in event) for _ in range(2)]
        assert next(events)["comment"].startswith(":")  # a sign of life
    assert [json.loads(event["data"])["text"] for event in (first, *rest)] == ["one", "zwölf 🦆", "done"]
    end(database, run)
    again = list(events_of(iter(api.get(URL, headers={**EVENTS, "Last-Event-ID": first["id"]}).text.splitlines())))
    assert again[:2] == rest
    assert (again[2]["event"], json.loads(again[2]["data"])) == (
        "end",
        {"state": "succeeded", "next_offset": len(written)},
    )
    assert api.get(URL, headers={**EVENTS, "Last-Event-ID": again[2]["id"]}).status_code == 204


def test_client_that_goes_away_ends_its_stream(api: httpx.Client, server: uvicorn.Server, written: bytes) -> None:
    """Nobody looks at the log for it any more."""
    for headers in ({}, NDJSON, EVENTS):
        with (
            httpx.Client(base_url=api.base_url, headers=api.headers, timeout=60, trust_env=False) as client,
            client.stream("GET", f"{URL}?follow=true", headers=headers) as answer,
        ):
            chunks = answer.iter_raw()  # an iterator that nobody holds closes the connection
            next(chunks)
            assert server.server_state.tasks
        assert wait_until(lambda: not server.server_state.tasks, limit_s=60)


def test_offset_beyond_the_end_is_refused(api: httpx.Client, run: RunInfo) -> None:
    """416 with the size that there is, whether there is a log or not."""
    for offset in (1, 10**9, 2**60):
        for name in ("log", "logs"):
            answer = api.get(f"{API}/runs/run-1/steps/hello/{name}?offset={offset}", headers=NDJSON)
            assert "0 bytes" in problem_of(answer, 416)
            assert answer.headers["content-range"] == "bytes */0"


BAD_REQUESTS: tuple[tuple[str, dict[str, str], int, str], ...] = (
    ("?offset=-1", {}, 422, "query.offset"),
    ("?offset=x", {}, 422, "query.offset"),
    (f"?offset={10**30}", {}, 422, "query.offset"),
    ("?follow=maybe", {}, 422, "query.follow"),
    ("", {"Accept": "text/html"}, 406, "text/plain"),
    ("", {"Accept": "text/plain;q=0"}, 406, "text/plain"),
    ("", {"Accept": "text/plain;q=x,,;"}, 406, "text/plain"),
    ("", {**EVENTS, "Last-Event-ID": "x"}, 422, "Last-Event-ID"),
    ("", {**EVENTS, "Last-Event-ID": "-1"}, 422, "Last-Event-ID"),
    ("", {**EVENTS, "Last-Event-ID": "9" * 40}, 422, "Last-Event-ID"),
)


def test_bad_requests_for_a_log_are_refused(api: httpx.Client, run: RunInfo) -> None:
    """With what would be right."""
    for query, headers, status, told in BAD_REQUESTS:
        assert told in problem_of(api.get(URL + query, headers=headers), status), (query, headers)


def test_log_of_a_step_that_is_none_is_not_found(api: httpx.Client, run: RunInfo) -> None:
    """No file is read by what a caller calls a step."""
    for step in ("other", "..%2F..%2Ftoken", "%2e%2e", "hello%2F..%2Fhello", "hello.log"):
        for name in ("log", "logs"):
            problem_of(api.get(f"{API}/runs/run-1/steps/{step}/{name}"), 404)


def test_bytes_that_are_no_text_are_replaced(api: httpx.Client, path: Path, run: RunInfo) -> None:
    """Also in a file that something damaged; the stream goes on behind them."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"2026-01-01T00:00:00.000Z \xff\xfe\0\n\n\xff\n2026-01-01T00:00:00.000Z after\n")
    texts = [line["text"] for line in lines_of(api.get(URL, headers=NDJSON))]
    assert (texts[0], texts[-1], len(texts)) == ("\N{REPLACEMENT CHARACTER}" * 2 + "\0", "after", 4)
    assert api.get(URL).content == path.read_bytes()


def test_line_without_an_end_is_given_in_pieces(api: httpx.Client, path: Path, run: RunInfo) -> None:
    """Of a MiB each: whatever a step prints, what the API holds of it is bounded."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"2026-01-01T00:00:00.000Z " + b"x" * 3 * 1024 * 1024 + b"\nnow after\n")
    told = lines_of(api.get(URL, headers=NDJSON))
    assert [line["next_offset"] for line in told[:3]] == [1024 * 1024, 2 * 1024 * 1024, 3 * 1024 * 1024]
    assert told[-1]["text"] == "after"


def test_long_log_arrives_whole(api: httpx.Client, path: Path, run: RunInfo) -> None:
    """Of many blocks, whose ends lie anywhere in lines and characters."""
    with FileLog(path) as log:
        for number in range(30_000):
            log.output(f"zeile {number} {'ä' * (number % 40)}\n".encode())
    assert api.get(URL).content == path.read_bytes()
    numbers = [int(str(line["text"]).split()[1]) for line in lines_of(api.get(URL, headers=NDJSON))]
    assert numbers == list(range(30_000))
