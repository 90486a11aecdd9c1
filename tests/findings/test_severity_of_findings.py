"""How bad a finding is, by whatever the report says first."""

from __future__ import annotations

import pytest
from sarif_made import read, read_one, result

from penstock.findings import Scope, SeverityOverride
from penstock.findings.severity import of_security_severity


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        ("9.0", "critical"), (10, "critical"), ("8.9", "high"), ("7.0", "high"), (6.9, "medium"), ("4.0", "medium"),
        ("3.9", "low"), (0.1, "low"), ("CRITICAL", "critical"), ("High", "high"), ("moderate", "medium"),
        (" low ", "low"), ("negligible", "info"), ("0.0", None), (0, None), (-1, None), ("", None), ("n/a", None),
        (True, None), (None, None), ([], None), ("nan", None),
    ],
)  # fmt: skip
def test_security_severity_is_a_score_or_a_word(score, severity):
    """Scores fall into the bands of CVSS, words count, and 0 means that the scanner did not know."""
    assert of_security_severity(score) == severity


def test_result_score_outweighs_everything_in_the_report():
    """`security-severity` of the result decides before the rule's and before any level."""
    one = result(level="note", properties={"security-severity": "9.8"})
    found = read_one(one, rules=[{"id": "R1", "properties": {"security-severity": "2.0"}}])
    assert (found.severity, found.severity_source) == ("critical", "result.security-severity")


def test_rule_score_outweighs_the_level():
    """`security-severity` of the rule decides before the result's level."""
    found = read_one(result(level="error"), rules=[{"id": "R1", "properties": {"security-severity": 5}}])
    assert (found.severity, found.severity_source, found.level) == ("medium", "rule.security-severity", "error")


def test_score_of_nought_is_unknown():
    """A score of 0 leaves the verdict to the level."""
    found = read_one(result(level="error", properties={"security-severity": "0.0"}))
    assert (found.severity, found.severity_source) == ("high", "result.level")


@pytest.mark.parametrize(
    ("level", "severity"),
    [("error", "high"), ("warning", "medium"), ("note", "low"), ("none", "info"), ("Error", "high")],
)
def test_level_of_the_result_decides_without_scores(level, severity):
    """error, warning, note, none are high, medium, low, info."""
    found = read_one(result(level=level), rules=[{"id": "R1", "defaultConfiguration": {"level": "note"}}])
    assert (found.severity, found.severity_source) == (severity, "result.level")


def test_configuration_of_the_invocation_outweighs_the_rule():
    """A rule configured for this run has the level that it was configured with."""
    configured = {"descriptor": {"id": "R1"}, "configuration": {"level": "error"}}
    found = read_one(
        result(),
        rules=[{"id": "R1", "defaultConfiguration": {"level": "note"}}],
        invocations=[{"executionSuccessful": True, "ruleConfigurationOverrides": [configured]}],
    )
    assert (found.severity, found.severity_source, found.level) == ("high", "configuration.level", "error")


def test_default_of_the_rule_decides_before_rank():
    """The rule's default level decides where neither result nor configuration has one."""
    found = read_one(result(rank=95.0), rules=[{"id": "R1", "defaultConfiguration": {"level": "note"}}])
    assert (found.severity, found.severity_source) == ("low", "rule.level")


@pytest.mark.parametrize(("rank", "severity"), [(95, "critical"), (70.0, "high"), (41.5, "medium"), (5, "low")])
def test_rank_decides_where_there_is_no_level(rank, severity):
    """A rank from 0 to 100 is a score times ten."""
    found = read_one(result(rank=rank))
    assert (found.severity, found.severity_source) == (severity, "rank")


@pytest.mark.parametrize("said", [{}, {"rank": -1}, {"level": ""}, {"level": "whatever"}])
def test_severity_is_medium_where_nothing_says_otherwise(said):
    """A result that says nothing, or nothing that means anything, is medium."""
    found = read_one(result(**said))
    assert (found.severity, found.severity_source) == ("medium", "default")


def test_installation_overrides_the_report():
    """The first override that matches tool and rule decides, by glob and without regard to case."""
    overrides = (
        SeverityOverride("info", tool="SCANNER", rule="style/*"),
        SeverityOverride("critical", rule="secret-*"),
    )
    scope = Scope(overrides=overrides)
    report = read(result("style/tabs", level="error"), result("secret-aws"), result("other", level="note"), scope=scope)
    assert [(one.severity, one.severity_source) for one in report.findings] == [
        ("info", "override"),
        ("critical", "override"),
        ("low", "result.level"),
    ]


def test_severities_are_counted():
    """The summary counts findings by severity, with every severity in it."""
    report = read(result(level="error"), result(level="error"), result(level="none"))
    assert report.summary.severities == {"critical": 0, "high": 2, "medium": 0, "low": 0, "info": 1}
