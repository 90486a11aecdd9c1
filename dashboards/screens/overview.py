"""What runs where, how weak it is, and what is failing, right now."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import streamlit as st

from dashboards.failing import Failing, failing_branches
from dashboards.markup import Column, Content, page_link, table, tiles
from dashboards.reading import lake, live_services, on_default_branch, projects, recent_runs
from dashboards.showing import ago, commit, empty, head, put, run_link, said_plainly, section, state
from dashboards.tables import live_table, run_table, shortened
from penstock.pipeline.records import UNFINISHED, RunRecord
from penstock.warehouse import queries

LATEST = 10
FAILING_COLUMNS = (
    Column("state"),
    Column("project"),
    Column("branch"),
    Column("newest run"),
    Column("commit"),
    Column("reason", "wide"),
    Column("since"),
    Column("runs in a row", "number"),
)


def _failing_row(each: Failing) -> tuple[Content, ...]:
    info = each.newest.info
    return (
        state(each.newest.state),
        page_link("runs", info.project, project=info.project),
        info.branch,
        run_link(info.id),
        commit(info.commit),
        shortened(each.newest.reason or ""),
        ago(each.since),
        each.runs,
    )


def _figures(runs: Sequence[RunRecord], failing: Sequence[Failing]) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    recent = [run for run in runs if run.queued_at >= yesterday]
    weak = on_default_branch(lake(queries.findings_by_severity))
    critical, high = (0, 0) if weak.empty else (int(weak["critical"].sum()), int(weak["high"].sum()))
    put(
        tiles(
            [
                ("services live", len(live_services()), ""),
                ("branches failing", len(failing), "bad" if failing else "good"),
                ("critical findings open", critical, "bad" if critical else "good"),
                ("high findings open", high, "bad" if high else "good"),
                ("runs in 24 h", len(recent), ""),
                ("running now", sum(run.state in UNFINISHED for run in runs), ""),
            ]
        )
    )


def _welcome() -> None:
    if projects():
        empty(
            "No run yet. Push a commit to a connected repository, or run its pipeline here:",
            "git push",
            "penstock run",
            then="The run appears here within seconds.",
        )
    else:
        empty(
            "No repository is connected yet. Connect one, then push to it:",
            "penstock project add shop https://git.example/shop.git",
            "git push",
            then="A repository needs a penstock.yaml; `penstock init` writes one that fits.",
        )


@st.fragment(run_every="5s")
def _now() -> None:
    with said_plainly():
        runs, services = recent_runs(), live_services()
        if not runs and not services:
            _welcome()
            return
        failing = failing_branches(runs)
        _figures(runs, failing)
        section("Running now", "what traffic goes to")
        if services:
            put(live_table(services, lake(queries.live_releases)))
        else:
            empty("Nothing is deployed. Add a step of type step.deploy to a penstock.yaml and push.")
        if failing:
            section("Failing", "branches whose newest finished run did not succeed")
            put(table(FAILING_COLUMNS, map(_failing_row, failing), caption="Branches that fail, the longest first"))
        section("Latest runs")
        put(run_table(runs[:LATEST]))


head("Overview")
_now()
