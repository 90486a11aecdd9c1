"""/environments over real HTTP: pages, versions, holds, freezes, and what is refused."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa
from api_calls import API, problem_of

from penstock.people import tokens, users
from penstock.people.audit import list_changes
from penstock.people.users import User

ALL = f"{API}/environments"


def make(api: httpx.Client, name: str, **rules: object) -> httpx.Response:
    answer = api.post(ALL, json={"name": name, **rules})
    assert answer.status_code == 201, answer.text
    return answer


def test_environment_is_made_read_changed_and_removed(api: httpx.Client, database: sa.Engine):
    """The ETag of what was read goes along with each change; who has none, or an old one, is refused."""
    made = make(api, "production", order={"soak": "1h"}, refs={"branches": "main"})
    assert (made.headers["location"], made.headers["etag"]) == (f"{ALL}/production", '"1"')
    assert made.json()["rules"]["production"] is True
    read = api.get(f"{ALL}/production")
    assert read.json() == made.json()
    rules = {**read.json()["rules"], "description": "For everybody"}
    assert "If-Match" in problem_of(api.put(f"{ALL}/production", json=rules), 428)
    changed = api.put(f"{ALL}/production", json=rules, headers={"If-Match": read.headers["etag"]})
    assert (changed.status_code, changed.headers["etag"], changed.json()["version"]) == (200, '"2"', 2)
    for stale in ('"1"', '"9"', "2", 'W/"2"', "old"):
        for refused in (
            api.put(f"{ALL}/production", json=rules, headers={"If-Match": stale}),
            api.delete(f"{ALL}/production", headers={"If-Match": stale}),
        ):
            problem_of(refused, 412)
    assert "If-Match" in problem_of(api.delete(f"{ALL}/production"), 428)
    assert api.put(f"{ALL}/production", json={}, headers={"If-Match": "*"}).json()["rules"]["production"] is False
    assert api.delete(f"{ALL}/production", headers={"If-Match": '"3"'}).status_code == 204
    assert 'no environment is called "production"' in problem_of(api.get(f"{ALL}/production"), 404)
    with database.connect() as connection:
        actions = [change.action for change in list_changes(connection, subject="production")]
    assert actions == ["environment.remove", "environment.edit", "environment.edit", "environment.add"]


def test_list_is_filtered_and_goes_on_from_page_to_page(api: httpx.Client):
    for name in ("a-prod", "b-prod", "c-test", "d-test", "e-test"):
        make(api, name, production=name.endswith("prod"), group="web" if name < "d" else "data")

    def names(**query: str) -> list[str]:
        found, url = [], str(httpx.URL(ALL, params=query))
        while url:
            answer = api.get(url)
            found += [one["name"] for one in answer.json()]
            url = answer.links.get("next", {}).get("url", "")
        return found

    assert names(limit="2") == ["a-prod", "b-prod", "c-test", "d-test", "e-test"]
    assert names(group="web", production="false") == ["c-test"]
    assert names(production="true", limit="1") == ["a-prod", "b-prod"]
    assert names(name="d") == ["d-test"]
    assert names(target="docker") == []
    assert "query.gruop" in problem_of(api.get(ALL, params={"gruop": "web"}), 422)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "Production"}, "name"),
        ({"name": "x", "oder": {}}, "oder"),
        ({"name": "x", "order": {"after": ["absent"]}}, 'no environment is called "absent"'),
        ({"name": "x", "order": {"after": ["x"]}}, "circle"),
        ({"name": "x", "env": {"PORT": "1"}}, "given by Penstock"),
        ({"name": "x", "env": {"A": "b\0"}}, "env"),
        ({"name": "x", "freezes": [{"name": "f", "zone": "Mars", "weekly": "Fri 1:00 - Sat 1:00"}]}, "no time zone"),
        ({"name": "x", "approval": {"auto": "nothing.known"}}, "is not known"),
        ({"name": "x", "target": {"name": "docker", "docker": {"host": "file:///etc"}}}, "host"),
    ],
)
def test_what_cannot_be_is_one_line(api: httpx.Client, body: dict[str, object], words: str):
    assert words in problem_of(api.post(ALL, json=body), 422)
    assert api.get(ALL).json() == []


def test_name_is_taken_once(api: httpx.Client):
    make(api, "staging")
    assert "already" in problem_of(api.post(ALL, json={"name": "staging"}), 409)


def test_hold_and_letting_go(api: httpx.Client):
    """With a reason; twice is a conflict; it counts as a change of the version."""
    make(api, "staging")
    held = api.post(f"{ALL}/staging/hold", json={"why": "the last one was bad"})
    assert (held.status_code, held.headers["etag"], held.json()["hold"]["why"]) == (200, '"2"', "the last one was bad")
    problem_of(api.post(f"{ALL}/staging/hold", json={"why": "again"}), 409)
    problem_of(api.post(f"{ALL}/staging/hold", json={}), 422)
    assert api.delete(f"{ALL}/staging/hold").json()["hold"] is None
    problem_of(api.delete(f"{ALL}/staging/hold"), 409)
    assert api.get(f"{ALL}/staging/waiting").json() == []
    problem_of(api.delete(f"{ALL}/staging/waiting/none"), 404)


def test_freeze_is_lifted_with_a_token_of_who_is_on_its_list(api: httpx.Client, database: sa.Engine):
    """A token that lets approve is enough for that, and for no other change of an environment."""
    now = datetime.now(UTC)
    span = {"begins": f"{now - timedelta(days=1):%Y-%m-%d}", "ends": f"{now + timedelta(days=2):%Y-%m-%d}"}
    make(api, "production", freezes=[{"name": "audit", "users": "ada", **span}])
    said = {"freeze": "audit", "why": "the shop is down"}
    with database.begin() as connection:
        secrets = {}
        for name in ("ada", "grace"):
            users.add_user(connection, User(name))
            _, secrets[name] = tokens.create_token(connection, name, ["approve", "read"], expires_at=None)

    def by(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secrets[name]}"}

    override = f"{ALL}/production/freezes/override"
    assert "ask ada" in problem_of(api.post(override, json=said, headers=by("grace")), 403)
    problem_of(api.post(f"{ALL}/production/hold", json={"why": "x"}, headers=by("ada")), 403)
    lifted = api.post(override, json=said, headers=by("ada"))
    assert (lifted.status_code, lifted.json()["until"]) == (201, f"{span['ends']}T00:00:00Z")
    with database.connect() as connection:
        assert [one.actor for one in list_changes(connection, action="environment.lift")] == ["ada"]


def test_connection_is_tried(api: httpx.Client):
    """Each check says what is wrong and what helps."""
    make(api, "staging", secret_env={"X": "absent"})
    found = {one["name"]: one for one in api.post(f"{ALL}/staging/test").json()}
    assert found["keeper"] == {
        "name": "keeper", "passed": False, "told": "no keeper runs", "remedy": "start `penstock up`",
    }  # fmt: skip
    assert found["secret absent"]["passed"] is False
