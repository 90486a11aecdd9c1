"""JUnit XML, as pytest, Surefire, Jest and others write it, → one value per test."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import attrs

from penstock.errors import ReportError

SIZE_LIMIT_BYTES = 64 * 1024 * 1024
MESSAGE_LIMIT = 2000

CaseState = Literal["passed", "failed", "error", "skipped"]


@attrs.frozen
class CaseResult:
    """One test of one run. seconds is None where the file does not say. message: its first lines."""

    suite: str
    name: str
    state: CaseState
    seconds: float | None = None
    message: str = ""
    file: str | None = None

    @property
    def label(self) -> str:
        """How people call it: `tests.test_basket::test_total`."""
        return f"{self.suite}::{self.name}" if self.suite else self.name

    @property
    def broken(self) -> bool:
        """Whether it failed or could not run."""
        return self.state in ("failed", "error")


def read_junit(path: Path) -> tuple[CaseResult, ...]:
    """
    Every test in a file.

    Raises: ReportError when it is no JUnit XML, too large, or declares entities.
    """
    if path.stat().st_size > SIZE_LIMIT_BYTES:
        raise ReportError("larger than 64 MB", where=path.name, remedy="split it")
    data = path.read_bytes()
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise ReportError("declares entities, which are not read", where=path.name)
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ReportError(f"no XML: {error}", where=path.name, remedy="let the test runner write JUnit XML") from error
    if root.tag not in ("testsuites", "testsuite"):
        raise ReportError(f"starts with <{root.tag}>, not with <testsuites>", where=path.name)
    return tuple(_cases(root))


def _cases(root: ElementTree.Element) -> Iterator[CaseResult]:
    for case in root.iter("testcase"):
        state, detail = _state(case)
        yield CaseResult(
            suite=case.get("classname", ""),
            name=case.get("name", ""),
            state=state,
            seconds=_seconds(case.get("time")),
            message=_message(detail),
            file=case.get("file"),
        )


def _state(case: ElementTree.Element) -> tuple[CaseState, ElementTree.Element | None]:
    for tag, state in _STATES:
        if (found := case.find(tag)) is not None:
            return state, found
    return "passed", None


_STATES: tuple[tuple[str, CaseState], ...] = (("error", "error"), ("failure", "failed"), ("skipped", "skipped"))


def _seconds(text: str | None) -> float | None:
    try:
        found = float((text or "").replace(",", ""))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _message(detail: ElementTree.Element | None) -> str:
    if detail is None:
        return ""
    return (detail.get("message") or detail.text or "").strip()[:MESSAGE_LIMIT]


def failures_in_words(cases: Sequence[CaseResult]) -> str:
    """`2 of 14 tests failed: a::b, c::d`; the first five are named. Empty when none is broken."""
    broken = [case.label for case in cases if case.broken]
    if not broken:
        return ""
    named = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    return f"{len(broken)} of {len(cases)} tests failed: {named}"
