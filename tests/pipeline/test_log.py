"""A step's log: complete while it is small, bounded when it is not, readable at any moment."""

import threading
from pathlib import Path

from penstock.pipeline.log import KEPT_BYTES, FileLog, read_log


def texts(path: Path, offset: int = 0) -> list[str]:
    return [line.text for line in read_log(path, offset=offset, limit_bytes=1 << 30)[0]]


def test_lines_come_back_with_their_time_and_origin(tmp_path: Path):
    """Penstock's own lines can be told from the step's."""
    with FileLog(tmp_path / "a" / "step.log") as log:
        log.line("started")
        log.output(b"hello\n")
    (own, printed), _ = read_log(tmp_path / "a" / "step.log")
    assert (own.text, own.own, printed.text, printed.own) == ("started", True, "hello", False)
    assert printed.at.endswith("Z")
    assert len(printed.at) == len("2026-01-01T00:00:00.000Z")


def test_lines_are_put_together_from_pieces(tmp_path: Path):
    """Bytes come as the pipe gives them: in the middle of lines, of characters, several lines at once."""
    seen: list[str] = []
    with FileLog(tmp_path / "step.log", seen.append) as log:
        for byte in "grün\r\nund\nweiß".encode():
            log.output(bytes([byte]))
        assert seen == ["grün", "und"]
        assert log.tail(2) == ("und", "weiß")
    assert texts(tmp_path / "step.log") == ["grün", "und", "weiß"]


def test_binary_output_is_kept_as_text(tmp_path: Path):
    """What is no UTF-8 is replaced; nothing is lost around it and the file stays readable line by line."""
    with FileLog(tmp_path / "step.log") as log:
        log.output(b"before\n" + bytes(range(256)) + b"\nafter\n")
    found = texts(tmp_path / "step.log")
    assert (found[0], found[-1], len(found)) == ("before", "after", 4)


def test_line_without_end_is_cut(tmp_path: Path):
    """A step that never prints a newline does not fill the memory."""
    with FileLog(tmp_path / "step.log") as log:
        for _ in range(50):
            log.output(b"x" * 64 * 1024)
        assert len(texts(tmp_path / "step.log")) >= 24
    assert sum(map(len, texts(tmp_path / "step.log"))) == 50 * 64 * 1024


def test_chatty_step_cannot_fill_the_disk(tmp_path: Path):
    """After 16 MiB the beginning and the last lines are there, with a line that says how many are not."""
    path = tmp_path / "step.log"
    count = 300_000
    with FileLog(path) as log:
        for first in range(0, count, 1000):
            log.output(
                b"".join(
                    b"line %06d of a chatty step that prints and prints and prints\n" % n
                    for n in range(first, first + 1000)
                )
            )
        assert path.stat().st_size <= KEPT_BYTES
    found = texts(path)
    assert path.stat().st_size < KEPT_BYTES + 64 * 1024
    assert found[0].startswith("line 000000")
    assert found[-1].startswith(f"line {count - 1:06}")
    (place,) = [place for place, text in enumerate(found) if "were not kept" in text]
    assert len(found) - place - 1 == 200
    lost = int(found[place].split()[0])
    assert place + lost + 200 == count
    assert found[:place] == sorted(found[:place])


def test_small_line_after_a_large_one_does_not_overtake_it(tmp_path: Path):
    """Once lines are held back, all later ones are: the order of a log is the order of printing."""
    path = tmp_path / "step.log"
    with FileLog(path) as log:
        while path.stat().st_size < KEPT_BYTES - 300_000:
            log.output(b"y" * 60_000 + b"\n")
        log.output(b"".join(b"z" * 60_000 + b"\n" for _ in range(10)))
        log.output(b"last\n")
    found = texts(path)
    assert found[-1] == "last"
    assert path.stat().st_size < KEPT_BYTES + 2 * 1024 * 1024


def test_reader_goes_on_where_it_stopped(tmp_path: Path):
    """A page that follows a log reads each line once, and never half a line."""
    path = tmp_path / "step.log"
    assert read_log(path) == ((), 0)
    with FileLog(path) as log:
        log.output(b"one\ntw")
        first, offset = read_log(path)
        log.output(b"o\nthree\n")
        second, end = read_log(path, offset=offset)
    assert [line.text for line in (*first, *second)] == ["one", "two", "three"]
    assert read_log(path, offset=end) == ((), end)


def test_reader_takes_no_more_than_it_is_allowed(tmp_path: Path):
    """Pieces of a long log, put together, are the log."""
    path = tmp_path / "step.log"
    with FileLog(path) as log:
        log.output(b"".join(b"line %d\n" % number for number in range(500)))
    found, offset = [], 0
    while True:
        lines, offset = read_log(path, offset=offset, limit_bytes=1000)
        if not lines:
            break
        found += [line.text for line in lines]
    assert found == [f"line {number}" for number in range(500)]


def test_second_attempt_is_appended(tmp_path: Path):
    """A rerun step has one log, with the limit for both together."""
    for text in (b"first\n", b"second\n"):
        with FileLog(tmp_path / "step.log") as log:
            log.output(text)
    assert texts(tmp_path / "step.log") == ["first", "second"]


def test_several_threads_write_whole_lines(tmp_path: Path):
    """Penstock's own lines never cut the step's."""
    with FileLog(tmp_path / "step.log") as log:
        threads = [threading.Thread(target=log.line, args=(f"own {n}\nand more",)) for n in range(50)]
        for thread in threads:
            thread.start()
            log.output(b"printed\n")
        for thread in threads:
            thread.join()
    found = texts(tmp_path / "step.log")
    assert len(found) == 150
    assert {text.split()[0] for text in found} == {"own", "and", "printed"}
