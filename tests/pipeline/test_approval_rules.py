"""What follows from what people said: every combination gives one answer, whatever the order it was said in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock.pipeline.approval_rules import ApprovalRule, Asked, Said, judge

THEN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ADA_AND_GRACE = ApprovalRule(users=("ada",), groups=("release",), within_s=3600)
MEMBERS = {"release": {"grace", "mary"}}


def said(who: str, decision: str = "approved", minutes: float = 1.0, why: str = "") -> Said:
    return Said(who, decision, THEN + timedelta(minutes=minutes), why)  # type: ignore[arg-type]


def state(rule: ApprovalRule, *answers: Said, author: frozenset[str] = frozenset(), after_min: float = 10.0) -> str:
    now = THEN + timedelta(minutes=after_min)
    return judge(rule, Asked(THEN, answers), author, MEMBERS, now).state


@pytest.mark.parametrize("who", ["ada", "grace", "mary"])
def test_yes_of_a_named_user_or_a_member_opens(who: str):
    assert state(ADA_AND_GRACE, said(who)) == "approved"


def test_yes_of_somebody_else_changes_nothing():
    assert state(ADA_AND_GRACE, said("eve")) == "waiting"


def test_without_names_anybodys_yes_counts():
    assert state(ApprovalRule(), said("eve")) == "approved"


def test_as_many_as_it_takes():
    """Two are needed: one is not enough, and the answer says how many are missing."""
    two = ApprovalRule(count=2)
    now = THEN + timedelta(minutes=5)
    assert judge(two, Asked(THEN, (said("ada"),)), frozenset(), {}, now).missing == 1
    assert state(two, said("ada"), said("grace", minutes=2)) == "approved"


def test_yes_of_the_author_does_not_count_where_the_rule_says_so():
    rule = ApprovalRule(not_author=True)
    assert state(rule, said("ada"), author=frozenset({"ada"})) == "waiting"
    assert state(ApprovalRule(), said("ada"), author=frozenset({"ada"})) == "approved"
    assert state(rule, said("ada"), said("grace"), author=frozenset({"ada"})) == "approved"


def test_who_has_left_the_group_counts_no_more():
    now = THEN + timedelta(minutes=5)
    rule = ApprovalRule(groups=("release",))
    assert judge(rule, Asked(THEN, (said("grace"),)), frozenset(), {"release": {"mary"}}, now).state == "waiting"
    assert judge(rule, Asked(THEN, (said("grace"),)), frozenset(), {}, now).state == "waiting", "the group is gone"


def test_no_ends_it_whatever_else_was_said():
    assert state(ADA_AND_GRACE, said("grace"), said("ada", "rejected", 2, "not on a Friday")) == "rejected"


def test_what_came_in_time_counts_when_it_is_looked_at_later():
    """And what came late does not."""
    assert state(ADA_AND_GRACE, said("ada", minutes=59), after_min=600) == "approved"
    assert state(ADA_AND_GRACE, said("ada", minutes=61), after_min=600) == "expired"
    assert state(ADA_AND_GRACE, after_min=61) == "expired"
    assert state(ADA_AND_GRACE, after_min=59) == "waiting"


PEOPLE = st.sampled_from(["ada", "grace", "mary", "eve"])
ANSWERS = st.lists(
    st.tuples(PEOPLE, st.sampled_from(["approved", "rejected"]), st.integers(0, 120)), unique_by=lambda one: one[0]
)
RULES = st.builds(
    ApprovalRule,
    count=st.integers(1, 4),
    users=st.lists(PEOPLE, max_size=2).map(tuple),
    groups=st.sampled_from([(), ("release",), ("nobody",)]),
    not_author=st.booleans(),
    within_s=st.sampled_from([600, 3600, 86400]),
)


@given(rule=RULES, answers=ANSWERS, author=st.frozensets(PEOPLE), minutes=st.integers(0, 2000), chance=st.randoms())
@hypothesis_settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_nothing_opens_without_enough_people_who_may(rule, answers, author, minutes, chance):  # type: ignore[no-untyped-def]
    """Open means: nobody said no, and `count` different people said yes in time, who are named and not the author."""
    told = [said(who, decision, at) for who, decision, at in answers]
    now = THEN + timedelta(minutes=minutes)
    found = judge(rule, Asked(THEN, tuple(told)), author, MEMBERS, now)
    chance.shuffle(told)
    assert judge(rule, Asked(THEN, tuple(told)), author, MEMBERS, now) == found, "the order in which it is told"
    counted = {
        one.actor
        for one in told
        if one.decision == "approved"
        and (one.at - THEN).total_seconds() <= rule.within_s
        and not (rule.not_author and one.actor in author)
        and (
            not (rule.users or rule.groups)
            or one.actor in rule.users
            or ("release" in rule.groups and one.actor in MEMBERS["release"])
        )
    }
    if any(one.decision == "rejected" for one in told):
        assert found.state == "rejected"
    elif len(counted) >= rule.count:
        assert (found.state, set(found.approved_by)) == ("approved", counted)
    else:
        assert found.state == ("expired" if (now - THEN).total_seconds() > rule.within_s else "waiting")
        assert found.missing == rule.count - len(counted)
