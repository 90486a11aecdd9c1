"""What a pull request introduces and fixes, on a real warehouse, and how its comment says so."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from answering import Forges, Runs
from forge_server import COMMIT, ForgeServer
from forge_servers import SERVERS
from lake_rows import at, finding, scan

from penstock.answers.connections import Connection
from penstock.answers.deliver import Deliverer
from penstock.answers.difference import Change, Difference, read_difference
from penstock.answers.texts import code, comment_text, plain, status_line
from penstock.settings import Settings
from penstock.warehouse import Location, ScanReport, Warehouse
from penstock.warehouse.home import warehouse_location

HEAD = "refs/pull/7/head"
Scanned = Callable[..., None]


@pytest.fixture
def location(settings: Settings) -> Location:
    return warehouse_location(settings)


@pytest.fixture
def scanned(location: Location) -> Scanned:
    """scanned(commit, branch, fingerprints) brings a scan's report in."""
    numbers = itertools.count(1)

    def bring(commit: str, branch: str, *fingerprints: str, **more: Any) -> None:
        number = next(numbers)
        found = [finding(one, **more.pop(one, {})) for one in fingerprints]
        row = scan(number, commit=commit, branch=branch, findings=len(found), **more)
        with Warehouse(location) as warehouse:
            warehouse.record(ScanReport(scan=row, findings=found, base_branch="main"))

    return bring


def told(location: Location, commit: str = "head", target: str = "main") -> Difference:
    return read_difference(location, "shop", commit, HEAD, target)


def rules(changes: tuple[Change, ...]) -> list[str]:
    return [change.rule for change in changes]


def test_what_the_target_does_not_have_is_introduced_and_what_the_head_lacks_is_fixed(
    location: Location, scanned: Scanned
) -> None:
    """What both have is neither."""
    scanned("base", "main", "old", "gone", gone={"rule_id": "B101"})
    scanned("head", HEAD, "old", "new", new={"rule_id": "B999", "severity": "critical", "line": 3})
    found = told(location)
    assert rules(found.introduced) == ["B999"]
    assert rules(found.fixed) == ["B101"]
    assert (found.introduced[0].path, found.introduced[0].line) == ("shop/app.py", 3)
    assert not found.says_nothing


def test_only_the_head_counts(location: Location, scanned: Scanned) -> None:
    """What came and went within the pull request is no news to anybody."""
    scanned("base", "main", "old")
    scanned("first", HEAD, "old", "mistake")
    scanned("head", HEAD, "old")
    assert told(location) == Difference(scanned=True)


def test_what_came_to_the_target_later_is_not_fixed_here(location: Location, scanned: Scanned) -> None:
    """The head never had it."""
    scanned("base", "main", "old")
    scanned("head", HEAD, "old")
    scanned("later", "main", "old", "theirs")
    assert told(location) == Difference(scanned=True)


def test_a_finding_that_was_suppressed_is_not_introduced(location: Location, scanned: Scanned) -> None:
    """Somebody decided on it; and it is no fix of the target's either."""
    scanned("base", "main", "old")
    scanned("head", HEAD, "old", "seen", old={"suppressed": True}, seen={"suppressed": True})
    assert told(location) == Difference(scanned=True)


def test_a_scanner_that_could_not_look_fixes_nothing(location: Location, scanned: Scanned) -> None:
    """It is said that it could not."""
    scanned("base", "main", "old")
    scanned("head", HEAD, state="failed", reason="no database")
    assert told(location) == Difference(blind=("bandit",), scanned=True)


def test_without_a_scan_of_the_target_nothing_is_compared(location: Location, scanned: Scanned) -> None:
    """The first pull request is not to blame for everything."""
    scanned("head", HEAD, "a", "b")
    assert told(location) == Difference(incomparable=("bandit",), scanned=True)


def test_each_scanner_speaks_for_itself(location: Location, scanned: Scanned) -> None:
    """One that did not run on the head says nothing of what it found on the target."""
    scanned("base", "main", "old")
    scanned("base", "main", "cve", tool="grype", category="deps", cve={"tool": "grype", "category": "deps"})
    scanned("head", HEAD)
    assert len(told(location).fixed) == 1


def test_without_a_warehouse_there_is_nothing_to_say(location: Location) -> None:
    """It comes with the first run."""
    assert told(location) == Difference()


def test_worst_comes_first(location: Location, scanned: Scanned) -> None:
    """As people read."""
    severities = {"a": {"severity": "low"}, "b": {"severity": "critical"}, "c": {"severity": "medium"}}
    scanned("base", "main")
    scanned("head", HEAD, "a", "b", "c", **severities)
    assert [one.severity for one in told(location).introduced] == ["critical", "medium", "low"]


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_the_comment_is_written_and_changed_in_place(
    *,
    name: str,
    forges: Forges,
    runs: Runs,
    connected: Callable[..., Connection],
    deliverer: Deliverer,
    scanned: Scanned,
) -> None:
    """On every forge: the second head's difference takes the place of the first one's."""
    forge = forges(name)
    connected(forge)
    scanned("base", "main", "old")
    first, second = runs.pull_request("1" * 40), runs.pull_request(COMMIT)
    scanned("1" * 40, HEAD, "old", "new")
    runs.end(first)
    deliverer.round()
    scanned(COMMIT, HEAD)
    runs.end(second)
    deliverer.round()
    (text,) = forge.texts()
    assert "### Findings: 0 introduced, 1 fixed" in text
    assert f"run?id={second.id}" in text
    assert "compared with `main`" in text


def test_a_warehouse_that_is_away_is_no_refusal(
    *,
    forge: ForgeServer,
    runs: Runs,
    connected: Callable[..., Connection],
    deliverer: Deliverer,
    monkeypatch: pytest.MonkeyPatch,
    database: sa.Engine,
) -> None:
    """The status is told all the same, and the comment when the warehouse answers."""
    from penstock.answers import deliver, outbox
    from penstock.errors import PlatformError

    def away(*_: object) -> Difference:
        raise PlatformError("the warehouse's catalog does not answer")

    connected(forge)
    runs.end(runs.pull_request())
    monkeypatch.setattr(deliver, "read_difference", away)
    deliverer.round()
    states = {item.kind: item.state for item in outbox.list_items(database)}
    assert states == {"status": "sent", "comment": "waiting"}


def changes(count: int, **more: Any) -> tuple[Change, ...]:
    values = {"severity": "high", "rule": "B602", "path": "a.py", "line": 1, "message": "shell=True", **more}
    return tuple(Change(**values) for _ in range(count))


def text_of(difference: Difference) -> str:
    return comment_text(difference, commit=COMMIT, target="main", url="https://ci.example/run?id=r1")


def test_a_long_list_is_cut() -> None:
    """Forges take 64 KiB, people less."""
    text = text_of(Difference(introduced=changes(500), scanned=True))
    assert "### Findings: 500 introduced, 0 fixed" in text
    assert text.count("| high |") == 20
    assert "… and 480 more" in text


def test_what_could_not_be_compared_is_said() -> None:
    """Zero findings of a scanner that did not look are not zero."""
    text = text_of(Difference(blind=("grype",), incomparable=("semgrep",), scanned=True))
    assert "### Findings: no comparison" in text
    assert "grype could not look" in text
    assert "semgrep has not scanned `main` yet" in text


@pytest.mark.parametrize(
    "hostile",
    [
        "@everyone look",
        "![x](https://evil.example/pixel.png)",
        "[click](javascript:alert(1))",
        "<img src=x onerror=alert(1)>",
        "a | b | c\n\n# Heading\n",
        "fixes #12 and closes #13",
        "https://evil.example www.evil.example",
        "`` ` `` </code>",
        "\x1b[31mred\x00",
    ],
)
def test_a_strangers_text_stays_text(hostile: str) -> None:
    """A finding's message, rule and path come from the repository: no picture, link, table cell or person is made."""
    text = text_of(Difference(introduced=changes(1, message=hostile, rule=hostile, path=hostile), scanned=True))
    row = next(line for line in text.splitlines() if line.startswith("| high"))
    bare = re.sub(r"`[^`]*`", "", row)
    assert row.count("`") == 4
    assert bare.replace("\\|", "").count("|") == 5
    for sign in ("@everyone", "](", "<img", "https://evil", "www.evil", "#12", "\x1b", "\x00", "![x"):
        assert sign not in bare
    assert len(text.splitlines()) < 20


def test_words_are_left_as_they_are() -> None:
    """Only what Markdown reads is escaped."""
    assert plain("subprocess call, shell=True: 3 times.") == "subprocess call, shell=True: 3 times."
    assert code("a`b|c") == "`a'b¦c`"
    assert code("") == "`-`"


@pytest.mark.parametrize(
    ("state", "reason", "seconds", "line"),
    [
        ("queued", None, None, "waits to start"),
        ("running", None, None, "runs"),
        ("succeeded", "ignored", 59.6, "succeeded in 1 min 0 s"),
        ("failed", "test: exit code 1", 12, "failed in 12 s: test: exit code 1"),
        ("timed_out", None, 7300, "took too long in 2 h 1 min"),
        ("cancelled", "ada stopped it", 3, "cancelled: ada stopped it"),
        ("waiting", "gate: two people", 3, "waits: gate: two people"),
        ("infra_error", "the engine is away", 3, "Penstock could not do it: the engine is away"),
        ("skipped", "no changed file is among docs/**", None, "skipped: no changed file is among docs/**"),
        ("failed", "a\nb\x1b[0m\tc" + "d" * 200, None, "failed: a b [0m c" + "d" * 122 + "…"),
    ],
)
def test_a_status_is_one_line(state: str, reason: str | None, seconds: float | None, line: str) -> None:
    """At most 140 characters, which is what GitHub takes."""
    ended = at(seconds / 60) if seconds is not None else None
    assert status_line(state, reason, at(0) if ended else None, ended) == line
    assert len(line) <= 140
