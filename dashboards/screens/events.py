"""What came in and what became of it: events in the inbox, deliveries of forges, and telling one again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import streamlit as st

from dashboards.connecting import asked, keep_notice, take_notice
from dashboards.markup import Column, Content, Html, join, table, tag
from dashboards.showing import ago, commit, empty, head, put, run_link, said_plainly, section, trouble
from dashboards.tables import shortened
from penstock.errors import PenstockError

EVENTS = (
    *(Column("event", "number"), Column("became"), Column("project"), Column("kind"), Column("ref"), Column("commit")),
    *(Column("run"), Column("why", "wide"), Column("told by"), Column("came")),
)
DELIVERIES = (
    *(Column("delivery", "number"), Column("became"), Column("project"), Column("forge"), Column("events", "wide")),
    *(Column("why", "wide"), Column("again", "number"), Column("came")),
)
HOOKS = (Column("project"), Column("forge"), Column("refused", "number"), Column("why", "wide"), Column("last"))
LIMIT = 100
_TONES = {
    "run": ("✔", "good"),
    "started": ("✔", "good"),
    "done": ("✔", "good"),
    "received": ("…", "busy"),
    "claimed": ("▶", "busy"),
    "ignored": ("–", "calm"),
    "rejected": ("✘", "bad"),
    "held": ("◔", "warn"),
}


def _became(name: str) -> Html:
    sign, tone = _TONES.get(name, ("?", "calm"))
    return tag("span", f"{sign} {name}", class_=f"ps-state {tone}")


def _at(text: str | None) -> Content:
    return ago(datetime.fromisoformat(text)) if text else None


def _event_row(event: Mapping[str, Any]) -> tuple[Content, ...]:
    became = "run" if event["run_id"] else event["state"]
    ref = event["ref"].removeprefix("refs/heads/").removeprefix("refs/")
    told = (event["id"], _became(became), event["project"], event["kind"], shortened(ref, 60), commit(event["commit"]))
    return (*told, run_link(event["run_id"]), event["reason"], event["source"], _at(event["received_at"]))


def _delivery_row(delivery: Mapping[str, Any]) -> tuple[Content, ...]:
    parts = (_part(one) for one in delivery["events"])
    again = delivery["replays"] + delivery["repeats"]
    told = (delivery["id"], _became(delivery["state"]), delivery["project"], delivery["forge"])
    return (*told, join(parts, ", "), delivery["reason"], again or "", _at(delivery["received_at"]))


def _part(event: Mapping[str, Any]) -> str:
    """`push main accepted as event 7`, of what is known."""
    ref = str(event.get("ref") or "").removeprefix("refs/heads/").removeprefix("refs/")
    number = f"as event {event['event']}" if event.get("event") else ""
    kind, became = str(event.get("kind") or ""), str(event.get("became") or "")
    return " ".join(filter(None, (kind if kind != became else "", shortened(ref, 60), became, number)))


def _hook_row(hook: Mapping[str, Any]) -> tuple[Content, ...]:
    return hook["project"], hook["forge"], hook["refused"], hook["refused_reason"], _at(hook["refused_at"])


@st.fragment(run_every="5s")
def _lists(project: str | None) -> None:
    with said_plainly():
        events = asked("GET", "events", project=project, limit=str(LIMIT))
        deliveries = asked("GET", "deliveries", project=project, limit=str(LIMIT))
        refused = [hook for hook in asked("GET", "hooks", project=project) if hook["refused"] or hook["refused_reason"]]
        _show_events(events)
        if deliveries:
            section("Deliveries", "what forges sent, newest first")
            put(table(DELIVERIES, map(_delivery_row, deliveries), caption="Deliveries, newest first"))
        if refused:
            section("Not believed", "counted, and nothing else is kept of them; and queues that cannot be read")
            put(table(HOOKS, map(_hook_row, refused), caption="Hooks with deliveries that were not believed"))


def _show_events(events: list[Mapping[str, Any]]) -> None:
    section("Events", "pushes, tags, pull requests and releases, and what became of each")
    if events:
        put(table(EVENTS, map(_event_row, events), caption="Events, newest first"))
    else:
        empty(
            "Nothing came in yet. Connect a repository and push:", "penstock project add https://git.example/shop.git"
        )


def _replay(project: str | None) -> None:
    with said_plainly():
        known = asked("GET", "deliveries", project=project, limit=str(LIMIT))
    if not known:
        return
    section("Once more", "its events run again")
    labels = {each["id"]: f"{each['id']} · {each['project']} · {each['forge']} · {each['state']}" for each in known}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.selectbox("Delivery", list(labels), format_func=labels.__getitem__, width=420)
        if st.button("Replay", icon=":material/replay:"):
            _send_again(number)


def _send_again(number: int) -> None:
    try:
        asked("POST", "deliveries", str(number), "replay")
    except PenstockError as error:
        trouble(str(error))
        return
    keep_notice("replayed", number)
    st.rerun()


def _project() -> str | None:
    names = [str(project["name"]) for project in asked("GET", "projects")]
    return st.selectbox("Project", names, index=None, key="project", bind="query-params", placeholder="all", width=200)


head("Events")
with said_plainly():
    chosen = _project()
    if replayed := take_notice("replayed"):
        st.toast(f"Delivery {replayed} is worked on again.")
    _lists(chosen)
    _replay(chosen)
