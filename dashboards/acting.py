"""What the pages do, through Penstock's API and with its rights: follow a log, cancel a run."""

import ssl
from typing import Any
from urllib.parse import quote

import httpx
import streamlit as st

from dashboards.reading import settings
from penstock.api.models import LogOut
from penstock.api.tokens import read_local_token
from penstock.errors import PenstockError, PlatformError
from penstock.settings import Settings

AWAY = "the API does not answer"


@st.cache_resource(show_spinner=False)
def _client() -> httpx.Client:
    return httpx.Client(base_url=settings().api_url, timeout=20.0, trust_env=False, verify=_trusted(settings()))


def _trusted(configured: Settings) -> ssl.SSLContext | bool:
    """Trust the API's own certificate and no other, whatever address it was made for."""
    if configured.tls_cert is None:
        return True
    context = ssl.create_default_context(cafile=str(configured.tls_cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def step_log(run_id: str, step: str, offset: int) -> LogOut:
    """A step's log from a byte offset on, at most 4 MiB. Raises: PenstockError."""
    response = ask("GET", f"/api/v1/runs/{quote(run_id)}/steps/{quote(step)}/log?offset={offset}")
    return LogOut.model_validate_json(response.content)


def cancel_run(run_id: str) -> None:
    """Stop a run; it is cancelled within ten seconds. Raises: PenstockError."""
    ask("POST", f"/api/v1/runs/{quote(run_id)}/cancel")


def answer_request(request_id: int, verb: str, why: str, digest: str | None) -> None:
    """verb: approve, reject or withdraw. digest: of what was looked at. Raises: PenstockError."""
    said = {"why": why, "how": "page"} | ({"digest": digest} if digest else {})
    ask("POST", f"/api/v1/approvals/{request_id}/{verb}", json=said)


def ask(method: str, path: str, *, version: int | None = None, **options: Any) -> httpx.Response:
    """
    What the API answers to this machine's token.

    version: of what is to change, as it was read; refused if it is another by now. options: of httpx's request.

    Raises: PenstockError in the API's words, PlatformError when it does not answer.
    """
    headers = {"Authorization": f"Bearer {read_local_token(settings())}"}
    headers |= {} if version is None else {"If-Match": f'"{version}"'}
    try:
        response = _client().request(method, path, headers=headers, **options)
    except httpx.HTTPError:
        raise PlatformError(AWAY, where=settings().api_url, remedy="start it with `penstock up`") from None
    if not response.is_success:
        raise PenstockError(_detail(response))
    return response


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{AWAY} as it should: HTTP {response.status_code}"
