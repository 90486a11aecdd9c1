"""The shipped rules find what they say and leave the rest alone."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from penstock.findings import Finding
from penstock.scanners.semgrep import RULES
from penstock.steps.context import StepContext
from penstock.steps.scan_sast import Config, run

SAMPLES = Path(__file__).parent / "samples"
DOCS = Path(__file__).parents[2] / "docs" / "scanning.md"
FILES = ("python.yaml", "javascript.yaml", "dockerfile.yaml", "secrets.yaml")
MARK = re.compile(r"\s*(?:#|//) finds: (.*)")
BOUNDS = {"CRITICAL": (9.0, 10.0), "HIGH": (7.0, 8.9), "MEDIUM": (4.0, 6.9), "LOW": (0.1, 3.9)}

# Put together here, so that nobody's scanner takes this file for a leak.
SECRETS = {
    "secrets.private-key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIEow" * 20 + "\n",
    "secrets.aws-access-key": "key = AKI" + "AZ3MHQ5R7T2XKWNPD",
    "secrets.github-token": "gh" + "p_" + "aB3dE6gH9j" * 3 + "kL2nO5",
    "secrets.gitlab-token": "glp" + "at-aB3dE6gH9jkL2nO5pQ8s",
    "secrets.slack-token": "xox" + "b-123456789012-aB3dE6gH9jkL2nO5pQ8s",
    "secrets.stripe-key": "sk_li" + "ve_aB3dE6gH9jkL2nO5pQ8sT1vW",
    "secrets.google-api-key": "AIz" + "a" + "aB3dE6gH9j" * 3 + "kL2nO",
    "secrets.package-index-token": "np" + "m_" + "aB3dE6gH9j" * 3 + "kL2nO5",
    "secrets.password-in-url": "url: postgres://shop:" + "correct-horse@db.internal/shop",
}
NO_SECRETS = """
AKIAIOSFODNN7EXAMPLE
postgres://shop:password@db.internal/shop
postgres://shop:${PASSWORD}@db.internal/shop
redis://user:correct-horse@localhost:6379
-----BEGIN PUBLIC KEY-----
https://host.example/a:b@c
ghp_short
"""


def rules(*files: str) -> list[dict[str, object]]:
    return [rule for name in files or FILES for rule in yaml.safe_load((RULES / name).read_text())["rules"]]


def scan(context: StepContext, **fields: object) -> tuple[Finding, ...]:
    step = {"name": "scan", "type": "step.scan_sast", "exclude": [], "fail_on_severity": "none", **fields}
    result = run(Config.model_validate(step), context)
    assert result.state == "succeeded", result.reason
    assert result.verdict is not None
    assert "unreadable" not in result.verdict.evidence
    return result.scans[0].report.findings


def marked() -> set[tuple[str, int, str]]:
    """(file, line, rule) of every line that follows a `finds:` comment."""
    return {
        (str(path.relative_to(SAMPLES)), number + 1, rule.strip())
        for path in SAMPLES.rglob("*")
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (mark := MARK.match(line))
        for rule in mark[1].split(",")
    }


def test_rules_find_exactly_what_is_weak(context: StepContext, workspace: Path):
    """Every marked line by the rule that its mark names, and no other line."""
    shutil.copytree(SAMPLES, workspace, dirs_exist_ok=True)
    found = {(one.path, one.line, one.rule_id) for one in scan(context)}
    assert found == marked()


def test_every_rule_for_source_has_a_sample():
    """A rule that nothing shows to work is not shipped."""
    shown = {rule for _, _, rule in marked()} | set(SECRETS)
    assert shown == {rule["id"] for rule in rules()}
    assert sorted(FILES) == sorted(file.name for file in RULES.iterdir())


def test_secrets_are_found_by_their_form(context: StepContext, workspace: Path):
    """Each kind once, in a file of no known language; examples and placeholders not."""
    for rule, text in SECRETS.items():
        (workspace / f"{rule}.txt").write_text(text)
    (workspace / "harmless.txt").write_text(NO_SECRETS)
    found = {(one.path, one.rule_id) for one in scan(context)}
    assert found == {(f"{rule}.txt", rule) for rule in SECRETS}


def test_severity_and_weakness_reach_the_finding(context: StepContext, workspace: Path):
    """The number that a rule carries decides the severity, and its CWE is there."""
    (workspace / "app.py").write_text("import subprocess\nsubprocess.run(x, shell=True)\n")
    (finding,) = scan(context)
    assert (finding.severity, finding.cwe, finding.tool) == ("high", ("CWE-78",), "Semgrep OSS")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["id"]))
def test_rule_says_what_to_do_and_how_bad_it_is(rule: dict[str, object]):
    """A message of two sentences, a CWE, and a number that fits the severity in words."""
    metadata = rule["metadata"]
    assert isinstance(metadata, dict)
    low, high = BOUNDS[str(rule["severity"])]
    assert low <= float(metadata["security-severity"]) <= high
    assert re.match(r"CWE-\d+: ", metadata["cwe"])
    assert str(rule["message"]).count(". ") >= 1


def test_documentation_lists_every_rule_with_its_severity():
    """docs/scanning.md and the rules say the same."""
    documented = re.findall(r"^\| `([a-z]+\.[a-z-]+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert documented == [(rule["id"], str(rule["severity"]).lower()) for file in FILES for rule in rules(file)]
