"""The API over real HTTP on a real PostgreSQL: who may ask, what it answers, how it says that something is wrong."""

from collections.abc import Iterator

import httpx
import jsonschema
import pytest
import sqlalchemy as sa
from api_calls import API, MAIN, problem_of
from git_builder import GitRepository

from penstock.processes import wait_until
from penstock.state.tables import audit, tokens


def without_token(api: httpx.Client, path: str, authorization: str | None = None) -> httpx.Response:
    headers = {"Authorization": authorization} if authorization else {}
    return httpx.get(f"{api.base_url}{API}{path}", headers=headers, timeout=60, trust_env=False)


def test_health_needs_no_token(api: httpx.Client) -> None:
    """So that a load balancer can ask."""
    answer = without_token(api, "/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Basic cHN0Xw==", "pst_x"])
def test_everything_else_wants_a_valid_token(api: httpx.Client, authorization: str | None) -> None:
    """401 with the challenge, before anything else is looked at."""
    document = without_token(api, "/../../openapi.json").json()
    closed = [path for path, verbs in document["paths"].items() if "get" in verbs and not path.endswith("/health")]
    assert len(closed) > 10
    for path in closed:
        answer = without_token(api, path.removeprefix(API), authorization)
        assert "token" in problem_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_unauthorised_push_is_not_stored(api: httpx.Client, shop: GitRepository) -> None:
    """Nor is a project connected or a run stopped."""
    push = {"ref": MAIN, "commit": shop.git("rev-parse", "HEAD")}
    for path, body in ((f"{API}/projects/shop/events", push), (f"{API}/runs/x/cancel", {})):
        problem_of(httpx.post(f"{api.base_url}{path}", json=body, trust_env=False), 401)
    assert api.get(f"{API}/events").json() == []


def test_expired_token_is_none(api: httpx.Client, database: sa.Engine) -> None:
    """From the moment it expires."""
    with database.begin() as connection:
        connection.execute(sa.update(tokens).values(expires_at=sa.func.now()))
    problem_of(api.get(f"{API}/projects"), 401)


def test_token_stands_only_as_a_hash_in_the_database(api: httpx.Client, database: sa.Engine) -> None:
    """Who reads the table cannot use it."""
    with database.connect() as connection:
        (row,) = connection.execute(sa.select(tokens)).mappings()
    given = api.headers["Authorization"].removeprefix("Bearer ")
    assert given not in str(dict(row))
    assert len(row["hash"]) == 32


def test_openapi_is_valid_and_says_who_may_call(api: httpx.Client) -> None:
    """Every operation but health and the forges' own has the bearer scheme; every reference resolves."""
    document = without_token(api, "/../../openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Penstock"
    operations = {(path, verb): told for path, verbs in document["paths"].items() for verb, told in verbs.items()}
    assert len(operations) >= 26
    assert len({told["operationId"] for told in operations.values()}) == len(operations)
    for (path, _), told in operations.items():
        assert bool(told.get("security")) == (not path.endswith(("/health", "/hooks/{hook_id}"))), path
        assert told["tags"]
        assert told["description"]
        for status, response in told["responses"].items():
            assert status < "400" or list(response["content"]) == ["application/problem+json"], path
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert set(references(document)) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_project_can_be_connected_shown_and_disconnected(api: httpx.Client, shop: GitRepository) -> None:
    """With the default branch that the repository names."""
    told = {"name": "shop", "url": str(shop.root), "default_branch": "main", "polled": True}
    assert api.get(f"{API}/projects").json() == [told]
    assert api.get(f"{API}/projects/shop").json() == told
    assert api.delete(f"{API}/projects/shop").status_code == 204
    assert api.get(f"{API}/projects").json() == []


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"name": "Shop!", "url": "/x"}, 422, "no name for a project"),
        ({"name": "shop", "url": "https://me:secret@git.example/shop.git"}, 422, "credentials"),
        ({"name": "shop", "url": "ext::sh -c id"}, 422, "no address"),
        ({"name": "shop", "url": "--upload-pack=id"}, 422, "no address"),
        ({"name": "shop"}, 422, "body.url: Field required"),
        ({"name": "shop", "url": "/x", "more": 1}, 422, "body.more"),
        ({"name": "shop", "url": "/nowhere/at/all"}, 422, "git ls-remote failed"),
    ],
)
def test_project_that_cannot_be_connected_says_why(
    api: httpx.Client, body: dict[str, object], status: int, told: str
) -> None:
    """A problem in the words of the command line; nothing is connected, and no credential is repeated."""
    detail = problem_of(api.post(f"{API}/projects", json=body), status)
    assert told in detail
    assert "secret" not in detail
    assert api.get(f"{API}/projects").json() == []


def test_project_under_a_name_that_is_taken_is_a_conflict(
    api: httpx.Client, shop: GitRepository, make_repository
) -> None:
    """The name stays with the one that had it."""
    other = make_repository("other", {"readme": "x"})
    assert "is connected to" in problem_of(
        api.post(f"{API}/projects", json={"name": "shop", "url": str(other.root)}), 409
    )


@pytest.mark.parametrize("path", ["/projects/shopp", "/runs/nothing", "/runs/nothing/steps/x/log", "/nowhere"])
def test_unknown_things_are_not_found(api: httpx.Client, shop: GitRepository, path: str) -> None:
    """404, and a near name where there is one."""
    detail = problem_of(api.get(API + path), 404)
    assert path != "/projects/shopp" or '"shop"' in detail


def test_push_is_accepted_once_and_listed(api: httpx.Client, shop: GitRepository) -> None:
    """202 with the event; the repetition is 202 and no event."""
    push = {"ref": MAIN, "commit": shop.git("rev-parse", "HEAD"), "before": "0" * 40}
    first, again = (api.post(f"{API}/projects/shop/events", json=push) for _ in range(2))
    assert (first.status_code, first.json()["accepted"], first.json()["event"]["source"]) == (202, True, "hook")
    assert (again.status_code, again.json()) == (202, {"accepted": False, "event": None})
    (event,) = api.get(f"{API}/events?project=shop").json()
    assert (event["ref"], event["commit"], event["kind"]) == (MAIN, push["commit"], "push")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"ref": "refs/notes/x", "commit": "a" * 40}, "no branch"),
        ({"ref": "refs/heads/\0", "commit": "a" * 40}, "body.ref"),
        ({"ref": MAIN, "commit": "main"}, "no commit"),
        ({"ref": MAIN}, "body.commit"),
        ({"ref": MAIN, "commit": "a" * 5000}, "at most 64"),
        ([1, 2], "body"),
    ],
)
def test_push_that_is_none_is_refused(api: httpx.Client, shop: GitRepository, body: object, told: str) -> None:
    """With what is wrong; the inbox stays empty."""
    assert told in problem_of(api.post(f"{API}/projects/shop/events", json=body), 422)
    assert api.get(f"{API}/events").json() == []


def test_push_to_an_unknown_project_is_not_found(api: httpx.Client, shop: GitRepository) -> None:
    """And nothing is stored."""
    push = {"ref": MAIN, "commit": "a" * 40}
    assert "no project" in problem_of(api.post(f"{API}/projects/none/events", json=push), 404)
    assert api.get(f"{API}/events").json() == []


def test_body_that_is_no_json_is_refused(api: httpx.Client, shop: GitRepository) -> None:
    """One line, not a traceback."""
    headers = {"Content-Type": "application/json"}
    problem_of(api.post(f"{API}/projects/shop/events", content=b"{\xff", headers=headers), 400)


def test_method_that_an_address_does_not_have_is_refused(api: httpx.Client) -> None:
    """As a problem too."""
    problem_of(api.put(f"{API}/projects", json={}), 405)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "commit=HEAD", "commit=%27"])
def test_bad_queries_are_refused(api: httpx.Client, query: str) -> None:
    """With the parameter's name."""
    assert query.partition("=")[0] in problem_of(api.get(f"{API}/runs?{query}"), 422)


def test_event_waits_while_dagster_is_away(api: httpx.Client, shop: GitRepository) -> None:
    """It is kept with the reason, to be started later."""
    api.post(f"{API}/projects/shop/events", json={"ref": MAIN, "commit": shop.git("rev-parse", "HEAD")})

    def tried() -> bool:
        (event,) = api.get(f"{API}/events").json()
        return event["state"] == "received" and "Dagster does not answer" in (event["reason"] or "")

    assert wait_until(tried, limit_s=60)


def test_every_change_is_in_the_audit(api: httpx.Client, shop: GitRepository, database: sa.Engine) -> None:
    """Who did what to what, in order; what was refused is not there, and neither is a push that is known already."""
    push = {"ref": MAIN, "commit": shop.git("rev-parse", "HEAD")}
    for _ in range(2):
        api.post(f"{API}/projects/shop/events", json=push)
    started = api.post(f"{API}/runs", json={"project": "shop"}).json()
    problem_of(api.post(f"{API}/runs", json={"project": "other"}), 404)
    api.delete(f"{API}/projects/shop")
    with database.connect() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.id)).mappings().all()
    assert [(row["actor"], row["action"]) for row in rows] == [
        ("local", "project.add"),
        ("local", "event.accept"),
        ("local", "run.start"),
        ("local", "project.remove"),
    ]
    assert rows[2]["subject"] == started["key"]
    assert rows[2]["detail"] == {"project": "shop", "ref": MAIN, "commit": push["commit"]}


@pytest.mark.parametrize("chunked", [False, True])
def test_huge_body_is_refused(api: httpx.Client, chunked: bool) -> None:
    """413, whether its length is told or found out; nobody reads it into memory."""
    piece = b" " * 1024 * 1024
    content = (piece for _ in range(50)) if chunked else piece * 6
    try:
        answer = api.post(f"{API}/projects", content=content, headers={"Content-Type": "application/json"})
    except httpx.TransportError:  # the connection was closed while it was being sent
        return
    assert "larger than" in problem_of(answer, 413)


def test_defect_is_a_problem_without_its_traceback(api: httpx.Client, database: sa.Engine) -> None:
    """500 in one line that says where to look; what broke is not told to a stranger."""
    with database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE penstock.runs DROP COLUMN title"))
    assert problem_of(api.get(f"{API}/runs"), 500).startswith("a defect in Penstock")
