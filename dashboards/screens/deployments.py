"""
What is where, what is on its way, how well a team delivers, and every release before.

With a service in the address: that service, its history and what people may do to it.
"""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboards.charts import deployments_by_week, lead_time_by_week
from dashboards.filters import period_filter
from dashboards.markup import Column, Content, join, page_link, table, tag, tiles, web_link
from dashboards.reading import LiveService, database, lake, live_services
from dashboards.releasing import service_of
from dashboards.rolling import live_list, under_way
from dashboards.service_view import replicas, show_service
from dashboards.showing import (
    ago,
    commit,
    empty,
    head,
    known,
    moment,
    put,
    run_link,
    said_plainly,
    section,
    span,
    state,
)
from dashboards.tables import row_of, service_link, shortened, weakness_of
from penstock.deploy.looking import Running, running
from penstock.deploy.pins import Pin, list_pins
from penstock.deploy.plan import Service
from penstock.warehouse import delivery, queries, views

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
WHERE = (
    *(Column("service"), Column("environment"), Column("release"), Column("commit"), Column("title", "wide")),
    *(Column("live since"), Column("instances"), Column("pinned"), Column("address")),
    Column("open findings of that commit"),
)
DELIVERY_COLUMNS = (
    Column("project", "wide"),
    Column("deployments", "number"),
    Column("a week", "number"),
    Column("lead time", "number"),
    Column("failed", "number"),
    Column("failure rate", "number"),
    Column("time to restore", "number"),
    Column("not restored", "number"),
)
PAGE = 50


def rate(value: float | None) -> str:
    """A share as percent; nothing for None."""
    return "" if known(value) is None else f"{value:.0%}"


def _row(row: "pd.Series[object]") -> tuple[Content, ...]:
    reason = known(row["reason"])
    why = tag("div", shortened(str(reason)), class_="ps-muted") if reason else None
    return (
        state(str(row["state"])),
        f"#{int(row['number'])}",
        service_link(str(row["project"]), str(row["environment"]), str(row["service"])),
        row["environment"],
        commit(str(row["commit"])),
        join((known(row["title"]) or "", why)),
        known(row["author"]),
        moment(row["created_at"]),
        span(row["live_s"]),
        run_link(known(row["run_id"])),
    )


def is_wanted(live: LiveService, project: str | None, environment: str | None) -> bool:
    """Whether the filters let a service pass."""
    service = live.release.service
    return service.project == (project or service.project) and service.environment == (
        environment or service.environment
    )


@st.cache_data(ttl=2, show_spinner=False)
def _state_of(release_ids: tuple[str, ...]) -> tuple[dict[str, Running], tuple[Pin, ...]]:
    with database().connect() as connection:
        return dict(running(connection, release_ids)), tuple(list_pins(connection))


def _where_row(live: LiveService, here: Running | None, pin: Pin | None, seen: pd.DataFrame) -> tuple[Content, ...]:
    release, row = live.release, row_of(live.release, seen)
    service = release.service
    return (
        tag("strong", service_link(service.project, service.environment, service.name)),
        service.environment,
        join((f"#{release.number} by run ", run_link(release.run_id))),
        commit(release.commit),
        None if row is None else known(row["title"]),
        ago(release.live_at),
        replicas(release, here),
        tag("span", f"by {pin.actor}", title=str(pin), class_="ps-state warn") if pin else None,
        web_link(live.url, live.url.removeprefix("http://")) if live.url else None,
        weakness_of(row),
    )


def _where(services: Sequence[LiveService]) -> None:
    counts, pins = _state_of(tuple(each.release.id for each in services))
    held: dict[Service, Pin] = {pin.service: pin for pin in pins}
    seen = lake(queries.live_releases)
    rows = (_where_row(one, counts.get(one.release.id), held.get(one.release.service), seen) for one in services)
    put(table(WHERE, rows, caption="What is where right now"))


def _live(project: str | None = None, environment: str | None = None) -> None:
    services = live_services()
    section("Live", "the release that traffic goes to; a service leads to its history, rollback and pins")
    wanted = [each for each in services if is_wanted(each, project, environment)]
    if wanted:
        _where(wanted)
    elif services:
        put(tag("p", "Nothing there is live.", class_="ps-muted"))
    else:
        empty(
            "Nothing is deployed. Add a step like this to a penstock.yaml and push, while `penstock up` runs:",
            "- name: deploy\n  type: step.deploy\n  needs: [test]",
        )


def _under_way() -> None:
    found = under_way()
    if found:
        section("Under way", "renewed every second")
        live_list(found)


def _delivery_row(row: "pd.Series[object]", environment: str) -> tuple[Content, ...]:
    name = known(row["project"])
    return (
        page_link("deployments", name, project=str(name), environment=environment) if name else tag("strong", "all"),
        int(row["deployments"]),
        f"{row['per_week']:.1f}",
        span(row["lead_median_s"]),
        int(row["failures"]),
        rate(row["failure_rate"]),
        span(row["restore_median_s"]),
        int(row["unrestored"]) or None,
    )


def _delivery(project: str | None, environment: str, days: int) -> None:
    """The four keys of DORA; `penstock.warehouse.delivery` says how each is counted."""
    of = {"project": project, "environment": environment, "days": days}
    found = lake(delivery.delivery, **of)
    section("Delivery", f"to {environment} in the last {days} days, by DORA's four keys; times are medians")
    if found.empty:
        put(tag("p", f"Nothing was deployed to {environment} in that time.", class_="ps-muted"))
        return
    whole = found.iloc[0]
    put(
        tiles(
            [
                ("deployments a week", f"{whole['per_week']:.1f}", ""),
                ("from commit to traffic", span(whole["lead_median_s"]) or "–", ""),
                ("of changes failed", rate(whole["failure_rate"]), "bad" if whole["failure_rate"] > 0.15 else ""),
                ("to restore", span(whole["restore_median_s"]) or "–", ""),
            ]
        )
    )
    weeks = lake(delivery.delivery, **of, by_week=True)
    left, right = st.columns(2, gap="medium")
    with left:
        st.altair_chart(deployments_by_week(weeks), alt="Deployments in each week")
    with right:
        st.altair_chart(lead_time_by_week(weeks), alt="Lead time in each week")
    if len(found) > 2:
        rows = (_delivery_row(row, environment) for _, row in found.iterrows())
        put(table(DELIVERY_COLUMNS, rows, caption="Delivery by project"))


def _filters(found: pd.DataFrame) -> tuple[str | None, str | None, int]:
    with st.container(horizontal=True):
        chosen = [
            st.selectbox(
                name.capitalize(),
                sorted(found[name].unique()),
                index=None,
                key=name,
                bind="query-params",
                placeholder="all",
                width=200,
            )
            for name in ("project", "environment")
        ]
        return chosen[0], chosen[1], period_filter()


def measured_environment(found: pd.DataFrame, chosen: str | None) -> str:
    """Whose deliveries are counted: the one that is chosen, else production, else the one with the newest release."""
    return chosen or ("production" if "production" in set(found["environment"]) else str(found["environment"].iloc[0]))


def _history(project: str | None, environment: str | None) -> None:
    section("History")
    found = lake(views.releases, project=project, environment=environment)
    if found.empty:
        empty("No release is like that. Take a filter away.")
        return
    rows = (_row(row) for _, row in found.head(PAGE).iterrows())
    put(table(COLUMNS, rows, caption="Releases, newest first", brief=True))
    st.caption(f"{min(PAGE, len(found))} of the newest {len(found)} releases")


def _show() -> None:
    every = lake(views.releases)
    if every.empty:
        _under_way()
        _live()
        return
    project, environment, days = _filters(every)
    _under_way()
    _live(project, environment)
    _delivery(project, measured_environment(every, environment), days)
    _history(project, environment)


head("Deployments")
with said_plainly():
    if chosen := service_of(st.query_params.to_dict()):
        show_service(chosen)
    else:
        _show()
