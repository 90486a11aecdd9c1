"""Reports that are odd, broken or something else: read as far as they mean something, refused in one line."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sarif_made import document, encoded, read, result, run

from penstock.errors import ReportError
from penstock.findings import iter_findings, open_report, read_report

ONE = encoded(run([result(message="Fehler: ungültig")]))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_encodings_are_told_apart(encoding):
    """UTF-8, 16 and 32, with a byte order mark or without."""
    text = json.dumps(document(run([result(message="ungültig €")])), ensure_ascii=False)
    assert read_report(text.encode(encoding)).findings[0].message == "ungültig €"


def test_large_utf16_file_is_read(tmp_path, monkeypatch):
    """A file too large for memory is rewritten on disk, whatever its encoding."""
    monkeypatch.setattr("penstock.findings.documents.STREAM_ABOVE_BYTES", 1000)
    file = tmp_path / "big.sarif"
    file.write_text(json.dumps(document(run([result(message="€" * 50, line=n + 1) for n in range(99)]))), "utf-16")
    assert len(list(iter_findings(file))) == 99


@pytest.mark.parametrize(
    "change",
    [
        {"ruleId": 1234},
        {"ruleId": 12.0},
        {"locations": None},
        {"locations": []},
        {"locations": [None]},
        {"locations": {"physicalLocation": {"artifactLocation": {"uri": "a.py"}}}},
        {"locations": [{"physicalLocation": {"artifactLocation": "a.py"}}]},
        {"locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": "7"}}}]},
        {"locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": 7.0}}}]},
        {"locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": None}}}]},
        {"locations": [{"physicalLocation": None}]},
        {"message": "only text"},
        {"message": {"text": 5}},
        {"message": None},
        {"message": {"text": "t", "arguments": None}},
        {"message": {"text": "{0}", "arguments": [3]}},
        {"properties": None},
        {"properties": []},
        {"properties": "text"},
        {"fingerprints": None},
        {"fingerprints": {"a": {"value": "0123456789abcdef"}}},
        {"fingerprints": ["a"]},
        {"partialFingerprints": {"a": None}},
        {"suppressions": "none"},
        {"suppressions": [None]},
        {"level": 2},
        {"level": None},
        {"kind": None},
        {"rank": "high"},
        {"rank": "50"},
        {"ruleIndex": "0"},
        {"ruleIndex": 1.5},
        {"rule": "R1"},
        {"rule": None},
        {"taxa": {"id": "79"}},
        {"codeFlows": None},
        {"codeFlows": "x"},
        {"analysisTarget": "a.py"},
        {"baselineState": None},
    ],
)
def test_odd_values_do_not_lose_the_finding(change):
    """Null for a list, a number for a name, one thing for a list of one: it is still a finding."""
    report = read(result() | change, result("other"))
    assert (report.summary.findings, report.summary.quarantined) == (2, 0)


def test_number_for_an_id_is_the_rule():
    """Tools number their rules; results and rules meet all the same."""
    rules = [{"id": 1234, "defaultConfiguration": {"level": "error"}}]
    found = read(result() | {"ruleId": 1234}, rules=rules).findings[0]
    assert (found.rule_id, found.severity) == ("1234", "high")


@pytest.mark.parametrize(
    "broken",
    [
        None,
        5,
        "text",
        [],
        {},
        {"ruleId": {"id": "x"}, "message": {"text": "m"}},
        {"ruleId": ["x"], "message": {"text": "m"}},
        {"ruleId": "x", "message": ["m"]},
        {"ruleId": "x", "message": {"text": "m"}, "locations": "here"},
        {"ruleId": "x", "message": {"text": "m"}, "locations": 7},
        {"level": "error"},
    ],
)
def test_broken_result_is_left_out_and_counted(broken):
    """A result that means nothing is quarantined with its place and reason; the others are taken."""
    report = read(result(), broken, result("R2"))
    assert (report.summary.results, report.summary.findings, report.summary.quarantined) == (3, 2, 1)
    assert (report.quarantined[0].run, report.quarantined[0].index) == (0, 1)
    assert report.quarantined[0].reason


def test_one_bad_rule_id_does_not_fail_the_file():
    """The complaint of others' users: one bad ruleId, and nothing of the report is taken."""
    report = read(*[result(f"R{n}") for n in range(20)], result() | {"ruleId": {"bad": True}})
    assert (report.summary.findings, report.summary.quarantined) == (20, 1)


def test_mostly_broken_report_is_refused(tmp_path):
    """More than half broken is no report; half is."""
    assert read(result(), None).summary.quarantined == 1
    with pytest.raises(ReportError, match=r"2 of 3 results cannot be understood.*results\[1\]"):
        read(result(), None, None)
    file = tmp_path / "r.sarif"
    file.write_bytes(encoded(run([result(), None, None])))
    with pytest.raises(ReportError, match="2 of 3"):
        list(open_report(file).batches())


@pytest.mark.parametrize(
    "part",
    [
        {"tool": None}, {"tool": {}}, {"tool": {"driver": None}}, {"tool": {"driver": {"name": None, "rules": None}}},
        {"tool": "scanner"}, {"tool": {"driver": {"name": 5, "rules": [None, {"id": 3}]}, "extensions": None}},
        {"artifacts": None}, {"artifacts": [None]}, {"artifacts": {}}, {"originalUriBaseIds": None},
        {"originalUriBaseIds": {"A": None}}, {"originalUriBaseIds": []}, {"invocations": None},
        {"invocations": [None]}, {"invocations": {}}, {"taxonomies": None}, {"automationDetails": None},
        {"automationDetails": "x"}, {"versionControlProvenance": [None]}, {"logicalLocations": None},
    ],
)  # fmt: skip
def test_odd_parts_of_a_run_do_not_lose_its_results(part):
    """Whatever is odd around the results, they are read."""
    assert read_report(encoded(run([result()]) | part)).summary.findings == 1


def test_odd_rule_does_not_lose_the_others():
    """One rule with a level of null and tags of text leaves the others as they are."""
    rules = [
        {"id": "R1", "defaultConfiguration": None, "properties": {"tags": "security"}, "name": ["x"]},
        {"id": "R2", "defaultConfiguration": {"level": "error"}},
    ]
    assert [one.severity for one in read(result(), result("R2"), rules=rules).findings] == ["medium", "high"]


@pytest.mark.parametrize("runs", [[], None, [{}], [{"results": None}], [{"results": []}], [None]])
def test_report_without_results_is_empty(runs):
    """No runs, or runs without results, are a report of nothing."""
    data = json.dumps({"version": "2.1.0", "runs": runs}).encode()
    assert read_report(data).summary.results == 0


def test_runs_of_several_tools_are_read():
    """Every run has its own tool and rules."""
    report = read_report(encoded(run([result()], tool="a"), run([], tool="b"), run([result(), result()], tool="c")))
    assert [one.tool for one in report.findings] == ["a", "c", "c"]


@pytest.mark.parametrize(
    "data",
    [
        ONE.replace(b"wrong", b"wr\xffng").replace(b"Fehler", b"F\xe4hler"),
        ONE.replace(b"Fehler", b"Feh\tler"),
        ONE.replace(b"Fehler", b"Feh\\ud800ler"),
        ONE.replace(b'"startLine": 1', b'"startLine": NaN'),
        ONE.replace(b'"startLine": 1', b'"startLine": 1e999'),
        ONE.replace(b'"startLine": 1', b'"startLine": 123456789012345678901234567890'),
        b"\n\n  " + ONE + b"\r\n \n",
        ONE.replace(b'"version": "2.1.0", ', b""),
        ONE.replace(b"2.1.0", b"2.1.0-rtm.5"),
        ONE.replace(b'"2.1.0"', b"2.1"),
    ],
)
def test_almost_json_is_read(data):
    """Bytes that are no UTF-8, control characters, lone surrogates, NaN, huge numbers, no version."""
    assert read_report(data).summary.findings == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "binary"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "binary"),
        (b"\x89PNG\r\n\x1a\n", "binary"),
        (b"PK\x03\x04", "not JSON"),
        (b"hello", "not JSON"),
        (b"<sarif/>", "not JSON"),
        (b'"text"', "not JSON"),
        (b"{", "ends in the middle"),
        (ONE[:-3], "ends in the middle"),
        (ONE[:100], "ends in the middle"),
        (ONE + b"{}", "follows the document"),
        (ONE.replace(b'"runs": [', b'"runs": [,'), "cannot be read as JSON"),
        (ONE.replace(b'"src/a.py"', b'"src/a.py",'), "cannot be read as JSON"),
        (b"[]", "no `runs`"),
        (b"{}", "no `runs`"),
        (b'{"version": "2.1.0"}', "no `runs`"),
        (b'{"runs": {}}', "no `runs`"),
        (b'{"runs": "x"}', "no `runs`"),
        (b'{"SchemaVersion": 2, "Results": []}', "--format sarif"),
        (b'{"results": [], "paths": {}, "errors": []}', "--sarif"),
        (b'{"bomFormat": "CycloneDX"}', "SBOM"),
        (b'{"version": "1.0.0", "runs": []}', "SARIF 1.0.0 cannot be read"),
        (b'{"version": "2.0.0", "runs": []}', "SARIF 2.0.0 cannot be read"),
        (b'{"version": "2.0.0-csd.2.beta.2018-10-10", "runs": []}', "SARIF 2.0.0-csd"),
        (b'{"$schema": "http://json.schemastore.org/sarif-1.0.0", "runs": []}', "SARIF 1.0.0 cannot be read"),
        (b'{"runs": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"runs": [{"results": ' + b"[" * 5000 + b"]" * 5000 + b"}]}", "nested too deeply"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(data, what):
    """What it is, where, and what to do about it, on one line."""
    with pytest.raises(ReportError) as caught:
        read_report(data, where="scan.sarif")
    line = str(caught.value)
    assert line.startswith("scan.sarif: ")
    assert what in line
    assert "; " in line
    assert "\n" not in line


def test_file_that_is_not_there_is_refused(tmp_path):
    """A missing file and a folder are errors of the input, by their path."""
    for path in (tmp_path / "missing.sarif", tmp_path):
        with pytest.raises(ReportError, match="cannot be opened"):
            read_report(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    """Whatever the bytes, there is a report or a ReportError."""
    with contextlib.suppress(ReportError):
        read_report(data)


NAMES = [
    "ruleId",
    "ruleIndex",
    "rule",
    "message",
    "text",
    "id",
    "arguments",
    "locations",
    "physicalLocation",
    "artifactLocation",
    "uri",
    "uriBaseId",
    "index",
    "region",
    "startLine",
    "snippet",
    "level",
    "kind",
    "rank",
    "taxa",
    "toolComponent",
    "properties",
    "tags",
    "cwe",
    "fingerprints",
    "suppressions",
    "logicalLocations",
    "driver",
    "rules",
    "name",
    "defaultConfiguration",
    "relationships",
    "target",
    "purls",
    "status",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)


@given(st.lists(JSON, max_size=6), JSON, JSON)
def test_any_json_in_a_run_is_read_or_refused(results, tool, other):
    """Whatever stands where results, tool and artifacts belong, nothing but a ReportError comes of it."""
    data = json.dumps({"runs": [{"results": results, "tool": tool, "artifacts": other, "originalUriBaseIds": other}]})
    with contextlib.suppress(ReportError):
        report = read_report(data.encode())
        counts = report.summary
        assert counts.results == counts.findings + counts.not_findings + counts.quarantined == len(results)
        assert len({one.fingerprint for one in report.findings}) == counts.findings
