"""Thresholds: what stops a pipeline, and the reasons in words."""

from __future__ import annotations

import pytest

from penstock.errors import InputError
from penstock.findings import Finding
from penstock.findings.policy import Policy, judge


def finding(severity, rule="R", path="a.py", **more):
    """A finding of a severity."""
    return Finding("t", rule, severity, path=path, fingerprint=f"{severity}{rule}{path}", **more)


SOME = [finding("medium"), finding("critical"), finding("high"), finding("low")]


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        (Policy(), ("1 critical", "1 high")),
        (Policy(fail_on_severity="critical"), ("1 critical",)),
        (Policy(fail_on_severity="low"), ("1 critical", "1 high", "1 medium", "1 low")),
        (Policy(fail_on_severity=None), ()),
        (Policy(fail_on_severity=None, limits={"medium": 0}), ("1 medium, 0 allowed",)),
        (Policy(fail_on_severity=None, limits={"medium": 1}), ()),
        (Policy(ignored_rules=frozenset(("R",))), ()),
        (Policy(ignored_paths=("a.py",)), ()),
        (Policy(ignored_paths=("a",)), ("1 critical", "1 high")),
    ],
)
def test_thresholds_decide(policy, reasons):
    """As bad as the threshold or worse fails; limits count exactly one severity; ignored is not counted."""
    verdict = judge(policy, SOME)
    assert (verdict.passed, verdict.reasons) == (not reasons, reasons)


def test_offenders_are_named_worst_first():
    """A verdict comes with the findings that it is about."""
    assert [one.severity for one in judge(Policy(), SOME).offenders] == ["critical", "high"]


def test_suppressed_findings_do_not_count():
    """Somebody decided on them already, unless the policy says that they count."""
    some = [finding("critical", suppressed=True)]
    assert judge(Policy(), some).passed
    assert not judge(Policy(count_suppressed=True), some).passed


def test_only_new_findings_count():
    """What was there before the change does not stop it."""
    new, old = finding("critical", "new"), finding("critical", "old")
    verdict = judge(Policy(new_only=True), [new, old], frozenset((new.fingerprint,)))
    assert verdict.reasons == ("1 critical",)
    assert judge(Policy(new_only=True), [old], frozenset()).passed


def test_unknown_baseline_is_no_pass():
    """If it is not known what is new, nothing is decided."""
    with pytest.raises(InputError, match="not known which are new"):
        judge(Policy(new_only=True), SOME)


def test_packages_without_a_fix_can_be_let_pass():
    """fixable_only counts packages where a version mends them, and code always."""
    policy = Policy(fixable_only=True)
    stuck, fixable = finding("high", package="pkg:a/b@1"), finding("high", package="pkg:a/b@1", fixed_version="2")
    assert judge(policy, [stuck]).passed
    assert not judge(policy, [fixable]).passed
    assert not judge(policy, [finding("high")]).passed


@pytest.mark.parametrize("wrong", [{"fail_on_severity": "severe"}, {"limits": {"bad": 1}}, {"limits": {"high": -1}}])
def test_wrong_policy_is_refused(wrong):
    """A severity that there is not, or a number below nought, is an error when the policy is made."""
    with pytest.raises(InputError):
        Policy(**wrong)
