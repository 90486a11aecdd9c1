"""Filters that more than one page has; what is chosen stands in the address."""

from collections.abc import Sequence

import streamlit as st

from dashboards.reading import lake, projects
from penstock.warehouse import queries

PERIODS = (30, 90, 180, 365)


def default_branches() -> tuple[str, ...]:
    """The names of default branches; main where a project is not connected."""
    return tuple(sorted({"main", *(each.default_branch for each in projects())}))


def project_filter(names: Sequence[str], *, required: bool = False) -> str | None:
    """One of the projects; None for all, which `required` does not offer."""
    return st.selectbox(
        "Project",
        sorted(names),
        index=0 if required else None,
        key="project",
        bind="query-params",
        placeholder="all",
        width=200,
    )


def period_filter() -> int:
    """The last so many days."""
    days = st.selectbox(
        "Period", PERIODS, index=1, key="days", bind="query-params", width=160, format_func=lambda each: f"{each} days"
    )
    return days or PERIODS[1]


def scanned_projects() -> list[str]:
    """Projects in which a scanner has ever looked."""
    health = lake(queries.scanner_health)
    return [] if health.empty else sorted(health["project"].unique())
