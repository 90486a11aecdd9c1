"""The mail server that PENSTOCK_SMTP_URL names, and one mail given to it."""

import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import parseaddr
from urllib.parse import unquote, urlsplit

import attrs

from penstock.errors import InputError, PlatformError, SettingsError

TIMEOUT_S = 20.0
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_LOCAL = ("localhost", "127.0.0.1", "::1")


class MailRefused(InputError):
    """The server will not take this mail, however often it is asked."""


@attrs.frozen
class MailServer:
    """
    scheme: smtp (encrypted where the server can), smtp+starttls (always), smtps (from the first byte).

    sender: `Penstock <penstock@example.org>` or an address alone.
    """

    scheme: str
    host: str
    port: int
    sender: str
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Host and port, without user and password."""
        return f"{self.host}:{self.port}"


def read_server(url: str, sender: str | None) -> MailServer:
    """
    The server that a URL names: smtp://, smtp+starttls:// or smtps://, with user:password@ where it asks for a login.

    Raises: SettingsError naming the variable; the URL itself is never in its text.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad("it has a port that is no number") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _bad("it is no address of a mail server")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise _bad("something follows the host and port")
    user, password = (unquote(one) if one else None for one in (parts.username, parts.password))
    address = sender or f"penstock@{socket.getfqdn()}"
    if "@" not in parseaddr(address)[1] or any(ord(letter) < 32 for letter in address):
        what = f'"{address[:100]}" is no mail address'
        raise SettingsError(what, where="PENSTOCK_MAIL_FROM", remedy="write Penstock <ci@example.org>")
    return MailServer(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], address, user, password)


def _bad(what: str) -> SettingsError:
    remedy = "write smtp+starttls://user:password@mail.example.org:587, or smtps://…"
    return SettingsError(what, where="PENSTOCK_SMTP_URL", remedy=remedy)


def send(server: MailServer, message: EmailMessage, *, timeout_s: float = TIMEOUT_S) -> None:
    """
    Give a mail to the server; when this returns, the server has taken it.

    Raises: MailRefused when it will never take it, PlatformError when it does not now.
    """
    try:
        with _opened(server, timeout_s) as connection:
            connection.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise _refusal(server, code, said) from error
    except smtplib.SMTPResponseException as error:
        raise _refusal(server, error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError) as error:
        raise PlatformError(f"the mail server does not answer: {_said(error)}", where=server.name) from error


def _opened(server: MailServer, timeout_s: float) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if server.scheme == "smtps":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=timeout_s, context=context)
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=timeout_s)
    try:
        _secure(server, connection, context)
        if server.user is not None:
            connection.login(server.user, server.password or "")
    except BaseException:
        connection.close()
        raise
    return connection


def _secure(server: MailServer, connection: smtplib.SMTP, context: ssl.SSLContext) -> None:
    """Raises: PlatformError where a password, or what asks for encryption, would go out in the clear."""
    if server.scheme == "smtps":
        return
    connection.ehlo()
    if connection.has_extn("starttls"):
        # On loopback certificates are rarely signed, and nothing leaves the machine.
        if server.scheme == "smtp" and server.host in _LOCAL:
            return
        connection.starttls(context=context)
        connection.ehlo()
    elif server.scheme == "smtp+starttls" or (server.user is not None and server.host not in _LOCAL):
        remedy = "use smtps://, or a server that offers STARTTLS"
        raise PlatformError("the mail server offers no encryption", where=server.name, remedy=remedy)


def _refusal(server: MailServer, code: int, said: bytes | str) -> PlatformError | MailRefused:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    told = f"the mail server said {code} {' '.join(text.split())[:200]}"
    # 5xx is for good, but a wrong login is mended in the settings, and then every mail is wanted.
    if 500 <= code < 600 and code not in (530, 534, 535, 538):
        return MailRefused(told, where=server.name)
    return PlatformError(told, where=server.name)


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
