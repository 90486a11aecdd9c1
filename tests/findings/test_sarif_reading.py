"""Rules, messages, places, weaknesses and suppressions, as SARIF 2.1.0 has them and as tools write them."""

from __future__ import annotations

import json

import pytest
from sarif_made import document, encoded, read, read_one, result, run

from penstock.findings import Scope, open_report, read_report


def at(path, **region):
    """A result at a place."""
    location = {"artifactLocation": path if isinstance(path, dict) else {"uri": path}}
    return {"ruleId": "R1", "message": {"text": "m"}, "locations": [{"physicalLocation": location | region}]}


@pytest.mark.parametrize("kind", ["pass", "notApplicable", "informational"])
def test_passes_are_no_findings(kind):
    """A result whose kind says that nothing is wrong is counted and left out."""
    report = read(result(kind=kind), result(kind="fail"), result(kind="review"), result(kind="open"), result())
    assert (report.summary.results, report.summary.findings, report.summary.not_findings) == (5, 4, 1)


def test_result_that_is_gone_is_no_finding():
    """baselineState absent means that this run did not find it."""
    report = read(result(baselineState="absent"), result(baselineState="unchanged"))
    assert (report.summary.findings, report.summary.not_findings) == (1, 1)
    assert report.findings[0].baseline_state == "unchanged"


RULES = [{"id": "A", "name": "Alpha"}, {"id": "B", "name": "Beta"}]


@pytest.mark.parametrize(
    "said",
    [
        {"ruleId": "B"},
        {"ruleIndex": 1},
        {"ruleId": "B", "ruleIndex": 1},
        {"rule": {"index": 1}},
        {"rule": {"id": "B"}},
        {"ruleId": "B", "ruleIndex": 0},
        {"ruleId": "B", "ruleIndex": 99},
        {"ruleId": "B", "ruleIndex": -1},
    ],
)
def test_rule_is_found_however_it_is_named(said):
    """By id, by index, by reference; an index that contradicts the id, or leads nowhere, loses."""
    found = read_one({"message": {"text": "m"}} | said, rules=RULES)
    assert (found.rule_id, found.rule_name) == ("B", "Beta")


def test_rule_is_found_by_the_front_of_its_id():
    """`B/sub/case` is a case of rule B, and keeps its own id."""
    found = read_one(result("B/sub/case"), rules=RULES)
    assert (found.rule_id, found.rule_name) == ("B/sub/case", "Beta")


@pytest.mark.parametrize("component", [{"index": 1}, {"name": "pack-b"}, {"guid": "0b"}])
def test_rule_is_found_in_an_extension(component):
    """CodeQL keeps its rules in extensions: by index, name or guid of the component."""
    pack = {"name": "pack-b", "guid": "0b", "rules": [{"id": "q", "properties": {"security-severity": "9.1"}}]}
    tool = {"driver": {"name": "CodeQL", "rules": [{"id": "other"}]}, "extensions": [{"name": "pack-a"}, pack]}
    one = {"ruleId": "q", "rule": {"id": "q", "index": 0, "toolComponent": component}, "message": {"text": "m"}}
    report = read_report(json.dumps(document({"tool": tool, "results": [one]})).encode())
    assert report.findings[0].severity == "critical"


def test_rule_is_found_by_guid_and_by_former_id():
    """A guid decides, and so does an id that a rule used to have."""
    rules = [{"id": "new", "guid": "AB-1", "deprecatedIds": ["old"], "name": "New"}]
    assert read_one({"rule": {"guid": "ab-1"}, "message": {"text": "m"}}, rules=rules).rule_id == "new"
    assert read_one(result("old"), rules=rules).rule_name == "New"


def test_unknown_rule_does_not_fail_the_report():
    """A rule id that the tool never declared is a finding like any other."""
    report = read(result("nowhere", ruleIndex=7), result("A"), rules=RULES)
    assert [one.rule_id for one in report.findings] == ["nowhere", "A"]


def test_message_is_put_together_from_its_id():
    """message.id is looked up in the rule, then in the tool; arguments fill it, doubled braces are braces."""
    rules = [{"id": "R1", "messageStrings": {"default": {"text": "{0} is {{not}} {1}, see {2}"}}}]
    one = {"ruleId": "R1", "message": {"id": "default", "arguments": ["x", "y"]}}
    assert read_one(one, rules=rules).message == "x is {not} y, see {2}"
    tool = {"driver": {"name": "t", "globalMessageStrings": {"g": {"text": "global {0}"}}}}
    one = {"ruleId": "R1", "message": {"id": "g", "arguments": ["!"]}}
    assert (
        read_report(json.dumps(document({"tool": tool, "results": [one]})).encode()).findings[0].message == "global !"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"markdown": "**bold**"}, "**bold**"),
        ({"text": "braces {0} stay"}, "braces {0} stay"),
        ({"text": "{0} filled", "arguments": ["is"]}, "is filled"),
        ({"id": "unknown"}, "about the rule"),
        (None, "about the rule"),
        ("plain text", "plain text"),
    ],
)
def test_message_is_found_where_there_is_one(message, text):
    """Markdown, plain text, or at worst what the rule says of itself."""
    one = {"ruleId": "R1"} | ({} if message is None else {"message": message})
    assert read_one(one, rules=[{"id": "R1", "shortDescription": {"text": "about the rule"}}]).message == text


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("src/a.py", "src/a.py"),
        ("./src/./a.py", "src/a.py"),
        ("src/b/../a.py", "src/a.py"),
        ("../other/a.py", "../other/a.py"),
        ("src\\win\\a.cs", "src/win/a.cs"),
        ("src/with%20space/%C3%A9.py", "src/with space/é.py"),
        ("src/100%.txt", "src/100%.txt"),
        ("file:///home/runner/work/shop/shop/src/a.py", "src/a.py"),
        ("file:///github/workspace/src/a.py", "src/a.py"),
        ("/builds/group/shop/src/a.py", "src/a.py"),
        ("file:///D:/a/shop/shop/src/a.ps1", "src/a.ps1"),
        ("D:\\a\\1\\s\\src\\a.cs", "src/a.cs"),
        ("file:///somewhere/a.py", "/somewhere/a.py"),
        ("file:///C:/code/a%20b.cs", "C:/code/a b.cs"),
        ("file://C:\\code\\a.cs", "C:/code/a.cs"),
        ("file://localhost/somewhere/a.py", "/somewhere/a.py"),
        ("file://module/src/a.py", "module/src/a.py"),
        ("/modules/app/main.tf", "modules/app/main.tf"),
        ("/home/me/code/a.py", "/home/me/code/a.py"),
        ("%SRCROOT%/src/a.py", "src/a.py"),
        ("alpine:3.18", "alpine:3.18"),
        ("https://example.com/a.js", "https://example.com/a.js"),
        ("", None),
    ],
)
def test_uris_become_repository_paths(uri, path):
    """Schemes, drives, back-slashes, escapes and the folders of CI servers go; what is outside stays absolute."""
    assert read_one(at(uri)).path == path


def test_path_is_relative_to_a_known_checkout():
    """With the checkout known, absolute paths below it are relative, and the others stay."""
    scope = Scope(roots=("/data/job/42",))
    assert read_one(at("file:///data/job/42/src/a.py"), scope=scope).path == "src/a.py"
    assert read_one(at("/data/job/42/src/a.py"), scope=scope).path == "src/a.py"
    assert read_one(at("/data/job/421/src/a.py"), scope=scope).path == "/data/job/421/src/a.py"


BASES = {
    "PROJECT": {"uri": "file:///work/shop/"},
    "SRC": {"uri": " src/", "uriBaseId": "PROJECT"},
    "WEB": {"uri": "https://example.com/shop/blob/main/"},
    "LOOP": {"uri": "a/", "uriBaseId": "LOOP"},
    "NONE": {"description": {"text": "nothing is known"}},
}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ({"uri": "a.py", "uriBaseId": "PROJECT"}, "a.py"),
        ({"uri": "a.py", "uriBaseId": "SRC"}, "src/a.py"),
        ({"uri": "a.py", "uriBaseId": "WEB"}, "a.py"),
        ({"uri": "a.py", "uriBaseId": "NONE"}, "a.py"),
        ({"uri": "a.py", "uriBaseId": "UNHEARD"}, "a.py"),
        ({"uri": "file:///work/shop/b/a.py"}, "b/a.py"),
        ({"index": 1}, "src/indexed.py"),
        ({"uri": "", "index": 1}, "src/indexed.py"),
        ({"uri": "named.py", "index": 1}, "named.py"),
        ({"index": 9}, None),
        ({"index": -1}, None),
    ],
)
def test_bases_and_artifacts_are_followed(location, path):
    """uriBaseId through its chain, and artifacts by index; a chain that bites its tail ends."""
    artifacts = [{"location": {"uri": "zero.py"}}, {"location": {"uri": "indexed.py", "uriBaseId": "SRC"}}]
    assert read_one(at(location), originalUriBaseIds=BASES, artifacts=artifacts).path == path


def test_base_within_the_checkout_keeps_its_way():
    """A scanner started in a folder of the repository reports paths from there; they are made whole."""
    scope = Scope(roots=("/work/shop",))
    bases = {"ROOT": {"uri": "file:///work/shop/services/web/"}}
    found = read_one(at({"uri": "a.py", "uriBaseId": "ROOT"}), originalUriBaseIds=bases, scope=scope)
    assert found.path == "services/web/a.py"


def test_base_chain_without_end_is_survived():
    """A base that is its own base does not hang."""
    found = read_one(at({"uri": "a.py", "uriBaseId": "LOOP"}), originalUriBaseIds=BASES)
    assert found.path is not None
    assert found.path.endswith("a.py")


@pytest.mark.parametrize(("line", "read_as"), [(7, 7), (0, None), (-3, None), (2**40, None)])
def test_lines_count_from_one(line, read_as):
    """A line that cannot be one is none."""
    assert read_one(at("a.py", region={"startLine": line, "startColumn": 2})).line == read_as


def test_first_location_with_a_file_is_the_place():
    """Locations that only have names do not hide the file behind them."""
    named = {"logicalLocations": [{"fullyQualifiedName": "shop.cart"}]}
    filed = {"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": 3}}}
    found = read_one({"ruleId": "R", "message": {"text": "m"}, "locations": [named, filed]})
    assert (found.path, found.line) == ("a.py", 3)


def test_logical_location_is_kept():
    """A function or resource is named where there is no file, also through the run's table."""
    one = {"ruleId": "R", "message": {"text": "m"}, "locations": [{"logicalLocations": [{"index": 0}]}]}
    found = read_one(one, logicalLocations=[{"fullyQualifiedName": "shop::cart::add"}])
    assert (found.path, found.logical_location) == (None, "shop::cart::add")


def test_snippet_is_taken_from_the_context_if_need_be():
    """The region's own snippet, else the lines around it."""
    context = {"region": {"startLine": 2}, "contextRegion": {"startLine": 1, "snippet": {"text": "a\nb\n"}}}
    assert read_one(at("a.py", **context)).snippet == "a\nb\n"


CWE, OWASP = {"name": "CWE"}, {"name": "OWASP"}


@pytest.mark.parametrize(
    ("rule", "said", "cwe"),
    [
        ({"properties": {"tags": ["external/cwe/cwe-079", "external/cwe/cwe-116"]}}, {}, ("CWE-79", "CWE-116")),
        ({"properties": {"tags": ["CWE-78: OS Command Injection", "OWASP-A03:2021"]}}, {}, ("CWE-78",)),
        ({"properties": {"cwe": ["CWE-319"]}}, {}, ("CWE-319",)),
        ({"properties": {"cwe": "CWE-327: Broken cipher"}}, {}, ("CWE-327",)),
        ({"relationships": [{"target": {"id": "22", "toolComponent": {"name": "CWE"}}}]}, {}, ("CWE-22",)),
        ({"relationships": [{"target": {"index": 1, "toolComponent": {"index": 0}}}]}, {}, ("CWE-416",)),
        ({}, {"taxa": [{"id": "CWE-20", "toolComponent": {"name": "cwe"}}]}, ("CWE-20",)),
        ({}, {"properties": {"cwes": [{"cweId": "80", "name": "Basic XSS"}]}}, ("CWE-80",)),
        ({}, {"properties": {"cwe": 502}}, ("CWE-502",)),
        ({"properties": {"tags": ["CWE-1"]}}, {"taxa": [{"id": "2", "toolComponent": CWE}]}, ("CWE-2", "CWE-1")),
        ({"properties": {"tags": ["OWASP-A1", "T1059"]}}, {"taxa": [{"id": "7", "toolComponent": OWASP}]}, ()),
    ],
)  # fmt: skip
def test_weaknesses_are_gathered(rule, said, cwe):
    """CWE by tags, properties, taxa and relationships, of result and rule; other taxonomies are not CWE."""
    taxonomies = [{"name": "CWE", "taxa": [{"id": "415"}, {"id": "416"}]}]
    assert read_one(result(**said), rules=[{"id": "R1"} | rule], taxonomies=taxonomies).cwe == cwe


@pytest.mark.parametrize(
    ("suppressions", "suppressed", "reason"),
    [
        ([{"kind": "inSource"}], True, "inSource"),
        ([{"kind": "external", "justification": "test data"}], True, "test data"),
        ([{"kind": "external", "status": "accepted", "justification": "ok"}], True, "ok"),
        ([{"kind": "external", "status": "underReview"}], False, None),
        ([{"kind": "inSource"}, {"kind": "external", "status": "rejected"}], False, None),
        ([], False, None),
        (None, False, None),
    ],
)
def test_suppressions_hold_once_accepted(suppressions, suppressed, reason):
    """Suppressed in the source or by decision; not while the decision is open or if it was refused."""
    found = read_one(result(suppressions=suppressions))
    assert (found.suppressed, found.suppression_reason) == (suppressed, reason)


def test_runs_say_whether_they_could_look():
    """A run that failed is told apart from one that found nothing."""
    failed = run([], tool="a", invocations=[{
        "executionSuccessful": False,
        "toolExecutionNotifications": [{"level": "error", "message": {"text": "no database"}}],
    }])  # fmt: skip
    fine = run([], tool="b", invocations=[{"executionSuccessful": True}])
    outcomes = read_report(encoded(failed, fine, run([], tool="c"))).runs
    assert [(one.tool, one.succeeded, one.failure) for one in outcomes] == [
        ("a", False, "no database"),
        ("b", True, None),
        ("c", None, None),
    ]


def test_category_is_the_run_without_its_instance():
    """`automationDetails.id` up to the last slash; what the caller says goes before."""
    details = {"id": "image/web/2026-11-21"}
    assert read_one(result(), automationDetails=details).category == "image/web"
    assert read_one(result(), automationDetails=details, scope=Scope(category="mine")).category == "mine"


def test_rules_behind_the_results_are_used():
    """Semgrep writes the tool after the results; its levels count all the same."""
    tool = {"driver": {"name": "Semgrep", "rules": [{"id": "R1", "defaultConfiguration": {"level": "error"}}]}}
    data = json.dumps({"runs": [{"results": [result()], "tool": tool}], "version": "2.1.0"}).encode()
    assert read_report(data).findings[0].severity == "high"
    assert next(open_report(data).batches())[0].severity == "high"


def test_code_flows_are_kept_as_they_are():
    """Code flows come through as JSON, for whoever wants to draw them."""
    flows = [{"threadFlows": [{"locations": [{"location": {"message": {"text": "source"}}}]}]}]
    assert json.loads(read_one(result(codeFlows=flows)).code_flows or "") == flows
    assert read_one(result(codeFlows=[])).code_flows is None
