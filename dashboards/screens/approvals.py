"""What waits for people, what one should know before answering, and what was answered."""

from collections.abc import Mapping, Sequence

import streamlit as st

from dashboards.acting import answer_request
from dashboards.filters import project_filter
from dashboards.markup import Column, Content, facts, join, page_link, table, tag
from dashboards.reading import database, settings
from dashboards.showing import (
    commit,
    empty,
    head,
    moment,
    put,
    run_link,
    said_plainly,
    section,
    severity_counts,
    state,
    trouble,
)
from dashboards.tables import shortened
from penstock.errors import NotFoundError, PenstockError
from penstock.people.users import LOCAL, person_of
from penstock.pipeline.approval_evidence import Against, Evidence, evidence_of
from penstock.pipeline.approval_rows import Request, get_request, waiting_for
from penstock.pipeline.approvals import list_requests
from penstock.sources.projects import list_projects

SHOWN = 100
WAITING = (
    *(Column("gate"), Column("project"), Column("commit"), Column("title", "wide"), Column("author", "name")),
    *(Column("waits for"), Column("until")),
)
HISTORY = (
    *(Column("gate"), Column("project"), Column("commit"), Column("state"), Column("who, and how", "name")),
    *(Column("why", "wide"), Column("when")),
)
CHECKS = (Column("check"), Column("step"), Column("summary", "wide"), Column("findings"))
MADE = (Column("step"), Column("name", "wide"), Column("digest"))
SAID = (Column("who"), Column("what"), Column("why", "wide"), Column("how"), Column("when"))
WORDS = {"approve": ("Approve", "approved"), "reject": ("Reject", "rejected"), "withdraw": ("Withdraw", "withdrawn")}
MEANING = {
    "approve": "What comes after the gate goes on by itself when enough people have approved.",
    "reject": "The gate stays shut for this commit and pipeline, whatever is built again, and the run has failed.",
    "withdraw": "Your approval is taken back, if it is not used yet. Who wrote the commit takes back the request.",
}


@st.cache_data(ttl=2, show_spinner=False)
def _requests(project: str | None, states: tuple[str, ...]) -> tuple[Request, ...]:
    return list_requests(database(), project=project, states=states, limit=SHOWN)


@st.cache_data(ttl=5, show_spinner=False)
def _evidence(request_id: int) -> Evidence:
    with database().connect() as connection:
        request = get_request(connection, request_id)
    return evidence_of(database(), settings(), request)


@st.cache_data(ttl=5, show_spinner=False)
def _me() -> str:
    """For whom this page answers: whoever the machine's own token speaks for."""
    with database().connect() as connection:
        return person_of(connection, LOCAL)


def _waiting_row(request: Request) -> tuple[Content, ...]:
    return (
        page_link("approvals", request.step, id=str(request.id)),
        request.project,
        commit(request.commit),
        shortened(request.title or ""),
        request.author,
        waiting_for(request).removeprefix("waits for "),
        moment(request.expires_at),
    )


def _history_row(request: Request) -> tuple[Content, ...]:
    said = [one for one in request.answers if one.decision not in ("withdrawn",)]
    return (
        page_link("approvals", request.step, id=str(request.id)),
        request.project,
        commit(request.commit),
        state(request.state),
        ", ".join(f"{one.person or 'nobody'} ({one.how})" for one in said),
        "; ".join(one.why for one in said if one.why) or request.reason,
        moment(request.decided_at or request.asked_at),
    )


def _facts(request: Request) -> None:
    put(
        facts(
            {
                "state": state(request.state),
                "project": request.project,
                "commit": join((commit(request.commit), " ", request.title)),
                "author": request.author,
                "started by": request.actor,
                "run": run_link(request.run_id),
                "went on in": run_link(request.went_on_in) if request.went_on_in != request.run_id else None,
                "asked": moment(request.asked_at),
                "until": moment(request.expires_at) if request.state == "waiting" else None,
                "who may": _asked(request),
                "digest": tag("code", request.digest[:16], title=request.digest),
            }
        )
    )
    if request.reason:
        put(tag("p", request.reason, class_="ps-muted"))


def _asked(request: Request) -> str:
    rule = request.rule
    named = [*rule.users, *(f"group {name}" for name in rule.groups)]
    people = ", ".join(named) or "anybody"
    number = f"{rule.count} of " if rule.count > 1 else ""
    return f"{number}{people}{', but not the author' if rule.not_author else ''}"


def _counts(found: Mapping[str, int] | None) -> Content:
    return tag("span", "not known", class_="ps-muted") if found is None else severity_counts(found)


def _show_evidence(request: Request) -> None:
    try:
        found = _evidence(request.id)
    except NotFoundError:
        return
    if found.checks:
        rows = [
            (
                state("passed" if check.passed else "failed"),
                check.step,
                shortened(check.summary),
                None if check.findings is None else _counts(check.findings),
            )
            for check in found.checks
        ]
        section("Checks")
        put(table(CHECKS, rows, caption="What the steps before the gate decided"))
    for against in found.against:
        _show_against(against)
    if found.made:
        section("Built", "an approval holds for these alone")
        made = [(one.step, one.name, tag("code", one.digest[-64:][:16], title=one.digest)) for one in found.made]
        put(table(MADE, made, caption="What the gate would let pass"))


def _show_against(against: Against) -> None:
    section(f"Beside what is live in {against.environment}")
    if against.commit is None:
        put(tag("p", "Nothing is live there yet.", class_="ps-muted"))
        return
    count = "not known" if against.count is None else str(against.count)
    put(
        facts(
            {
                "live": join((f"release {against.number}, ", commit(against.commit))),
                "commits since": count,
                "findings introduced": _counts(against.introduced),
                "findings fixed": _counts(against.fixed),
            }
        )
    )
    if against.changes:
        put(tag("ul", *(tag("li", line) for line in against.changes)))


def _show_answers(request: Request) -> None:
    if not request.answers:
        return
    section("Answers")
    rows = [(one.person or "nobody", one.decision, one.why, one.how, moment(one.at)) for one in request.answers]
    put(table(SAID, rows, caption="What was said, in the order in which it was"))


@st.dialog("Answer")
def _confirm(request: Request, verb: str) -> None:
    word, done = WORDS[verb]
    put(tag("p", tag("strong", f"{word} {request.step}"), f" of {request.project} at ", commit(request.commit), "?"))
    st.write(MEANING[verb])
    why = st.text_area("Why (for the record)", key=f"why-{verb}", max_chars=2000)
    if st.button(f"{word} it", type="primary", key="really"):
        try:
            answer_request(request.id, verb, why, None if verb == "withdraw" else request.digest)
        except PenstockError as error:
            trouble(str(error))
            return
        _requests.clear()
        st.toast(f"{request.step} is {done} by {_me()}.")
        st.rerun()


def _buttons(request: Request) -> str | None:
    """Returns: what was clicked."""
    verbs = ("approve", "reject", "withdraw") if request.state == "waiting" else ("withdraw",)
    if request.state not in ("waiting", "approved") or request.used_at is not None:
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        clicked = [verb for verb in verbs if st.button(f"{WORDS[verb][0]} …", key=f"{verb}-{request.id}")]
        st.caption(f"You answer as {_me()}.")
    return clicked[0] if clicked else None


def _show_request(request_id: int) -> None:
    with database().connect() as connection:
        request = get_request(connection, request_id)
    section(f"{request.step} of {request.project}")
    _facts(request)
    clicked = _buttons(request)
    _show_evidence(request)
    _show_answers(request)
    if clicked:
        _confirm(request, clicked)  # last: a click in it while the page is still being drawn would be lost


def _show_waiting(project: str | None) -> Sequence[Request]:
    waiting = _requests(project, ("waiting",))
    section("Waiting", str(len(waiting)) if waiting else None)
    if waiting:
        put(table(WAITING, map(_waiting_row, waiting), caption="Gates that wait for people, newest first"))
    else:
        empty(
            "Nothing waits for anybody. A gate that asks people is written like this:",
            "- name: release\n  type: step.gate\n  needs: [test]\n  approval: { count: 1, not_author: true }",
            then="What waits is listed here, and by `penstock approvals`.",
        )
    return waiting


def _show() -> None:
    project = project_filter([each.name for each in list_projects(database())])
    waiting = _show_waiting(project)
    wanted = st.query_params.get("id", "")
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 19:
        _show_request(int(wanted))
    elif waiting:
        _show_request(waiting[0].id)
    past = _requests(project, ("approved", "rejected", "expired", "withdrawn"))
    if past:
        section("History", f"the newest {SHOWN}" if len(past) == SHOWN else str(len(past)))
        put(table(HISTORY, map(_history_row, past), caption="What was asked before, newest first"))


head("Approvals", tag("span", "what waits for people, and what they have said", class_="ps-muted"))
with said_plainly():
    _show()
