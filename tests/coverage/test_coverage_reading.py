"""Reports of coverage as tools write them, and as nobody should."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.coverage import FileCoverage, merged, read_coverage, summarise
from penstock.errors import ReportError

COBERTURA = b"""<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM 'http://cobertura.sourceforge.net/xml/coverage-04.dtd'>
<coverage line-rate="0.75" branch-rate="0.5" version="7.6" timestamp="1">
 <sources><source>/workspace/shop</source></sources>
 <packages><package name="."><classes>
  <class name="basket.py" filename="basket.py"><methods><method name="f"><lines><line number="1" hits="1"/></lines>
   </method></methods><lines>
   <line number="1" hits="1"/><line number="2" hits="0"/>
   <line number="3" hits="4" branch="true" condition-coverage="50% (1/2)"/><line number="9" hits="1"/></lines></class>
  <class name="Inner" filename="basket.py"><methods/><lines><line number="9" hits="0"/><line number="12" hits="0"/>
   </lines></class>
  <class name="tax.py" filename="tax.py"><methods/><lines/></class>
 </classes></package></packages></coverage>"""

LCOV = b"""TN:unit
SF:/workspace/src/a.js
FN:1,f
DA:1,5
DA:2,0
DA:3,0,abc
BRDA:2,0,0,-
BRDA:2,0,1,3
LF:3
end_of_record
TN:browser
SF:/workspace/src/a.js
DA:2,7
DA:9,0
BRDA:2,0,0,1
end_of_record
SF:src\\b.js
DA:1,0
DA:broken
DA:2,many
end_of_record
"""

COVERAGE_PY = json.dumps(
    {
        "meta": {"version": "7.6"},
        "files": {
            "shop/basket.py": {
                "summary": {"covered_lines": 8, "num_statements": 10, "num_branches": 4, "covered_branches": 3}
            },
            "/workspace/shop/tax.py": {"summary": {"covered_lines": 3, "num_statements": 3}},
        },
    }
).encode()


def test_cobertura_is_read():
    """Classes of one file are one file, a line counts once, conditions are branches; paths begin at the checkout."""
    assert read_coverage(COBERTURA, "coverage.xml", ["/workspace"]) == (
        FileCoverage("shop/basket.py", 5, 3, 2, 1),
        FileCoverage("shop/tax.py", 0, 0),
    )


def test_lcov_is_read():
    """What several tests reached is put together; lines that are none are left out."""
    assert read_coverage(LCOV, "lcov.info", ["/workspace/"]) == (
        FileCoverage("src/a.js", 4, 2, 2, 2),
        FileCoverage("src/b.js", 1, 0),
    )


def test_coverage_py_is_read():
    """Its JSON has the counts themselves."""
    found = read_coverage(COVERAGE_PY, "coverage.json", ["/workspace"])
    assert found == (FileCoverage("shop/basket.py", 10, 8, 4, 3), FileCoverage("shop/tax.py", 3, 3))
    assert (summarise(found).percent, summarise(found).files) == (84.61, 2)


def test_hundred_is_only_said_of_all_lines():
    """9,999 of 10,000 lines are not 100 %, and no lines are no share."""
    assert summarise([FileCoverage("a", 1_000_000, 999_999)]).percent == 99.99
    assert summarise([FileCoverage("a", 7, 7)]).percent == 100
    assert summarise([]).percent is None


def test_file_of_two_reports_counts_once():
    """As the one says that saw more."""
    assert merged([FileCoverage("a", 9, 2), FileCoverage("a", 9, 5)]) == (FileCoverage("a", 9, 5),)


def test_utf_16_is_read():
    """As .NET's tools write it."""
    text = COBERTURA.decode().replace('<?xml version="1.0" ?>', "")
    assert len(read_coverage(text.encode("utf-16"), "coverage.xml")) == 2


ENTITY = (
    b"""<?xml version="1.0"?><!DOCTYPE coverage [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><coverage>&b;</coverage>"""
)
OUTSIDE = b"""<!DOCTYPE coverage [<!ENTITY x SYSTEM "file:///etc/passwd">]><coverage>&x;</coverage>"""
HIDDEN = b"""<?xml version="1.0" encoding="cp037"?><coverage/>"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello", "no report of coverage"),
        (b"<coverage", "no XML"),
        (b"<coverage/>", "starts with <coverage>"),
        (b"<report name='x'/>", "JaCoCo's own XML"),
        (b"<html><body/></html>", "starts with <html>"),
        (ENTITY, "declares entities"),
        (ENTITY.decode().encode("utf-16"), "declares entities"),
        (OUTSIDE, "declares entities"),
        (HIDDEN, "its encoding is cp037"),
        (b"{", "not coverage.py's JSON"),
        (b'{"files": {"a": 1}}', "not coverage.py's JSON"),
        (b'{"totals": {}}', "not coverage.py's JSON"),
        (b"TN:\nDA:1,1\n", "no file is named"),
    ],
)
def test_what_is_no_report_is_one_line(data: bytes, words: str):
    """Where, and what; nothing that a report declares is expanded or fetched."""
    with pytest.raises(ReportError, match=words) as caught:
        read_coverage(data, "report")
    assert str(caught.value).startswith("report: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hits", "covered"),
    [("1", 1), ("0", 0), ("-1", 0), ("99999999999999999999", 0), ("", 0), ("many", 0), ("\u0661", 0)],
)
def test_numbers_that_are_none_are_not_reached(hits: str, covered: int):
    """Overflows and words."""
    xml = f"<coverage><packages><package><classes><class filename='a'><lines><line number='1' hits='{hits}'/></lines></class></classes></package></packages></coverage>"  # noqa: E501
    assert read_coverage(xml.encode(), "x") == (FileCoverage("a", 1, covered),)


def test_never_more_is_reached_than_there_is():
    """Whatever a report says."""
    odd = {
        "files": {
            "a": {"summary": {"covered_lines": 9, "num_statements": 2, "num_branches": -1, "covered_branches": 5}}
        }
    }
    assert read_coverage(json.dumps(odd).encode(), "x") == (FileCoverage("a", 2, 2, 0, 0),)


def test_paths_stay_in_the_tables():
    """Control characters, back-slashes and endless names."""
    odd = {"files": {f"C:\\x\x1b[1m\\{'a' * 5000}": {"summary": {"covered_lines": 1, "num_statements": 1}}}}
    (one,) = read_coverage(json.dumps(odd).encode(), "x")
    assert "\x1b" not in one.path
    assert "\\" not in one.path
    assert len(one.path) <= 1000


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes):
    """Behind the beginning of each form."""
    for start in (b"", b"<coverage>", b"SF:a\n", b'{"files":'):
        try:
            read_coverage(start + data, "x")
        except ReportError:
            continue
