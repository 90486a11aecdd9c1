"""The API over real HTTP on a real PostgreSQL: who may ask, what it answers, how it says that something is wrong."""

import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import jsonschema
import pytest
import sqlalchemy as sa
import uvicorn
from git_builder import PIPELINE, GitRepository

from penstock.api.app import create_app
from penstock.api.tokens import ensure_local_token, token_file
from penstock.pipeline import records
from penstock.pipeline.load import load_spec
from penstock.pipeline.log import FileLog, log_path
from penstock.pipeline.plan import Graph, compile_graph
from penstock.processes import wait_until
from penstock.settings import Settings
from penstock.state.tables import tokens
from penstock.steps.context import RunInfo, StepResult

API = "/api/v1"
MAIN = "refs/heads/main"
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "minLength": 1},
    },
}


@pytest.fixture
def api(settings: Settings, database: sa.Engine) -> Iterator[httpx.Client]:
    """A client with this machine's token; Dagster is away."""
    ensure_local_token(database, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {token_file(settings).read_text()}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture
def shop(api: httpx.Client, make_repository: Callable[..., GitRepository]) -> GitRepository:
    """A connected repository."""
    made = make_repository("shop", {"penstock.yaml": PIPELINE})
    assert api.post(f"{API}/projects", json={"name": "shop", "url": str(made.root)}).status_code == 201
    return made


def problem_of(answer: httpx.Response, status: int) -> str:
    """The detail of a well-formed problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    jsonschema.validate(body, PROBLEM)
    assert body["status"] == status
    return str(body["detail"])


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
    for path in ("/projects", "/projects/x", "/runs", "/runs/x", "/runs/x/steps/y/log", "/events"):
        answer = without_token(api, path, authorization)
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
    """Every operation but health has the bearer scheme; every reference resolves."""
    document = without_token(api, "/../../openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Penstock"
    operations = {(path, verb): told for path, verbs in document["paths"].items() for verb, told in verbs.items()}
    assert len(operations) >= 11
    for (path, _), told in operations.items():
        assert bool(told.get("security")) == (not path.endswith("/health")), path
        assert told["responses"]
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
        ({"ref": "refs/tags/v1", "commit": "a" * 40}, "no branch"),
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


@pytest.fixture
def run(database: sa.Engine, shop: GitRepository) -> RunInfo:
    """A run of the shop that is at work."""
    info = RunInfo("run-1", "shop", shop.git("rev-parse", "HEAD"), MAIN, graph().hash, graph().structure_hash, "push")
    records.create_run(database, info, graph())
    records.start_run(database, info.id)
    records.start_step(database, info.id, "hello")
    return info


def graph() -> Graph:
    return compile_graph(load_spec(PIPELINE.encode()))


def test_run_is_shown_with_its_steps(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """While it runs and when it has ended."""
    shown = api.get(f"{API}/runs/run-1").json()
    assert (shown["state"], [step["state"] for step in shown["steps"]]) == ("running", ["running"])
    result = StepResult("failed", reason="exit code 1", exit_code=1)
    records.finish_step(database, run, "hello", result)
    records.finish_run(database, run.id)
    shown = api.get(f"{API}/runs/run-1").json()
    assert (shown["state"], shown["reason"]) == ("failed", "hello: exit code 1")
    assert (shown["steps"][0]["exit_code"], shown["steps"][0]["seconds"] >= 0) == (1, True)


def test_runs_are_listed_by_project_and_commit(api: httpx.Client, run: RunInfo) -> None:
    """Also by the beginning of the hash; without their steps."""
    for query, count in (
        (f"commit={run.commit[:8]}", 1),
        ("commit=00000000", 0),
        ("project=shop", 1),
        ("project=x", 0),
    ):
        assert len(api.get(f"{API}/runs?{query}").json()) == count
    assert api.get(f"{API}/runs").json()[0]["steps"] is None


def test_log_is_read_from_offset_to_offset(
    api: httpx.Client, run: RunInfo, settings: Settings, database: sa.Engine
) -> None:
    """Each line once, complete lines only; complete once the step has ended and nothing is left."""
    url = f"{API}/runs/run-1/steps/hello/log"
    empty = {"lines": [], "next_offset": 0, "complete": False}
    assert api.get(url).json() == empty
    with FileLog(log_path(settings.home, "run-1", "hello")) as log:
        log.output(b"one\ntwo\nthr")
        first = api.get(url).json()
        log.output(b"ee\n")
        log.line("done")
        second = api.get(f"{url}?offset={first['next_offset']}").json()
    assert [line["text"] for line in first["lines"]] == ["one", "two"]
    assert [(line["text"], line["own"]) for line in second["lines"]] == [("three", False), ("done", True)]
    records.finish_step(database, run, "hello", StepResult("succeeded", exit_code=0))
    last = api.get(f"{url}?offset={second['next_offset']}").json()
    assert last == {"lines": [], "next_offset": second["next_offset"], "complete": True}


@pytest.mark.parametrize("step", ["other", "..%2F..%2Ftoken", "%2e%2e"])
def test_log_of_a_step_that_is_none_is_not_found(api: httpx.Client, run: RunInfo, step: str) -> None:
    """No file is read by what a caller calls a step."""
    problem_of(api.get(f"{API}/runs/run-1/steps/{step}/log"), 404)


def test_cancel_of_an_ended_run_is_a_conflict(api: httpx.Client, run: RunInfo, database: sa.Engine) -> None:
    """It says how the run ended."""
    records.finish_run(database, run.id, cancelled="stopped")
    assert "has ended: cancelled" in problem_of(api.post(f"{API}/runs/run-1/cancel"), 409)


def test_cancel_without_dagster_says_so(api: httpx.Client, run: RunInfo) -> None:
    """503, and the run goes on."""
    assert "Dagster does not answer" in problem_of(api.post(f"{API}/runs/run-1/cancel"), 503)
    assert api.get(f"{API}/runs/run-1").json()["state"] == "running"


def test_event_waits_while_dagster_is_away(api: httpx.Client, shop: GitRepository) -> None:
    """It is kept with the reason, to be started later."""
    api.post(f"{API}/projects/shop/events", json={"ref": MAIN, "commit": shop.git("rev-parse", "HEAD")})

    def tried() -> bool:
        (event,) = api.get(f"{API}/events").json()
        return event["state"] == "received" and "Dagster does not answer" in (event["reason"] or "")

    assert wait_until(tried, limit_s=60)
