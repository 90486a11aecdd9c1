"""Every run: filtered by what stands in the address."""

from collections.abc import Sequence

import streamlit as st

from dashboards.reading import RUN_LIMIT, projects, recent_runs
from dashboards.showing import empty, head, put, said_plainly
from dashboards.tables import run_table
from penstock.pipeline.records import RunRecord

RUN_STATES = ("running", "queued", "succeeded", "failed", "timed_out", "infra_error", "waiting", "cancelled")
PAGE = 50


def matching(runs: Sequence[RunRecord], states: Sequence[str], words: str) -> list[RunRecord]:
    """Runs in one of the states (none: any) that have all of the words in commit, title, author, branch or reason."""
    wanted = words.casefold().split()
    return [run for run in runs if (not states or run.state in states) and all(word in _text(run) for word in wanted)]


def _text(run: RunRecord) -> str:
    info = run.info
    parts = (info.id, info.project, info.commit, info.branch, info.author, info.title, run.reason)
    return " ".join(part for part in parts if part).casefold()


def _known_projects() -> list[str]:
    return sorted({project.name for project in projects()} | {run.info.project for run in recent_runs()})


def _filters() -> tuple[str | None, list[str], str]:
    names = _known_projects()
    with st.container(horizontal=True):
        project = st.selectbox(
            "Project", names, index=None, key="project", bind="query-params", placeholder="all", width=200
        )
        words = st.text_input(
            "Search", key="words", bind="query-params", placeholder="commit, title, author, branch …", width=300
        )
    states = st.pills(
        "State",
        RUN_STATES,
        selection_mode="multi",
        key="state",
        bind="query-params",
        label_visibility="collapsed",
    )
    return project, list(states), words or ""


@st.fragment(run_every="5s")
def _list(project: str | None, states: Sequence[str], words: str) -> None:
    with said_plainly():
        runs = recent_runs(project)
        found = matching(runs, states, words)
        if not found:
            _nothing(bool(runs))
            return
        shown = st.session_state.get("runs_shown", PAGE)
        put(run_table(found[:shown]))
        limit = f" of the newest {RUN_LIMIT}" if len(runs) == RUN_LIMIT else ""
        st.caption(f"{min(shown, len(found))} of {len(found)} runs{limit}; times are UTC")
        if len(found) > shown and st.button("Show more"):
            st.session_state["runs_shown"] = shown + PAGE
            st.rerun(scope="fragment")


def _nothing(any_runs: bool) -> None:
    if any_runs:
        empty("No run is like that. Take a filter away.")
    else:
        empty(
            "No run yet. Connect a repository and push, or run its pipeline here:",
            "penstock project add shop https://git.example/shop.git",
            "penstock run",
        )


head("Runs")
_list(*_filters())
