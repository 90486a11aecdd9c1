"""Tests that fail for nothing, and tests that take long."""

import pandas as pd
import streamlit as st

from dashboards.charts import failures_by_week
from dashboards.filters import period_filter, project_filter
from dashboards.markup import Column, Content, table, tag, tiles
from dashboards.reading import lake
from dashboards.showing import ago, empty, head, known, put, run_link, said_plainly, section, span, state
from dashboards.tables import shortened
from penstock.warehouse import health, views

SHOWN = 30
FLAKY_COLUMNS = (
    Column("test", "wide"),
    Column("project"),
    Column("flaky on", "number"),
    Column("of commits", "number"),
    Column("last time"),
    Column("run"),
)
SLOW_COLUMNS = (
    Column("last"),
    Column("test", "wide"),
    Column("project"),
    Column("median", "number"),
    Column("95 of 100 within", "number"),
    Column("runs", "number"),
    Column("in all", "number"),
)


def _name(row: "pd.Series[object]") -> str:
    return "::".join(str(part) for part in (known(row["suite"]), row["name"]) if part)


def _flaky_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    message = known(row["last_message"])
    why = tag("div", shortened(str(message)), class_="ps-muted") if message else None
    return (
        tag("span", _name(row), why),
        row["project"],
        int(row["flaky_commits"]),
        int(row["commits"]),
        ago(row["last_at"]),
        run_link(known(row["last_run_id"])),
    )


def _slow_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    return (
        state(str(row["last_state"])),
        _name(row),
        row["project"],
        _seconds(row["median_s"]),
        _seconds(row["p95_s"]),
        int(row["runs"]),
        span(row["total_s"]),
    )


def _seconds(value: object) -> str:
    return "" if known(value) is None else f"{value:.2f} s"


def _figures(found: pd.DataFrame, flaky: pd.DataFrame) -> None:
    share = found["failures"].sum() / max(found["runs"].sum(), 1)
    put(
        tiles(
            [
                ("tests", len(found), ""),
                ("flaky", len(flaky), "bad" if len(flaky) else "good"),
                ("of results failed", f"{share:.2%}", ""),
                ("spent in tests", span(known(found["total_s"].sum())), ""),
            ]
        )
    )


def _show() -> None:
    known_tests = lake(views.durations_of_tests, days=365)
    if known_tests.empty:
        empty(
            "No test result yet. Let a step write JUnit XML and name it:",
            "- name: test\n  type: step.shell_exec\n  commands: [pytest --junitxml=report.xml]\n"
            "  reports: { junit: report.xml }",
            then="Then push, or `penstock run`.",
        )
        return
    with st.container(horizontal=True):
        project, days = project_filter(known_tests["project"].unique()), period_filter()
    found = lake(views.durations_of_tests, project=project, days=days)
    if found.empty:
        empty("No test ran in that time. Take a longer period.")
        return
    flaky = lake(health.flaky_tests, project=project, days=days)
    _figures(found, flaky)
    _flaky(flaky)
    weeks = lake(health.failures_by_week, project=project, weeks=max(days // 7, 1))
    if not weeks.empty:
        section("Failures week by week", "flaky: the same test passed on the same commit too")
        st.altair_chart(failures_by_week(weeks), alt="Failed tests in each week")
    section("Slow", "by their median")
    rows = (_slow_row(row) for _, row in found.head(SHOWN).iterrows())
    put(table(SLOW_COLUMNS, rows, caption="The slowest tests"))
    st.caption(f"{min(SHOWN, len(found))} of {len(found)} tests")


def _flaky(flaky: pd.DataFrame) -> None:
    section("Flaky", "passed and failed on one and the same commit")
    if flaky.empty:
        put(tag("p", "None in that time.", class_="ps-muted"))
        return
    rows = (_flaky_row(row) for _, row in flaky.head(SHOWN).iterrows())
    put(table(FLAKY_COLUMNS, rows, caption="Flaky tests, the worst first"))
    st.caption(f"{min(SHOWN, len(flaky))} of {len(flaky)} flaky tests")


head("Tests")
with said_plainly():
    _show()
