"""Environments: what may be deployed where. Make, change, test, hold and delete them; see what is live and waits."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboards.acting import ask
from dashboards.connecting import asked, keep_notice, take_notice
from dashboards.markup import Column, Content, facts, page_link, table, tag
from dashboards.reading import database, lake, live_services
from dashboards.rules_form import no_rules, rules_fields, rules_of
from dashboards.showing import ago, empty, head, moment, put, run_link, said_plainly, section, trouble
from dashboards.tables import live_table
from penstock.environments.model import Environment
from penstock.environments.rules import allowed, spoken
from penstock.environments.store import find_environment, list_environments
from penstock.environments.waiting import list_waits
from penstock.errors import PenstockError
from penstock.people.audit import Change, list_changes
from penstock.warehouse import queries

COLUMNS = (
    *(Column("environment"), Column("type"), Column("group"), Column("after"), Column("from", "wide")),
    *(Column("approvals", "number"), Column("target"), Column("live", "number"), Column("")),
)
WAITS = (Column("run"), Column("service"), Column("why", "wide"), Column("since"), Column("looked at"))
CHANGES = (Column("when"), Column("who"), Column("what"), Column("changed", "wide"))
CHECKS = (Column("what"), Column("how it is"), Column("told", "wide"), Column("what helps", "wide"))
_SHOWN = 20


@st.cache_data(ttl=2, show_spinner=False)
def _environments() -> tuple[Environment, ...]:
    with database().connect() as connection:
        return list_environments(connection)


def _row(found: Environment, live: int) -> tuple[Content, ...]:
    rules = found.rules
    held = tag("span", f"◔ held by {found.hold.by}", class_="ps-state warn") if found.hold else None
    return (
        page_link("environments", found.name, environment=found.name),
        "production" if rules.production else None,
        rules.group,
        ", ".join(rules.order.after),
        None if rules.refs.is_open else allowed(rules.refs),
        rules.approval.count if rules.approval else None,
        rules.target_name,
        live or None,
        held,
    )


def _list() -> None:
    known = _environments()
    if not known:
        empty(
            "There is no environment. Make one below, or here; one also comes to be with its first deployment:",
            "penstock environment add production --branch main --approvals 1",
        )
        return
    names = [each.release.service.environment for each in live_services()]
    rows = (_row(found, names.count(found.name)) for found in known)
    put(table(COLUMNS, rows, caption="Environments"))


def _new() -> None:
    section("Make an environment")
    others = [found.name for found in _environments()]
    with st.expander("A new one"), st.form("new"):
        name = st.text_input("Name", placeholder="production")
        found = rules_fields(no_rules(), others, key="new")
        sent = st.form_submit_button("Make it", type="primary")
    if sent:
        with said_plainly():
            rules = rules_of(found, no_rules())
            if not found["production"]:
                del rules["production"]  # then its name says
            made = asked("POST", "environments", body={"name": name.strip(), **rules})
            _done(made["name"], f"{made['name']} is made.")


def _done(name: str | None, told: str) -> None:
    """Draw the page anew, with what is known now."""
    _environments.clear()
    st.session_state.pop(f"seen-{name}", None)
    keep_notice("environment", told)
    if name is None:
        del st.query_params["environment"]
    else:
        st.query_params["environment"] = name
    st.rerun()


def _seen(name: str) -> dict[str, Any]:
    """As it was when the page was opened, so that a change is made to what was read."""
    key = f"seen-{name}"
    if key not in st.session_state:
        st.session_state[key] = asked("GET", "environments", name)
    kept: dict[str, Any] = st.session_state[key]
    return kept


def _send(method: str, seen: Mapping[str, Any], rules: Mapping[str, Any] | None = None) -> None:
    options = {} if rules is None else {"json": rules}
    ask(method, f"/api/v1/environments/{seen['name']}", version=seen["version"], **options)


def _facts(found: Environment) -> None:
    order, approval = found.rules.order, found.rules.approval
    if found.rules.description:
        put(tag("p", found.rules.description))
    soak = f", well for {spoken(order.soak)}" if order.soak else ""
    people = [*approval.users, *(f"group {one}" for one in approval.groups)] if approval else []
    put(
        facts(
            {
                "type": "production" if found.rules.production else "not production",
                "group": found.rules.group,
                "after": f"{order.need} of {', '.join(order.after)}{soak}" if order.after else None,
                "from": allowed(found.rules.refs),
                "projects": ", ".join(found.rules.projects) or "all",
                "approval": f"{approval.count} of {', '.join(people) or 'anybody'}" if approval else "none",
                "unless": approval.auto if approval else None,
                "frozen": "; ".join(f"{one.name}: {one.in_words()}" for one in found.rules.freezes),
                "variables": ", ".join(found.rules.env),
                "secrets": ", ".join(found.rules.secret_env),
                "target": found.rules.target_name or "what the step says",
                "version": found.version,
                "changed": found.changed_by,
            }
        )
    )
    if found.hold:
        why = f": {found.hold.why}" if found.hold.why else ""
        put(tag("p", f"◔ held by {found.hold.by}{why}", class_="ps-state warn"))


@st.dialog("Delete this environment?")
def _confirm(seen: Mapping[str, Any]) -> None:
    st.write(f"{seen['name']}: its rules are forgotten; what was released there stays on record.")
    if st.button("Delete it", type="primary", key="really"):
        try:
            _send("DELETE", seen)
        except PenstockError as error:
            trouble(str(error))
            return
        st.session_state.pop(f"seen-{seen['name']}", None)
        _done(None, f"{seen['name']} is deleted.")


@st.dialog("Hold this environment?")
def _hold(name: str) -> None:
    st.write("Runs that would deploy there wait until it is let go.")
    why = st.text_input("Why", key="hold-why", max_chars=500)
    if st.button("Hold it", type="primary", key="hold-really"):
        try:
            asked("POST", "environments", name, "hold", body={"why": why})
        except PenstockError as error:
            trouble(str(error))
            return
        _done(name, f"{name} is held.")


def _edit(found: Environment, seen: Mapping[str, Any]) -> None:
    others = [one.name for one in _environments() if one.name != found.name]
    key = f"edit-{found.name}-{seen['version']}"
    with st.expander("Change its rules"), st.form(key):
        fields = rules_fields(seen["rules"], others, key=key)
        sent = st.form_submit_button("Save", type="primary")
    if sent:
        with said_plainly():
            _send("PUT", seen, rules_of(fields, seen["rules"]))
            _done(found.name, f"{found.name} is changed.")


def _check_row(check: Mapping[str, Any]) -> tuple[Content, ...]:
    sign, tone = ("✔ well", "good") if check["passed"] else ("✘ wrong", "bad")
    return check["name"], tag("span", sign, class_=f"ps-state {tone}"), check["told"], check["remedy"]


def _live(name: str) -> None:
    section("Live here")
    wanted = [each for each in live_services() if each.release.service.environment == name]
    if wanted:
        put(live_table(wanted, lake(queries.live_releases)))
    else:
        put(tag("p", "Nothing is live here.", class_="ps-muted"))


def _waiting(name: str) -> None:
    with database().connect() as connection:
        waits = list_waits(connection, name)
    if waits:
        section("Waiting", "goes on by itself when the time comes; the newest of each service")
        rows = (
            (run_link(one.run_id), f"{one.project}/{one.service}", one.reason, ago(one.since), moment(one.look_at))
            for one in waits
        )
        put(table(WAITS, rows, caption="Deployments that wait"))


def _history(name: str) -> None:
    with database().connect() as connection:
        changes = list_changes(connection, subject=name, action="environment", limit=_SHOWN)
    section("Changes", f"the newest {_SHOWN}" if len(changes) == _SHOWN else None)
    rows = ((moment(one.at), one.actor, one.action.removeprefix("environment."), _changed(one)) for one in changes)
    put(table(CHANGES, rows, caption="Who changed this environment, newest first"))


def _changed(change: Change) -> str:
    told = change.detail.get("change")
    if isinstance(told, dict):
        return "; ".join(f"{path}: {_short(before)} → {_short(after)}" for path, (before, after) in told.items())
    return str(change.detail.get("why") or "")


def _short(value: Any) -> str:
    text = "nothing" if value in (None, "", []) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _one(name: str) -> None:
    with database().connect() as connection:
        found = find_environment(connection, name)
    seen = _seen(name)
    if found is None:
        trouble(f'there is no environment "{name}" any more')
        return
    section(name)
    if found.version != seen["version"]:
        trouble(f"{found.changed_by} has changed it since you opened it; what you save now will be refused")
        if st.button("Read it again", icon=":material/refresh:"):
            _done(name, f"{name} is at version {found.version}.")
    _facts(found)
    with st.container(horizontal=True):
        tried = st.button("Test the connection", icon=":material/check_circle:")
        hold = st.button("Let it go" if found.hold else "Hold …", icon=":material/pause_circle:")
        asked_to_go = st.button("Delete …", icon=":material/delete:")
    if tried:
        with said_plainly(), st.spinner("Connecting …"):
            checks = asked("POST", "environments", name, "test")
            put(table(CHECKS, map(_check_row, checks), caption="What was tried"))
    _edit(found, seen)
    _waiting(name)
    _live(name)
    _history(name)
    if asked_to_go:
        _confirm(seen)
    if hold and found.hold:
        with said_plainly():
            asked("DELETE", "environments", name, "hold")
            _done(name, f"{name} is let go.")
    elif hold:
        _hold(name)


head("Environments")
if told := take_notice("environment"):
    st.success(told)
with said_plainly():
    _list()
    if chosen := st.query_params.get("environment"):
        _one(chosen)
    _new()
