"""`${{ }}`: what it may name, what it gives, and that no value is ever read as shell."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import InputError, SpecError, StepFailure
from penstock.pipeline.expressions import Scope, check_expression, evaluate, fill, holds
from penstock.pipeline.facts import facts_of, worked_out
from penstock.pipeline.load import load_spec
from penstock.pipeline.patterns import matches
from penstock.pipeline.plan import Graph, compile_graph
from penstock.steps.context import RunInfo

RUN = RunInfo("r" * 8, "shop", "a" * 40, "refs/heads/main", "g", "s", event="push", author="Ada <ada@example.org>")


DEPLOY = {"name": "d", "type": "step.deploy", "environment": "e", "command": "x", "needs": ["a"]}


def graph_of(*steps: dict[str, object], **top: object) -> Graph:
    """JSON is YAML."""
    return compile_graph(load_spec(json.dumps({"version": 1, "steps": steps, **top}).encode()))


def shell(name: str, *commands: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "step.shell_exec", "commands": commands or ["true"], **more}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("v-${{ short_commit }}", "v-aaaaaaaaaaaa"),
        ("${{ branch }}", "main"),
        ("${{ tag }}", ""),
        ("${{ size(branch) }}", 4),
        ("${{ branch == 'main' }}", True),
        ("is ${{ branch == 'main' }}", "is true"),
        ("${{ steps.build.outputs.digest }} ${{ steps['my-step'].state }}", "sha256:1 failed"),
        ("no expression, $ {{ }} and $HOME", "no expression, $ {{ }} and $HOME"),
        ("${{ env.REGION + '!' }}", "eu!"),
    ],
)
def test_expression_gives_a_value(text: str, value: object):
    """Of the type that it has when it stands alone, as text inside one."""
    outcomes = {"build": ("succeeded", {"digest": "sha256:1"}), "my-step": ("failed", {})}
    assert fill(text, facts_of(RUN, {"REGION": "eu"}, outcomes)) == value


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("brnch", 'did you mean "branch"'),
        ("steps.biuld.outputs.x", 'did you mean "build"'),
        ("steps['biuld'].state", '"biuld" is no step that this one needs'),
        ("matrix.pyhton", 'did you mean "python"'),
        ("commit +", "is no expression"),
        ("", "is no expression"),
        ("system('id')", 'there is no function "system"'),
        ("x" * 1001, "longer than 1000"),
        ("[1].map(a, [1].map(b, [1].map(c, a)))", "more than 2 loops"),
    ],
)
def test_wrong_expression_is_told_when_the_pipeline_is_checked(source: str, told: str):
    """A name nobody knows, a step upstream of nothing, what is no CEL."""
    with pytest.raises(InputError) as caught:
        check_expression(source, Scope(frozenset({"build"}), frozenset({"python"})))
    assert told in str(caught.value)


def test_loop_variables_and_texts_are_no_names():
    """`x` is the loop's own, and what stands in quotes is no step."""
    scope = Scope(frozenset({"build"}))
    check_expression('["a", "b"].exists(x, x == branch)', scope)
    check_expression('branch == "steps.nobody.state"', scope)


def test_condition_must_be_true_or_false():
    """A text is neither."""
    assert holds("branch.startsWith('ma')", facts_of(RUN, {}, {}))
    with pytest.raises(InputError, match="neither true nor false"):
        holds("branch", facts_of(RUN, {}, {}))
    with pytest.raises(InputError, match=r'there is no "nothing"'):
        evaluate("steps.nothing.outputs.x", facts_of(RUN, {}, {}))


def test_expression_with_endless_work_ends():
    """Loops over what an expression itself can make are short."""
    numbers = "[" + ",".join(["1"] * 200) + "]"
    started = time.monotonic()
    assert evaluate(f"{numbers}.all(x, {numbers[:300].rsplit(',', 1)[0]}].all(y, y == x))", {}) is True
    assert time.monotonic() - started < 30


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(deadline=None, max_examples=60)
def test_value_is_never_read_as_shell(branch: str):
    """A branch may be called `$(rm -rf ~)`: in commands it is a variable, whatever it holds."""
    step = graph_of(shell("build", 'echo "${{ branch }}" ${{ short_commit }}')).step("build")
    info = RunInfo("r", "shop", "a" * 40, f"refs/heads/{branch}", "g", "s")
    done = worked_out(step, lambda: facts_of(info, {}, {}), {})
    assert done.commands == ('echo "${CI_VALUE_1}" ${CI_VALUE_2}',)
    assert done.env == {"CI_VALUE_1": branch, "CI_VALUE_2": "a" * 12}


def test_what_an_expression_gives_is_checked_like_what_is_written():
    """A path that leaves the workspace stays refused."""
    out = [{"key": "app", "path": "${{ env.WHERE }}"}]
    step = graph_of(shell("build", artifacts_out=out)).step("build")
    assert worked_out(step, lambda: facts_of(RUN, {"WHERE": "dist"}, {}), {}).artifacts_out[0].path == "dist"
    with pytest.raises(StepFailure, match="leaves the workspace"):
        worked_out(step, lambda: facts_of(RUN, {"WHERE": "../.."}, {}), {})


@pytest.mark.parametrize(
    ("name", "patterns", "fits"),
    [
        ("main", ["main"], True),
        ("main", ["mai?"], True),
        ("release/1.2", ["release/*"], True),
        ("release/1/2", ["release/*"], False),
        ("release/1/2", ["release/**"], True),
        ("src/a/b.py", ["src/**/*.py"], True),
        ("src/b.py", ["src/**/*.py"], True),
        ("src", ["src/**"], True),
        ("docs/a.md", ["docs/"], True),
        ("main", ["!main"], False),
        ("dev", ["!main"], True),
        ("dev/x", ["dev/*", "!dev/x"], False),
        ("a.b", ["a.b"], True),
        ("axb", ["a.b"], False),
        ("anything", [], False),
    ],
)
def test_patterns(name: str, patterns: list[str], fits: bool):
    """`*` stays within a part, `**` does not, the last that fits counts."""
    assert matches(name, patterns) is fits


# Matrix


def test_step_that_names_the_matrix_runs_once_per_combination():
    """Who needs it needs all of it; who names it too needs its own."""
    graph = graph_of(
        shell("test", "echo ${{ matrix.python }} on ${{ matrix.os }}", image="python:${{ matrix.python }}"),
        shell("cover", "echo ${{ matrix.python }} ${{ matrix.os }}", needs=["test"]),
        shell("package", needs=["test"]),
        matrix={"python": ["3.11", "3.12"], "os": ["a", "b"], "exclude": [{"python": "3.11", "os": "b"}]},
    )
    assert [step.name for step in graph.steps] == [
        *("test-3-11-a", "test-3-12-a", "test-3-12-b"),
        *("cover-3-11-a", "cover-3-12-a", "cover-3-12-b", "package"),
    ]
    assert graph.step("test-3-12-b").commands == ("echo 3.12 on b",)
    assert graph.step("test-3-12-b").image == "python:3.12"
    assert graph.step("cover-3-12-b").needs == ("test-3-12-b",)
    assert graph.step("package").needs == ("test-3-11-a", "test-3-12-a", "test-3-12-b")
    assert Graph.from_values(json.loads(json.dumps(graph.to_values()))).hash == graph.hash


def test_numbers_of_the_matrix_stay_numbers():
    """`cpu: ${{ matrix.cpu }}` is a number where one must stand."""
    graph = graph_of(shell("test", cpu="${{ matrix.cpu }}"), matrix={"cpu": [1, 0.5]})
    assert [step.cpu for step in graph.steps] == [1, 0.5]


def test_combinations_that_are_included_come_too():
    """And values whose letters are the same get numbers."""
    graph = graph_of(shell("t", "${{ matrix.x }}"), matrix={"x": ["a b", "a-b"], "include": [{"x": "c"}]})
    assert [step.name for step in graph.steps] == ["t-a-b", "t-a-b-2", "t-c"]


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        ({"python": []}, '"python" has no values'),
        ({"python": ["3"], "exclude": [{"pyhton": "3"}]}, 'did you mean "python"'),
        ({"a": list(range(20)), "b": list(range(20))}, "400 combinations are too many"),
        ({"python": ["3"], "exclude": [{"python": "3"}]}, "no combination"),
        ({"python": "3"}, "expected a list"),
        ({"x": ["1"]}, 'matrix has no "python"'),
    ],
)
def test_wrong_matrix_is_one_line(matrix: dict[str, object], told: str):
    """With the place in the file."""
    with pytest.raises(SpecError) as caught:
        graph_of(shell("test", "echo ${{ matrix.python }}"), matrix=matrix)
    assert told in str(caught.value)
    assert str(caught.value).startswith("penstock.yaml:1")


@pytest.mark.parametrize(
    ("steps", "top", "told"),
    [
        ([shell("a", secrets=["TOKEN"], image="alpine:3")], {}, "runs pinned images only; write alpine@sha256:…"),
        ([shell("a", secret_env={"T": "TOKEN"})], {}, '"TOKEN" is not among the step\'s secrets'),
        ([shell("a", services=["db"])], {"services": {"bd": {"image": "x"}}}, "there are: bd"),
        ([shell("a"), shell("b", "${{ steps.a.outputs.x }}")], {}, '"a" is no step that this one needs'),
        ([shell("a", when={"if": "hash_files('x') == ''"})], {}, "before there is a workspace"),
        ([shell("a", when={"if": "branc == 'x'"})], {}, 'did you mean "branch"'),
        ([shell("a", combination={"of": "a", "values": {}})], {}, '"combination" is not known here'),
        ([shell("a")], {"concurrency": {"group": "${{ steps.a.state }}"}}, '"steps" is not known'),
        ([shell("a")], {"on": {"schedule": {"cron": "every day"}}}, "is no time; write minute"),
        ([shell("a")], {"on": ["pusch"]}, 'did you mean "push"'),
        ([shell("a", memory="much")], {}, "this is no size"),
        ([shell("a")], {"x": "${{"}, '"x" is not known here'),
        (
            [shell("a", artifacts_out=[{"key": "app", "path": "x"}]), {**DEPLOY, "artifact": "ap"}],
            {},
            'puts out an artifact "ap"; did you mean "app"?',
        ),
    ],
)
def test_parts_that_do_not_fit_are_told_before_anything_runs(
    steps: list[dict[str, object]], top: dict[str, object], told: str
):
    """One line with the remedy."""
    with pytest.raises(SpecError) as caught:
        graph_of(*steps, **top)
    assert told in str(caught.value)
