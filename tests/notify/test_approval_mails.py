"""Mails that ask for approvals: to everybody who may, once, again until they are taken, with links that work once."""

import re
from collections.abc import Callable
from datetime import timedelta

import attrs
import pytest
import sqlalchemy as sa
from gates import ADA, GRACE, MARY, Gate
from mail_box import MailBox

from penstock.errors import ConflictError, ForbiddenError, NotFoundError, PenstockError
from penstock.notify.links import look_at, use
from penstock.notify.mailer import CLAIMED_FOR, Mailer
from penstock.people import groups, users
from penstock.pipeline.approval_rules import ApprovalRule
from penstock.pipeline.approvals import answer
from penstock.pipeline.log import utc_now
from penstock.settings import Settings
from penstock.state.people_tables import approval_links, approval_mails

LINK = re.compile(r"https://ci\.example\.org/api/v1/approvals/links/(\S+)")


def links_of(mail_box: MailBox, number: int = 0) -> tuple[str, str]:
    """The tokens of a mail: approve, reject."""
    found = LINK.findall(mail_box.inbox.mails[number].get_content())
    assert len(found) == 2
    return found[0], found[1]


@pytest.fixture
def mailer(database: sa.Engine, mailing: Settings) -> Mailer:
    return Mailer(database, mailing)


def test_mail_says_what_waits_and_goes_to_each_who_may(gate: Gate, mailer: Mailer, mail_box: MailBox) -> None:
    """Commit, author, checks; two links of their own for each; sent once however often one looks."""
    asked = gate.waits()
    assert mailer.send_due() == 2
    assert mailer.send_due() == 0
    assert sorted(mail["To"] for mail in mail_box.inbox.mails) == [ADA.mail, GRACE.mail]
    mail = mail_box.inbox.mails[0]
    assert mail["From"] == "Penstock <ci@example.org>"
    assert mail["Subject"] == "[Penstock] shop: release waits for you (cccccccccccc)"
    text = mail.get_content()
    for told in ("Ada Lovelace <ada@example.org>", "Sell more", "refs/heads/main", asked.digest, "passed  build"):
        assert told in text
    assert len({*links_of(mail_box, 0), *links_of(mail_box, 1)}) == 4


def test_tokens_of_links_are_nowhere_but_in_the_mail(
    gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine
) -> None:
    """The database holds their hashes."""
    gate.waits()
    mailer.send_due()
    with database.connect() as connection:
        rows = str(connection.execute(sa.select(approval_links)).all())
        rows += str(connection.execute(sa.select(approval_mails)).all())
    assert not any(token in rows for token in links_of(mail_box))


def test_link_approves_once_and_its_fellow_is_spent_too(
    gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine
) -> None:
    """Looking at it, as mail scanners do, changes nothing."""
    gate.waits(ApprovalRule(count=2))
    mailer.send_due()
    approve, reject = links_of(mail_box)
    for _ in range(3):
        assert look_at(database, approve).decision == "approved"
    assert gate.newest().answers == ()
    assert use(database, approve, "from the train").state == "waiting"
    (told,) = gate.newest().answers
    assert (told.how, told.why, told.decision) == ("mail", "from the train", "approved")
    for spent in (approve, reject):
        for attempt in (look_at, use):
            with pytest.raises(ConflictError, match="the link has been used"):
                attempt(database, spent)
    other, _ = links_of(mail_box, 1)
    assert use(database, other).state == "approved", "the other person's link is theirs"


def test_link_that_rejects_shuts_the_gate(gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine) -> None:
    asked = gate.waits()
    mailer.send_due()
    assert use(database, links_of(mail_box)[1], "no").state == "rejected"
    assert gate.run_state(asked.run_id) == "failed"


def expired(gate: Gate, asked: int) -> None:
    later = utc_now() + timedelta(days=8)
    with pytest.raises(PenstockError, match="expired"):
        answer(gate.database, asked, "grace", approved=True, how="api", now=later)


def rebuilt(gate: Gate, _: int) -> None:
    gate.waits(digest="another build")


def answered(gate: Gate, asked: int) -> None:
    answer(gate.database, asked, "mary", approved=True, how="api")


def removed(gate: Gate, _: int) -> None:
    with gate.database.begin() as connection:
        users.remove_user(connection, "ada")
        users.remove_user(connection, "grace")


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (expired, "the request is expired"),
        (rebuilt, "another build of this commit took its place"),
        (answered, "the request is approved"),
        (removed, "no user any more"),
    ],
)
def test_link_is_worth_nothing_when_there_is_nothing_to_answer(  # noqa: PLR0917
    gate: Gate,
    mailer: Mailer,
    mail_box: MailBox,
    database: sa.Engine,
    what: Callable[[Gate, int], None],
    why: str,
) -> None:
    asked = gate.waits()
    mailer.send_due()
    what(gate, asked.id)
    before = gate.newest().answers
    for token in links_of(mail_box):
        with pytest.raises(ConflictError, match=why):
            use(database, token)
    assert gate.newest().answers == before


def test_link_is_refused_by_the_clock_alone(gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine) -> None:
    gate.waits(ApprovalRule(within_s=3600))
    mailer.send_due()
    with pytest.raises(ConflictError, match="the link has expired"):
        use(database, links_of(mail_box)[0], now=utc_now() + timedelta(hours=2))
    with pytest.raises(NotFoundError, match="there is no such link"):
        use(database, "guessed")


def test_link_of_who_has_left_the_group_answers_nothing(
    gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine
) -> None:
    with database.begin() as connection:
        groups.add_group(connection, "release", ["grace"])
    gate.waits(ApprovalRule(groups=("release",)))
    mailer.send_due()
    with database.begin() as connection:
        groups.remove_member(connection, "release", "grace")
    with pytest.raises(ForbiddenError, match="not among those who are asked"):
        use(database, links_of(mail_box)[0])


def test_mail_that_is_not_taken_is_tried_again_later_and_later(
    gate: Gate, database: sa.Engine, mailing: Settings, mail_box: MailBox
) -> None:
    """With the server's own words on record; a refusal for good is not repeated, and stops no other mail."""
    mail_box.inbox.answers += ["451 come back later", "451 come back later", "554 no such mailbox"]
    gate.waits()
    now = utc_now()
    mailer = Mailer(database, mailing, clock=lambda: now, chance=lambda: 0.0)
    assert mailer.send_due() == 0
    rows = mails(database)
    assert [row["state"] for row in rows] == ["waiting", "waiting"]
    assert all("451 come back later" in row["reason"] and row["again_at"] == now + timedelta(seconds=2) for row in rows)
    assert mailer.send_due() == 0, "not before its time"
    now += timedelta(seconds=2)
    assert mailer.send_due() == 2
    assert sorted(row["state"] for row in mails(database)) == ["failed", "sent"]
    assert len(mail_box.inbox.mails) == 1


def mails(database: sa.Engine) -> list[sa.RowMapping]:
    with database.connect() as connection:
        return list(connection.execute(sa.select(approval_mails).order_by(approval_mails.c.id)).mappings())


def test_mail_whose_sender_was_killed_is_sent_by_the_next_one(
    gate: Gate, database: sa.Engine, mailing: Settings, mail_box: MailBox
) -> None:
    """It may come twice, with one Message-ID, and never not at all."""
    gate.waits()
    now = utc_now()
    killed = Mailer(database, mailing, clock=lambda: now)
    assert len(killed._claim()) == 2
    assert Mailer(database, mailing, clock=lambda: now).send_due() == 0, "somebody may be at it"
    now += CLAIMED_FOR
    assert Mailer(database, mailing, clock=lambda: now).send_due() == 2
    with database.begin() as connection:  # taken by the server, and killed before that was on record
        connection.execute(sa.update(approval_mails).values(state="waiting", claimed_until=None))
    assert Mailer(database, mailing, clock=lambda: now).send_due() == 2
    ids = [mail["Message-ID"] for mail in mail_box.inbox.mails]
    assert (len(ids), len(set(ids))) == (4, 2)
    first, _ = links_of(mail_box, 0)
    assert use(database, first).state == "approved", "the links of both copies are good"


def test_server_that_is_away_loses_nothing(gate: Gate, database: sa.Engine, mailing: Settings) -> None:
    gate.waits()
    away = attrs.evolve(mailing, smtp_url="smtp://127.0.0.1:1")
    assert Mailer(database, away).send_due() == 0
    assert all("does not answer" in row["reason"] and row["state"] == "waiting" for row in mails(database))


def test_mail_that_has_become_pointless_is_not_sent(
    gate: Gate, mailer: Mailer, mail_box: MailBox, database: sa.Engine
) -> None:
    """Somebody answered before it was its turn."""
    asked = gate.waits()
    answer(database, asked.id, "grace", approved=True, how="cli")
    assert mailer.send_due() == 2
    assert {row["state"] for row in mails(database)} == {"dropped"}
    assert mail_box.inbox.mails == []


def test_login_is_used_and_a_wrong_one_is_tried_again_and_not_told(
    gate: Gate, database: sa.Engine, mailing: Settings, mail_box: MailBox
) -> None:
    """The password is in no row; when it is mended, the mails go out."""
    gate.waits()
    now = utc_now()
    wrong = attrs.evolve(mailing, smtp_url=mail_box.url_for("swordfish"))
    assert Mailer(database, wrong, clock=lambda: now).send_due() == 0
    (first, second) = mails(database)
    assert "the mail server said 535" in first["reason"]
    assert "swordfish" not in f"{first} {second}"
    assert "swordfish" not in repr(wrong)
    now += timedelta(minutes=1)
    right = attrs.evolve(mailing, smtp_url=mail_box.url_for(mail_box.inbox.password))
    assert Mailer(database, right, clock=lambda: now).send_due() == 2


def test_thread_sends_by_itself(gate: Gate, mailer: Mailer, mail_box: MailBox) -> None:
    with gate.database.begin() as connection:
        users.add_user(connection, MARY)
    mailer.start()
    gate.waits()
    mail_box.inbox.wait_for(3)
    mailer.stop()
