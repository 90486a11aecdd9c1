"""A penstock.yaml that cannot be run is one line: file, line, what, remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import SpecError
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import compile_graph

HEAD = "version: 1\nsteps:\n"
STEP = HEAD + "  - name: a\n    type: step.shell_exec\n    commands: [date]\n"
OTHER = "  - {name: build, type: step.shell_exec, commands: [date]}\n"
DEPLOY = HEAD + "  - {name: a, type: step.deploy, environment: e, artifact: x, command: y, %s}\n"
NAMES = "use small letters, digits, - and _, a letter first, 63 at most"
ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

# what is wrong → the file, the line of the error, words that it holds, the remedy
BAD = {
    "unknown step type": (STEP.replace("exec", "exce"), 4, 'no step type "step.shell_exce"', "did you mean"),
    "type of another kind": (HEAD + "  - {name: a, type: [x]}\n", 3, "no step type", "there are: step.shell_exec"),
    "no type": (HEAD + "  - name: a\n", 3, "needs a type", "one of step.shell_exec"),
    "cycle": (STEP + "    needs: [build]\n" + OTHER[:-2] + ", needs: [a]}\n", 6, "a → build → a", "remove one"),
    "step that needs itself": (STEP + "    needs: [a]\n", 6, "a → a", "remove one"),
    "missing step": (STEP + "    needs: [biuld]\n" + OTHER, 6, 'no step is called "biuld"', 'did you mean "build"?'),
    "missing step, nothing alike": (STEP + "    needs: [zzz]\n", 6, 'no step is called "zzz"', "there are: none"),
    "same need twice": (STEP + "    needs: [build, build]\n" + OTHER, 6, "here twice", "keep one"),
    "bad YAML": (STEP + "    env: {A: b\n", 7, "did not find", "mend the YAML"),
    "tab": ("version: 1\nsteps:\n\t- name: a\n", 3, "a tab indents this line", "indent with spaces"),
    "duplicated key": (STEP + "    commands: [y]\n", 6, '"commands" is here twice', "keep one"),
    "duplicated name": (STEP + STEP[len(HEAD) :], 6, 'already called "a", on line 3', "a name of its own"),
    "names alike for Dagster": (
        HEAD + OTHER.replace("build", "b-c") + OTHER.replace("build", "b_c"),
        4,
        'already called "b-c", on line 3',
        "a name of its own",
    ),
    "empty": ("", 1, "empty", "penstock init"),
    "only blanks": (" \n\n", 1, "empty", "penstock init"),
    "only a comment": ("# later\n", 1, "expected `version: 1`", "penstock init"),
    "only a byte order mark": ("\ufeff", 1, "expected `version: 1`", "penstock init"),
    "binary": (bytes(range(256)), 2, "not UTF-8", "save it as UTF-8"),
    "not UTF-8": (STEP.encode() + b"# caf\xe9\n", 6, "not UTF-8", "save it as UTF-8"),
    "UTF-16": (STEP.encode("utf-16"), 1, "not UTF-8", "save it as UTF-8"),
    "NUL": (STEP + "\0", 6, "character that YAML forbids", "plain text"),
    "bell": (STEP + "# ä\n# \a\n", 7, "character that YAML forbids", "plain text"),
    "escaped NUL": (STEP.replace("date", '"a\\0b"'), 5, "NUL", "leave it out"),
    "escaped surrogate": (STEP.replace("date", '"\\ud800"'), 5, "invalid Unicode", "mend the YAML"),
    "path that leaves": (STEP + "    work_dir: ../x\n", 6, '"../x" leaves the workspace', 'without ".."'),
    "path that leaves later": (STEP + "    work_dir: a/../../x\n", 6, "leaves the workspace", 'without ".."'),
    "absolute path": (STEP + "    work_dir: /etc\n", 6, '"/etc" leaves', "below /workspace"),
    "artifact that leaves": (STEP + "    artifacts_out: [{key: a, path: ../x}]\n", 6, "leaves", 'without ".."'),
    "unknown field": (STEP + "    comands: [x]\n", 6, '"comands" is not known', 'did you mean "commands"?'),
    "unknown field inside": (STEP + "    reports: {junt: x}\n", 6, '"junt" is not known', 'did you mean "junit"?'),
    "unknown field at the top": (STEP + "stesp: 1\n", 6, '"stesp" is not known', 'did you mean "steps"?'),
    "unknown field of defaults": (STEP + "defaults: {timout: 1}\n", 6, '"timout"', 'did you mean "timeout"?'),
    "missing field": (HEAD + "  - {name: a, type: step.shell_exec}\n", 3, '"commands" is missing', "add it"),
    "missing field inside": (STEP + "    artifacts_out:\n      - {key: a}\n", 7, '"path" is missing', "add it"),
    "missing name": (STEP.replace("name: a\n    ", ""), 3, '"name" is missing', "add it"),
    "missing version": (STEP.removeprefix("version: 1\n"), 1, '"version" is missing', "add it"),
    "another version": (STEP.replace(": 1", ": 2", 1), 1, "knows version 1", "write `version: 1`"),
    "version as text": (STEP.replace(": 1", ": '1'", 1), 1, "knows version 1", "write `version: 1`"),
    "version as truth": (STEP.replace(": 1", ": true", 1), 1, "knows version 1", "write `version: 1`"),
    "text for a list": (STEP + "    needs: build\n" + OTHER, 6, "expected a list", "[a, b]"),
    "mapping for a list": (STEP.replace("[date]", "{a: b}"), 5, "expected a list", "[a, b]"),
    "list for a mapping": (STEP + "    env: [a]\n", 6, "expected a mapping", "key: value"),
    "number for a text": (STEP.replace("[date]", "[1]"), 5, "expected a text", "quotes"),
    "text for a truth": (STEP + "    network: maybe\n", 6, "expected true or false", "write true or false"),
    "list for a variable": (STEP + "    env: {A: [b]}\n", 6, "expected a text", "quotes"),
    "no commands": (STEP.replace("[date]", "[]"), 5, "the list is empty", "at least 1"),
    "bad name": (STEP.replace("name: a", "name: Ä"), 3, '"Ä" cannot stand here', NAMES),
    "long name": (STEP.replace("name: a", "name: " + "a" * 64), 3, "cannot stand here", NAMES),
    "bad variable": (STEP + "    env: {1A: b}\n", 6, '"1A" cannot stand here', "no digit first"),
    "bad duration": (STEP + "    timeout: soon\n", 6, '"soon" is no duration', "90s, 5m or 1h30m"),
    "no time at all": (STEP + "    timeout: 0\n", 6, "out of bounds", "more than 0"),
    "too much time": (STEP + "    timeout: 999h\n", 6, "out of bounds", "at most 604800"),
    "digits without end": (STEP + f"    timeout: {'9' * 5000}h\n", 6, "too long", "90s, 5m or 1h30m"),
    "number without end": (STEP + f"    timeout: {'9' * 5000}\n", 6, "cannot read the value", "quote it"),
    "report that is no pattern": (STEP + "    reports: {junit: '**a'}\n", 6, "no pattern", "reports/*.xml"),
    "report that is a folder": (STEP + "    reports: {junit: .}\n", 6, "no pattern", "reports/*.xml"),
    "artifacts of one key": (
        STEP + "    artifacts_out: [{key: a, path: x}, {key: a, path: y}]\n",
        6,
        'two artifacts have the key "a"',
        "its own",
    ),
    "target that is not there": (
        DEPLOY % "target: nomad",
        3,
        '"nomad" cannot stand here',
        "write 'process' or 'docker'",
    ),
    "unknown field of health": (DEPLOY % "health: {htp: /}", 3, '"htp"', 'did you mean "http"?'),
    "list at the top": ("- a\n", 1, "expected `version: 1`", "penstock init"),
    "word at the top": ("hello\n", 1, "expected `version: 1`", "penstock init"),
    "no steps": ("version: 1\n", 1, "no steps", "at least one"),
    "empty steps": ("version: 1\nsteps: []\n", 2, "no steps", "at least one"),
    "steps as mapping": ("version: 1\nsteps: {a: 1}\n", 2, "no steps", "at least one"),
    "step as text": (HEAD + "  - a\n", 3, "a step is a mapping", "`name` and a `type`"),
    "too many steps": (
        HEAD + "".join(OTHER.replace("build", f"s{number}") for number in range(2001)),
        2,
        "longer than 2000",
        "split it",
    ),
    "two documents": (STEP + "---\n" + STEP, 6, "another document", "mend the YAML"),
    "alias of nothing": (STEP + "    env: *none\n", 6, "undefined alias", "mend the YAML"),
    "alias bomb": (ALIAS_BOMB + STEP, 1, "too large", "use fewer"),
    "alias in itself": ("version: 1\nsteps: &s [*s]\n", 2, "too large", "use fewer"),
    "merge key": (STEP.replace("    type", "    <<: {x: y}\n    type"), 4, "`<<` is not read", "write the fields out"),
    "deep list": ("[" * 100_000, 1, "nested too deeply", "flatten it"),
    "deep mapping": ("{a: " * 5000, 1, "nested too deeply", "flatten it"),
    "deep block": ("".join(f"{' ' * depth}a:\n" for depth in range(1000)), 61, "nested too deeply", "flatten it"),
    "Python object": (STEP.replace("[date]", "!!python/object/apply:os.system [id]"), 5, "tag", "leave it out"),
    "Python value": (STEP.replace("[date]", "!!python/name:os.system x"), 5, "cannot read the value", "quote it"),
    "key that is a list": ("version: 1\n? [a]\n: b\n", 2, "a key must be a word", "word: value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pipeline_is_one_line_with_file_line_and_remedy(case: str):
    """Whoever wrote it is told where, what and what to do."""
    content, line, what, remedy = BAD[case]
    with pytest.raises(SpecError) as caught:
        load_spec(content.encode() if isinstance(content, str) else content, file="dir/penstock.yaml")
    text = str(caught.value)
    assert text.startswith(f"dir/penstock.yaml:{line}:")
    assert what in text
    assert remedy in text.rpartition("; ")[2] or remedy in (caught.value.remedy or "")
    assert "\n" not in text
    assert len(text) < 400
    assert text.isprintable()


def test_large_file_is_refused_before_it_is_read_as_yaml():
    """50 MB of anything is one line."""
    with pytest.raises(SpecError, match=r"penstock\.yaml: 52 MB is too large; keep it below 1 MB"):
        load_spec(b"a" * (50 * 1024 * 1024))


def test_words_of_the_file_cannot_command_the_terminal():
    """An escape sequence in a value is shown as a question mark."""
    with pytest.raises(SpecError) as caught:
        load_spec((HEAD + '  - {name: a, type: "\\e[31mred"}\n').encode())
    assert '"?[31mred"' in str(caught.value)


def test_file_name_with_a_colon_keeps_the_line():
    """The first step's line is right, whatever the file is called."""
    with pytest.raises(SpecError, match="on line 3"):
        load_spec((STEP + STEP[len(HEAD) :]).encode(), file="a:7:b.yaml")


# What is right though it looks odd


def test_byte_order_mark_and_windows_lines_change_nothing():
    """Editors on Windows write both."""
    plain = compile_graph(load_spec(STEP.encode()))
    assert compile_graph(load_spec(("\ufeff" + STEP.replace("\n", "\r\n")).encode())).hash == plain.hash


def test_anchors_stand_for_what_they_name():
    """An alias is the same as writing the value again."""
    anchored = STEP + "    env: &e {A: b}\n" + OTHER[:-2] + ", env: *e}\n"
    written = STEP + "    env: {A: b}\n" + OTHER[:-2] + ", env: {A: b}}\n"
    assert compile_graph(load_spec(anchored.encode())).hash == compile_graph(load_spec(written.encode())).hash


def test_variables_are_what_was_written():
    """YAML's guesses about numbers, times and truths do not reach a step's environment."""
    env = "{MODE: 0755, TIME: 12:30, VERSION: 1.10, DAY: 2024-01-01, ON: yes, EMPTY: , QUOTED: '07'}"
    step = load_spec((STEP + f"    env: {env}\n").encode()).steps[0]
    assert step.env == {
        "MODE": "0755",
        "TIME": "12:30",
        "VERSION": "1.10",
        "DAY": "2024-01-01",
        "ON": "yes",
        "EMPTY": "",
        "QUOTED": "07",
    }


def test_absolute_path_below_the_workspace_is_fine():
    """`/workspace/x` is how a step sees it."""
    step = load_spec((STEP + "    work_dir: /workspace/x/./y\n").encode()).steps[0]
    assert step.work_dir == "x/y"


def test_deep_nesting_does_not_end_the_process(tmp_path: Path):
    """Whatever the parser's own stack takes: the command says a line and exits with 2."""
    (tmp_path / "penstock.yaml").write_text("[" * 1_000_000)
    command = [sys.executable, "-c", "from penstock.cli import main; main()", "check", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_graph_can_be_written_as_json():
    """What `penstock check --json` prints is JSON."""
    graph = compile_graph(load_spec(STEP.encode()))
    assert json.loads(json.dumps(graph.to_values()))["steps"][0]["name"] == "a"
