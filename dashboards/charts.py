"""Charts: Altair from data frames, in colours that can be told apart on light and dark."""

import altair as alt
import pandas as pd

from penstock.findings.finding import SEVERITIES

SEVERITY_COLOURS = ("#a3123a", "#dd5a20", "#d9a514", "#4a86d8", "#8b9793")
"""In the order of SEVERITIES."""

STATE_COLOURS = {
    "succeeded": "#2a9d76",
    "live": "#2a9d76",
    "failed": "#d0404c",
    "timed_out": "#b0232f",
    "infra_error": "#8a4fbf",
    "cancelled": "#c98a1b",
    "running": "#4a86d8",
    "pending": "#4a86d8",
    "superseded": "#8b9793",
    "skipped": "#b7c0bd",
    "queued": "#b7c0bd",
}
AGES = ("up to a week", "up to a month", "up to a quarter", "longer")
BAR = 22  # pixels per row of a timeline


def step_timeline(steps: pd.DataFrame) -> alt.Chart:
    """
    Bars of when each step ran.

    steps: one row per step in order, `step`, `state`, `from_s` and `to_s` since the run was queued.
    """
    order = list(dict.fromkeys(steps["step"]))
    found = [name for name in STATE_COLOURS if name in set(steps["state"])]
    colour = alt.Scale(domain=found, range=[STATE_COLOURS[name] for name in found])
    return (
        alt.Chart(steps, height=alt.Step(BAR))
        .mark_bar(cornerRadius=3, height=alt.RelativeBandSize(0.6))
        .encode(
            x=alt.X("from_s:Q", title="seconds since the run was queued", scale=alt.Scale(domainMin=0, nice=False)),
            x2="to_s:Q",
            y=alt.Y("step:N", sort=order, title=None, axis=alt.Axis(labelLimit=120)),
            color=alt.Color("state:N", scale=colour, legend=alt.Legend(orient="top", title=None)),
            tooltip=["step", "state", alt.Tooltip("seconds:Q", format=".2f")],
        )
    )


def open_by_project(counts: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of what is open.

    counts: one row per `project` and `severity` with `open`.
    """
    return (
        alt.Chart(counts, height=alt.Step(BAR))
        .mark_bar(height=alt.RelativeBandSize(0.65))
        .encode(
            x=alt.X("sum(open):Q", title="open findings", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("project:N", title=None, sort="-x", axis=alt.Axis(labelLimit=120)),
            color=_severity(),
            order=alt.Order("rank:Q"),
            tooltip=["project", "severity", alt.Tooltip("sum(open):Q", title="open")],
        )
        .transform_calculate(rank=f"indexof({list(SEVERITIES)}, datum.severity)")
    )


def open_over_time(days: pd.DataFrame) -> alt.Chart:
    """
    Areas of what was open at the end of each day.

    days: one row per `day` and `severity` with `open`.
    """
    return (
        alt.Chart(days, height=210)
        .mark_area(interpolate="step-after", opacity=0.85)
        .encode(
            x=alt.X("day:T", title=None, axis=alt.Axis(format="%d %b", tickCount=6)),
            y=alt.Y("open:Q", title="open at the end of the day", axis=alt.Axis(tickMinStep=1, format="d")),
            color=_severity(),
            order=alt.Order("rank:Q", sort="descending"),
            tooltip=[alt.Tooltip("day:T", format="%Y-%m-%d"), "severity", "open", "introduced", "fixed"],
        )
        .transform_calculate(rank=f"indexof({list(SEVERITIES)}, datum.severity)")
    )


def introduced_and_fixed(weeks: pd.DataFrame) -> alt.LayerChart:
    """
    Bars of what came, above the line, and what went, below it.

    weeks: one row per `week` and `severity` with `introduced` and `fixed`.
    """
    base = (
        alt.Chart(weeks, height=210)
        .transform_calculate(rank=f"indexof({list(SEVERITIES)}, datum.severity)", gone="-datum.fixed")
        .encode(
            x=alt.X("yearmonthdate(week):T", title=None, axis=alt.Axis(format="%d %b", tickCount=6)),
            color=_severity(),
            order=alt.Order("rank:Q"),
            tooltip=[alt.Tooltip("week:T", format="%Y-%m-%d"), "severity", "introduced", "fixed"],
        )
    )
    came = base.mark_bar(width=9).encode(y=alt.Y("introduced:Q", title="fixed · introduced", axis=_whole()))
    went = base.mark_bar(width=9, opacity=0.6).encode(y="gone:Q")
    return alt.layer(came, went)


def open_by_age(ages: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of how long findings have been open.

    ages: one row per `age` and `severity` with `open` and `overdue`.
    """
    return (
        alt.Chart(ages, height=alt.Step(BAR + 8))
        .mark_bar(height=alt.RelativeBandSize(0.65))
        .transform_calculate(rank=f"indexof({list(SEVERITIES)}, datum.severity)")
        .encode(
            x=alt.X("sum(open):Q", title="open findings", axis=_whole()),
            y=alt.Y("age:N", title=None, sort=list(AGES)),
            color=_severity(),
            order=alt.Order("rank:Q"),
            tooltip=[
                "age",
                "severity",
                alt.Tooltip("sum(open):Q", title="open"),
                alt.Tooltip("sum(overdue):Q", title="overdue"),
            ],
        )
    )


def gate_by_week(history: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of commits that pass and that are stopped.

    history: one row per commit with `committed_at` and `blocked`.
    """
    verdicts = history["blocked"].map({True: "stopped", False: "passes"})
    named = history.assign(verdict=verdicts)[["committed_at", "verdict"]]
    colours = {"passes": "#2a9d76", "stopped": "#d0404c"}
    return _stacked(named, "yearweek(committed_at):T", "verdict", colours, "commits")


def failures_by_week(weeks: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of failed tests.

    weeks: one row per `week` and `kind` (flaky, broken) with `failures`.
    """
    colours = {"flaky": "#c98a1b", "broken": "#d0404c"}
    return _stacked(weeks, "yearmonthdate(week):T", "kind", colours, "failed tests", amount="sum(failures):Q")


def deployments_by_week(weeks: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of deployments, and of those that failed.

    weeks: one row per `week` with `deployments` and `failures`.
    """
    good = weeks.assign(outcome="succeeded", count=weeks["deployments"] - weeks["failures"])
    bad = weeks.assign(outcome="failed or taken back", count=weeks["failures"])
    both = pd.concat([good, bad])[["week", "outcome", "count"]]
    colours = {"succeeded": "#2a9d76", "failed or taken back": "#d0404c"}
    return _stacked(both, "yearmonthdate(week):T", "outcome", colours, "deployments", amount="sum(count):Q")


def lead_time_by_week(weeks: pd.DataFrame) -> alt.Chart:
    """
    A line of the median hours from commit to production.

    weeks: one row per `week` with `lead_median_s`.
    """
    return (
        alt.Chart(weeks.assign(hours=weeks["lead_median_s"] / 3600)[["week", "hours"]], height=190)
        .mark_line(point=True, color="#4a86d8")
        .encode(
            x=alt.X("yearmonthdate(week):T", title=None, axis=alt.Axis(format="%d %b", tickCount=6)),
            y=alt.Y("hours:Q", title="median hours to production", scale=alt.Scale(zero=True)),
            tooltip=[alt.Tooltip("week:T", format="%Y-%m-%d"), alt.Tooltip("hours:Q", format=".1f")],
        )
    )


def metric_over_time(rows: pd.DataFrame, title: str) -> alt.Chart:
    """
    A line per project of one metric.

    rows: one per measurement: `project`, `measured_at`, `value`. title: the metric with its unit.
    """
    return (
        alt.Chart(rows, height=170)
        .mark_line(point=True)
        .encode(
            x=alt.X("measured_at:T", title=None),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=True)),
            color=alt.Color("project:N", legend=alt.Legend(orient="top", title=None)),
            tooltip=["project", "commit", "value", alt.Tooltip("measured_at:T", format="%Y-%m-%d %H:%M")],
        )
    )


def _stacked(
    rows: pd.DataFrame, x: str, by: str, colours: dict[str, str], title: str, *, amount: str = "count():Q"
) -> alt.Chart:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return (
        alt.Chart(rows, height=190)
        .mark_bar(size=12 if x.startswith("yearmonthdate") else alt.Undefined)
        .encode(
            x=alt.X(x, title=None, axis=alt.Axis(format="%d %b", tickCount=6)),
            y=alt.Y(amount, title=title, axis=_whole()),
            color=alt.Color(f"{by}:N", scale=scale, legend=alt.Legend(orient="top", title=None)),
            tooltip=[by, alt.Tooltip(amount, title=title)],
        )
    )


def _whole() -> alt.Axis:
    return alt.Axis(tickMinStep=1, format="d")


def _severity() -> alt.Color:
    scale = alt.Scale(domain=list(SEVERITIES), range=list(SEVERITY_COLOURS))
    return alt.Color("severity:N", scale=scale, legend=alt.Legend(orient="top", title=None))
