"""Who has to say yes, and what follows from what was said: pure, so that every case can be tried."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Literal

import attrs

Decision = Literal["approved", "rejected", "withdrawn"]
GateState = Literal["waiting", "approved", "rejected", "expired", "withdrawn"]
WEEK_S = 7 * 86400


@attrs.frozen
class ApprovalRule:
    """
    Who has to say yes. Without users and groups anybody may who is let in.

    count: how many people. users, groups: by name; one of either is enough. not_author: neither who wrote the commit
    nor who set the run off. within_s: from when people were asked; what was not approved by then has expired.
    """

    count: int = 1
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    not_author: bool = False
    within_s: int = WEEK_S

    @property
    def is_open_to_all(self) -> bool:
        """Whether nobody in particular is named."""
        return not self.users and not self.groups

    def names(self, person: str, members: Mapping[str, Set[str]]) -> bool:
        """Whether a person is among those who are asked. members: group → the people in it now."""
        return self.is_open_to_all or person in self.users or any(person in members.get(g, ()) for g in self.groups)


@attrs.frozen
class Said:
    """What one person answered last. at: UTC."""

    actor: str
    decision: Decision
    at: datetime
    why: str = ""


@attrs.frozen
class Asked:
    """When people were asked, and what they answered: at most one answer each, the last that they gave."""

    at: datetime
    said: tuple[Said, ...] = ()


@attrs.frozen
class Answer:
    """
    What people have said so far, taken together.

    approved_by: those whose yes counts, in the order in which they gave it. by: who rejected. missing: how many more.
    """

    state: GateState
    approved_by: tuple[str, ...] = ()
    by: str | None = None
    why: str = ""
    missing: int = 0


def judge(
    rule: ApprovalRule, answers: Asked, author: Set[str], members: Mapping[str, Set[str]], now: datetime
) -> Answer:
    """
    What follows from the answers under the rule.

    A no of anybody who was asked ends it, for good. A yes counts while the person is one of those who are asked: who
    has left the group since counts no more. A yes that came in time counts even if it is looked at later.

    author: the people who wrote the commit or set the run off. members: group → the people in it now.
    """
    deadline = answers.at + timedelta(seconds=rule.within_s)
    if rejected := next((one for one in _in_order(answers.said) if one.decision == "rejected"), None):
        return Answer("rejected", by=rejected.actor, why=rejected.why)
    counted = [
        one.actor
        for one in _in_order(answers.said)
        if one.decision == "approved" and one.at <= deadline and may_approve(rule, one.actor, author, members)
    ]
    if len(counted) >= rule.count:
        return Answer("approved", approved_by=tuple(counted))
    missing = rule.count - len(counted)
    return Answer("expired" if now > deadline else "waiting", approved_by=tuple(counted), missing=missing)


def may_approve(rule: ApprovalRule, person: str, author: Set[str], members: Mapping[str, Set[str]]) -> bool:
    """Whether the yes of a person counts."""
    return rule.names(person, members) and not (rule.not_author and person in author)


def _in_order(said: Sequence[Said]) -> list[Said]:
    return sorted(said, key=lambda one: (one.at, one.actor))
