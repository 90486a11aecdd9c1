"""From the gate to the mail to the answer, with the API as it is served."""

import re
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from gates import Gate
from mail_box import MailBox

from penstock.api.app import create_app
from penstock.settings import Settings

LINK = re.compile(r"https://ci\.example\.org(/api/v1/approvals/links/\S+)")


@pytest.fixture
def address(mailing: Settings, database: sa.Engine) -> Iterator[str]:
    """Where the API answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(mailing), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


def test_gate_is_opened_by_the_link_in_the_mail(
    address: str, gate: Gate, mail_box: MailBox, caplog: pytest.LogCaptureFixture
) -> None:
    """The API sends by itself what a run has left in the database; no log has the link."""
    asked = gate.waits()
    mail_box.inbox.wait_for(2)
    mail = next(one for one in mail_box.inbox.mails if one["To"] == "grace@example.org")
    approve, _ = LINK.findall(mail.get_content())
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as browser:
        assert browser.get(approve).status_code == 200
        assert gate.newest().state == "waiting"
        done = browser.post(approve, data={"why": "from the train"})
        assert "approved by grace" in done.text
        assert browser.post(approve).status_code == 409
    assert (gate.newest().id, gate.newest().state) == (asked.id, "approved")
    (told,) = gate.newest().answers
    assert (told.person, told.how, told.why) == ("grace", "mail", "from the train")
    assert approve.rsplit("/", 1)[1] not in caplog.text
