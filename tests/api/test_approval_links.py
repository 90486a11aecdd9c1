"""The links of a mail over HTTP: a page that asks once more, an answer that counts once, and nothing told to others."""

import httpx
import pytest
import sqlalchemy as sa
from api_calls import API
from gates import ADA, GRACE, Gate

from penstock.notify.links import make_links
from penstock.pipeline.approval_rules import ApprovalRule


@pytest.fixture
def gate(database: sa.Engine) -> Gate:
    made = Gate(database)
    made.people(ADA, GRACE)
    return made


@pytest.fixture
def stranger(api: httpx.Client) -> httpx.Client:
    """A browser: it has no token of the API."""
    return httpx.Client(base_url=api.base_url, timeout=60, trust_env=False)


def links(gate: Gate, person: str = "grace") -> tuple[str, str]:
    with gate.database.begin() as connection:
        tokens = make_links(connection, gate.newest().id, person)
    return tuple(f"{API}/approvals/links/{token}" for token in tokens)  # type: ignore[return-value]


def test_looking_changes_nothing_and_sending_the_form_answers(gate: Gate, stranger: httpx.Client) -> None:
    """Scanners of mails open every link, some more than once; a person presses the button."""
    gate.waits()
    approve, reject = links(gate)
    for link, word in ((approve, "Approve"), (reject, "Reject"), (approve, "Approve")):
        page = stranger.get(link)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert f'<button type="submit">{word}</button>' in page.text
        assert "Sell more" in page.text
    assert gate.newest().answers == ()
    done = stranger.post(approve, data={"why": "it is <b>fine</b>"})
    assert (done.status_code, gate.newest().state) == (200, "approved")
    (told,) = gate.newest().answers
    assert (told.person, told.why, told.how) == ("grace", "it is <b>fine</b>", "mail")
    for spent in (approve, reject):
        for again in (stranger.get(spent), stranger.post(spent)):
            assert again.status_code == 409
            assert "the link has been used" in again.text
            assert "<form" not in again.text


def test_page_is_kept_nowhere_and_leads_nowhere(gate: Gate, stranger: httpx.Client) -> None:
    """The address is the secret: not in caches, frames, or the referrer; and a commit's text is no markup."""
    gate.waits(author="<script>alert(1)</script> <eve@example.org>")
    page = stranger.get(links(gate)[0])
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.mark.parametrize("token", ["nothing", "%00", "..%2f..", "a" * 3000, "%F0%9F%92%A7"])
def test_link_that_there_never_was_is_a_plain_page(stranger: httpx.Client, token: str) -> None:
    for answer in (stranger.get(f"{API}/approvals/links/{token}"), stranger.post(f"{API}/approvals/links/{token}")):
        assert answer.status_code == 404
    assert "there is no such link" in stranger.get(f"{API}/approvals/links/nothing").text


def test_form_that_is_too_large_or_odd_answers_in_words(gate: Gate, stranger: httpx.Client) -> None:
    gate.waits(ApprovalRule(count=2))
    approve, _ = links(gate)
    assert stranger.post(approve, data={"why": "x" * 20_000}).status_code == 413
    assert gate.newest().answers == ()
    assert stranger.post(approve, content=b"why=\xff\x00%00&why=2").status_code == 200
    (told,) = gate.newest().answers
    assert "\0" not in told.why


def test_who_may_not_approve_is_told_so(gate: Gate, stranger: httpx.Client) -> None:
    """The author's own link, made before the rule said so."""
    gate.waits(ApprovalRule(not_author=True))
    answer = stranger.post(links(gate, "ada")[0])
    assert answer.status_code == 403
    assert "the author may not approve" in answer.text
