"""The mail that asks for an approval: what, whose, which checks, what it changes, and two links."""

from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from urllib.parse import quote

from penstock.pipeline.approval_evidence import Against, Evidence, in_words
from penstock.pipeline.approval_rows import Request
from penstock.pipeline.log import utc_now
from penstock.settings import Settings

_LINE_LIMIT = 200


def approval_mail(
    request: Request,
    evidence: Evidence | None,
    *,
    to: str,
    sender: str,
    links: tuple[str, str],
    page: str,
    message_id: str,
) -> EmailMessage:
    """
    evidence: None when it cannot be read; then the mail says so. links: addresses that approve and reject.

    page: the address that shows all of it. message_id: the same whenever the mail is made again.
    """
    message = EmailMessage()
    message["Subject"] = _line(f"[Penstock] {request.project}: {request.step} waits for you ({request.commit[:12]})")
    message["From"], message["To"] = sender, to
    message["Date"] = format_datetime(utc_now())
    message["Message-ID"] = f"<{message_id}@{parseaddr(sender)[1].partition('@')[2] or 'penstock'}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_text(request, evidence, links, page)) + "\n")
    return message


def _text(request: Request, evidence: Evidence | None, links: tuple[str, str], page: str) -> Iterator[str]:
    yield f"The gate {request.step} of {request.project} asks whether this may go on:"
    yield ""
    yield f"  commit   {request.commit[:12]}  {_line(request.title or '')}"
    yield f"  author   {_line(request.author or 'not known')}"
    if request.ref:
        yield f"  ref      {_line(request.ref)}"
    yield f"  digest   {request.digest}"
    yield f"  until    {request.expires_at:%Y-%m-%d %H:%M} UTC"
    yield from _evidence(evidence)
    yield ""
    yield f"Approve:  {links[0]}"
    yield f"Reject:   {links[1]}"
    yield ""
    yield "Each link opens a page that asks once more. They are yours alone, and work once; do not pass this mail on."
    yield f"More:     {page}"
    yield f"Also:     penstock approve {request.run_id[:8]} {request.step}"


def _evidence(evidence: Evidence | None) -> Iterator[str]:
    yield ""
    if evidence is None:
        yield "What was checked and what it changes cannot be read at the moment; the page Approvals shows it."
        return
    yield "Checks:"
    for check in evidence.checks:
        found = f"; findings: {in_words(check.findings)}" if check.findings is not None else ""
        yield f"  {'passed' if check.passed else 'FAILED'}  {check.step}: {_line(check.summary or 'done')}{found}"
    for against in evidence.against:
        yield ""
        yield from _against(against)


def _against(against: Against) -> Iterator[str]:
    if against.commit is None:
        yield f"{against.environment}: nothing is live there yet."
        return
    count = "commits not known" if against.count is None else f"{against.count} commits"
    yield f"{against.environment}: release {against.number} ({against.commit[:12]}) is live; {count} since:"
    yield from (f"  {_line(change)}" for change in against.changes)
    yield f"  findings introduced: {in_words(against.introduced)}; fixed: {in_words(against.fixed)}"


def _line(text: str) -> str:
    """On one line, without what moves a terminal or a header."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LINE_LIMIT]


def page_address(settings: Settings, request: Request) -> str:
    """Where the dashboards show it."""
    return f"{(settings.public_url or settings.dashboards_url).rstrip('/')}/approvals?id={request.id}"


def link_address(settings: Settings, token: str) -> str:
    """Where a link leads."""
    base = (settings.api_public_url or settings.api_url).rstrip("/")
    return f"{base}/api/v1/approvals/links/{quote(token)}"
