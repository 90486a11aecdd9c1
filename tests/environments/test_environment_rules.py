"""What an environment's rules say: pure, so that every case can be tried."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.environments.model import Environment, Hold, NamedRules
from penstock.environments.rules import Admission, Facts, Lifted, Origin, Standing, judge, thawed_at

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday
MAIN = Origin("branch", "main")


def environment(name: str = "production", *, hold: Hold | None = None, **rules: Any) -> Environment:
    made = NamedRules.model_validate({"name": name, **rules})
    return Environment(name, made.rules(), 1, hold, "ada", NOW, "ada", NOW)


def facts(origin: Origin = MAIN, **more: Any) -> Facts:
    return Facts(**{"project": "shop", "origin": origin, "target": "process", **more})


def judged(rules: dict[str, Any], *, now: datetime = NOW, origin: Origin = MAIN, **more: Any) -> Admission:
    return judge(environment(**rules), facts(origin, **more), now)


@pytest.mark.parametrize(
    ("rules", "origin", "is_open"),
    [
        ({}, MAIN, True),
        ({}, Origin("pull_request", "main"), True),
        ({"name": "staging"}, Origin("pull_request", "main", fork=True), True),
        ({}, Origin("pull_request", "main", fork=True), False),
        ({"name": "staging", "secret_env": {"A": "b"}}, Origin("pull_request", "main", fork=True), False),
        ({"refs": {"branches": "main"}}, MAIN, True),
        ({"refs": {"branches": "main"}}, Origin("branch", "maintenance"), False),
        ({"refs": {"branches": "main"}}, Origin("tag", "main"), False),
        ({"refs": {"branches": "main"}}, Origin("pull_request", "main"), False),
        ({"refs": {"tags": ["v*", "!v0*"]}}, Origin("tag", "v1.2"), True),
        ({"refs": {"tags": ["v*", "!v0*"]}}, Origin("tag", "v0.9"), False),
        ({"refs": {"branches": "release/*"}}, Origin("branch", "release/1"), True),
        ({"refs": {"branches": "release/*"}}, Origin("branch", "release/1/x"), False),
        ({"refs": {"pull_requests": "main"}}, Origin("pull_request", "main"), True),
        ({"refs": {"pull_requests": "main"}}, Origin("pull_request", "other"), False),
        ({"refs": {"pull_requests": "main"}}, MAIN, False),
        ({"projects": "shop"}, MAIN, True),
        ({"projects": ["*", "!shop"]}, MAIN, False),
        ({"target": {"name": "process"}}, MAIN, True),
        ({"target": {"name": "docker"}}, MAIN, False),
    ],
)
def test_what_may_come_from_where(rules: dict[str, Any], origin: Origin, is_open: bool):
    """A list for one git strategy shuts the others out; a fork reaches neither production nor secrets."""
    found = judged(rules, origin=origin)
    assert found.verdict == ("open" if is_open else "refused")
    assert bool(found.reasons) is not is_open


def test_every_reason_is_told():
    """Whoever is refused mends everything at once."""
    found = judged({"projects": "web", "refs": {"tags": "v*"}, "target": {"name": "docker"}})
    assert [reason.split(";")[0] for reason in found.reasons] == [
        "production takes no deployments of shop",
        "production takes no deployments from the branch main",
        "production runs on the target docker, and the step asks for process",
    ]


def test_people_are_asked_before_a_time_is_waited_for():
    """So that the weekend can be used for looking at it; what will never be is asked nobody."""
    frozen = {"freezes": [{"name": "all-day", "weekly": "Mon 00:00 – Tue 00:00"}], "approval": {}}
    assert judged(frozen).verdict == "people"
    assert judged(frozen, approved=True).verdict == "later"
    assert judged({**frozen, "projects": "web"}).verdict == "refused"


def test_hold_has_no_end_and_says_who_and_why():
    found = judge(environment(hold=Hold("ada", "the release is bad", NOW)), facts(), NOW)
    assert found == Admission("later", ("production is held by ada: the release is bad",), None)


STANDINGS = st.one_of(
    st.builds(Standing, st.sampled_from(["never", "undone", "unwell"])),
    st.builds(Standing, st.sampled_from(["live", "former"]), st.integers(0, 7200).map(float)),
)
NAMES = ("dev", "test", "staging")


def suffices(standing: Standing, soak_s: int) -> bool:
    return standing.state in ("live", "former") and standing.healthy_s >= soak_s


def can_still_suffice(standing: Standing, soak_s: int) -> bool:
    return standing.state in ("live", "unwell") or suffices(standing, soak_s)


@given(
    standings=st.dictionaries(st.sampled_from(NAMES), STANDINGS),
    soak_s=st.integers(0, 7200),
    need=st.sampled_from(["all", "any"]),
)
def test_order_is_open_when_enough_predecessors_have_had_the_commit_for_long_enough(standings, soak_s, need):
    """Refused when that can never come by itself; else open exactly when it has come."""
    found = judged({"order": {"after": NAMES, "need": need, "soak": soak_s}}, standings=standings)
    each = [standings.get(name, Standing("never")) for name in NAMES]
    enough = all if need == "all" else any
    if enough(suffices(one, soak_s) for one in each):
        assert found.verdict == "open"
    elif enough(can_still_suffice(one, soak_s) for one in each):
        assert found.verdict == "later"
        assert found.reasons
    else:
        assert found.verdict == "refused"
        assert found.reasons


@given(
    healthy_s=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 7200), min_size=3),
    soak_s=st.integers(1, 7200),
    need=st.sampled_from(["all", "any"]),
)
def test_when_the_soak_is_over_it_is_open_and_not_before(healthy_s, soak_s, need):
    """All live and well: the time that is told is the first at which the same question is answered yes."""

    def at(later: timedelta) -> Admission:
        standings = {name: Standing("live", seconds + later.total_seconds()) for name, seconds in healthy_s.items()}
        rules = {"order": {"after": NAMES, "need": need, "soak": soak_s}}
        return judged(rules, standings=standings, now=NOW + later)

    found = at(timedelta())
    if found.verdict == "open":
        return
    assert found.at is not None
    wait = found.at - NOW
    assert at(wait).verdict == "open"
    assert at(wait - timedelta(seconds=1)).verdict == "later"


def test_commit_that_was_rolled_back_is_refused_and_one_that_was_replaced_counts():
    """Deploying production two days after staging has moved on is fine; what staging threw out is not."""
    order = {"order": {"after": "staging", "soak": "1h"}}
    assert judged(order, standings={"staging": Standing("former", 3600)}).verdict == "open"
    short = judged(order, standings={"staging": Standing("former", 60)})
    assert "was live in staging for 60 s of 60 min" in str(short)
    undone = judged(order, standings={"staging": Standing("undone")})
    assert "was rolled back in staging" in str(undone)
    assert {short.verdict, undone.verdict} == {"refused"}


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEK_MIN = 7 * 24 * 60
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(lambda at: at.replace(tzinfo=UTC, microsecond=0))


def weekly(begins_min: int, ends_min: int) -> str:
    return " – ".join(f"{DAYS[at // 1440]} {at % 1440 // 60:02d}:{at % 60:02d}" for at in (begins_min, ends_min))


def freeze(name: str = "freeze", **more: Any) -> dict[str, Any]:
    return {"freezes": [{"name": name, **more}]}


@given(begins=st.integers(0, WEEK_MIN - 1), ends=st.integers(0, WEEK_MIN - 1), zone=st.sampled_from(ZONES), now=MOMENTS)
def test_weekly_freeze_holds_by_the_clock_on_the_wall(begins, ends, zone, now):
    """Over the end of the week too. Near a change of the clocks the tests below say what holds."""
    if begins == ends:
        return
    rules = environment(**freeze(weekly=weekly(begins, ends), zone=zone)).rules
    tz = ZoneInfo(zone)
    local = now.astimezone(tz)
    near = {(now + timedelta(hours=hours)).astimezone(tz).utcoffset() for hours in range(-26, 27)}
    minute = local.weekday() * 1440 + local.hour * 60 + local.minute
    inside = begins <= minute < ends if begins < ends else minute >= begins or minute < ends
    if len(near) == 1:
        assert (rules.freezes[0].holds_until(now) is not None) is inside


@given(
    spans=st.lists(st.tuples(st.integers(0, WEEK_MIN - 1), st.integers(30, 3 * 1440)), min_size=1, max_size=3),
    zone=st.sampled_from(ZONES),
    now=MOMENTS,
)
def test_the_time_that_is_waited_for_is_the_first_that_is_free(spans, zone, now):
    """Whatever freezes follow each other: frozen until just before, and free then; or never, and it is refused."""
    given_freezes = [
        {"name": f"f{at}", "weekly": weekly(begins, (begins + length) % WEEK_MIN), "zone": zone}
        for at, (begins, length) in enumerate(spans)
    ]
    found = judged({"freezes": given_freezes}, now=now)
    frozen = environment(freezes=given_freezes).rules.freezes
    if found.verdict == "open":
        assert all(one.holds_until(now) is None for one in frozen)
    elif found.verdict == "later":
        assert found.at is not None
        assert found.at > now
        assert judged({"freezes": given_freezes}, now=found.at).verdict == "open"
        for part in (0.0, 0.3, 0.6, 0.999):
            between = now + (found.at - now) * part
            assert judged({"freezes": given_freezes}, now=between).verdict == "later"
    else:
        assert sum(length for _, length in spans) >= WEEK_MIN - 61, "only a whole week of freezes leaves no time"


@pytest.mark.parametrize(
    ("zone", "friday", "begins", "ends"),
    [
        ("Europe/Berlin", "2026-03-06", "2026-03-06T15:00", "2026-03-09T07:00"),
        ("Europe/Berlin", "2026-03-27", "2026-03-27T15:00", "2026-03-30T06:00"),  # an hour less, on the 29th
        ("Europe/Berlin", "2026-10-23", "2026-10-23T14:00", "2026-10-26T07:00"),  # an hour more, on the 25th
        ("America/New_York", "2026-03-06", "2026-03-06T21:00", "2026-03-09T12:00"),
        ("Pacific/Apia", "2011-12-23", "2011-12-24T02:00", "2011-12-26T18:00"),
        ("Pacific/Apia", "2011-12-30", "2011-12-31T02:00", "2012-01-01T18:00"),  # that Friday never was
    ],
)
def test_weekend_is_by_local_clocks_when_they_are_changed(zone, friday, begins, ends):
    """Fri 16:00 – Mon 08:00 is 63, 64 or 65 hours."""
    rules = environment(**freeze(weekly="Fri 16:00 – Mon 08:00", zone=zone)).rules
    first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (begins, ends))
    if friday != "2011-12-30":
        assert rules.freezes[0].holds_until(first - timedelta(seconds=1)) is None
        assert rules.freezes[0].holds_until(first) == last
    assert rules.freezes[0].holds_until(last - timedelta(seconds=1)) == last
    assert rules.freezes[0].holds_until(last) is None


@pytest.mark.parametrize(
    ("begins", "ends", "first", "last"),
    [
        # 02:30 never is on 2026-03-29: clocks go from 02:00 (01:00 UTC) to 03:00
        ("2026-03-29 02:30", "2026-03-29 12:00", "2026-03-29T00:30", "2026-03-29T10:00"),
        ("2026-03-28 12:00", "2026-03-29 02:30", "2026-03-28T11:00", "2026-03-29T01:30"),
        # 02:30 is twice on 2026-10-25: at 00:30 and at 01:30 UTC
        ("2026-10-25 02:30", "2026-10-25 12:00", "2026-10-25T00:30", "2026-10-25T11:00"),
        ("2026-10-24 12:00", "2026-10-25 02:30", "2026-10-24T10:00", "2026-10-25T01:30"),
    ],
)
def test_times_that_never_are_or_are_twice_freeze_longer_rather_than_shorter(begins, ends, first, last):
    rules = environment(**freeze(begins=begins, ends=ends, zone="Europe/Berlin")).rules
    opens, shuts = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last))
    assert rules.freezes[0].holds_until(opens - timedelta(seconds=1)) is None
    assert rules.freezes[0].holds_until(opens) == shuts
    assert rules.freezes[0].holds_until(shuts) is None


def test_lifted_freeze_does_not_hold_and_the_others_do():
    """Until the time for which it was lifted, and not a second longer."""
    both = environment(
        freezes=[
            {"name": "monday", "weekly": "Mon 00:00 – Tue 00:00"},
            {"name": "noon", "weekly": "Mon 11:00 – Mon 13:00"},
        ]
    ).rules.freezes
    until = NOW + timedelta(hours=6)
    lifted = [Lifted("monday", until)]
    assert thawed_at(both, lifted, NOW) == NOW + timedelta(hours=1)
    assert thawed_at(both[:1], lifted, NOW) == NOW
    assert thawed_at(both[:1], lifted, until) == NOW.replace(day=3, hour=0)


def test_freezes_that_leave_no_time_are_refused():
    """Nobody waits for what never comes."""
    rules = {
        "freezes": [
            {"name": "early", "weekly": "Mon 00:00 – Thu 12:00"},
            {"name": "late", "weekly": "Thu 11:00 – Mon 01:00"},
        ]
    }
    found = judged(rules)
    assert found.verdict == "refused"
    assert "leave no time to deploy" in str(found)
