"""What a tool's exit code and files mean: reports as the tools write them, without running them."""

import json

import pytest

from penstock.scanners import Looked, Refused, ToolRun, open_scanner

SEMGREP, BANDIT = open_scanner("semgrep"), open_scanner("bandit")
SARIF = b'{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": []}]}'


def semgrep(*scanned: str, errors: list[dict[str, object]] | None = None, code: int = 0) -> Looked | Refused:
    detail = json.dumps({"version": "1", "results": [], "errors": errors or [], "paths": {"scanned": scanned}})
    return SEMGREP.look(ToolRun(code, "", SARIF, detail.encode()))


def unparsed(path: str) -> dict[str, object]:
    return {"code": 3, "level": "warn", "type": ["PartialParsing", []], "message": "Syntax error", "path": path}


def bandit(files: list[str], failed: list[str] | None = None, code: int = 0) -> Looked | Refused:
    notes = [
        {"message": {"text": "syntax error"}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": path}}}]}
        for path in failed or []
    ]
    run = {
        "tool": {"driver": {"name": "Bandit"}},
        "invocations": [{"executionSuccessful": True, "toolConfigurationNotifications": notes}],
        "properties": {"metrics": {"_totals": {"loc": 1}, **{path: {"loc": 1} for path in files}}},
        "results": [],
    }
    return BANDIT.look(ToolRun(code, "", json.dumps({"version": "2.1.0", "runs": [run]}).encode()))


def test_semgrep_that_read_files_has_looked():
    """How many, and none unreadable."""
    assert semgrep("a.py", "b.js", "README.md") == Looked(3)


def test_semgrep_without_files_has_not_looked():
    """Exit 0 and an empty list of files is the repository's fault."""
    found = semgrep()
    assert isinstance(found, Refused)
    assert found.fault == "repository"


def test_semgrep_that_parsed_no_source_has_not_looked():
    """Text files do not make up for source that could not be parsed."""
    found = semgrep("a.py", "b.py", "README.md", errors=[unparsed("a.py"), unparsed("b.py")])
    assert isinstance(found, Refused)
    assert "any of 2 source files, such as a.py" in found.reason


def test_semgrep_that_parsed_some_says_which_not():
    """One broken file among good ones is named."""
    assert semgrep("a.py", "b.py", errors=[unparsed("b.py")]) == Looked(1, ("b.py",))


def test_repository_of_text_alone_is_looked_at():
    """Rules for secrets read every text."""
    assert semgrep("README.md") == Looked(1)


@pytest.mark.parametrize("code", [0, 2, 7])
def test_semgrep_error_is_refused_whatever_the_exit_code(code: int):
    """A rule that cannot be read, a scanning root that is not there, no rules: all at level error."""
    error = {"code": 2, "level": "error", "type": "Rule parse error", "message": "Rule parse error in\n rule x"}
    found = semgrep("a.py", errors=[error], code=code)
    assert isinstance(found, Refused)
    assert found.fault == "tool"
    assert found.reason.endswith("Rule parse error in rule x")


@pytest.mark.parametrize(
    "detail", [None, b"", b"{", b"[]", b'{"errors": []}', b'{"paths": {"scanned": ["a"]}}', b"\x00\xff"]
)
def test_semgrep_without_its_detail_is_refused(detail: bytes | None):
    """Missing, cut or foreign JSON: the last line that was printed is the reason."""
    found = SEMGREP.look(ToolRun(0, "one\nTraceback: no space left\n\n", SARIF, detail))
    assert isinstance(found, Refused)
    assert found.reason == "semgrep exited with 0: Traceback: no space left"


def test_semgrep_that_was_killed_is_refused():
    """Exit code 137 with a complete detail file is still a crash."""
    assert isinstance(semgrep("a.py", code=137), Refused)


def test_semgrep_without_sarif_is_refused():
    """The detail alone is not the report."""
    detail = b'{"errors": [], "paths": {"scanned": ["a.py"]}}'
    assert isinstance(SEMGREP.look(ToolRun(0, "", None, detail)), Refused)


@pytest.mark.parametrize("code", [0, 1])
def test_bandit_that_read_files_has_looked(code: int):
    """Exit 1 means findings, not failure."""
    assert bandit(["./a.py", "./b.py"], code=code) == Looked(2)


def test_bandit_that_parsed_some_says_which_not():
    """Its metrics list a file that it could not parse as well."""
    assert bandit(["./a.py", "./b.py"], failed=["b.py"]) == Looked(1, ("b.py",))


@pytest.mark.parametrize(
    ("files", "failed", "words"),
    [
        ([], [], "no Python file"),
        ([], ["nothing"], "no Python file"),
        (["./a.py"], ["a.py"], "could not parse any of 1 files, such as a.py"),
    ],
)
def test_bandit_that_read_nothing_has_not_looked(files: list[str], failed: list[str], words: str):
    """No file, a path that does not exist (exit 0!), or only files that it could not parse."""
    found = bandit(files, failed)
    assert isinstance(found, Refused)
    assert found.fault == "repository"
    assert words in found.reason


@pytest.mark.parametrize("code", [2, -9, 137])
def test_bandit_that_failed_is_refused(code: int):
    """Two configurations in one tree, or a kill."""
    assert isinstance(bandit(["./a.py"], code=code), Refused)


@pytest.mark.parametrize("sarif", [None, b"", b"{", b"[]", b'{"runs": 1}', b'{"runs": []}', b"\xff"])
def test_bandit_without_its_report_is_refused(sarif: bytes | None):
    """Missing, cut or foreign."""
    assert isinstance(BANDIT.look(ToolRun(0, "", sarif)), Refused)
