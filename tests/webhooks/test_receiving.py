"""The door: who is believed, what is kept, what is told twice, and that nothing is lost or breaks it."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import forge_payloads as made
import httpx
import psycopg
import pytest
import sqlalchemy as sa
from delivered import settled, with_commits
from forge_sender import Sender
from git_builder import GitRepository
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock.events import inbox
from penstock.settings import Settings
from penstock.state.embedded import EmbeddedPostgres
from penstock.state.tables import deliveries as table
from penstock.vault import Vault
from penstock.webhooks import hooks
from penstock.webhooks.deliveries import list_deliveries
from penstock.webhooks.hooks import Hook, get_hook, new_secret

CORPUS = Path(__file__).parents[2] / ".." / "shared" / "corpus" / "webhooks"
Connect = Callable[..., tuple[Hook, Sender]]


def push(shop: GitRepository, **changes: object) -> dict[str, object]:
    return with_commits(made.github_push(**changes), shop)


def wait_for(true: Callable[[], object], what: str, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# Believed or not


def test_address_that_is_nobodys_is_not_found(client: httpx.Client) -> None:
    """Whatever its form; the body is not looked at."""
    for path in (f"hk{'0' * 32}", "x", "hk" + "z" * 32, "%00", "a" * 3000):
        assert client.post(f"/api/v1/hooks/{path}", content=b"{}").status_code == 404


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea", "forgejo", "bitbucket-cloud", "azure-devops"])
def test_delivery_with_a_wrong_secret_is_refused_and_nothing_of_it_is_kept(
    connect: Connect, database: sa.Engine, shop: GitRepository, forge: str
) -> None:
    """It is counted at its hook, for people to see; strangers fill no disk."""
    hook, sender = connect(forge)
    sender.secret = new_secret()
    for _ in range(3):
        answer = sender.send(push(shop), "push")
        assert answer.status_code == 401
        assert "\n" not in answer.json()["detail"]
    assert list_deliveries(database) == ()
    wait_for(lambda: get_hook(database, hook.id).refused == 3, "the refused are counted")


def test_unsigned_delivery_is_refused(connect: Connect, shop: GitRepository) -> None:
    """Knowing the address proves nothing."""
    _, sender = connect("github")
    assert sender.post(json.dumps(push(shop)).encode(), {"X-GitHub-Event": "push"}).status_code == 401


def test_rotated_secret_is_believed_at_once_and_the_former_one_until_the_end(
    connect: Connect, database: sa.Engine, vault: Vault, shop: GitRepository
) -> None:
    """No delivery is lost while the forge is being changed; afterwards the former secret is in no vault."""
    hook, old = connect("github")
    assert old.send(push(shop), "push").status_code == 202
    secret = new_secret()
    hooks.rotate(database, vault, hook.id, secret)
    new = Sender(old.client, "github", old.path, secret)
    time.sleep(1.1)  # what is known of a hook is looked at anew no more than once a second
    assert new.send(push(shop), "push").status_code == 202
    assert old.send(push(shop, ref="refs/heads/x"), "push").status_code == 202
    hooks.end_rotation(database, vault, hook.id)
    assert [one.name for one in vault.names(hooks.VAULT_PROJECT)] == [f"{hook.id}-2"]
    wait_for(lambda: old.send(push(shop, ref=f"refs/heads/{uuid.uuid4()}"), "push").status_code == 401, "it is gone")


def test_secret_is_in_the_vault_and_not_in_the_database(
    connect: Connect, database: sa.Engine, vault: Vault, shop: GitRepository
) -> None:
    """Nor are the headers that carry one."""
    hook, sender = connect("gitlab")
    sender.send(with_commits(made.gitlab_push(), shop), "Push Hook")
    assert vault.read(hooks.VAULT_PROJECT, hook.secrets[0]).decode() == sender.secret
    with database.connect() as connection:
        rows = [str(dict(row)) for name in ("hooks", "deliveries") for row in _all(connection, name)]
    assert len(rows) == 2
    assert not [row for row in rows if sender.secret in row]


def _all(connection: sa.Connection, name: str) -> sa.MappingResult:
    return connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()


# Told twice


def test_repeated_delivery_does_not_run_again(connect: Connect, database: sa.Engine, shop: GitRepository) -> None:
    """The forge's own retry, with its own id, at the same time from many sides too."""
    _, sender = connect("github")
    body = push(shop)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: sender.send(body, "push", delivery="d-1"), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert [answer.json()["status"] for answer in answers].count("accepted") == 1
    wait_for(lambda: inbox.list_events(database), "the event")
    (delivery,) = list_deliveries(database)
    assert (delivery.repeats, len(inbox.list_events(database))) == (15, 1)


def test_captured_delivery_under_another_id_does_not_run_again(
    connect: Connect, database: sa.Engine, shop: GitRepository
) -> None:
    """There, back, and the first delivery once more by a stranger who caught it: the branch stays where it is."""
    _, sender = connect("github")
    old, new = shop.git("rev-parse", "HEAD~1"), shop.git("rev-parse", "HEAD")
    first = made.github_push(before=old, after=new)
    for body in (first, made.github_push(before=new, after=old, forced=True)):
        settled(database, sender.send(body, "push").json()["delivery"])
    assert sender.send(first, "push").json() == {"status": "known", "delivery": None}
    assert [event.commit for event in inbox.list_events(database)] == [old, new]


def test_same_event_from_two_hooks_runs_once(connect: Connect, database: sa.Engine, shop: GitRepository) -> None:
    """Of a project that has two, or whose hook was made anew."""
    for sender in (connect("github")[1], connect("github")[1]):
        done = settled(database, sender.send(push(shop), "push").json()["delivery"])
        settled(
            database, sender.send(with_commits(made.github_pull_request(), shop), "pull_request").json()["delivery"]
        )
    assert done.events[0]["became"] == "known"
    assert sorted(event.kind for event in inbox.list_events(database)) == ["pull_request", "push"]


def test_rejected_delivery_that_is_sent_again_is_worked_on_again(
    connect: Connect, database: sa.Engine, shop: GitRepository
) -> None:
    """Somebody put right what was wrong, and pressed the forge's own button."""
    _, sender = connect("github", repository="other/api")
    number = sender.send(push(shop), "push", delivery="d-1").json()["delivery"]
    refused = settled(database, number)
    assert (refused.state, "other/api" in str(refused.reason)) == ("rejected", True)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE hooks SET repository = 'Shop/API'"))
    assert sender.send(push(shop), "push", delivery="d-1").json()["delivery"] == number
    assert settled(database, number).state == "done"


def test_person_may_have_a_delivery_run_again(
    connect: Connect, database: sa.Engine, shop: GitRepository, api: httpx.Client
) -> None:
    """Each time is an event of its own; it can be seen what became of it."""
    _, sender = connect("github")
    number = sender.send(push(shop), "push").json()["delivery"]
    settled(database, number)
    assert api.post(f"/api/v1/deliveries/{number}/replay").status_code == 202
    settled(database, number)
    assert len(inbox.list_events(database)) == 2
    (told,) = api.get("/api/v1/deliveries", params={"project": "shop"}).json()
    assert (told["state"], told["replays"]) == ("done", 1)
    assert api.post("/api/v1/deliveries/999/replay").status_code == 404


# What cannot be read


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"ref": 7}', b"\xff\xfe", b"[" * 100_000, b'{"ref": "refs/heads/\\u0000"}']
)
def test_body_that_cannot_be_read_is_kept_as_rejected(connect: Connect, database: sa.Engine, body: bytes) -> None:
    """It was signed, so somebody should see it; the forge is told in one line."""
    _, sender = connect("github")
    answer = sender.post(body, sender.headers(body, "push", "d-1"))
    assert answer.status_code == 422
    (kept,) = list_deliveries(database)
    assert (kept.state, answer.json()["detail"]) == ("rejected", kept.reason)
    assert inbox.list_events(database) == ()


def test_body_that_is_too_large_is_refused_before_it_is_read(connect: Connect, database: sa.Engine) -> None:
    """Told or found out; what is just small enough passes."""
    _, sender = connect("github")
    limit = 25 * 1024**2
    assert sender.post(b"x" * (limit + 1), {}).status_code == 413
    chunks = sender.client.post(sender.path, content=(b"x" * 1024**2 for _ in range(26)))
    assert chunks.status_code == 413
    body = b'{"zen": "' + b"x" * (limit - 11) + b'"}'
    assert sender.post(body, sender.headers(body, "ping", "d-1")).status_code == 202


def test_push_of_a_thousand_commits_is_one_event(connect: Connect, database: sa.Engine, shop: GitRepository) -> None:
    """However much the forge tells of it."""
    _, sender = connect("github")
    body = push(shop, commits=[made.listed(f"{n:040x}", "x" * 500) for n in range(1000)])
    assert settled(database, sender.send(body, "push").json()["delivery"]).state == "done"
    assert len(inbox.list_events(database)) == 1


def corpus() -> list[dict[str, str]]:
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "manifest.csv").open(newline="") as manifest:
        return list(csv.DictReader(manifest))


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of recorded deliveries is not here")
def test_recorded_deliveries_are_all_answered(connect: Connect, database: sa.Engine) -> None:
    """Real ones of all forges: none is a server's error, every one that was taken is worked on to its end."""
    senders = {forge: connect(forge, repository="")[1] for forge in {row["provider"] for row in corpus()}}
    for row in corpus():
        sender, body = senders[row["provider"]], (CORPUS / row["file"]).read_bytes()
        answer = sender.post(body, sender.headers(body, row["event"], str(uuid.uuid4())))
        assert answer.status_code < 500, (row["file"], answer.text)
    wait_for(lambda: not _waiting(database), "all are worked on", 120)
    states = [found.state for found in list_deliveries(database, limit=1000)]
    assert len(states) > 100
    assert states.count("done") > 50
    assert not [one for one in list_deliveries(database, limit=1000) if "defect" in (one.reason or "")]


def _waiting(database: sa.Engine) -> int:
    with database.connect() as connection:
        wanted = sa.select(sa.func.count()).select_from(table).where(table.c.state == "received")
        return int(connection.execute(wanted).scalar_one())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(made.B),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
EVENTS = st.sampled_from(["push", "pull_request", "release", "create", "delete", "repo:push", "pr:opened", ""])
SAMPLES = [made.github_push(), made.gitlab_merge_request(), made.gitea_release(), made.cloud_push(), made.azure_push()]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A payload in which something is something else."""
    payload = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    place = payload
    while isinstance(place, dict) and place:
        name = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or draw(st.booleans()):
            place[name] = draw(JSON)
            break
        place = place[name]
    return json.dumps(payload).encode()


@pytest.mark.timeout(600)
def test_whatever_is_sent_is_answered_and_worked_on(connect: Connect, database: sa.Engine) -> None:
    """Signed nonsense and unsigned nonsense: never a server's error, never a defect behind it."""
    forges = ["github", "gitlab", "gitea", "forgejo", "bitbucket-cloud", "bitbucket-server"]
    senders = [connect(forge, repository="")[1] for forge in forges]

    @hypothesis_settings(
        max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        sender=st.sampled_from(senders),
        body=spoiled() | st.binary(max_size=200),
        event=EVENTS,
        signed=st.integers(0, 9),
        delivery=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300),
    )
    def answered(sender: Sender, body: bytes, event: str, signed: int, delivery: str) -> None:
        headers = sender.headers(body, event, delivery) if signed else {"X-GitHub-Event": "push"}
        answer = sender.post(body, headers)
        assert answer.status_code in (202, 400, 401, 422), answer.text

    answered()
    wait_for(lambda: not _waiting(database), "all are worked on", 120)
    assert not [one for one in list_deliveries(database, limit=1000) if "defect" in (one.reason or "")]


# Faults


def test_database_that_is_away_is_said_and_the_forges_retry_is_taken(
    connect: Connect, database: sa.Engine, postgres: EmbeddedPostgres, settings: Settings, shop: GitRepository
) -> None:
    """503, so that the forge comes again; when it does, the push runs once."""
    _, sender = connect("github")
    assert sender.send({"zen": "x"}, "ping").status_code == 202
    name = sa.make_url(str(settings.database_url)).database
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            assert sender.send(push(shop), "push", delivery="d-1").status_code == 503
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert sender.send(push(shop), "push", delivery="d-1").status_code == 202
    wait_for(lambda: inbox.list_events(database), "the event")
    assert len(inbox.list_events(database)) == 1


@contextmanager
def api_process(env: dict[str, str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """An API in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "penstock.api"]
    with (folder / f"api-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **env, "PENSTOCK_API_PORT": str(port)}, cwd=folder, stdout=log, stderr=log
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        try:
            wait_for(lambda: process.poll() is None and _is_up(client), "the API is up", 120)
            yield process, client
        finally:
            process.kill()
            process.wait()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/api/v1/health").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.timeout(400)
def test_kill_9_between_receiving_and_starting_loses_and_doubles_nothing(
    database: sa.Engine, vault: Vault, settings: Settings, env: dict[str, str], shop: GitRepository, *, tmp_path: Path
) -> None:
    """What was answered 202 is an event after the API has come back, once, also when the forge sends it again."""
    hook = hooks.add_hook(database, vault, "shop", "github", secret=(secret := new_secret()))
    named = {**env, "PENSTOCK_VAULT_KEY_FILE": str(settings.vault_key_file)}
    bodies = [made.github_push(ref=f"refs/heads/b{n}", before=made.ZERO, after=f"{n + 1:040x}") for n in range(5)]
    with database.connect() as holding, api_process(named, tmp_path) as (process, client):
        inbox.lock_refs(holding, [("shop", "refs/heads/b2")])  # what is received cannot become events meanwhile
        sender = Sender(client, "github", hook.path, secret)
        answers = [sender.send(body, "push", delivery=f"d-{n}") for n, body in enumerate(bodies)]
        assert {answer.status_code for answer in answers} == {202}
        process.send_signal(signal.SIGKILL)
        process.wait()
        holding.rollback()
    assert "received" in {one.state for one in list_deliveries(database)}
    with api_process(named, tmp_path) as (_, client):
        again = Sender(client, "github", hook.path, secret)
        assert {again.send(b, "push", delivery=f"d-{n}").json()["status"] for n, b in enumerate(bodies)} == {"known"}
        wait_for(lambda: not _waiting(database), "all are worked on")
    assert sorted(event.ref for event in inbox.list_events(database)) == [f"refs/heads/b{n}" for n in range(5)]


def test_storm_with_repetitions_makes_each_event_once(
    connect: Connect, database: sa.Engine, shop: GitRepository
) -> None:
    """Many at once, half of them repetitions, some under another id: as many events as there were pushes."""
    _, sender = connect("github")
    told: list[tuple[int, str]] = []
    for n in range(60):
        told += [(n, f"d-{n}"), (n, f"d-{n}" if n % 2 else f"e-{n}")]

    def send(one: tuple[int, str]) -> int:
        number, delivery = one
        body = made.github_push(ref=f"refs/heads/b{number}", before=made.ZERO, after=f"{number + 1:040x}")
        return sender.send(body, "push", delivery=delivery).status_code

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(send, told)) == {202}
    wait_for(lambda: not _waiting(database), "all are worked on")
    refs = [event.ref for event in inbox.list_events(database, limit=1000)]
    assert sorted(refs) == sorted(f"refs/heads/b{n}" for n in range(60))


def test_hook_that_tells_too_much_is_asked_to_come_later() -> None:
    """A burst passes; what goes on is slowed down."""
    from penstock.webhooks.intake import BURST, _Bucket

    bucket = _Bucket()
    assert not any(bucket.take(1.0) for _ in range(int(BURST)))
    assert bucket.take(1.0) > 0
    assert bucket.take(2.0) == 0


def test_two_processors_share_the_work(database: sa.Engine, vault: Vault, shop: GitRepository) -> None:
    """Two APIs at one database: each delivery is worked on by one of them, each event is there once."""
    from penstock.webhooks.deliveries import new_delivery, store
    from penstock.webhooks.processor import Processor

    hook = hooks.add_hook(database, vault, "shop", "github", secret=new_secret(), repository="")
    for n in range(100):
        body = json.dumps(made.github_push(ref=f"refs/heads/b{n}", before=made.ZERO, after=f"{n // 2 + 1:040x}"))
        store(database, new_delivery(hook.id, "github", f"d-{n}", body.encode(), {"X-GitHub-Event": "push"}))

    def work() -> None:
        processor = Processor(database, lambda: None)
        while _waiting(database):
            processor.round()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refs = [event.ref for event in inbox.list_events(database, limit=1000)]
    assert sorted(refs) == sorted(f"refs/heads/b{n}" for n in range(100))
