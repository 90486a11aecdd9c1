"""What the pages' building blocks promise."""

from datetime import UTC, datetime, timedelta

import pytest

from dashboards.failing import failing_branches
from dashboards.following import SHOWN, lines_with, log_view
from dashboards.markup import Column, facts, page_link, printable, table, tag, web_link
from dashboards.showing import prose, severity_counts, span, state
from penstock.api.models import LogLineOut
from penstock.pipeline.records import RunRecord
from penstock.steps.context import RunInfo

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run(state: str, hours: int, branch: str = "main") -> RunRecord:
    """A run that was queued so many hours after noon."""
    info = RunInfo(f"{branch}{hours}", "shop", "c" * 40, f"refs/heads/{branch}", "g", "s")
    return RunRecord(info, state, None, NOON + timedelta(hours=hours), None, None, ingested=True)


def lines(*texts: str) -> list[LogLineOut]:
    """Lines of a log."""
    return [LogLineOut(at="2026-03-01T12:00:00.000Z", text=text, own=False) for text in texts]


@pytest.mark.parametrize("text", ["<script>", 'a" onclick="x', "a&b", "it's"])
def test_text_is_escaped_wherever_it_stands(text: str):
    """As a child, as an attribute, in a cell, in a fact, in a link."""
    made = (
        tag("p", text, title=text),
        table([Column("x")], [[text]], caption=text),
        facts({"x": text}),
        page_link("run", text, id=text),
    )
    for html in made:
        assert text not in html


def test_markup_is_not_escaped_twice():
    """An element within an element stays one."""
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "ftp://x", "//x", "", None, "https://a b"])
def test_only_web_addresses_become_links(url: str | None):
    """A scanner's report cannot bring a link that does something."""
    assert web_link(url, "label") == "label"


def test_terminal_codes_and_marks_of_direction_are_taken_out():
    """Colours go; what could disguise a line becomes visible."""
    assert printable("\x1b[1;31mred\x1b[0m \x1b]0;title\x07ok") == "red ok"
    assert printable("a\u202eb\x00c") == "a\ufffdb\ufffdc"


def test_an_empty_cell_is_marked_so_that_a_narrow_screen_leaves_it_out():
    """Its class says so."""
    assert "ps-empty" in table([Column("x")], [[None]], caption="")
    assert "ps-empty" not in table([Column("x")], [[0]], caption="")


def test_severities_are_counted_worst_first_without_zeros():
    """Nothing at all is said in words."""
    shown = severity_counts({"low": 2, "critical": 1, "high": 0})
    assert shown.index("1 critical") < shown.index("2 low")
    assert "high" not in shown
    assert "none open" in severity_counts({})


def test_an_unknown_state_is_shown_as_it_is():
    """A state of a later version breaks no page."""
    assert "paused" in state("paused")


@pytest.mark.parametrize(
    ("value_s", "shown"),
    [
        (None, ""),
        (float("nan"), ""),
        (0.04, "0.0 s"),
        (42.4, "42 s"),
        (90, "2 min"),
        (7200, "2 h"),
        (864_000, "10 days"),
    ],
)
def test_durations_are_in_their_largest_unit(value_s: float | None, shown: str):
    """Nothing for what is not known."""
    assert span(value_s) == shown


def test_back_ticks_become_code():
    """And what is in them is escaped."""
    assert prose("type `a<b` now") == "type <code>a&lt;b</code> now"


def test_a_branch_fails_since_the_first_of_its_failures_in_a_row():
    """Runs that are cancelled or not finished say nothing; a success ends it."""
    history = [run("running", 6), run("failed", 5), run("cancelled", 4), run("infra_error", 3), run("succeeded", 2)]
    (found,) = failing_branches([*history, run("failed", 1)])
    assert (found.newest.info.id, found.runs, found.since) == ("main5", 2, NOON + timedelta(hours=3))


def test_a_branch_that_succeeded_last_is_not_failing():
    """Whatever was before."""
    assert failing_branches([run("succeeded", 2), run("failed", 1), run("succeeded", 0, "dev")]) == []


def test_searching_a_log_disregards_case_and_takes_no_pattern():
    """What is typed is looked for as it is."""
    found = lines_with(lines("FAILED a.b", "failed aXb", "ok"), "failed a.B")
    assert [line.text for line in found] == ["FAILED a.b"]


def test_every_hit_in_a_line_is_marked():
    """With its own spelling, and escaped."""
    shown = log_view(lines("<A> and <a>"), "<a>")
    assert "<mark>&lt;A&gt;</mark> and <mark>&lt;a&gt;</mark>" in shown


def test_a_long_log_is_shown_from_its_end():
    """A browser is not given more lines than it can bear."""
    shown = log_view(lines(*(f"line {number};" for number in range(SHOWN + 5))), "")
    assert "line 4;" not in shown
    assert f"line {SHOWN + 4};" in shown
