"""Approvals over HTTP: whose token answers, what it may, pages of lists, and what one should know before."""

from collections.abc import Callable, Iterator

import httpx
import pytest
import sqlalchemy as sa
from api_calls import API, problem_of
from gates import ADA, GRACE, Gate

from penstock.api.access import scope_of
from penstock.people import tokens, users
from penstock.people.users import User
from penstock.pipeline.approval_rules import ApprovalRule

APPROVALS = f"{API}/approvals"


@pytest.fixture
def gate(database: sa.Engine) -> Gate:
    made = Gate(database)
    made.people(ADA, GRACE, release=("grace",))
    return made


@pytest.fixture
def acting(api: httpx.Client, database: sa.Engine) -> Iterator[Callable[..., httpx.Client]]:
    """acting(user, *scopes) → a client with a token of that user."""
    opened: list[httpx.Client] = []

    def make(user: str, *scopes: str) -> httpx.Client:
        with database.begin() as connection:
            _, secret = tokens.create_token(connection, user, scopes, expires_at=None)
        headers = {"Authorization": f"Bearer {secret}"}
        opened.append(httpx.Client(base_url=api.base_url, headers=headers, timeout=60, trust_env=False))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


def test_token_of_a_user_approves_as_that_user(gate: Gate, acting: Callable[..., httpx.Client]) -> None:
    """With its digest; the answer says who, how and why, and the gate's rule is the user's, not the token's."""
    asked = gate.waits(ApprovalRule(groups=("release",), not_author=True))
    refused = acting("ada", "approve").post(f"{APPROVALS}/{asked.id}/approve", json={})
    assert '"ada" is not among those who are asked' in problem_of(refused, 403)
    grace = acting("grace", "approve")
    other = grace.post(f"{APPROVALS}/{asked.id}/approve", json={"digest": "another"})
    assert "the approval is for another" in problem_of(other, 409)
    said = grace.post(f"{APPROVALS}/{asked.id}/approve", json={"digest": "d1", "why": "seen in staging"})
    assert said.status_code == 200
    assert (said.json()["state"], said.json()["waiting_for"]) == ("approved", "")
    (answer,) = said.json()["answers"]
    told = (answer["person"], answer["decision"], answer["why"], answer["how"])
    assert told == ("grace", "approved", "seen in staging", "api")
    again = grace.post(f"{APPROVALS}/{asked.id}/reject", json={})
    assert "is approved already" in problem_of(again, 409)
    back = grace.post(f"{APPROVALS}/{asked.id}/withdraw", json={"why": "wait"})
    assert (back.status_code, back.json()["state"]) == (200, "waiting")
    gone = grace.post(f"{APPROVALS}/{asked.id}/reject", json={"why": "no"})
    assert gone.json()["reason"] == "rejected by grace: no"
    assert gate.run_state(asked.run_id) == "failed"


def test_machines_own_token_speaks_for_the_local_user(gate: Gate, api: httpx.Client, database: sa.Engine) -> None:
    asked = gate.waits()
    with database.begin() as connection:
        users.edit_user(connection, "ada", {"is_local": True})
        users.add_user(connection, User("mary", is_local=True))
    said = api.post(f"{APPROVALS}/{asked.id}/approve", json={"how": "page"}).json()
    assert [(one["person"], one["how"]) for one in said["answers"]] == [("mary", "page")]
    assert [one["is_local"] for one in api.get(f"{API}/users").json()] == [False, False, True]


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("read",), {"read"}),
        (("write",), {"read", "write"}),
        (("approve",), {"read", "approve"}),
        (("admin",), {"read", "write", "approve", "admin"}),
    ],
)
def test_token_does_what_its_scopes_say_and_no_more(
    gate: Gate, acting: Callable[..., httpx.Client], scopes: tuple[str, ...], may: set[str]
) -> None:
    """Reading, changing, approving, and changing people: one route of each."""
    client, asked = acting("grace", *scopes), gate.waits()
    tried = {
        "read": client.get(f"{API}/projects"),
        "write": client.post(f"{API}/runs/nothing/cancel"),
        "approve": client.post(f"{APPROVALS}/{asked.id}/withdraw", json={}),
        "admin": client.post(f"{API}/groups", json={"name": "new"}),
    }
    assert {name for name, answer in tried.items() if "does not have the scope" not in answer.text} == may
    for name, answer in tried.items():
        assert name in may or f"does not have the scope {name}" in problem_of(answer, 403)


def test_every_route_that_changes_something_asks_for_more_than_reading(api: httpx.Client) -> None:
    """By the API's own document: people, tokens, environments and plugins for admin, answers for approve."""
    for path, verbs in api.get("/openapi.json").json()["paths"].items():
        for verb, told in verbs.items():
            if not told.get("security"):
                continue
            needed = scope_of(verb.upper(), path)
            assert (needed == "read") == (verb in {"get", "head"}), path
            part = path.removeprefix(f"{API}/").split("/")[0]
            if needed != "read":
                of_admins = part in {"users", "groups", "tokens", "environments", "plugins"}
                answers = part == "approvals" or "/freezes" in path
                assert needed == ("approve" if answers else "admin" if of_admins else "write"), path


def test_token_that_expired_or_was_revoked_is_worth_nothing(
    gate: Gate, api: httpx.Client, acting: Callable[..., httpx.Client], database: sa.Engine
) -> None:
    """Also one whose user is gone; and lists never tell a secret."""
    client = acting("grace", "read")
    assert client.get(f"{API}/projects").status_code == 200
    (known,) = api.get(f"{API}/tokens?user=grace").json()
    assert known["used_at"] is not None
    assert set(known) == {"id", "subject", "scopes", "label", "created_at", "expires_at", "used_at"}
    assert api.delete(f"{API}/tokens/{known['id']}").status_code == 204
    problem_of(client.get(f"{API}/projects"), 401)
    made = api.post(f"{API}/tokens", json={"user": "ada", "scopes": ["read"], "expires_in_days": 1}).json()
    late = {"Authorization": f"Bearer {made['secret']}"}
    assert httpx.get(f"{api.base_url}{API}/projects", headers=late, trust_env=False).status_code == 200
    with database.begin() as connection:
        connection.execute(
            sa.text("UPDATE penstock.tokens SET expires_at = now() - interval '1 s' WHERE id <> 'local'")
        )
    problem_of(httpx.get(f"{api.base_url}{API}/projects", headers=late, trust_env=False), 401)
    leaver = acting("grace", "admin")
    assert api.delete(f"{API}/users/grace").status_code == 204
    problem_of(leaver.get(f"{API}/projects"), 401)


def test_pages_of_approvals_follow_each_other_and_filter(gate: Gate, api: httpx.Client, database: sa.Engine) -> None:
    asked = [Gate(database, commit=f"{number:040x}").waits() for number in range(5)]
    api.post(f"{APPROVALS}/{asked[0].id}/reject", json={})
    seen, path = [], f"{APPROVALS}?limit=2"
    while path:
        page = api.get(path)
        seen += [one["id"] for one in page.json()]
        path = page.links.get("next", {}).get("url", "")
    assert seen == [one.id for one in reversed(asked)]
    assert [one["id"] for one in api.get(f"{APPROVALS}?state=rejected").json()] == [asked[0].id]
    assert len(api.get(f"{APPROVALS}?state=rejected&state=waiting&project=shop").json()) == 5
    assert api.get(f"{APPROVALS}?project=other").json() == []
    assert api.get(f"{APPROVALS}?run={asked[1].run_id[:12]}").json()[0]["id"] == asked[1].id
    problem_of(api.get(f"{APPROVALS}?cursor=nonsense"), 422)
    problem_of(api.get(f"{APPROVALS}/999999"), 404)


def test_evidence_says_what_was_checked_and_where_it_would_go(gate: Gate, api: httpx.Client) -> None:
    asked = gate.waits()
    found = api.get(f"{APPROVALS}/{asked.id}/evidence").json()
    assert [(one["step"], one["passed"]) for one in found["checks"]] == [("build", True)]
    assert found["against"] == []


def test_people_groups_and_what_is_wrong_with_them(api: httpx.Client) -> None:
    """Added, changed, listed, removed; each change is in the audit, and a name that cannot be is refused."""
    made = api.post(f"{API}/users", json={"name": "ida", "mail": "ida@example.org", "git_names": ["Ida R"]})
    assert made.status_code == 201
    problem_of(api.post(f"{API}/users", json={"name": "ida"}), 409)
    problem_of(api.post(f"{API}/users", json={"name": "local"}), 422)
    problem_of(api.post(f"{API}/users", json={"name": "i da"}), 422)
    problem_of(api.post(f"{API}/users", json={"name": "eva", "mail": "a@b\nBcc: all@example.org"}), 422)
    changed = api.patch(f"{API}/users/ida", json={"mail": None}).json()
    assert (changed["mail"], changed["git_names"]) == (None, ["Ida R"])
    problem_of(api.patch(f"{API}/users/nobody", json={}), 404)
    problem_of(api.post(f"{API}/groups", json={"name": "team", "members": ["nobody"]}), 404)
    assert api.post(f"{API}/groups", json={"name": "team"}).json()["members"] == []
    assert api.put(f"{API}/groups/team/members/ida").json()["members"] == ["ida"]
    assert api.delete(f"{API}/groups/team/members/ida").status_code == 204
    problem_of(api.delete(f"{API}/groups/team/members/ida"), 404)
    assert api.delete(f"{API}/groups/team").status_code == 204
    assert api.delete(f"{API}/users/ida").status_code == 204
    problem_of(api.get(f"{API}/users/ida"), 404)
    told = [(one["action"], one["subject"]) for one in api.get(f"{API}/audit?limit=100").json()]
    assert told[:3] == [("user.remove", "ida"), ("group.remove", "team"), ("group.leave", "team")]
    assert [one["action"] for one in api.get(f"{API}/audit?action=user&subject=ida").json()][-1] == "user.add"
    assert api.get(f"{API}/audit?actor=nobody").json() == []
    first = api.get(f"{API}/audit?limit=1")
    assert api.get(first.links["next"]["url"]).json()[0]["id"] < first.json()[0]["id"]
