"""`penstock user`, `group`, `token` and answers to gates: what they print and refuse, and their page."""

import os
import pwd
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from cli_process import Penstock
from gates import Gate

from penstock.people.audit import list_changes
from penstock.people.tokens import bearer_of
from penstock.people.users import system_account
from penstock.pipeline.approval_rules import ApprovalRule

DOCS = Path(__file__).parents[2] / "docs" / "approvals.md"


def test_commands_of_the_docs_work(penstock: Penstock, database: sa.Engine) -> None:
    """Sections 2 to 4, as they stand there and in that order; the token is printed alone, and works."""
    found = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    lines = [line for block in found for line in block.splitlines() if line.startswith("penstock ")]
    done = {}
    for line in lines:
        if line == "penstock up" or line.startswith("penstock sql"):
            continue
        words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)][1:]
        done[line] = penstock(*words)
        assert done[line].returncode == 0, done[line].stderr
    (secret,) = next(out.stdout for line, out in done.items() if "token create" in line).splitlines()
    found_bearer = bearer_of(database, secret)
    assert found_bearer is not None
    assert (found_bearer.subject, found_bearer.scopes) == ("ada", {"read", "approve"})
    assert "laptop" in done["penstock token list"].stdout
    assert secret not in done["penstock token list"].stdout
    assert "ada, grace" in done["penstock group list"].stdout
    identifier = done["penstock token list"].stdout.splitlines()[1].split()[0]
    assert penstock("token", "revoke", identifier).returncode == 0
    assert bearer_of(database, secret) is None
    with database.connect() as connection:
        told = [(one.actor, one.action) for one in list_changes(connection)]
    assert told[0] == (system_account(), "token.revoke")
    assert secret not in str(told)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("user", "add", "a b"), "cannot be a user's name"),
        (("user", "add", "ada", "--mail", "nowhere"), '"nowhere" is no mail address'),
        (("user", "edit", "nobody", "--mail", "a@b.c"), 'no user is called "nobody"'),
        (("user", "edit", "nobody"), "there is nothing to change"),
        (("group", "add", "g", "nobody"), 'no user is called "nobody"'),
        (("token", "create", "nobody"), 'no user is called "nobody"'),
        (("token", "create", "nobody", "--expires", "soon"), "--expires"),
        (("token", "revoke", "nothing"), "no token has the identifier"),
        (("approve", "0123", "gate"), 'no gate "gate" of run 0123 waits for an approval'),
        (("withdraw", "0123", "gate"), 'no gate "gate" of run 0123 waits for an approval'),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(penstock: Penstock, words: tuple[str, ...], what: str) -> None:
    """Exit code 2, and nothing has changed."""
    done = penstock(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_one_answers_as_the_systems_account(penstock: Penstock, database: sa.Engine) -> None:
    """Approved, taken back, then refused where somebody else is asked; another digest is refused."""
    gate = Gate(database)
    asked = gate.waits(ApprovalRule(count=2))
    run, me = asked.run_id[:8], pwd.getpwuid(os.getuid()).pw_name
    other = penstock("approve", run, "release", "--digest", "feed")
    assert (other.returncode, "the approval is for feed" in other.stderr) == (2, True)
    said = penstock("approve", run, "release", "--why", "tried it", "--digest", "d1")
    assert "approved; release waits for one more person" in said.stdout, said.stderr
    assert [(one.person, one.how, one.why) for one in gate.newest().answers] == [(me, "cli", "tried it")]
    assert run in penstock("approvals").stdout
    assert "withdrawn; release waits for 2 more people" in penstock("withdraw", run, "release").stdout
    assert "stays shut" in penstock("reject", run, "release", "--why", "no").stdout
    assert run not in penstock("approvals").stdout
    assert "rejected by" in penstock("approvals", "--all").stdout
