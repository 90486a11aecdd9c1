"""`penstock findings`, as somebody at a terminal or in a pipe sees it."""

from __future__ import annotations

import json

import pytest
from sarif_made import encoded, result, run
from typer.testing import CliRunner

from penstock.cli.findings import app
from penstock.errors import InputError, ReportError

KEYS = ["tool", "rule_id", "severity", "severity_source", "message", "path", "line", "column", "cwe", "package",
        "fingerprint", "suppressed"]  # fmt: skip


@pytest.fixture
def invoke():
    """Run the command; the lines of its output as JSON where asked."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def report(tmp_path):
    """Write a report and give its path."""

    def write(name, *results, data=None):
        path = tmp_path / name
        path.write_bytes(data if data is not None else encoded(run(list(results))))
        return path

    return write


def test_read_prints_a_line_per_finding_and_a_summary(invoke, report):
    """One JSON object per finding with its twelve keys, then the summary."""
    path = report("r.sarif", result(level="error", line=3, column=5), result(kind="pass"), {})
    done = invoke("read", path, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert list(lines[0]) == KEYS
    assert (lines[0]["severity"], lines[0]["line"], lines[0]["column"], lines[0]["cwe"]) == ("high", 3, 5, [])
    assert lines[-1] == {
        "summary": {
            "files": 1, "files_failed": 0, "results": 3, "findings": 1, "not_findings": 1, "quarantined": 1,
            "suppressed": 0, "severities": {"critical": 0, "high": 1, "medium": 0, "low": 0, "info": 0},
        }
    }  # fmt: skip
    assert "results[2] is left out" in done.stderr


def test_bad_report_among_good_ones_is_told(invoke, report):
    """The others are read, the bad one is one line on standard error, and the exit code is 2."""
    good, bad = report("good.sarif", result()), report("bad.sarif", data=b"{")
    for order in ((good, bad), (bad, good)):
        done = invoke("read", *order, "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.exit_code == 2
        assert lines[-1]["summary"]["findings"] == 1
        assert (lines[-1]["summary"]["files"], lines[-1]["summary"]["files_failed"]) == (2, 1)
        assert len(done.stderr.splitlines()) == 1
        assert "bad.sarif" in done.stderr


def test_bad_report_alone_is_no_clean_result(invoke, report):
    """Where nothing could be read, there is no summary that looks like nothing was found."""
    done = invoke("read", report("bad.sarif", data=b"{"), "--json")
    assert (done.exit_code, done.stdout) == (2, "")


def test_read_prints_a_table(invoke, report):
    """Findings worst first, and how many of each severity."""
    path = report(
        "r.sarif", result("minor", level="note"), result("grave", level="error", suppressions=[{"kind": "inSource"}])
    )
    done = invoke("read", path)
    assert done.stdout.index("grave") < done.stdout.index("minor")
    assert "2 findings (1 high, 1 low)" in done.stdout
    assert "1 of them suppressed" in done.stdout


def test_table_says_what_it_does_not_show(invoke, report):
    """A limit is told, never silent."""
    done = invoke("read", report("r.sarif", *[result() for _ in range(5)]), "--limit", 2)
    assert "3 more" in done.stdout


def test_table_is_safe_to_look_at(invoke, report):
    """Escape sequences and markup in a report do not reach the terminal."""
    path = report("r.sarif", result("[bold]r[/]", "a\x1b]0;title\x07b\nc", "\x1b[31mp.py"))
    done = invoke("read", path)
    assert "\x1b]0" not in done.stdout
    assert "\x07" not in done.stdout
    assert "[bold]" in done.stdout


def test_read_follows_root_and_category(invoke, report):
    """Where the checkout was, and what the report is about, come from the command line."""
    path = report("r.sarif", result(path="file:///ci/job/src/a.py"))
    plain, placed = (
        json.loads(invoke("read", path, "--json", *more).stdout.splitlines()[0])
        for more in ((), ("--root", "/ci/job", "--category", "web"))
    )
    assert (plain["path"], placed["path"]) == ("/ci/job/src/a.py", "src/a.py")
    assert plain["fingerprint"] != placed["fingerprint"]


def test_diff_tells_what_came_and_went(invoke, report):
    """Introduced, fixed and unchanged, as lines and as a table."""
    before = report("a.sarif", result("gone"), result("stays", line=3))
    after = report("b.sarif", result("stays", line=30), result("came"))
    lines = [json.loads(line) for line in invoke("diff", before, after, "--json").stdout.splitlines()]
    assert [(line["change"], line["rule_id"]) for line in lines[:-1]] == [
        ("introduced", "came"),
        ("fixed", "gone"),
        ("unchanged", "stays"),
    ]
    assert lines[-1]["summary"] == {"introduced": 1, "fixed": 1, "unchanged": 1, "matched_by": {"message": 1}}
    assert "1 introduced, 1 fixed, 1 unchanged" in invoke("diff", before, after).stdout


def test_diff_follows_the_code(invoke, report, tmp_path):
    """With both sources a finding in a renamed and edited file is the same."""
    text = [f"line {n}" for n in range(20)]
    for folder, name, lines in (("old", "a.py", text), ("new", "b.py", ["# new", *text])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("\n".join(lines))
    before, after = report("a.sarif", result(path="a.py", line=9)), report("b.sarif", result(path="b.py", line=10))
    sources = ("--source-a", tmp_path / "old", "--source-b", tmp_path / "new")
    done = invoke("diff", before, after, "--json", *sources)
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["matched_by"] == {"context-3": 1}


def test_diff_of_a_bad_report_is_an_error(invoke, report):
    """Without one of the reports there is nothing to compare."""
    done = invoke("diff", report("a.sarif", result()), report("b.sarif", data=b""))
    assert isinstance(done.exception, ReportError)


def test_export_writes_sarif_and_csv(invoke, report, tmp_path):
    """Reports of several tools as one document, to a file or to standard output."""
    first, second = report("a.sarif", result("R1")), report("b.sarif", result("R2"))
    out = tmp_path / "all.sarif"
    assert invoke("export", "--sarif", "-o", out, first, second).exit_code == 0
    assert [one["ruleId"] for one in json.loads(out.read_bytes())["runs"][0]["results"]] == ["R1", "R2"]
    assert len(invoke("export", "--csv", first, second).stdout.splitlines()) == 3


@pytest.mark.parametrize("formats", [(), ("--sarif", "--csv")])
def test_export_needs_one_format(invoke, report, formats):
    """Neither or both is an error that says what to give."""
    done = invoke("export", *formats, report("a.sarif", result()))
    assert isinstance(done.exception, InputError)
    assert "--sarif or --csv" in str(done.exception)


def test_export_of_a_bad_report_writes_nothing(invoke, report, tmp_path):
    """A document with something missing would look whole."""
    out = tmp_path / "all.sarif"
    done = invoke("export", "--sarif", "-o", out, report("a.sarif", result()), report("b.sarif", data=b"x"))
    assert isinstance(done.exception, ReportError)
    assert not out.exists()


@pytest.mark.parametrize("command", ["read", "diff", "export"])
def test_help_shows_examples(invoke, command):
    """Every command's help shows how it is used."""
    assert f"penstock findings {command}" in invoke(command, "--help").stdout
