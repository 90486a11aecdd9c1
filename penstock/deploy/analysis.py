"""
Whether a release on its way does as well as the one before: measurements judged against what was asked for.

Two kinds: what the router saw of both releases' requests, and queries over the warehouse. Judging is pure; a
measurement with too few requests, or a query without an answer, is inconclusive, which is not failed.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal

import attrs
import msgspec

from penstock.errors import InputError, PenstockError
from penstock.settings import Settings

Verdict = Literal["passed", "failed", "inconclusive"]
Number = int | float | bool | None

QUERY_LIMIT = timedelta(seconds=20)
LATENCY_PERCENTILE = 95


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One SELECT over the warehouse that gives one number, or true or false.

    sql: `{project}`, `{environment}`, `{service}`, `{release}` (its number) and `{commit}` stand for those of the new
    release, as literals. at_least, at_most: what passes; without both, true or any number but 0.
    """

    name: str
    sql: str
    at_least: float | None = None
    at_most: float | None = None


class Analysis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is measured while a step is held, and what passes. What is None is not asked.

    every_s: between two measurements; each is over the requests since the one before, both releases alike.
    min_requests: fewer of a release say nothing about it.
    max_error_rate: answers of 500 and above, as a part of the new release's requests, from 0 to 1.
    max_error_rate_above_old: by how much that may be more than the old release's.
    max_p95_s: seconds in which 95 of 100 of the new release's requests are answered. max_p95_times_old: that, as a
    multiple of the old release's.
    """

    every_s: float = 10.0
    min_requests: int = 50
    max_error_rate: float | None = None
    max_error_rate_above_old: float | None = None
    max_p95_s: float | None = None
    max_p95_times_old: float | None = None
    queries: tuple[Query, ...] = ()

    @property
    def asks_proxy(self) -> bool:
        """Whether requests are to be measured at all."""
        return any(getattr(self, name) is not None for name in _LIMITS)

    @property
    def compares(self) -> bool:
        """Whether the old release is measured too."""
        return self.max_error_rate_above_old is not None or self.max_p95_times_old is not None


_LIMITS = ("max_error_rate", "max_error_rate_above_old", "max_p95_s", "max_p95_times_old")


@attrs.frozen
class Requests:
    """
    What the router saw of one release's requests.

    errors: answered with 500 or above. p95_s: seconds in which 95 of 100 were answered; None without any.
    """

    count: int = 0
    errors: int = 0
    p95_s: float | None = None

    @property
    def error_rate(self) -> float:
        """From 0 to 1."""
        return self.errors / self.count if self.count else 0.0


@attrs.frozen
class Finding:
    """One thing that was asked, and in words with its figures what came of it."""

    verdict: Verdict
    text: str


@attrs.frozen
class Measurement:
    """The findings of one measurement: failed if one is, passed if all are."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Of all together."""
        verdicts = {finding.verdict for finding in self.findings}
        return "failed" if "failed" in verdicts else "passed" if verdicts == {"passed"} else "inconclusive"

    @property
    def text(self) -> str:
        """One line."""
        return f"{self.verdict}: " + "; ".join(finding.text for finding in self.findings)


def check_analysis(analysis: Analysis, *, where: str) -> None:
    """Raises: InputError when it cannot be carried out."""
    if not analysis.asks_proxy and not analysis.queries:
        raise InputError("asks nothing", where=where, remedy="give max_error_rate, max_p95_s or queries")
    _check_range(analysis.every_s, 0.1, 86_400, f"{where}.every_s")
    _check_range(analysis.min_requests, 1, 1_000_000, f"{where}.min_requests")
    for name, least, most in (
        (_LIMITS[0], 0, 1),
        (_LIMITS[1], 0, 1),
        (_LIMITS[2], 0.001, 3600),
        (_LIMITS[3], 0.1, 1000),
    ):
        if (value := getattr(analysis, name)) is not None:
            _check_range(value, least, most, f"{where}.{name}")
    for query in analysis.queries:
        _check_query(query, f"{where}.queries.{query.name}")


def _check_range(value: float, least: float, most: float, where: str) -> None:
    if not least <= value <= most:
        raise InputError(f"must be from {least:g} to {most:g}", where=where, remedy="leave it out for the default")


def _check_query(query: Query, where: str) -> None:
    if not query.name.strip() or not query.sql.strip():
        raise InputError("a query has a name and an SQL", where=where, remedy="write both")
    for name in ("at_least", "at_most"):
        if (value := getattr(query, name)) is not None and not math.isfinite(value):
            raise InputError("must be a number", where=f"{where}.{name}", remedy="give one, or leave it out")
    unknown = set(re.findall(r"\{([^{}]*)\}", query.sql)) - _ABOUT
    if unknown:
        raise InputError(f'"{{{min(unknown)}}}" stands for nothing', where=where, remedy=f"there are {_KNOWN}")


_ABOUT = {"project", "environment", "service", "release", "commit"}
_KNOWN = ", ".join(f"{{{name}}}" for name in sorted(_ABOUT))


def judge(
    analysis: Analysis, new: Requests, old: Requests | None, answers: Sequence[tuple[Query, Number | Exception]] = ()
) -> Measurement:
    """
    What the figures say.

    old: None where there is nothing to compare with, because the old release is not there or not healthy; then nothing
    is compared. answers: what the queries gave, or why they gave nothing.
    """
    findings = [judge_answer(query, answer) for query, answer in answers]
    if analysis.asks_proxy:
        findings = [*_of_requests(analysis, new, old), *findings]
    return Measurement(tuple(findings))


def _of_requests(analysis: Analysis, new: Requests, old: Requests | None) -> list[Finding]:
    least = analysis.min_requests
    if new.count < least:
        return [Finding("inconclusive", f"{new.count} requests to the new release, {least} are needed")]
    if analysis.compares and old is not None and old.count < least:
        compared: list[Finding] = [
            Finding("inconclusive", f"{old.count} requests to the former release, {least} needed")
        ]
    else:
        compared = [] if old is None else _compared(analysis, new, old)
    own = _own(analysis, new)
    if not own and not compared:
        return [Finding("passed", "nothing to compare with")]
    return [*own, *compared]


def _own(analysis: Analysis, new: Requests) -> list[Finding]:
    found = []
    if analysis.max_error_rate is not None:
        text = f"{_rate(new)}, at most {analysis.max_error_rate:.2%}"
        found.append(_finding(new.error_rate <= analysis.max_error_rate, text))
    if analysis.max_p95_s is not None and new.p95_s is not None:
        text = f"p{LATENCY_PERCENTILE} {_ms(new)}, at most {analysis.max_p95_s * 1000:.3g} ms"
        found.append(_finding(new.p95_s <= analysis.max_p95_s, text))
    return found


def _compared(analysis: Analysis, new: Requests, old: Requests) -> list[Finding]:
    found = []
    if (above := analysis.max_error_rate_above_old) is not None:
        text = f"{_rate(new)}, the former {old.error_rate:.2%} of {old.count}, at most {above:.2%} above"
        found.append(_finding(new.error_rate - old.error_rate <= above, text))
    if (times := analysis.max_p95_times_old) is not None and new.p95_s is not None and old.p95_s is not None:
        text = f"p{LATENCY_PERCENTILE} {_ms(new)}, the former {_ms(old)}, at most {times:g} times that"
        found.append(_finding(new.p95_s <= old.p95_s * times, text))
    return found


def _finding(passed: bool, text: str) -> Finding:
    return Finding("passed" if passed else "failed", text)


def _rate(requests: Requests) -> str:
    return f"errors {requests.error_rate:.2%} of {requests.count}"


def _ms(requests: Requests) -> str:
    return f"{(requests.p95_s or 0.0) * 1000:.3g} ms"


def judge_answer(query: Query, answer: "Number | Exception") -> Finding:
    """What one query's answer says. An error is inconclusive: it says nothing about the release."""
    if isinstance(answer, Exception):
        return Finding("inconclusive", f"{query.name}: {answer}")
    if answer is None or (isinstance(answer, float) and not math.isfinite(answer)):
        return Finding("inconclusive", f"{query.name}: no value")
    if query.at_least is None and query.at_most is None:
        return _finding(
            bool(answer), f"{query.name}: {answer}".lower() if isinstance(answer, bool) else f"{query.name}: {answer:g}"
        )
    passed = (query.at_least is None or answer >= query.at_least) and (query.at_most is None or answer <= query.at_most)
    bounds = [f"at least {query.at_least:g}"] if query.at_least is not None else []
    bounds += [f"at most {query.at_most:g}"] if query.at_most is not None else []
    return _finding(passed, f"{query.name}: {answer:g}, {' and '.join(bounds)}")


def ask_warehouse(query: Query, about: Mapping[str, str | int], ask: Callable[[str], Number]) -> Number | Exception:
    """
    What the query gives, or the error with which it gave nothing.

    about: the values of the names in the SQL: project, environment, service, release, commit. ask: see `one_number`.
    """
    try:
        return ask(_with_literals(query.sql, about))
    except PenstockError as error:
        return error


def _with_literals(sql: str, about: Mapping[str, str | int]) -> str:
    def literal(found: "re.Match[str]") -> str:
        value = about[found[1]]
        return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"

    return re.sub(r"\{(" + "|".join(sorted(_ABOUT)) + r")\}", literal, sql)


def one_number(settings: Settings, sql: str) -> Number:
    """
    The one value that a SELECT over the warehouse gives; it may read the lake's tables and nothing else.

    Raises: InputError when it is more than one value, or none that can be compared; and what asking raises.
    """
    from penstock.warehouse.home import warehouse_location
    from penstock.warehouse.sql import ask

    found = ask(warehouse_location(settings), sql, limit=2, time_limit=QUERY_LIMIT)
    if not found.rows:
        return None
    if len(found.rows) != 1 or len(found.rows[0]) != 1:
        raise InputError("gives more than one value", where="SQL", remedy="select one")
    value = found.rows[0][0]
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f'"{value}" is no number', where="SQL", remedy="select a number, or true or false") from error
