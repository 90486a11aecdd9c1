"""A real SMTP server for tests, and what it has taken."""

import smtplib
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage

import attrs
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@attrs.define
class Inbox:
    """What a server has taken. answers: told instead of taking, first come first told."""

    mails: list[EmailMessage] = attrs.field(factory=list)
    answers: list[str] = attrs.field(factory=list)
    arrived: threading.Condition = attrs.field(factory=threading.Condition)
    user: str = "ci"
    password: str = "open sesame"

    async def handle_DATA(  # noqa: N802 - as aiosmtpd calls it
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        if self.answers:
            return self.answers.pop(0)
        with self.arrived:
            content = envelope.original_content or b""
            self.mails.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
            self.arrived.notify_all()
        return "250 taken"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login.decode(), data.password.decode()) == (self.user, self.password)
        return AuthResult(success=right, handled=False)

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.mails) >= count, timeout=60)


@attrs.frozen
class MailBox:
    """A server that listens."""

    inbox: Inbox
    port: int

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def url_for(self, password: str) -> str:
        return f"smtp://{self.inbox.user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}"


class AnyPort(Controller):
    """Knows its port only after it listens."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        with smtplib.SMTP(self.hostname, self.port, timeout=10) as connection:
            connection.noop()
