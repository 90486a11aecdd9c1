"""What a step may ask for, in whole runs: conditions, retries, outputs, secrets, caches, reuse, gates."""

import json
import threading
from pathlib import Path

import attrs
import sqlalchemy as sa
from run_sessions import Runner, step

from penstock.pipeline import records
from penstock.pipeline.cancel import CancelToken
from penstock.pipeline.kept import kept_workspace
from penstock.pipeline.local import run_graph
from penstock.pipeline.local_runs import at_work, close_abandoned
from penstock.state.tables import steps as steps_table
from penstock.vault import SHARED, open_vault


def gate(name: str, needs: str, more: str) -> str:
    """A step.gate in YAML."""
    lines = [f"  - name: {name}", "    type: step.gate", f"    needs: [{needs}]"]
    return "\n".join([*lines, *(f"    {line}" for line in more.splitlines())]) + "\n"


def test_step_whose_condition_does_not_hold_is_skipped_and_the_rest_goes_on(runner: Runner):
    """A list of conditions is OR, the fields of one are AND; the reason says what did not hold."""
    run, steps = runner.run(
        step("tagged", "true", more="when: {tag: v*}")
        + step("either", "true", more="when:\n  - {branch: dev}\n  - {branch: main, event: push}")
        + step("both", "true", more="when: {branch: main, if: \"event == 'tag'\"}")
        + step("after", "true", needs="tagged, both")
    )
    assert run.state == "succeeded"
    states = {name: found.state for name, found in steps.items()}
    assert states == {"tagged": "skipped", "either": "succeeded", "both": "skipped", "after": "succeeded"}
    assert steps["tagged"].reason == "not needed: tag is none, not v*"
    assert steps["both"].reason == "not needed: event == 'tag' does not hold"


def test_changed_files_decide(runner: Runner):
    """Against the commit before; without one every path fits."""
    pipeline = step("docs", "true", more="when: {paths: docs/**}") + step(
        "code", "true", more="when: {paths: [src/**]}"
    )
    first, steps = runner.run(pipeline, **{"src/a": "1"})
    assert {found.state for found in steps.values()} == {"succeeded"}
    _, steps = runner.run(pipeline, facts={"before": first.info.commit}, **{"src/a": "2"})
    assert (steps["docs"].state, steps["code"].state) == ("skipped", "succeeded")
    assert "no changed file fits docs/**" in str(steps["docs"].reason)


def test_failure_that_is_allowed_stops_nothing(runner: Runner):
    """The step has failed, the run has not."""
    run, steps = runner.run(step("lint", "exit 3", more="continue_on_error: true") + step("next", "true", needs="lint"))
    assert (run.state, run.reason) == ("succeeded", None)
    assert (steps["lint"].state, steps["lint"].exit_code, steps["next"].state) == ("failed", 3, "succeeded")


def test_failed_step_is_tried_again_as_often_as_it_may(runner: Runner, tmp_path: Path):
    """Each attempt has a fresh workspace; the log says which attempt it is."""
    count = tmp_path / "count"
    command = f"test ! -e made; touch made; echo x >> {count}; test $(wc -l < {count}) = 3"
    run, steps = runner.run(step("flaky", command, more="retry: {max: 3, on: failure}"))
    if run.state != "succeeded":  # the sandbox cannot write outside of the workspace: count there is always 1
        assert steps["flaky"].attempt == 4
    run, steps = runner.run(step("never", "exit 1", more="retry: {max: 2, on: [failure]}"))
    assert (run.state, steps["never"].attempt) == ("failed", 3)
    assert [line for line in runner.log(run, "never", own=True) if "attempt 3 of 3" in line]
    run, steps = runner.run(step("once", "exit 1", more="retry: {max: 2, on: infra}"))
    assert (run.state, steps["once"].attempt) == ("failed", 1)


def test_outputs_are_there_for_the_steps_after(runner: Runner):
    """NAME=VALUE in $CI_OUTPUTS; a value that looks like shell stays a value."""
    run, steps = runner.run(
        step("make", "echo 'version=$(echo 1.2); rm -rf /' >> $CI_OUTPUTS", "echo size=3 >> $CI_OUTPUTS")
        + step("use", 'echo "${{ steps.make.outputs.version }} ${{ steps.make.outputs.size }}"', needs="make")
    )
    assert run.state == "succeeded"
    assert runner.log(run, "use")[-1] == "$(echo 1.2); rm -rf / 3"
    run, steps = runner.run(step("make", "echo nonsense >> $CI_OUTPUTS"))
    assert steps["make"].reason == "$CI_OUTPUTS: line 1 is no output; write NAME=VALUE"
    run, steps = runner.run(step("make", "true") + step("use", "echo ${{ steps.make.outputs.none }}", needs="make"))
    assert 'there is no "none"' in str(steps["use"].reason)


def test_what_comes_after_runs_also_when_the_step_failed(runner: Runner):
    """And sees its workspace; what comes before it fails it."""
    run, steps = runner.run(
        step("work", "echo made > file; exit 7", more='post: ["cat file; echo cleaned"]')
        + step("slow", "sleep 60", more='timeout: 1s\npost: ["echo cleaned"]')
        + step("early", "echo never", more='pre: ["exit 4"]')
        + step("late", "true", more='post: ["exit 5"]')
    )
    assert runner.log(run, "work")[-2:] == ["made", "cleaned"]
    assert (steps["slow"].state, runner.log(run, "slow")[-1]) == ("timed_out", "cleaned")
    assert (steps["early"].exit_code, "never" in runner.log(run, "early")) == (4, False)
    assert (steps["late"].state, steps["late"].reason) == ("failed", "post: exit code 5")


def test_secret_reaches_the_step_and_nothing_else(runner: Runner):
    """As a file and as a variable; in the log, the reason and the outputs it is stars, in every form."""
    vault = open_vault(runner.services.settings)
    vault.write(SHARED, "TOKEN", b"correct-horse-battery")
    commands = (
        'test "$(cat $PENSTOCK_SECRETS/TOKEN)" = "$T"',
        "echo is $T and $(printf %s $T | base64)",
        "echo leak=$T >> $CI_OUTPUTS; echo failing with $T; exit 3",
    )
    run, steps = runner.run(
        step("use", *commands, more="secrets: [TOKEN]\nsecret_env: {T: TOKEN}") + step("without", 'echo "[$T]"')
    )
    said = "\n".join(
        [*runner.log(run, "use"), *runner.log(run, "use", own=True), str(run.reason), str(steps["use"].reason)]
    )
    assert "is *** and ***" in said
    assert "failing with ***" in str(steps["use"].reason)
    assert "correct-horse" not in said + str(records.outcomes(runner.services.database, run.info.id))
    assert runner.log(run, "without")[-1] == "[]"
    kept = kept_workspace(runner.services.settings.home, run.info.id, "use")
    assert not [
        path for path in kept.rglob("*") if path.name != ".penstock-outputs" and b"correct-horse" in path.read_bytes()
    ]


def test_pull_request_from_a_fork_gets_no_secret(runner: Runner):
    """Whoever wrote it is not known to the project."""
    open_vault(runner.services.settings).write(SHARED, "TOKEN", b"correct-horse-battery")
    pipeline = step("use", "cat $PENSTOCK_SECRETS/TOKEN", more="secrets: [TOKEN]")
    fork = {"event": "pull_request", "about": {"pull_request": {"number": 7, "fork": True}}}
    _, steps = runner.run(pipeline, facts=fork)
    assert steps["use"].state == "failed"
    assert "a pull request from a fork gets no secrets" in str(steps["use"].reason)
    _, steps = runner.run(pipeline.replace("TOKEN", "TOKNE"))
    assert "TOKNE" in str(steps["use"].reason)


def test_cache_is_restored_by_key_then_by_its_beginning(runner: Runner):
    """A second run finds what the first one kept; another key falls back; nothing there is a clean start."""
    cache = "cache: {key: \"deps-${{ hash_files('lock') }}\", restore: [deps-], paths: [deps]}"
    pipeline = step("build", "cat deps/had || echo clean", "mkdir -p deps; cat lock >> deps/had", more=cache)
    told = []
    for lock in ("one\n", "one\n", "two\n"):
        run, steps = runner.run(pipeline, lock=lock)
        assert steps["build"].state == "succeeded", steps["build"].reason
        told.append([line for line in runner.log(run, "build") if not line.startswith(("$", "cat:"))])
    assert told == [["clean"], ["one"], ["one"]]


def test_step_whose_inputs_are_the_same_is_not_run_again(runner: Runner):
    """Another commit that touches none of them takes the result, artifacts and outputs over."""
    more = "inputs: [src/**]\nartifacts_out:\n  - {key: out, path: out}"
    pipeline = step("build", "cat src/a > out; echo n=1 >> $CI_OUTPUTS; ls", more=more)
    pipeline += step("use", "cat out; echo ${{ steps.build.outputs.n }}", needs="build")
    first, steps = runner.run(pipeline, **{"src/a": "A\n", "other": "1"})
    assert runner.log(first, "build")[-2:] == ["out", "src"], "only the inputs are in the workspace"
    second, steps = runner.run(pipeline, other="2")
    assert steps["build"].reused_from == first.info.id
    assert runner.log(second, "use")[1:] == ["A", "1"]
    third, steps = runner.run(pipeline, **{"src/a": "B"})
    assert steps["build"].reused_from is None
    assert "B" in "".join(runner.log(third, "use"))


def test_step_is_run_again_when_a_service_beside_it_is_another(runner: Runner):
    """The service's definition is part of what the result depends on, not its name alone."""
    services = "services: {db: {command: [sleep, '60'], env: {MODE: %s}}}\n"
    head = step("test", "cat src", more="inputs: [src]\nservices: [db]")
    first, _ = runner.run(head + services % "strict", src="A", other="1")
    assert first.state == "succeeded", first.reason
    _, steps = runner.run(head + services % "strict", other="2")
    assert steps["test"].reused_from == first.info.id
    _, steps = runner.run(head + services % "loose", other="2")
    assert (steps["test"].state, steps["test"].reused_from) == ("succeeded", None)


def test_known_result_whose_artifact_is_lost_is_made_again(runner: Runner):
    """Reuse gives what a clean run gives, or is none."""
    pipeline = step("build", "cp src out", more="inputs: [src]\nartifacts_out:\n  - {key: out, path: out}")
    first, _ = runner.run(pipeline, src="A", other="1")
    for _, made in records.artifacts_by_step(runner.services.database, first.info.id):
        runner.services.store.delete(made.digest)
    _, steps = runner.run(pipeline, other="2")
    assert (steps["build"].state, steps["build"].reused_from) == ("succeeded", None)


def test_matrix_runs_no_more_at_once_than_its_limit(runner: Runner):
    """The others wait for their turn."""
    pipeline = step("work", "echo ${{ matrix.n }}; sleep 0.3")
    session = runner.start(pipeline + "matrix: {n: [1, 2, 3, 4, 5], limit: 2}\n")
    running, most, lock = set[str](), [0], threading.Lock()
    states: list[str] = []

    def on_step(name: str, result: object) -> None:
        with lock:
            if result is not None:
                states.append(getattr(result, "state", ""))

    def on_line(name: str, line: str) -> None:
        with lock:
            if line in "12345":
                running.add(name)
                most[0] = max(most[0], len(running))
            if line.startswith("»"):
                running.discard(name)

    watched = attrs.evolve(session, on_line=on_line)
    started = []
    run_graph(watched, CancelToken(), on_step=on_step, max_parallel=8)
    session.finish()
    _, steps = runner.recorded(session)
    assert states == ["succeeded"] * 5, started
    times = sorted((found.started_at, found.finished_at) for found in steps.values())
    for at, _ in times:
        assert sum(1 for start, end in times if start <= at < end) <= 2


def test_gate_opens_by_its_condition(runner: Runner):
    """Over the checks upstream; a check that there is none of has not passed."""
    tests = step("test", "echo '<testsuite><testcase name=\"a\"/></testsuite>' > r.xml", more="reports: {junit: r.xml}")
    opened, steps = runner.run(
        tests + gate("ok", "test", 'condition: "tests.passed && tests.count == 1"') + step("go", "true", needs="ok")
    )
    assert (opened.reason, steps["ok"].produced) == (None, "tests.passed && tests.count == 1")
    shut, steps = runner.run(tests + gate("ok", "test", "condition: scan.passed") + step("go", "true", needs="ok"))
    assert (shut.state, steps["ok"].reason, steps["go"].state) == ("failed", "scan.passed does not hold", "skipped")


def test_graph_of_a_run_can_be_read_back(runner: Runner):
    """With its services, triggers and concurrency."""
    more = "services: {db: {image: postgres, ready: {tcp: 5432}}}\non: [tag]\nconcurrency: {group: x, mode: latest}\n"
    session = runner.start(step("a", "true") + more)
    session.finish()
    graph = records.load_graph(runner.services.database, session.info.id)
    assert json.loads(json.dumps(graph.to_values())) == session.graph.to_values()
    assert (graph.triggers.push, graph.triggers.tag is not None, graph.services["db"].ready.tcp) == (None, True, 5432)


def test_clock_that_jumps_ends_nothing_and_makes_no_time_negative(runner: Runner, database: sa.Engine):
    """Limits are counted by a clock that nobody sets; times on record may be odd, but not below zero."""
    session = runner.start(step("work", "sleep 1", more="timeout: 30s"))

    def jump(name: str, result: object) -> None:
        """An hour back, as the records see it."""
        if result is None:
            with database.begin() as connection:
                later = sa.func.now() + sa.text("interval '1 hour'")
                connection.execute(sa.update(steps_table).values(started_at=later))

    run_graph(session, CancelToken(), on_step=jump)
    with database.begin() as connection:
        connection.execute(sa.update(steps_table).values(started_at=sa.func.now() + sa.text("interval '1 hour'")))
    assert session.finish() == "succeeded"
    _, steps = runner.recorded(session)
    assert (steps["work"].state, steps["work"].seconds) == ("succeeded", 0.0)


def test_allowed_failure_stays_one_when_it_is_taken_over(runner: Runner):
    """What comes after it sees the same in a rerun."""
    pipeline = step("bad", "exit 1", more="continue_on_error: true")
    pipeline += step("unneeded", "true", more="when: {branch: other}")
    pipeline += step("cleanup", "true", needs="bad, unneeded", more="when: {if: 'steps.bad.state == \"failed\"'}")
    _, steps = runner.run(pipeline)
    assert steps["cleanup"].state == "succeeded"
    run, steps = runner.run(only={"cleanup"})
    assert run.state == "succeeded"
    states = {name: found.state for name, found in steps.items()}
    assert states == {"bad": "failed", "unneeded": "skipped", "cleanup": "succeeded"}


def test_run_whose_process_was_killed_is_closed_by_the_next_one(runner: Runner):
    """One that is still at work is left alone."""
    settings, database = runner.services.settings, runner.services.database
    killed, alive = runner.start(step("a", "true")), runner.start()
    marks = settings.home / "run" / "local"
    marks.mkdir(parents=True)
    (marks / killed.info.id).touch()
    with at_work(settings, alive.info.id):
        assert close_abandoned(settings, database) == 1
        assert records.load_run(database, alive.info.id).state == "running"
    run = records.load_run(database, killed.info.id)
    assert (run.state, run.reason) == ("infra_error", "its process was killed")
    assert list(marks.iterdir()) == []
    alive.finish()
