"""Gates that wait for people: bound to commit, graph and digest, answered once, taken back, expired."""

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa
from gates import ADA, BY_ADA, GRACE, MARY, Gate
from run_sessions import Runner, step

from penstock.errors import ConflictError, ForbiddenError, PenstockError
from penstock.people import groups, users
from penstock.people.audit import list_changes
from penstock.people.users import User
from penstock.pipeline import records
from penstock.pipeline.approval_rules import ApprovalRule
from penstock.pipeline.approvals import Question, answer, ask, expire, find_request, list_requests, withdraw
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.log import utc_now
from penstock.state.people_tables import approval_mails
from penstock.state.tables import instances, releases
from penstock.steps.context import StepResult

RELEASE = "  - name: release\n    type: step.gate\n    needs: [build]\n"
GO = step("go", "true", needs="release")


@pytest.fixture
def gate(database: sa.Engine) -> Gate:
    return Gate(database)


def approve(gate: Gate, request_id: int, person: str, **options: str) -> str:
    return answer(gate.database, request_id, person, approved=True, how="api", **options).state  # type: ignore[arg-type]


def reject(gate: Gate, request_id: int, person: str, why: str = "") -> str:
    return answer(gate.database, request_id, person, approved=False, how="api", why=why).state


def test_run_ends_and_what_is_left_goes_on_when_enough_have_approved(runner: Runner):
    """A waiting run has ended, and holds nobody; another pipeline needs another approval; a no holds for reruns."""
    pipeline = step("build", "true") + RELEASE + "    approval: {count: 2}\n" + GO
    run, steps = runner.run(pipeline)
    assert (run.state, steps["release"].state, steps["go"].state) == ("waiting", "waiting", "skipped")
    assert "waits for 2 people to approve: penstock approve" in str(steps["release"].reason)
    database = runner.services.database
    found = find_request(database, run.info.id[:8], "release")
    assert answer(database, found.id, "ada", approved=True, how="cli").state == "waiting"
    with pytest.raises(ConflictError, match="ada has answered already"):
        answer(database, found.id, "ada", approved=True, how="cli")
    run, steps = runner.run(only={"release", "go"})
    assert "waits for one person" in str(steps["release"].reason)
    assert records.load_run(database, found.run_id).state == "skipped", "the newer run waits in its place"
    assert answer(database, found.id, "grace", approved=True, how="cli", why="seen").state == "approved"
    run, steps = runner.run(only={"release", "go"})
    told = (run.state, steps["release"].produced, steps["go"].state)
    assert told == ("succeeded", "approved by ada, grace", "succeeded")
    assert find_request(database, run.info.id, "release", states=["approved"]).used_at is not None
    run, steps = runner.run(pipeline + step("another", "true"))
    assert steps["release"].state == "waiting", "another pipeline needs another approval"
    newest = find_request(database, run.info.id, "release")
    answer(database, newest.id, "ada", approved=False, how="cli", why="not on a Friday")
    assert records.load_run(database, run.info.id).state == "failed"
    _, steps = runner.run(only={"release", "go"})
    assert (steps["release"].state, steps["release"].reason) == ("failed", "rejected by ada: not on a Friday")


def test_another_build_of_the_commit_needs_another_approval(runner: Runner):
    """What was approved is what was built then; nothing that is deployed alone gets past the gate meanwhile."""
    build = step("build", "date +%N > app", more="artifacts_out:\n  - {key: app, path: app}")
    pipeline = build + RELEASE + "    approval: {}\n" + GO
    run, _ = runner.run(pipeline)
    database = runner.services.database
    first = find_request(database, run.info.id, "release")
    answer(database, first.id, "ada", approved=True, how="cli")
    run, steps = runner.run(only={"release", "go"})
    assert run.state == "succeeded"
    session = runner.start(only={"build"})
    assert session.undecided("go") == ()
    session.step("build", CancelToken())
    assert session.undecided("go") == ("release",), "the gate saw another build"
    session.finish()
    run, steps = runner.run(only={"release", "go"})
    assert (run.state, steps["go"].state) == ("waiting", "skipped")
    second = find_request(database, run.info.id, "release")
    assert second.digest != first.digest
    with pytest.raises(ConflictError, match="the approval is for"):
        answer(database, second.id, "ada", approved=True, how="cli", digest=first.digest)


def test_same_commit_built_again_with_the_same_result_needs_no_other_approval(runner: Runner):
    """A tag beside a branch, or a run that is repeated."""
    build = step("build", "echo 1 > app", more="artifacts_out:\n  - {key: app, path: app}")
    run, _ = runner.run(build + RELEASE + "    approval: {}\n" + GO)
    database = runner.services.database
    answer(database, find_request(database, run.info.id, "release").id, "ada", approved=True, how="cli")
    assert runner.run()[0].state == "succeeded"
    session = runner.start(only={"build"})
    session.step("build", CancelToken())
    assert session.undecided("go") == ()
    session.finish()


def test_request_for_an_older_build_cannot_be_answered_any_more(gate: Gate):
    """It is withdrawn when the commit has been built anew, and its run waits no more."""
    old = gate.waits(digest="one")
    new = gate.waits(digest="two")
    with pytest.raises(ConflictError, match="another build of this commit took its place"):
        approve(gate, old.id, "ada")
    assert gate.run_state(old.run_id) == "skipped"
    assert approve(gate, new.id, "ada") == "approved"
    assert gate.comes(gate.run(), digest="one").state == "waiting"


def test_author_cannot_approve_where_the_rule_says_so(gate: Gate):
    """Known by mail, by name, or as who pushed; whom nobody can tell from the author may not either."""
    gate.people(ADA, GRACE, User("ida", "i@example.org", ("octo-ada",)), User("blank"))
    request = gate.waits(ApprovalRule(not_author=True), author="A. L. <ADA@example.org>", actor="octo-ada")
    for person, why in [
        ("ada", "wrote this commit or set the run off"),
        ("ida", "wrote this commit or set the run off"),
        ("blank", "does not know"),
        ("nobody", "does not know"),
    ]:
        with pytest.raises(ForbiddenError, match=why):
            approve(gate, request.id, person)
    assert approve(gate, request.id, "grace") == "approved"


def test_commit_without_an_author_can_be_approved_by_nobody_but_where_the_author_may(gate: Gate):
    gate.people()
    request = gate.waits(ApprovalRule(not_author=True), author=None)
    with pytest.raises(ForbiddenError, match="names no author"):
        approve(gate, request.id, "grace")


def test_only_those_who_are_asked_answer(gate: Gate):
    """Neither yes nor no of somebody else counts, and the remedy names who is asked."""
    gate.people(release=("grace",))
    request = gate.waits(ApprovalRule(users=("ada",), groups=("release",)))
    for say in (approve, reject):
        with pytest.raises(ForbiddenError, match="these are: ada, group release"):
            say(gate, request.id, "mary")
    assert approve(gate, request.id, "grace") == "approved"


def test_group_is_asked_as_it_is_when_it_answers_and_when_the_gate_opens(gate: Gate):
    """Who has joined may; the yes of who has left counts no more, also when the gate was open already."""
    gate.people(release=("grace",))
    request = gate.waits(ApprovalRule(count=1, groups=("release",)))
    assert approve(gate, request.id, "grace") == "approved"
    with gate.database.begin() as connection:
        groups.remove_member(connection, "release", "grace")
        groups.add_member(connection, "release", "mary")
    assert gate.comes(gate.run(), ApprovalRule(groups=("release",))).state == "waiting"
    assert approve(gate, request.id, "mary") == "approved"
    assert gate.comes(gate.run(), ApprovalRule(groups=("release",))).approved_by == ("mary",)


def test_rule_that_changed_is_asked_again_of_the_same_answers(gate: Gate):
    """A stricter rule takes the gate's opening back; what was said stays said."""
    request = gate.waits()
    assert approve(gate, request.id, "ada") == "approved"
    assert gate.comes(gate.run(), ApprovalRule(count=2)).missing == 1
    assert approve(gate, request.id, "grace") == "approved"


def test_nobody_in_time_is_expired_and_the_run_has_failed(gate: Gate):
    """By the clock alone; running the gate again asks anew."""
    request = gate.waits(ApprovalRule(within_s=3600))
    assert expire(gate.database, utc_now() + timedelta(minutes=59)) == 0
    assert expire(gate.database, utc_now() + timedelta(minutes=61)) == 1
    run = records.load_run(gate.database, request.run_id)
    assert (run.state, run.reason) == ("failed", "release: expired: not approved within 1 h")
    with pytest.raises(ConflictError, match="is expired already"):
        approve(gate, request.id, "ada")
    assert gate.newest().answers[-1].decision == "expired"
    assert gate.waits(ApprovalRule(within_s=3600)).id != request.id


def test_answer_that_comes_late_is_refused_even_if_nobody_looked_at_the_clock(gate: Gate):
    request = gate.waits(ApprovalRule(within_s=60))
    late = utc_now() + timedelta(minutes=2)
    with pytest.raises(ConflictError, match="expired"):
        answer(gate.database, request.id, "ada", approved=True, how="api", now=late)
    assert (gate.newest().state, gate.run_state(request.run_id)) == ("expired", "failed")


def test_approval_can_be_taken_back_until_it_is_used(gate: Gate):
    """The gate waits again; who changes their mind may approve once more; used is used."""
    request = gate.waits()
    approve(gate, request.id, "grace")
    assert withdraw(gate.database, request.id, "grace", how="api", why="wait").state == "waiting"
    assert gate.comes(gate.run()).state == "waiting"
    assert approve(gate, request.id, "grace") == "approved"
    assert gate.comes(gate.run()).state == "approved"
    with pytest.raises(ConflictError, match="the step passed with it"):
        withdraw(gate.database, request.id, "grace", how="api")
    decisions = [one.decision for one in gate.newest().answers]
    assert decisions == ["approved", "withdrawn", "approved"]


def test_author_can_withdraw_the_request_and_nobody_else(gate: Gate):
    """The run has failed, with its own state on record; a rerun asks anew."""
    gate.people()
    request = gate.waits()
    with pytest.raises(ForbiddenError, match='"grace" has nothing to withdraw'):
        withdraw(gate.database, request.id, "grace", how="api")
    ended = withdraw(gate.database, request.id, "ada", how="api", why="a typo")
    assert (ended.state, ended.reason) == ("withdrawn", "withdrawn by ada: a typo")
    assert gate.run_state(request.run_id) == "failed"
    with pytest.raises(ConflictError, match="is withdrawn already"):
        approve(gate, request.id, "grace")
    assert gate.waits().state == "waiting"


def at_once(*calls: object) -> list[str]:
    """What came of each, begun at the same moment."""
    ready, came = threading.Barrier(len(calls)), ["" for _ in calls]

    def one(at: int) -> None:
        ready.wait()
        try:
            came[at] = calls[at]()  # type: ignore[operator]
        except PenstockError as error:
            came[at] = type(error).__name__

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


def test_two_who_approve_at_once_are_both_heard(gate: Gate):
    """One of the two opens it, the other was needed for that."""
    request = gate.waits(ApprovalRule(count=2))
    came = at_once(lambda: approve(gate, request.id, "ada"), lambda: approve(gate, request.id, "grace"))
    assert sorted(came) == ["approved", "waiting"]
    assert gate.newest().state == "approved"


def test_one_who_approves_twice_at_once_is_one_person(gate: Gate):
    request = gate.waits(ApprovalRule(count=2))
    came = at_once(*[lambda: approve(gate, request.id, "ada")] * 4)
    assert sorted(came) == ["ConflictError"] * 3 + ["waiting"]


def test_of_a_yes_beside_a_no_one_is_first_and_the_other_hears_it(gate: Gate):
    """Never both: the state is that of the one who was heard."""
    for attempt in range(8):
        request = Gate(gate.database, commit=f"{attempt:040d}").waits()
        came = at_once(lambda at=request.id: approve(gate, at, "ada"), lambda at=request.id: reject(gate, at, "grace"))
        first = next(one for one in came if one != "ConflictError")
        assert sorted(came) == sorted(["ConflictError", first])
        found = list_requests(gate.database, limit=1)[0]
        assert (found.state, len(found.answers)) == (first, 1)


def test_answer_that_comes_while_the_step_is_ending_shuts_it_all_the_same(gate: Gate):
    """The no was said before the run's own process had written down that it waits."""
    info = gate.run()
    ask(gate.database, Question(info, "release", ApprovalRule(), "d1"), utc_now())
    reject(gate, gate.newest().id, "ada", "no")
    records.finish_step(gate.database, info, "release", StepResult("waiting", reason="waits"))
    records.finish_run(gate.database, info.id)
    assert gate.run_state(info.id) == "waiting"
    assert expire(gate.database, utc_now()) == 1
    assert gate.run_state(info.id) == "failed"
    assert expire(gate.database, utc_now()) == 0


def test_everybody_who_may_approve_and_has_an_address_is_to_get_a_mail(gate: Gate):
    """Once for each gate, however often it asks; the author gets none where the author may not."""
    gate.people(ADA, GRACE, MARY, User("quiet", git_names=("Q",)), release=("ada", "grace", "quiet"))
    rule = ApprovalRule(groups=("release",), not_author=True)
    gate.waits(rule)
    gate.waits(rule)
    with gate.database.connect() as connection:
        assert connection.execute(sa.select(approval_mails.c.person)).scalars().all() == ["grace"]


def test_who_said_what_why_and_how_is_on_record(gate: Gate):
    """With the answer, and in the audit."""
    request = gate.waits()
    answer(gate.database, request.id, "ada", approved=True, how="mail", why="tested by hand")
    (told,) = gate.newest().answers
    assert (told.person, told.decision, told.why, told.how) == ("ada", "approved", "tested by hand", "mail")
    with gate.database.connect() as connection:
        change = list_changes(connection, action="gate")[0]
    assert (change.actor, change.action, change.subject) == ("ada", "gate.approved", "shop")
    assert change.detail["digest"] == "d1"


def test_gate_can_ask_how_long_something_has_been_live(runner: Runner, database: sa.Engine):
    """`env("staging")`: nothing is live, then something is; an instance that is down makes it unhealthy."""
    asks = 'condition: env("staging").live && env("staging").commit == commit && env("staging").healthy_s > 60'
    pipeline = step("build", "true") + RELEASE + f"    {asks}\n"
    run, steps = runner.run(pipeline)
    assert (run.state, "does not hold" in str(steps["release"].reason)) == ("failed", True)
    ago = utc_now() - timedelta(seconds=100)
    row = {
        **{"id": "r1", "project": "shop", "environment": "staging", "service": "web", "number": 3},
        **{"commit": run.info.commit, "digest": "d", "graph_hash": "g", "run_id": "x", "configuration": {}},
        **{"state": "live", "live_at": ago},
    }
    up = {"id": "i1", "release_id": "r1", "desired": "running", "state": "running", "started_at": ago}
    with database.begin() as connection:
        connection.execute(sa.insert(releases).values(row))
        connection.execute(sa.insert(instances).values(up))
    assert runner.run(only={"release"})[0].state == "succeeded"
    with database.begin() as connection:
        connection.execute(sa.update(instances).values(state="exited"))
    assert runner.run(only={"release"})[0].state == "failed"


def test_people_are_asked_where_the_condition_does_not_hold(runner: Runner):
    approval = "    condition: env('staging').live\n    approval: {}\n"
    _, steps = runner.run(step("build", "true") + RELEASE + approval)
    assert steps["release"].state == "waiting"


def test_user_who_was_removed_has_no_voice_by_a_group(gate: Gate):
    gate.people(release=("grace", "mary"))
    request = gate.waits(ApprovalRule(count=2, groups=("release",)), author=BY_ADA)
    approve(gate, request.id, "grace")
    with gate.database.begin() as connection:
        users.remove_user(connection, "grace")
    assert approve(gate, request.id, "mary") == "waiting"
