"""
Sends the mails that wait, at once, and again until the server has taken them.

A mail is a row from the moment at which its gate asks. It is marked as sent after the server has taken it: whoever is
killed in between sends it twice, with the same Message-ID, and nobody is left without one.
"""

import logging
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from penstock.answers.deliver import pause
from penstock.errors import PenstockError
from penstock.notify.approval_mail import approval_mail, link_address, page_address
from penstock.notify.links import make_links
from penstock.notify.smtp import MailRefused, MailServer, read_server, send
from penstock.people.users import find_users
from penstock.pipeline.approval_evidence import Evidence, evidence_of
from penstock.pipeline.approval_rows import Request, get_request
from penstock.pipeline.log import utc_now
from penstock.rounds import Rounds
from penstock.settings import Settings
from penstock.state.people_tables import approval_mails

_log = logging.getLogger(__name__)
CLAIMED_FOR = timedelta(minutes=2)
_AT_ONCE = 5  # as many as fit into a claim when each waits for a server that does not answer
_table = approval_mails


class Mailer:
    """
    One thread. Without a mail server nothing is sent, and what has become pointless meanwhile never is.

    clock: UTC. chance: 0 to 1.
    """

    def __init__(
        self,
        database: sa.Engine,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database, self._settings, self._clock, self._chance = database, settings, clock, chance
        self._server = read_server(settings.smtp_url, settings.mail_from) if settings.smtp_url else None
        self._rounds = Rounds("mails", self.send_due, every_s=1.0)

    def start(self) -> None:
        """Begin, if there is a mail server."""
        if self._server is not None:
            self._rounds.start()

    def stop(self) -> None:
        """End after the mail in hand."""
        if self._server is not None:
            self._rounds.stop()

    def send_due(self) -> int:
        """Send what is due. Returns: how many mails were settled."""
        if self._server is None:
            return 0
        return sum(self._settled(mail, self._server) for mail in self._claim() if not self._rounds.stopping)

    def _claim(self) -> list[Mapping[Any, Any]]:
        now = self._clock()
        free = sa.or_(_table.c.claimed_until.is_(None), _table.c.claimed_until <= now)
        due = sa.select(_table.c.id).where(_table.c.state == "waiting", _table.c.again_at <= now, free)
        due = due.order_by(_table.c.again_at, _table.c.id).limit(_AT_ONCE).with_for_update(skip_locked=True)
        taken = sa.update(_table).where(_table.c.id.in_(due)).values(claimed_until=now + CLAIMED_FOR)
        with self._database.begin() as connection:
            return list(connection.execute(taken.returning(*_table.c)).mappings())

    def _settled(self, mail: Mapping[Any, Any], server: MailServer) -> bool:
        try:
            reason = self._sent(mail, server)
        except MailRefused as error:
            _log.warning("the mail to %s for request %s is refused: %s", mail["person"], mail["request_id"], error)
            self._note(mail, state="failed", reason=str(error))
        except PenstockError as error:
            again = self._clock() + pause(mail["attempts"], self._chance())
            self._note(mail, state="waiting", reason=str(error), again_at=again)
            return False
        else:
            state = "dropped" if reason else "sent"
            self._note(mail, state=state, reason=reason, sent_at=None if reason else self._clock())
        return True

    def _note(self, mail: Mapping[Any, Any], **values: Any) -> None:
        with self._database.begin() as connection:
            change = sa.update(_table).where(_table.c.id == mail["id"])
            connection.execute(change.values(attempts=_table.c.attempts + 1, claimed_until=None, **values))

    def _sent(self, mail: Mapping[Any, Any], server: MailServer) -> str | None:
        """Returns: why it was not needed any more; None when the server has taken it. Raises: PenstockError."""
        with self._database.begin() as connection:
            request = get_request(connection, mail["request_id"])
            if request.state != "waiting" or request.expires_at < self._clock():
                return f"the request is {request.state}"
            found = find_users(connection, [mail["person"]])
            if not found or not found[0].mail:
                return "the person has no address any more"
            tokens = make_links(connection, request.id, mail["person"])
        approve, reject = (link_address(self._settings, token) for token in tokens)
        message = approval_mail(
            request,
            self._evidence(request),
            to=found[0].mail,
            sender=server.sender,
            links=(approve, reject),
            page=page_address(self._settings, request),
            message_id=f"approval-{request.id}-{mail['id']}",
        )
        send(server, message)
        return None

    def _evidence(self, request: Request) -> Evidence | None:
        try:
            return evidence_of(self._database, self._settings, request)
        except PenstockError as error:
            _log.warning("request %s is told without evidence: %s", request.id, error)
            return None
