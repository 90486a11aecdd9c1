"""Probes against real sockets, and counting their answers."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock.deploy.health import HealthCheck, HealthCount, ProbeResult, check_health, gap_s, judge_answer, probe
from penstock.errors import InputError

GOOD, BAD = ProbeResult(True, "good"), ProbeResult(False, "bad")


@contextmanager
def answering(*chunks: bytes, every_s: float = 0.0) -> Iterator[int]:
    """A server that sends these bytes to its first client, with a pause before each but the first."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.recv(4096)
            for chunk in chunks:
                try:
                    client.sendall(chunk)
                except OSError:
                    return
                time.sleep(every_s)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_http_200_is_good_and_quoted():
    """The answer's status and the beginning of its body stand in the result."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as port:
        assert probe(HealthCheck(), port) == ProbeResult(True, f'GET http://127.0.0.1:{port}/: 200 "ok"')


@pytest.mark.parametrize(("status", "good"), [(204, True), (302, True), (404, False), (503, False)])
def test_status_decides(status, good):
    """200 to 399 count as an answer, the rest does not."""
    assert judge_answer(f"HTTP/1.1 {status} x\r\n\r\n".encode(), "GET /").good is good


def test_body_of_a_bad_answer_is_told():
    """Why a service is unhealthy is what it says itself, on one line, printable and short."""
    result = judge_answer(b"HTTP/1.1 503 x\r\n\r\nno\ndatabase\x1b[2J" + b"x" * 999, "GET /health")
    assert result.text.startswith('GET /health: 503 "no database?[2J')
    assert len(result.text) < 250


def test_chunked_body_is_told_without_its_sizes():
    """A chunk's length is not what the service said."""
    answer = b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nalarm\r\n0\r\n\r\n"
    assert judge_answer(answer, "GET /").text == 'GET /: 500 "alarm"'


def test_something_that_speaks_no_http():
    """It listens, but it is no web service."""
    with answering(b"SSH-2.0-x\r\n") as port:
        result = probe(HealthCheck(), port)
    assert not result.good
    assert 'no HTTP: "SSH-2.0-x"' in result.text


def test_closed_without_an_answer():
    """A connection that is closed is a failure of its own."""
    with answering() as port:
        assert probe(HealthCheck(), port).text.endswith("closed without an answer")


def test_nobody_listens():
    """Refused connections are an answer, not an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = probe(HealthCheck(), port)
    assert result == ProbeResult(False, f"GET http://127.0.0.1:{port}/: connection refused")


def test_dripping_answer_ends_at_the_time_limit():
    """Every byte is in time, the whole is not: the limit holds for the whole."""
    with answering(*[b"x"] * 30, every_s=0.1) as port:
        result = probe(HealthCheck(timeout_s=0.3), port)
    assert result.text.endswith("no answer within 0.3 s")


def test_tcp_only_connects():
    """Whoever accepts is good."""
    with answering() as port:
        assert probe(HealthCheck(kind="tcp"), port).text == f"connect to 127.0.0.1:{port}: connected"


def test_enough_good_answers_in_a_row_are_healthy():
    """A failure in between starts the count anew."""
    count = HealthCount(HealthCheck(healthy_after=2))
    for result, verdict in [(GOOD, "waiting"), (BAD, "waiting"), (GOOD, "waiting"), (GOOD, "healthy")]:
        count = count.after(result, 1.0)
        assert count.verdict == verdict


def test_failures_in_the_start_period_do_not_count():
    """A slow starter is asked and forgiven until its period is over."""
    count = HealthCount(HealthCheck(start_period_s=10, unhealthy_after=1, interval_s=1))
    for age_s in (0.1, 5.0, 9.9, 10.9):
        count = count.after(BAD, age_s)
        assert count.verdict == "waiting"
    assert count.after(BAD, 11.0).verdict == "unhealthy"


def test_failures_count_once_per_interval():
    """Asking every 20 ms at the beginning must not condemn a service after 60 ms."""
    count = HealthCount(HealthCheck(start_period_s=0, unhealthy_after=3, interval_s=1))
    for n in range(1, 140):
        count = count.after(BAD, n * 0.02)
        assert count.verdict == "waiting"
    assert count.after(BAD, 3.1).verdict == "unhealthy"


def test_first_probes_come_quickly_and_later_ones_at_the_interval():
    """At most 50 ms apart at first; never slower than the interval, after however many."""
    check = HealthCheck(interval_s=2)
    assert all(gap_s(check, asked) <= 0.05 for asked in range(5))
    assert gap_s(check, 100_000) == 2


@pytest.mark.parametrize(
    ("check", "where"),
    [
        (HealthCheck(path="health"), "health.path"),
        (HealthCheck(path="/a b"), "health.path"),
        (HealthCheck(path="/\r\nX: y"), "health.path"),
        (HealthCheck(path=""), "health.path"),
        (HealthCheck(interval_s=0), "health.interval_s"),
        (HealthCheck(timeout_s=float("inf")), "health.timeout_s"),
        (HealthCheck(timeout_s=float("nan")), "health.timeout_s"),
        (HealthCheck(healthy_after=0), "health.healthy_after"),
        (HealthCheck(unhealthy_after=-1), "health.unhealthy_after"),
        (HealthCheck(start_period_s=-1), "health.start_period_s"),
    ],
)
def test_check_that_cannot_be_done_is_refused(check, where):
    """The message names the field."""
    with pytest.raises(InputError) as error:
        check_health(check, where="health")
    assert error.value.where == where
