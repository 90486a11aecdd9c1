"""/approvals/links: where the links of a mail lead: a page that asks once more, and the answer."""

from html import escape
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from penstock.api.problems import status_of
from penstock.errors import PenstockError
from penstock.notify.links import Link, look_at, use
from penstock.pipeline.approval_rows import waiting_for

# Browsers come here, with an address that is a secret: nothing is kept, framed, or told to another site.
router = APIRouter(include_in_schema=False)
_LARGEST_BYTES = 16 * 1024
_WHY_LIMIT = 2000
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 38rem; margin: 3rem auto; padding: 0 1rem }}
dt {{ opacity: .7 }} dd {{ margin: 0 0 .5rem; overflow-wrap: anywhere }}
textarea {{ width: 100%; font: inherit }}
button {{ font: inherit; font-weight: 600; padding: .5rem 1.2rem; margin-top: .8rem }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""
_FORM = """<form method="post"><label for="why">Why (for the record)</label>
<textarea id="why" name="why" rows="3" maxlength="2000"></textarea>
<button type="submit">{button}</button></form>"""


@router.get("/approvals/links/{token}")
def ask_once_more(request: Request, token: str) -> HTMLResponse:
    """What the link would do; changes nothing, because mail scanners open every link."""
    try:
        link = look_at(request.app.state.database, token)
    except PenstockError as error:
        return _refused(error)
    button = "Approve" if link.decision == "approved" else "Reject"
    return _page(f"{button} {link.request.step}?", _facts(link) + _FORM.format(button=button))


@router.post("/approvals/links/{token}")
async def answer_by_link(request: Request, token: str) -> HTMLResponse:
    """Does it, once."""
    body = await request.body()
    if len(body) > _LARGEST_BYTES:
        return _page("That is too long", "<p>Give a shorter reason.</p>", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    why = parse_qs(body.decode("utf-8", "replace")).get("why", [""])[0].replace("\0", "").strip()[:_WHY_LIMIT]
    try:
        said = await run_in_threadpool(use, request.app.state.database, token, why)
    except PenstockError as error:
        return _refused(error)
    request.app.state.approvals.wake()
    told = waiting_for(said) if said.state == "waiting" else said.reason or said.state
    return _page("Thank you", f"<p>{escape(said.step)} of {escape(said.project)}: {escape(told)}.</p>")


def _facts(link: Link) -> str:
    asked = link.request
    named = {
        "project": asked.project,
        "commit": f"{asked.commit[:12]} {asked.title or ''}",
        "author": asked.author or "not known",
        "digest": asked.digest,
        "until": f"{asked.expires_at:%Y-%m-%d %H:%M} UTC",
        "you are": link.person,
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(told)}</dd>" for name, told in named.items()) + "</dl>"


def _refused(error: PenstockError) -> HTMLResponse:
    return _page("This cannot be done", f"<p>{escape(str(error))}</p>", status_of(error))


def _page(title: str, body: str, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), status, _HEADERS)
