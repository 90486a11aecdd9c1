"""A real mail server, and a database with people whom a gate asks."""

from collections.abc import Iterator

import attrs
import pytest
import sqlalchemy as sa
from gates import ADA, GRACE, Gate
from mail_box import AnyPort, Inbox, MailBox

from penstock.settings import Settings


@pytest.fixture
def mail_box() -> Iterator[MailBox]:
    """A real SMTP server that takes everything, with or without a login."""
    inbox = Inbox()
    controller = AnyPort(inbox, hostname="127.0.0.1", port=0, authenticator=inbox.authenticate, auth_require_tls=False)
    controller.start()
    yield MailBox(inbox, controller.port)
    controller.stop()


@pytest.fixture
def mailing(settings: Settings, mail_box: MailBox) -> Settings:
    """Settings that name it."""
    return attrs.evolve(
        settings, smtp_url=mail_box.url, mail_from="Penstock <ci@example.org>", api_public_url="https://ci.example.org"
    )


@pytest.fixture
def gate(database: sa.Engine) -> Gate:
    made = Gate(database)
    made.people(ADA, GRACE)
    return made
