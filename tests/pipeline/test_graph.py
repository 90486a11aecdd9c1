"""What holds for every graph, tried with graphs that nobody would write."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import NotFoundError
from penstock.pipeline.checks import find_cycle
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import Graph, Structure, compile_graph
from penstock.pipeline.spec import seconds


@st.composite
def pipelines(draw: st.DrawFn) -> list[dict[str, object]]:
    """Steps in any order, each needing some that come before it in another order: never a cycle."""
    count = draw(st.integers(1, 12))
    names = [f"s{number}" for number in range(count)]
    steps = []
    for number, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        command = draw(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=9))
        env = draw(st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["0", "true", "ü"])))
        steps.append({"name": name, "type": "step.shell_exec", "commands": [command], "needs": needs, "env": env})
    return draw(st.permutations(steps))


def compiled(steps: list[dict[str, object]], **top: object) -> Graph:
    """JSON is YAML."""
    return compile_graph(load_spec(json.dumps({"version": 1, "steps": steps, **top}).encode()))


@given(pipelines())
@settings(deadline=None, max_examples=60)
def test_every_step_comes_after_what_it_needs(steps: list[dict[str, object]]):
    """The order respects needs, and no step is lost or made up."""
    graph = compiled(steps)
    names = [step.name for step in graph.steps]
    assert sorted(names) == sorted(str(step["name"]) for step in steps)
    for place, step in enumerate(graph.steps):
        assert set(step.needs) <= set(names[:place])


@given(pipelines())
@settings(deadline=None, max_examples=40)
def test_hash_does_not_depend_on_the_order_of_keys(steps: list[dict[str, object]]):
    """Two people who write the same fields in another order write the same pipeline."""
    turned = [dict(reversed([*step.items()])) for step in steps]
    for step in turned:
        step["env"] = dict(reversed([*step["env"].items()]))  # type: ignore[attr-defined]
    assert compiled(turned).hash == compiled(steps).hash


@given(pipelines(), st.data())
@settings(deadline=None, max_examples=40)
def test_structure_does_not_depend_on_commands(steps: list[dict[str, object]], data: st.DataObject):
    """Another command is another graph of the same structure: the same assets in Dagster."""
    changed = [dict(step) for step in steps]
    changed[data.draw(st.integers(0, len(steps) - 1))]["commands"] = ["a command that is not there"]
    assert compiled(changed).structure_hash == compiled(steps).structure_hash
    assert compiled(changed).hash != compiled(steps).hash


@given(pipelines(), st.data())
@settings(deadline=None, max_examples=40)
def test_structure_does_not_depend_on_the_order_of_steps(steps: list[dict[str, object]], data: st.DataObject):
    """Moving a step in the file moves nothing in Dagster."""
    assert compiled(data.draw(st.permutations(steps))).structure_hash == compiled(steps).structure_hash


@given(pipelines())
@settings(deadline=None, max_examples=40)
def test_graph_survives_storage(steps: list[dict[str, object]]):
    """A graph read back from JSON, keys in whatever order, is the same graph with the same hashes."""
    graph = compiled(steps, defaults={"timeout": "7m", "env": {"X": "1"}})
    stored = json.loads(json.dumps(graph.to_values(), sort_keys=True))
    assert Graph.from_values(stored).hash == graph.hash
    structure = Structure.from_values(json.loads(json.dumps(graph.structure.to_values())))
    assert structure.hash == graph.structure_hash


@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8))))
def test_cycle_is_found_exactly_when_there_is_one(needs: dict[int, list[int]]):
    """What is said to be a cycle is one; where none is said, the steps can be put in order."""
    graph = {str(step): [str(need) for need in of if need in needs] for step, of in needs.items()}
    cycle = find_cycle(graph)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(need in graph[step] for step, need in itertools.pairwise(cycle))
        return
    left = dict(graph)
    while left:
        ready = [step for step, of in left.items() if not set(of) & set(left)]
        assert ready
        left = {step: of for step, of in left.items() if step not in ready}


def test_long_chain_is_no_problem():
    """Two thousand steps in a row, the last first: neither recursion nor quadratic patience."""
    steps = [
        {"name": f"s{n}", "type": "step.shell_exec", "commands": ["x"], "needs": [f"s{n - 1}"] if n else []}
        for n in reversed(range(2000))
    ]
    graph = compiled(steps)
    assert [step.name for step in graph.steps] == [f"s{n}" for n in range(2000)]
    assert len(graph.upstream("s1999")) == 1999


def test_file_order_stays_where_needs_allow_it():
    """Of the steps that could come next, the file's first comes first."""
    steps = [{"name": name, "type": "step.shell_exec", "commands": ["x"]} for name in ("c", "a", "b")]
    steps[0]["needs"] = ["b"]
    assert [step.name for step in compiled(steps).steps] == ["a", "b", "c"]


def test_default_timeout_is_for_steps_that_do_not_say():
    """`defaults.timeout` never shortens what a step says itself."""
    steps = [
        {"name": "a", "type": "step.shell_exec", "commands": ["x"]},
        {"name": "b", "type": "step.shell_exec", "commands": ["x"], "timeout": "1h"},
    ]
    graph = compiled(steps, defaults={"timeout": "5m"})
    assert [step.timeout for step in graph.steps] == [300, 3600]


def test_upstream_is_everything_needed():
    """Directly or through others, in the graph's order, itself not."""
    steps = [
        {"name": name, "type": "step.shell_exec", "commands": ["x"], "needs": needs}
        for name, needs in (("a", []), ("b", ["a"]), ("c", ["b", "a"]), ("d", []))
    ]
    assert compiled(steps).upstream("c") == ("a", "b")


def test_unknown_step_names_the_nearest():
    """For `--step tset`."""
    with pytest.raises(NotFoundError, match='no step is called "tset"; did you mean "test"'):
        compiled([{"name": "test", "type": "step.shell_exec", "commands": ["x"]}]).step("tset")


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), (" 2h ", 7200), (7, 7)]
)
def test_duration_is_seconds(text: object, value: int):
    """As people write them."""
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "5", "m", "1d", "5m5", "-5m", "1m1h", None, 1.5, True])
def test_what_is_no_duration_is_refused(text: object):
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="no duration"):
        seconds(text)
