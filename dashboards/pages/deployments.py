"""What is live, where it answers, and every release before it."""

import pandas as pd
import streamlit as st

from dashboards.charts import releases_per_week
from dashboards.markup import Column, Content, join, table, tag, tiles
from dashboards.reading import lake, live_services
from dashboards.showing import commit, empty, head, known, moment, put, run_link, said_plainly, section, span, state
from dashboards.tables import live_table, shortened
from penstock.warehouse import queries, views

COLUMNS = (
    Column("state"),
    Column("release"),
    Column("service"),
    Column("environment"),
    Column("commit"),
    Column("title", "wide"),
    Column("author"),
    Column("made"),
    Column("live for"),
    Column("run"),
)
PAGE = 50


def outcome(row: "pd.Series[object]") -> str:
    """What became of a release: whether traffic ever went to it."""
    if known(row["live_at"]) is not None:
        return "reached traffic"
    return "failed" if row["state"] == "failed" else "pending"


def _row(row: "pd.Series[object]") -> tuple[Content, ...]:
    reason = known(row["reason"])
    why = tag("div", shortened(str(reason)), class_="ps-muted") if reason else None
    return (
        state(str(row["state"])),
        f"#{int(row['number'])}",
        f"{row['project']}/{row['service']}",
        row["environment"],
        commit(str(row["commit"])),
        join((known(row["title"]) or "", why)),
        known(row["author"]),
        moment(row["created_at"]),
        span(row["live_s"]),
        run_link(known(row["run_id"])),
    )


def _live() -> None:
    services = live_services()
    section("Live", "the release that traffic goes to")
    if services:
        put(live_table(services, lake(queries.live_releases)))
    else:
        empty(
            "Nothing is deployed. Add a step like this to a penstock.yaml and push, while `penstock up` runs:",
            "- name: deploy\n  type: step.deploy\n  needs: [test]",
        )


def _filters(found: pd.DataFrame) -> pd.DataFrame:
    with st.container(horizontal=True):
        for name in ("project", "environment"):
            values = sorted(found[name].unique())
            wanted = st.selectbox(
                name.capitalize(), values, index=None, key=name, bind="query-params", placeholder="all", width=200
            )
            found = found[found[name] == wanted] if wanted else found
    return found


def _history() -> None:
    found = lake(views.releases)
    if found.empty:
        return
    section("History")
    found = _filters(found)
    if found.empty:
        empty("No release is like that. Take a filter away.")
        return
    found = found.assign(outcome=found.apply(outcome, axis=1))
    month = found[found["created_at"] >= pd.Timestamp.now("UTC") - pd.Timedelta(days=30)]
    failed = int((month["outcome"] == "failed").sum())
    put(
        tiles(
            [
                ("releases in 30 days", len(month), ""),
                ("of them never got traffic", failed, "bad" if failed else ""),
                ("median time live", span(known(found["live_s"].median())) or "–", ""),
            ]
        )
    )
    st.altair_chart(releases_per_week(found[["created_at", "outcome"]]), alt="Releases per week by outcome")
    put(
        table(
            COLUMNS, (_row(row) for _, row in found.head(PAGE).iterrows()), caption="Releases, newest first", brief=True
        )
    )
    st.caption(f"{min(PAGE, len(found))} of {len(found)} releases")


head("Deployments")
with said_plainly():
    _live()
    _history()
