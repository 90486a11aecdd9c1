"""JUnit XML, as runners really write it."""

from pathlib import Path

import pytest

from penstock.errors import ReportError
from penstock.pipeline.junit import CaseResult, failures_in_words, read_junit

PYTEST = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.test_basket" name="test_total" time="0.01"/>
<testcase classname="tests.test_basket" name="test_tax[ü]" time="1,234.5">
<failure message="assert 1 == 2">trace</failure></testcase>
<testcase classname="" name="test_collect" time="nan"><error>boom\n</error></testcase>
<testcase classname="tests.test_basket" name="test_later"><skipped message="later"/></testcase>
</testsuite></testsuites>"""


def report(folder: Path, text: str | bytes) -> Path:
    path = folder / "junit.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_test_has_its_state(tmp_path: Path):
    """Passed, failed, could not run, skipped; seconds only where they are a number."""
    found = read_junit(report(tmp_path, PYTEST))
    assert [case.state for case in found] == ["passed", "failed", "error", "skipped"]
    assert [case.label for case in found][:2] == ["tests.test_basket::test_total", "tests.test_basket::test_tax[ü]"]
    assert [case.seconds for case in found] == [0.01, 1234.5, None, None]
    assert [case.message for case in found] == ["", "assert 1 == 2", "boom", "later"]


def test_single_suite_is_read_too(tmp_path: Path):
    """Surefire writes one file per suite, without <testsuites>."""
    found = read_junit(report(tmp_path, '<testsuite><testcase name="a" file="a.js"/></testsuite>'))
    assert found == (CaseResult("", "a", "passed", file="a.js"),)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no XML"),
        ("<testsuites>", "no XML"),
        ("{}", "no XML"),
        (b"\x00\x01\x02", "no XML"),
        ("<html/>", "starts with <html>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><testsuites/>', "declares entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><testsuites/>', "declares entities"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path: Path, text: str | bytes, what: str):
    """It names the file."""
    with pytest.raises(ReportError) as caught:
        read_junit(report(tmp_path, text))
    assert what in str(caught.value)
    assert str(caught.value).startswith("junit.xml: ")


def test_entities_in_another_encoding_expand_to_nothing(tmp_path: Path):
    """Hidden in UTF-16 they do not get past the reader into memory or files."""
    bomb = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">'
    bomb += "".join(f'<!ENTITY c{n + 1} "{f"&c{n};" * 20}">' for n in range(12)) + '<!ENTITY c0 "lol">]>'
    bomb += '<testsuites><testcase name="a"><failure>&c12;</failure></testcase></testsuites>'
    with pytest.raises(ReportError):
        read_junit(report(tmp_path, bomb.encode("utf-16")))


def test_huge_report_is_refused(tmp_path: Path):
    """More than 64 MB is no report that somebody reads."""
    path = tmp_path / "junit.xml"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(ReportError, match="larger than 64 MB"):
        read_junit(path)


def test_failures_are_named_up_to_five():
    """A reason stays one line."""
    cases = [CaseResult("s", f"t{n}", "failed") for n in range(7)] + [CaseResult("s", "ok", "passed")]
    assert failures_in_words(cases) == "7 of 8 tests failed: s::t0, s::t1, s::t2, s::t3, s::t4 and 2 more"
    assert failures_in_words(cases[7:]) == ""
