"""Judging a release by its measurements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.deploy.analysis import Analysis, Query, Requests, ask_warehouse, check_analysis, judge, judge_answer
from penstock.deploy.requests import Line, Tally, parse_lines
from penstock.errors import InputError, StepTimeout

ALL = Analysis(max_error_rate=0.05, max_error_rate_above_old=0.01, max_p95_s=0.5, max_p95_times_old=2.0)
WELL = Requests(100, 1, 0.1)
ABOUT = {"project": "shop", "environment": "o'prod", "service": "web", "release": 7, "commit": "abc"}


def test_release_as_good_as_the_former_passes_with_its_figures():
    """One line that says what was measured and what was allowed."""
    found = judge(ALL, WELL, Requests(1000, 10, 0.08))
    assert found.text == (
        "passed: errors 1.00% of 100, at most 5.00%; p95 100 ms, at most 500 ms; "
        "errors 1.00% of 100, the former 1.00% of 1000, at most 1.00% above; "
        "p95 100 ms, the former 80 ms, at most 2 times that"
    )


@pytest.mark.parametrize(
    ("new", "old", "why"),
    [
        (Requests(100, 6, 0.1), Requests(100, 6, 0.1), "errors 6.00% of 100, at most 5.00%"),
        (Requests(100, 3, 0.1), Requests(100, 0, 0.1), "the former 0.00% of 100, at most 1.00% above"),
        (Requests(100, 0, 0.6), Requests(100, 0, 0.6), "p95 600 ms, at most 500 ms"),
        (Requests(100, 0, 0.3), Requests(100, 0, 0.1), "p95 300 ms, the former 100 ms, at most 2 times that"),
    ],
)
def test_each_limit_fails_alone(new, old, why):
    """And the line says which."""
    found = judge(ALL, new, old)
    assert found.verdict == "failed"
    assert why in found.text
    assert [finding.verdict for finding in found.findings].count("failed") == 1


@pytest.mark.parametrize(
    ("new", "old"), [(Requests(49, 49, 9.0), WELL), (Requests(), Requests()), (WELL, Requests(49, 0, 0.1))]
)
def test_too_few_requests_say_nothing(new, old):
    """Neither all wrong nor all right."""
    assert judge(ALL, new, old).verdict == "inconclusive"


def test_failure_is_one_though_there_is_too_little_to_compare_with():
    """The release's own limit needs nobody else."""
    assert judge(ALL, Requests(100, 50, 0.1), Requests(3)).verdict == "failed"


def test_former_release_that_is_ill_is_no_measure():
    """Without it only the release's own limits count."""
    assert judge(ALL, WELL, None).verdict == "passed"
    assert judge(Analysis(max_error_rate_above_old=0.0), Requests(100, 90, 1.0), None).verdict == "passed"
    assert judge(ALL, Requests(100, 90, 1.0), None).verdict == "failed"


@pytest.mark.parametrize(
    ("query", "answer", "verdict", "text"),
    [
        (Query(name="orders", sql="x", at_least=5), 7, "passed", "orders: 7, at least 5"),
        (Query(name="orders", sql="x", at_least=5), 4.5, "failed", "orders: 4.5, at least 5"),
        (Query(name="orders", sql="x", at_least=1, at_most=2), 3, "failed", "orders: 3, at least 1 and at most 2"),
        (Query(name="ok", sql="x"), True, "passed", "ok: true"),
        (Query(name="ok", sql="x"), False, "failed", "ok: false"),
        (Query(name="ok", sql="x"), 0, "failed", "ok: 0"),
        (Query(name="ok", sql="x"), None, "inconclusive", "ok: no value"),
        (Query(name="ok", sql="x", at_most=1), float("nan"), "inconclusive", "ok: no value"),
        (Query(name="ok", sql="x"), StepTimeout("too long"), "inconclusive", "ok: too long"),
    ],
)
def test_answer_of_a_query(query, answer, verdict, text):
    """A number within its limits, or true; no answer says nothing about the release."""
    found = judge_answer(query, answer)
    assert (found.verdict, found.text) == (verdict, text)


def test_query_gets_the_release_as_literals():
    """A name with a quote stays a name; other braces are left alone."""
    asked = []
    query = Query(name="q", sql="SELECT {release} WHERE e = {environment} AND j = '{}'")
    ask_warehouse(query, ABOUT, asked.append)
    assert asked == ["SELECT 7 WHERE e = 'o''prod' AND j = '{}'"]


def test_query_that_fails_is_an_answer():
    """The rollout goes on, and says why nothing was learned."""

    def ask(sql: str) -> None:
        raise InputError("no such table", where="SQL")

    assert str(ask_warehouse(Query(name="q", sql="SELECT 1"), ABOUT, ask)) == "SQL: no such table"


@pytest.mark.parametrize(
    ("analysis", "where"),
    [
        (Analysis(), "a"),
        (Analysis(max_error_rate=1.1), "a.max_error_rate"),
        (Analysis(max_error_rate=float("nan")), "a.max_error_rate"),
        (Analysis(max_p95_s=0), "a.max_p95_s"),
        (Analysis(max_p95_s=1, every_s=0), "a.every_s"),
        (Analysis(max_p95_s=1, min_requests=0), "a.min_requests"),
        (Analysis(queries=(Query(name="q", sql=" "),)), "a.queries.q"),
        (Analysis(queries=(Query(name="q", sql="SELECT {who}"),)), "a.queries.q"),
        (Analysis(queries=(Query(name="q", sql="SELECT 1", at_least=float("inf")),)), "a.queries.q.at_least"),
    ],
)
def test_analysis_that_cannot_be_made_is_refused(analysis, where):
    """Where it stands, what is wrong, and what to do."""
    with pytest.raises(InputError) as error:
        check_analysis(analysis, where="a")
    assert error.value.where == where
    assert error.value.remedy


def test_lines_that_are_none_are_passed_over():
    """A line that is cut off, another program's, or of another kind costs no measurement."""
    lines = [
        b'{"status": 200, "duration": 0.5, "upstream": "127.0.0.1:1", "ts": 3}',
        b'{"sta',
        b"[]",
        b'{"status": "x"}',
    ]
    assert list(parse_lines(lines)) == [Line(200, 0.5, "127.0.0.1:1")]


@given(st.lists(st.floats(0.0002, 500), min_size=1, max_size=200))
def test_percentile_is_known_to_five_per_cent(durations):
    """In constant memory, however many requests there are."""
    tally = Tally()
    for duration in durations:
        tally.add(Line(500, duration))
    found = tally.requests()
    exact = sorted(durations)[-(-len(durations) * 95 // 100) - 1]
    assert exact <= found.p95_s <= exact * 1.0501
    assert (found.count, found.errors) == (len(durations), len(durations))
