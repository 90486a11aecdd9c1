"""`penstock events parse`, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import forge_payloads as made
import pytest
from forge_payloads import A, B, as_bytes

KEYS = [
    "forge",
    "kind",
    "repository",
    "ref",
    "commit",
    "before",
    "number",
    "source",
    "target",
    "fork",
    "action",
    "reason",
]


def run(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from penstock.cli import main; main()", "events", "parse", *words]
    root = Path(__file__).parents[2]
    return subprocess.run(command, input=given, capture_output=True, check=False, cwd=root, timeout=60)


def lines(answer: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.fixture
def push_file(tmp_path: Path) -> str:
    path = tmp_path / "push.json"
    path.write_bytes(as_bytes(made.github_push()))
    return str(path)


def test_a_file_prints_one_json_object(push_file):
    """All keys, in their order, null where there is nothing to say."""
    answer = run("github", "--event", "push", push_file)
    assert (answer.returncode, answer.stderr) == (0, b"")
    (told,) = lines(answer)
    assert list(told) == KEYS
    assert told == dict.fromkeys(KEYS) | {
        "forge": "github",
        "kind": "push",
        "repository": "shop/api",
        "ref": "refs/heads/main",
        "commit": B,
        "before": A,
    }


def test_the_event_may_come_from_a_header(push_file):
    """--header K=V, as often as needed; the value may hold = itself."""
    answer = run("github", "--header", "X-GitHub-Event=star", "--header", "X-Other=a=b", push_file)
    assert lines(answer)[0]["kind"] == "ignored"
    assert lines(answer)[0]["reason"] == "star events start nothing"


def test_a_pull_request_prints_its_ends(tmp_path):
    """Number, source, target, fork and action."""
    path = tmp_path / "pr.json"
    path.write_bytes(as_bytes(made.github_pull_request()))
    (told,) = lines(run("github", "--event", "pull_request", str(path)))
    assert [told[key] for key in KEYS[6:]] == [12, "orders", "main", False, "opened", None]


def test_further_changes_of_a_delivery_are_under_also(tmp_path):
    """One line per delivery, also for a push of several refs."""
    path = tmp_path / "push.json"
    path.write_bytes(as_bytes(made.server_push(made.server_change(), made.server_change("refs/tags/v1", kind="ADD"))))
    (told,) = lines(run("bitbucket-server", str(path)))
    assert list(told) == [*KEYS, "also"]
    assert told["kind"] == "push"
    assert [(each["kind"], each["ref"]) for each in told["also"]] == [("tag", "refs/tags/v1")]


@pytest.mark.parametrize("words", [("-",), ("github", "-"), ("gitlab", "-")])
def test_a_stream_prints_one_line_for_each(words):
    """The line's own forge goes before the command's; bodies are objects or their exact text."""
    given = [
        {"forge": "github", "event": "push", "headers": {}, "body": made.github_push()},
        {"forge": "github", "event": "push", "body": json.dumps(made.github_push())},
        {"forge": "github", "headers": {"x-github-event": "ping"}, "body": {"zen": "x"}},
        {"forge": "gitlab", "event": None, "headers": None, "body": made.gitlab_push()},
    ]
    answer = run(*words, given=b"\n".join(as_bytes(each) for each in given) + b"\n\n")
    assert answer.returncode == 0
    told = lines(answer)
    assert [each["kind"] for each in told] == ["push", "push", "ignored", "push"]
    assert told[0] == told[1]


def test_the_commands_forge_and_event_hold_where_a_line_names_none():
    """`penstock events parse github --event push -`."""
    given = as_bytes({"body": made.github_push()})
    assert lines(run("github", "--event", "push", "-", given=given))[0]["kind"] == "push"


def test_a_bad_line_is_told_and_the_others_are_printed():
    """Exit 2 at the end; the line's number and what is wrong with it stand in its place."""
    good = as_bytes({"forge": "github", "event": "push", "body": made.github_push()})
    bad = [
        b"{",
        b"[]",
        b'{"forge": "github"}',
        b'{"body": {}}',
        b'{"forge": "nowhere", "body": {}}',
        b'{"forge": "github", "event": "push", "body": {}}',
        b'{"forge": "github", "event": "push", "body": "\\ud800"}',
        b"\xff",
    ]
    answer = run("-", given=b"\n".join([good, *bad, good]))
    assert answer.returncode == 2
    assert answer.stderr == b""
    told = lines(answer)
    assert [list(each) == ["error"] for each in told] == [False, *[True] * len(bad), False]
    assert all(each["error"].startswith(f"line {n}: ") for n, each in enumerate(told[1:-1], start=2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("github",), 'no FILE after "github"'),
        (("github", "absent.json"), "absent.json: No such file"),
        (("nowhere", "FILE"), 'no forge is called "nowhere"'),
        (("github", "--header", "X-GitHub-Event", "FILE"), "is not K=V"),
        (("github", "--event", "pull_request", "FILE"), "github: the body has no pull_request"),
        (("gitlab", "FILE"), "gitlab: the body has no object_kind"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(push_file, words, message):
    """Where, what and the remedy; no traceback."""
    answer = run(*[push_file if word == "FILE" else word for word in words])
    assert answer.returncode == 2
    assert answer.stdout == b""
    assert message in answer.stderr.decode()
    assert answer.stderr.count(b"\n") == 1
