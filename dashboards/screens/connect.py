"""Repositories: connect one, see how it is reached, change, try and disconnect it. Secrets go to the vault at once."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboards.connecting import asked, keep_notice, show_checks, show_connection, show_outcome, take_notice
from dashboards.markup import Column, page_link, table
from dashboards.reading import projects
from dashboards.showing import empty, head, put, said_plainly, section, trouble
from penstock.errors import PenstockError
from penstock.sources.projects import Project

COLUMNS = (Column("project"), Column("repository", "wide"), Column("default branch"), Column("forge"), Column("hook"))
FORGES = (
    *("found out by itself", "github", "gitlab", "gitea", "forgejo", "bitbucket-cloud", "bitbucket-server"),
    *("azure-devops", "aws-codecommit", "git"),
)
_LOGIN = "user:token, a token, or an SSH key. It goes to the vault and is not shown again."
_TOKEN = (
    "Makes the hook, shows how runs stand. Default: the login's token. It goes to the vault and is not shown again."
)
_PUBLIC = "Where the forge reaches Penstock's API, such as https://ci.example.org; empty: Penstock's own address."


def _row(project: Project) -> tuple[Any, ...]:
    known = project.connection
    hook = "made" if known.forge_hook else "by hand" if known.hook else ""
    link = page_link("connect", project.name, project=project.name)
    return link, project.url, project.default_branch, known.forge or "git", hook


def _list() -> None:
    known = projects()
    if known:
        put(table(COLUMNS, map(_row, known), caption="Connected repositories"))
    else:
        empty(
            "No repository is connected. Connect one below, or here:",
            "penstock project add https://git.example/shop.git",
        )


def _given(text: str) -> str | None:
    return text.strip() or None


def _new() -> None:
    section("Connect a repository")
    # What was typed is cleared when the form is sent: no secret stays on the page.
    with st.form("new", clear_on_submit=True):
        url = st.text_input("Address", placeholder="https://git.example/team/shop.git")
        with st.container(horizontal=True):
            name = st.text_input("Name", placeholder="the repository's", width=260)
            forge = st.selectbox("Forge", FORGES, width=260)
        login = st.text_area("Login for git", help=_LOGIN, height=68, placeholder="none")
        token = st.text_input("Token for the forge's API", type="password", help=_TOKEN, placeholder="the login's")
        public = st.text_input("Penstock's public address", help=_PUBLIC)
        hook = st.checkbox("Let the forge tell of pushes, tags, pull requests and releases", value=True)
        answers = st.checkbox("Show how runs stand at the forge, where there is a token", value=True)
        sent = st.form_submit_button("Connect", type="primary")
    if sent:
        body = {"url": url.strip(), "hook": hook, "name": _given(name), "login": _given(login), "token": _given(token)}
        body |= {"answers": answers, "public_url": _given(public), "forge": None if forge == FORGES[0] else forge}
        _connect(body)


def _connect(body: Mapping[str, Any]) -> None:
    if not body["url"]:
        trouble("The address is missing; write https://, ssh:// or a path.")
        return
    with said_plainly(), st.spinner("Asking the repository …"):
        outcome = asked("POST", "connections", body=body)
        projects.clear()
        keep_notice("outcome", outcome)
        st.query_params["project"] = outcome["connection"]["project"]["name"]
        st.rerun()


def _change(name: str, connection: Mapping[str, Any]) -> None:
    with st.expander("Change"), st.form("change", clear_on_submit=True):
        project = connection["project"]
        with st.container(horizontal=True):
            branch = st.text_input("Default branch", value=project["default_branch"], width=260)
            polled = st.toggle("Poll it every 30 s", value=project["polled"])
        login = st.text_area("New login for git", help=_LOGIN, height=68, placeholder="stays as it is")
        token = st.text_input("New token", type="password", help=_TOKEN, placeholder="stays as it is")
        public = st.text_input("Penstock's public address", help=_PUBLIC)
        hook = st.checkbox("Make the hook if it is not there")
        forget = st.checkbox("Forget login and token")
        if st.form_submit_button("Save"):
            nothing = "" if forget else None
            body = {"default_branch": branch.strip(), "polled": polled, "hook": hook, "public_url": _given(public)}
            body |= {"login": _given(login) or nothing, "token": _given(token) or nothing}
            _send_change(name, body)


def _send_change(name: str, body: Mapping[str, Any]) -> None:
    with said_plainly():
        keep_notice("outcome", asked("PATCH", "connections", name, body=body))
        projects.clear()
        st.rerun()


@st.dialog("Disconnect this repository?")
def _confirm(name: str) -> None:
    st.write(f"{name}: its hook and its secrets are removed; its runs and findings stay.")
    if st.button("Disconnect it", type="primary", key="really"):
        try:
            left = asked("DELETE", "connections", name)
        except PenstockError as error:
            trouble(str(error))
            return
        projects.clear()
        keep_notice("left", (name, left))
        del st.query_params["project"]
        st.rerun()


def _one(name: str) -> None:
    connection = asked("GET", "connections", name)
    section(name)
    show_connection(connection)
    if outcome := take_notice("outcome"):
        show_outcome(outcome)
    with st.container(horizontal=True):
        tried = st.button("Test the connection", icon=":material/check_circle:")
        asked_to_go = st.button("Disconnect …", icon=":material/link_off:")
        st.page_link("screens/editor.py", label="Edit its pipeline", query_params={"project": name})
    if tried:
        with said_plainly(), st.spinner("Trying …"):
            show_checks(asked("POST", "connections", name, "test"))
    _change(name, connection)
    if asked_to_go:
        _confirm(name)


head("Connect")
if gone := take_notice("left"):
    put_gone, put_left = gone
    st.success(f"{put_gone} is disconnected. {' '.join(put_left)}")
_list()
if chosen := st.query_params.get("project"):
    with said_plainly():
        _one(chosen)
_new()
