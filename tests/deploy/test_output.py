"""Output of instances in files with a bound."""

import os

from penstock.deploy.output import BoundedLog, pump, tail


def test_log_never_grows_past_its_bound(tmp_path):
    """A chatty service fills no disk, and its newest lines are there."""
    writing, thread = pump(BoundedLog(tmp_path / "a.log", limit_bytes=100_000))
    with os.fdopen(writing, "wb") as pipe:
        for number in range(100_000):
            pipe.write(b"line %d\n" % number)
    thread.join()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000 + 65_536
    assert tail(tmp_path / "a.log", 2) == ["line 99998", "line 99999"]


def test_log_goes_on_where_it_was(tmp_path):
    """A restarted instance writes behind what the former one wrote."""
    for text in (b"one\n", b"two\n"):
        log = BoundedLog(tmp_path / "a.log")
        log.write(text)
        log.close()
    assert tail(tmp_path / "a.log", 5) == ["one", "two"]


def test_tail_of_what_is_not_there(tmp_path):
    """No file, no lines."""
    assert tail(tmp_path / "none.log", 5) == []


def test_tail_of_bytes_that_are_no_text(tmp_path):
    """What cannot be decoded is marked, blank lines are left out."""
    (tmp_path / "a.log").write_bytes(b"\n\xff\xfe\n\n  \nlast")
    assert tail(tmp_path / "a.log", 5) == ["\ufffd\ufffd", "last"]


def test_tail_of_one_endless_line(tmp_path):
    """Reading the end of a big file reads only the end."""
    (tmp_path / "a.log").write_bytes(b"x" * 5_000_000)
    (line,) = tail(tmp_path / "a.log", 5)
    assert len(line) == 32_768
