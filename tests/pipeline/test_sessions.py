"""Whole runs in this process: real git, real commands, real database and warehouse."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from run_sessions import Runner, step

from penstock.errors import InputError
from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.close import close_run
from penstock.pipeline.local import run_graph
from penstock.pipeline.log import log_path, read_log
from penstock.pipeline.session import new_run_id, size_in_words
from penstock.processes import wait_until
from penstock.steps.context import StepResult

JUNIT = """<testsuite><testcase classname="t" name="good"/><testcase classname="t" name="bad"><failure/></testcase>
</testsuite>"""


def test_what_a_step_puts_out_is_in_place_downstream(runner: Runner):
    """Files, folders with exec bits; also through a step in between; nothing else of another step's workspace."""
    run, steps = runner.run(
        step(
            "build",
            "mkdir -p out/sub; echo x > out/sub/x; printf '#!/bin/sh\necho ran' > out/run; chmod +x out/run",
            "echo one > single; echo secret > other",
            more="artifacts_out:\n  - {key: out, path: out}\n  - {key: single, path: single}",
        )
        + step("between", "test -e out", needs="build")
        + step("use", "out/run && cat out/sub/x single source && test ! -e other", needs="between"),
        source="from git",
    )
    assert (run.state, run.reason) == ("succeeded", None)
    assert runner.log(run, "use")[1:] == ["ran", "x", "one", "from git"]
    assert steps["build"].produced.startswith("out (")
    assert run.ingested


def test_workspace_is_a_fresh_copy_of_the_commit(runner: Runner):
    """Neither the developer's ignored files nor a `.git` are in it."""
    runner.repository.write({".gitignore": "ignored\n", "ignored": "x"})
    run, _ = runner.run(step("look", "ls -A"))
    assert runner.log(run, "look")[1:] == [".gitignore", "penstock.yaml"]


def test_variables_tell_the_run(runner: Runner):
    """CI_* for every step; its own and the defaults beside them."""
    pipeline = step("env", 'echo "$CI $CI_PROJECT $CI_REF $CI_STEP $CI_COMMIT $CI_RUN $A $B"', more="env: {A: own}")
    run, _ = runner.run(pipeline + "defaults: {env: {A: default, B: default}}\n")
    told = f"true shop refs/heads/main env {run.info.commit} {run.info.id} own default"
    assert runner.log(run, "env")[1:] == [told]


def test_failure_skips_what_needs_it_and_nothing_else(runner: Runner):
    """The run's reason names the step and its last lines."""
    run, steps = runner.run(
        step("bad", "echo printed; exit 3")
        + step("after", "true", needs="bad")
        + step("last", "true", needs="after")
        + step("other", "true")
    )
    assert {name: found.state for name, found in steps.items()} == {
        "bad": "failed",
        "after": "skipped",
        "last": "skipped",
        "other": "succeeded",
    }
    assert run.state == "failed"
    assert run.reason == "bad: exit code 3: $ echo printed; exit 3 | printed"
    assert steps["bad"].exit_code == 3
    assert steps["after"].reason == "a step that it needs did not succeed"


def test_failing_tests_are_named(runner: Runner):
    """In the step's reason, whatever the exit code says."""
    reports = "reports: {junit: r.xml}"
    write = f"cat > r.xml <<'END'\n{JUNIT}\nEND\n"
    run, steps = runner.run(
        step("loud", f"{write}exit 1", more=reports)
        + step("quiet", write, more=reports)
        + step("none", "true", more=reports)
        + step("broken", "echo '<x' > r.xml", more=reports)
    )
    assert steps["loud"].reason == steps["quiet"].reason == "1 of 2 tests failed: t::bad"
    assert steps["none"].reason == "no test was found in r.xml"
    assert steps["broken"].reason == "no test was found in r.xml"
    assert run.state == "failed"
    with runner.services.database.connect() as connection:
        found = connection.execute(sa.text("SELECT step, passed, evidence FROM verdicts ORDER BY step")).all()
    assert {row.step: row.passed for row in found} == {"broken": False, "loud": False, "none": False, "quiet": False}
    assert found[1].evidence["failing"] == "t::bad"


def test_output_that_no_database_takes_is_no_defect(runner: Runner):
    """NUL, colours, half a character in the last lines of a failing step."""
    run, steps = runner.run(step("bad", r"printf 'a\000b \033[31mred\033[0m \377\n'; exit 1"))
    assert run.state == "failed"
    assert (steps["bad"].reason or "").endswith("a b red \N{REPLACEMENT CHARACTER}")


def test_step_may_leave_anything_behind(runner: Runner):
    """Folders nested deeper than Python recurses, folders without rights: the next step begins, nothing stays."""
    deep = 'python3 -c \'import os\nfor _ in range(2000): os.mkdir("d"); os.chdir("d")\''
    run, _ = runner.run(step("deep", deep, "mkdir ro; touch ro/x; chmod 000 ro") + step("next", "true", needs="deep"))
    assert (run.state, run.reason) == ("succeeded", None)


def test_time_limit_is_a_state_of_its_own(runner: Runner):
    """It says the limit."""
    run, steps = runner.run(step("slow", "sleep 300", more="timeout: 1s"))
    assert run.state == "timed_out"
    assert steps["slow"].reason == "took longer than its limit of 1 s"


def test_missing_artifact_is_the_steps_failure(runner: Runner):
    """It says which, and a folder to start in that is not there too."""
    run, steps = runner.run(
        step("out", "true", more="artifacts_out: [{key: a, path: nowhere}]") + step("dir", "true", more="work_dir: x")
    )
    assert steps["out"].reason == 'artifact a: there is no "nowhere" in the workspace; check the path'
    assert steps["dir"].reason == 'there is no folder "x" in the workspace; mend work_dir'
    assert run.state == "failed"


def test_artifact_that_leads_out_is_refused(runner: Runner):
    """A link to the host's files is no artifact, as a folder neither; nor is it a place to start in."""
    (runner.repository.root / "out").symlink_to("/etc")
    _, steps = runner.run(
        step("link", "ln -s /etc/passwd leak", more="artifacts_out: [{key: a, path: leak}]")
        + step("folder", "true", more="artifacts_out: [{key: a, path: out/ssh}]")
        + step("dir", "pwd", more="work_dir: out")
    )
    for name in ("link", "folder", "dir"):
        assert steps[name].state == "failed"
        assert "leads out of the workspace" in (steps[name].reason or "")


def test_link_of_the_repository_does_not_lead_an_artifact_astray(runner: Runner, home: Path):
    """An artifact's place downstream may be a link in the commit: it is not written through."""
    (home / "victim").write_text("mine")
    (runner.repository.root / ".a.part").symlink_to(home / "victim")
    run, _ = runner.run(
        step("make", "echo theirs > a", more="artifacts_out: [{key: a, path: a}]") + step("use", "cat a", needs="make")
    )
    assert run.state == "succeeded"
    assert (home / "victim").read_text() == "mine"


def test_published_artifact_is_found_by_another_commit(runner: Runner):
    """By branch; this commit's own by default; an unknown key fails with its name."""
    push = "  - {name: publish, type: step.artifact_push, needs: [make], key: app, path: a}\n"
    pull = "  - {name: pull, type: step.artifact_pull, needs: [publish], key: app, path: b}\n"
    made = step("make", "echo one > a", more="artifacts_out: [{key: a, path: a}]")
    run, _ = runner.run(made + push + pull + step("use", "cat b", needs="pull"))
    assert runner.log(run, "use")[1:] == ["one"]
    later = "  - {name: %s, type: step.artifact_pull, key: %s%s}\n"
    _, steps = runner.run(
        later % ("branch", "app", ", ref: refs/heads/main") + later % ("own", "app", "") + later % ("none", "nope", "")
    )
    assert steps["branch"].state == "succeeded"
    assert "was published by commit" in (steps["own"].reason or "")
    assert 'no artifact "nope"' in (steps["none"].reason or "")


def test_deployments_are_skipped_without_a_platform(runner: Runner):
    """One after the other too; the run succeeds."""
    deploy = "  - {name: %s, type: step.deploy, needs: [%s], environment: %s, artifact: a, command: x}\n"
    made = step("make", "mkdir a", more="artifacts_out: [{key: a, path: a}]")
    run, steps = runner.run(made + deploy % ("first", "make", "test") + deploy % ("second", "first", "production"))
    assert run.state == "succeeded"
    assert [steps[name].state for name in ("first", "second")] == ["skipped", "skipped"]
    assert "penstock up" in (steps["first"].reason or "")


def test_cancel_stops_everything(runner: Runner):
    """What runs is cancelled, what waits is skipped, the reason is the canceller's."""
    session = runner.start(step("slow", "echo up; sleep 300") + step("after", "true", needs="slow"))
    token, states = CancelToken(), []

    def on_step(_name: str, result: StepResult | None) -> None:
        if result is not None:
            states.append(result.state)

    worker = threading.Thread(target=lambda: run_graph(session, token, on_step=on_step))
    worker.start()
    path = log_path(runner.services.settings.home, session.info.id, "slow")
    assert wait_until(lambda: any(line.text == "up" for line in read_log(path)[0]), limit_s=60)
    token.cancel("stopped by Ada")
    worker.join(10)
    assert not worker.is_alive()
    assert session.finish(cancelled=token.reason) == "cancelled"
    run, steps = runner.recorded(session)
    assert (run.state, run.reason) == ("cancelled", "stopped by Ada")
    assert (steps["slow"].state, steps["after"].state) == ("cancelled", "skipped")
    assert states == ["cancelled"]


def test_run_cancelled_before_it_began_starts_nothing(runner: Runner):
    """Every step is skipped, and says why."""
    session, token = runner.start(step("a", "true") + step("b", "true")), CancelToken()
    token.cancel("too late")
    run_graph(session, token, on_step=lambda _step, _result: None)
    assert session.finish(cancelled=token.reason) == "cancelled"
    _, steps = runner.recorded(session)
    assert {found.reason for found in steps.values()} == {"too late"}


def test_chosen_step_takes_what_earlier_runs_made(runner: Runner):
    """`--step`: the others are not run again, and the record says whose results they are."""
    first, _ = runner.run(
        step("make", "echo $CI_RUN > a", more="artifacts_out: [{key: a, path: a}]")
        + step("use", "cat a", needs="make")
        + step("other", "true")
    )
    run, steps = runner.run(only={"use"})
    assert run.state == "succeeded"
    assert runner.log(run, "use")[1:] == [first.info.id]
    assert {name: found.reused_from for name, found in steps.items()} == {
        "make": first.info.id,
        "use": None,
        "other": first.info.id,
    }


def test_failed_step_run_again_reuses_what_succeeded(runner: Runner):
    """What passed is not run again, and what failed has not passed."""
    first, steps = runner.run(step("make", "true") + step("use", "exit 1", needs="make"))
    assert first.state == "failed"
    again, steps = runner.run(only={"use"})
    assert again.state == "failed"
    assert steps["make"].reused_from == first.info.id
    assert records.passed_steps(runner.services.database, again.info) == {"make": first.info.id}


def test_chosen_step_whose_needs_never_passed_is_refused(runner: Runner):
    """It names them; choosing them too is fine."""
    pipeline = step("a", "true") + step("b", "true", needs="a") + step("c", "true", needs="b")
    session = runner.start(pipeline, only={"c"})
    with pytest.raises(InputError, match='"c" needs a, b; run them first, or the whole pipeline'):
        run_graph(session, CancelToken(), on_step=lambda _step, _result: None, only={"c"})
    session.finish(cancelled="refused")
    run, steps = runner.run(only={"a", "b", "c"})
    assert run.state == "succeeded"
    assert all(found.reused_from is None for found in steps.values())


def test_another_pipeline_at_the_same_commit_owes_nothing_to_the_former(runner: Runner):
    """What passed for one graph says nothing about another."""
    runner.run(step("a", "true"))
    session = runner.start(step("a", "true; true") + step("b", "true", needs="a"))
    assert session.undecided("b") == ("a",)
    session.finish(cancelled="never mind")


def test_damaged_artifact_stops_the_step_that_needs_it(runner: Runner, home: Path):
    """Its bytes are never handed on; the state says that it is not the user's fault."""
    runner.run(
        step("make", "echo x > a", more="artifacts_out: [{key: a, path: a}]") + step("use", "cat a", needs="make")
    )
    (blob,) = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    blob.write_bytes(b"y\n")
    run, steps = runner.run(only={"use"})
    assert run.state == "infra_error"
    assert "damaged" in (steps["use"].reason or "")


def test_many_steps_run_at_once_up_to_the_limit(runner: Runner):
    """Ready steps start together; never more than asked for."""
    session = runner.start("".join(step(f"s{n}", "sleep 0.2") for n in range(6)))
    lock, now, most = threading.Lock(), set(), []

    def on_step(name: str, result: StepResult | None) -> None:
        with lock:
            now.add(name) if result is None else now.discard(name)
            most.append(len(now))

    run_graph(session, CancelToken(), on_step=on_step, max_parallel=3)
    assert session.finish() == "succeeded"
    assert max(most) == 3


def test_run_whose_process_was_killed_is_closed_once(runner: Runner):
    """Its processes are gone, its steps say why, and closing twice changes nothing."""
    session = runner.start(step("a", "true") + step("b", "true", needs="a"))
    records.start_step(runner.services.database, session.info.id, "a")
    for reason in ("its process was killed", "another reason"):
        close_run(runner.services.settings, runner.services.database, session.info.id, "FAILURE", reason)
    run, steps = runner.recorded(session)
    assert (run.state, run.reason) == ("infra_error", "a: its process was killed")
    assert (steps["a"].state, steps["b"].state) == ("infra_error", "skipped")
    assert run.ingested


def test_failure_before_a_cancel_keeps_its_own_reason(runner: Runner):
    """What failed by itself is not said to have been stopped by somebody."""
    session = runner.start(step("bad", "exit 1") + step("b", "true"))
    session.step("bad", CancelToken())
    assert session.finish(cancelled="stopped by Ada") == "failed"
    run, _ = runner.recorded(session)
    assert (run.reason or "").startswith("bad: exit code 1")


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (5 * 10**12, "5.0 TB")]
)
def test_sizes_are_said_in_words(size: int, words: str):
    """Powers of 1000."""
    assert size_in_words(size) == words


def test_run_identifiers_differ_in_the_digits_that_people_see():
    """Also of runs that begin within one millisecond; lists sort runs by their times, not by these."""
    made = [new_run_id() for _ in range(200)]
    assert len({name[:8] for name in made}) == 200
