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


def releases_per_week(releases: pd.DataFrame) -> alt.Chart:
    """
    Stacked bars of releases by what became of them.

    releases: one row per release with `created_at` and `outcome` (reached traffic, failed, pending).
    """
    outcomes = {"reached traffic": "#2a9d76", "failed": "#d0404c", "pending": "#4a86d8"}
    found = [name for name in outcomes if name in set(releases["outcome"])]
    return (
        alt.Chart(releases, height=170)
        .mark_bar()
        .encode(
            x=alt.X("yearweek(created_at):T", title=None, axis=alt.Axis(format="%d %b", tickCount=6)),
            y=alt.Y("count():Q", title="releases in the week", axis=alt.Axis(tickMinStep=1, format="d")),
            color=alt.Color(
                "outcome:N",
                scale=alt.Scale(domain=found, range=[outcomes[name] for name in found]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=["outcome", alt.Tooltip("count():Q", title="releases")],
        )
    )


def _severity() -> alt.Color:
    scale = alt.Scale(domain=list(SEVERITIES), range=list(SEVERITY_COLOURS))
    return alt.Color("severity:N", scale=scale, legend=alt.Legend(orient="top", title=None))
