"""One run: its steps, when each ran, what each printed, what it found; and stopping it."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboards.acting import cancel_run
from dashboards.charts import step_timeline
from dashboards.following import SHOWN, FollowedLog, lines_with, log_view
from dashboards.markup import Column, Content, facts, join, page_link, table, tag
from dashboards.reading import lake, run_and_steps
from dashboards.showing import (
    commit,
    empty,
    head,
    known,
    moment,
    put,
    run_link,
    said_plainly,
    section,
    severity,
    span,
    state,
    trouble,
)
from penstock.errors import PenstockError
from penstock.pipeline.records import UNFINISHED, RunRecord, StepRecord
from penstock.warehouse import queries, views

STEP_COLUMNS = (
    Column("step"),
    Column("type"),
    Column("state"),
    Column("seconds", "number"),
    Column("attempt", "number"),
    Column("produced, or why not", "wide"),
)
FINDING_COLUMNS = (Column("severity"), Column("rule"), Column("where", "wide"), Column("branch"), Column("now"))
TEST_COLUMNS = (Column("state"), Column("test"), Column("step"), Column("seconds", "number"), Column("message", "wide"))
TESTS_SHOWN = 20


def _step_row(step: StepRecord) -> tuple[Content, ...]:
    words = step.reason or step.produced
    reused = join([" from run ", run_link(step.reused_from)]) if step.reused_from else None
    seconds = "" if step.seconds is None else f"{step.seconds:.1f}"
    return step.step, step.type, state(step.state), seconds, step.attempt, join((words, reused))


def timeline_rows(run: RunRecord, steps: Sequence[StepRecord]) -> pd.DataFrame:
    """One row per step that began: `step`, `state`, `from_s`, `to_s` since the run was queued, `seconds`."""
    rows = [
        {
            "step": step.step,
            "state": step.state,
            "from_s": (step.started_at - run.queued_at).total_seconds(),
            "to_s": (step.started_at - run.queued_at).total_seconds() + (step.seconds or 0.0),
            "seconds": step.seconds,
        }
        for step in steps
        if step.started_at is not None and step.reused_from is None
    ]
    return pd.DataFrame(rows, columns=["step", "state", "from_s", "to_s", "seconds"])


def _facts(run: RunRecord) -> None:
    info = run.info
    put(
        facts(
            {
                "project": page_link("runs", info.project, project=info.project),
                "commit": join((commit(info.commit), " ", info.title)),
                "branch": info.branch,
                "author": info.author,
                "started by": info.trigger,
                "queued": moment(run.queued_at),
                "took": span(run.seconds),
                "run": tag("code", info.id),
            }
        )
    )


@st.dialog("Cancel this run?")
def _confirm(run_id: str) -> None:
    st.write("Its processes are stopped within ten seconds; steps that have ended keep what they made.")
    if st.button("Cancel the run", type="primary", key="really"):
        try:
            cancel_run(run_id)
        except PenstockError as error:
            trouble(str(error))
            return
        st.toast("The run is being cancelled.")
        st.rerun()


def _show_steps(run_id: str) -> None:
    run, steps = run_and_steps(run_id)
    if run.state in UNFINISHED:
        st.session_state["watched"] = run_id
    elif st.session_state.pop("watched", None) == run_id:
        st.rerun()  # it ended while somebody looked: what depends on that is drawn once more
    put(tag("p", state(run.state), " ", tag("span", run.reason or "", class_="ps-muted")))
    put(table(STEP_COLUMNS, map(_step_row, steps), caption="Steps in the order of starting"))
    began = timeline_rows(run, steps)
    if not began.empty:
        st.altair_chart(step_timeline(began), alt="When each step ran")


@st.fragment(run_every="1s")
def _live_steps(run_id: str) -> None:
    with said_plainly():
        _show_steps(run_id)


def _followed(run_id: str, step: str) -> FollowedLog:
    kept = st.session_state.get("followed")
    if not isinstance(kept, FollowedLog) or (kept.run_id, kept.step) != (run_id, step):
        kept = st.session_state["followed"] = FollowedLog(run_id, step)
    return kept


def _show_log(run_id: str, step: str, wanted: str) -> None:
    log = _followed(run_id, step)
    with said_plainly():
        log.catch_up()
    found = lines_with(log.lines, wanted)
    if found:
        put(log_view(found, wanted))
    else:
        put(tag("p", "No line has that." if log.lines else "Nothing printed.", class_="ps-muted"))
    part = f"the last {SHOWN} of " if len(found) > SHOWN else ""
    st.caption(
        f"{part}{len(found)} lines{' found' if wanted else ''}; times are UTC{'' if log.complete else '; following'}"
    )
    if log.complete and log.lines:
        text = "".join(f"{line.at} {line.text}\n" for line in log.lines)
        st.download_button("Download", text, f"{run_id[:8]}-{step}.log", "text/plain", on_click="ignore")


@st.fragment(run_every="1s")
def _live_log(run_id: str, step: str, wanted: str) -> None:
    _show_log(run_id, step, wanted)


def first_to_read(steps: Sequence[StepRecord]) -> int:
    """The step whose log is wanted first: what failed, else what runs, else the first."""
    for states in (("failed", "timed_out", "infra_error"), ("running",)):
        for index, step in enumerate(steps):
            if step.state in states:
                return index
    return 0


def _log(run: RunRecord, steps: Sequence[StepRecord]) -> None:
    section("Log")
    names = [step.step for step in steps]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        step = st.selectbox("Step", names, index=first_to_read(steps), key="step", bind="query-params", width=220)
        wanted = st.text_input("Search", key="find", placeholder="in this log", width=260, live=True)
        follow = run.state in UNFINISHED and st.toggle("Follow", value=True)
    (_live_log if follow else _show_log)(run.info.id, step, wanted or "")


def _tests(run: RunRecord) -> None:
    found = lake(views.tests_of_run, run_id=run.info.id)
    if found.empty:
        return
    failed = found[~found["state"].isin(["passed", "skipped"])]
    section("Tests", f"{len(found)} ran, {len(failed)} did not pass")
    shown = failed if len(failed) else found
    rows = (
        (state(row.state), row.name_, row.step, f"{row.seconds or 0:.2f}", known(row.message)) for row in _rows(shown)
    )
    put(table(TEST_COLUMNS, rows, caption="Tests that did not pass" if len(failed) else "The slowest tests"))


def _rows(found: pd.DataFrame) -> list[tuple]:
    return list(found.head(TESTS_SHOWN).rename(columns={"name": "name_"}).itertuples())


def _finding_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    named = {name: str(row[name]) for name in ("project", "branch", "fingerprint")}
    where = f"{known(row['path']) or ''}:{int(row['line'])}" if known(row["line"]) else known(row["path"])
    return (
        severity(row["severity"]),
        page_link("finding", row["rule_id"], **named),
        where,
        row["branch"],
        state(row["state"]),
    )


def _findings(run: RunRecord) -> None:
    of = {"project": run.info.project, "commit": run.info.commit}
    for title, question in (("introduced", queries.introduced_by_commit), ("fixed", queries.fixed_by_commit)):
        found = lake(question, **of)
        if found.empty:
            continue
        section(f"Findings {title}", f"{len(found)} by this commit")
        rows = (_finding_row(row) for _, row in found.head(50).iterrows())
        put(table(FINDING_COLUMNS, rows, caption=f"Findings that this commit {title}"))


def _show(run_id: str) -> None:
    run, steps = run_and_steps(run_id)
    head(f"Run {run_id[:8]}")
    _facts(run)
    running = run.state in UNFINISHED
    asked = running and st.button("Cancel …", icon=":material/stop_circle:")
    (_live_steps if running else _show_steps)(run_id)
    if steps:
        _log(run, steps)
    _tests(run)
    _findings(run)
    if asked:
        _confirm(run_id)  # last: a click in it while the page is still being drawn would be lost


if wanted_run := st.query_params.get("id"):
    _show(wanted_run)
else:
    head("Run")
    empty("No run is named in the address. Choose one from the list of runs.")
    st.page_link("screens/runs.py")
