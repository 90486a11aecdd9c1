"""A penstock.yaml: checked while it is typed, drawn as a graph, committed to a branch where the login may."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from dashboards.connecting import asked, keep_notice, take_notice
from dashboards.drawing import dot
from dashboards.markup import Column, table, tag
from dashboards.showing import empty, head, put, said_plainly, section, trouble
from dashboards.typing_in import text_field
from penstock.errors import PenstockError

STEPS = (Column("step"), Column("type"), Column("needs", "wide"))
_START = "version: 1\nsteps:\n  - name: hello\n    type: step.shell_exec\n    commands: [echo hello]\n"


def _checked(project: str, draft: Mapping[str, Any], text: str) -> Mapping[str, Any] | None:
    """The pipeline, when it is right; what is wrong is said."""
    try:
        found: Mapping[str, Any] = asked(
            "POST", "connections", project, "pipeline", "check", body={"text": text, "base": draft["commit"]}
        )
    except PenstockError as error:
        trouble(str(error))
        return None
    return found


def _shown(pipeline: Mapping[str, Any]) -> None:
    steps = pipeline["steps"]
    put(tag("p", f"✔ right: {len(steps)} {'step' if len(steps) == 1 else 'steps'}", class_="ps-state good"))
    st.graphviz_chart(dot(steps), width="content")
    rows = ((step["name"], step["type"], ", ".join(step["needs"])) for step in steps)
    put(table(STEPS, rows, caption="Steps in the order of running"))


def _draft(project: str, branch: str | None) -> Mapping[str, Any]:
    """As it was when the page was opened for this branch, so that a commit is made on what was read."""
    key = f"draft-{project}-{branch}"
    if key not in st.session_state:
        st.session_state[key] = asked("GET", "connections", project, "pipeline", branch=branch)
    kept: Mapping[str, Any] = st.session_state[key]
    return kept


def _forget(project: str) -> None:
    """What was read and typed; the next look reads anew, into a field of its own."""
    for key in [key for key in st.session_state if str(key).startswith(f"draft-{project}-")]:
        del st.session_state[key]
    st.session_state["editor-version"] = st.session_state.get("editor-version", 0) + 1


def _commit(project: str, draft: Mapping[str, Any], text: str) -> None:
    section("Commit")
    with st.form("commit", border=False):
        with st.container(horizontal=True):
            proposed = f"penstock-{datetime.now(UTC):%Y%m%d-%H%M}"
            branch = st.text_input("Branch", value=proposed, help="A new one, or the one that was read.", width=260)
            message = st.text_input("Message", value="Change the pipeline", width="stretch")
        if st.form_submit_button("Commit", type="primary"):
            _send(project, draft, text, branch.strip(), message)


def _send(project: str, draft: Mapping[str, Any], text: str, branch: str, message: str) -> None:
    body = {"text": text, "branch": branch, "base": draft["commit"], "message": message}
    with said_plainly(), st.spinner("Committing …"):
        made = asked("POST", "connections", project, "pipeline", body=body)
        _forget(project)
        keep_notice("committed", (made["commit"], made["branch"]))
        st.rerun()


def _chosen() -> tuple[str, Mapping[str, Any]] | None:
    names = [str(project["name"]) for project in asked("GET", "projects")]
    if not names:
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        project = st.selectbox("Project", names, key="project", bind="query-params", width=200)
        first = _draft(project, None)
        branches = first["branches"] or [first["branch"]]
        branch = st.selectbox("Branch to read", branches, key=f"branch-{project}", width=240)
        if st.button("Read again", icon=":material/refresh:"):
            _forget(project)
            st.rerun()
    return project, _draft(project, None if branch == first["branch"] else branch)


def _edit(project: str, draft: Mapping[str, Any]) -> None:
    version = st.session_state.get("editor-version", 0)
    text = text_field(
        "penstock.yaml", draft["text"] or _START, key=f"text-{project}-{draft['branch']}-{draft['commit']}-{version}"
    )
    pipeline = _checked(project, draft, text)
    if pipeline is None:
        return
    _shown(pipeline)
    if text == draft["text"]:
        st.caption(f"As it is on {draft['branch']}.")
    else:
        _commit(project, draft, text)


head("Editor")
with said_plainly():
    if committed := take_notice("committed"):
        st.success(f"Commit {committed[0][:12]} is on the branch {committed[1]}.")
    if opened := _chosen():
        _edit(*opened)
    else:
        empty("No repository is connected.", "penstock project add https://git.example/shop.git")
