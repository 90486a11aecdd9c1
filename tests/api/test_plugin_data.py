"""/plugin-data over real HTTP: a step's token opens it, for as long as the step is at work."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from api_calls import API, problem_of

from penstock.api.limits import Limits
from penstock.plugins.data import DataLimits, PluginData, Scope
from penstock.settings import Settings
from penstock.state.tables import audit

DATA = f"{API}/plugin-data"
SHOP = Scope("default", "shop", "run-1", "scan", "c" * 40, "lint")
MINUTES = timedelta(minutes=5)


def lines(*rows: dict[str, Any]) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def store(database: sa.Engine, settings: Settings) -> PluginData:
    """Who mints."""
    return PluginData(database, settings)


class Plugins:
    """Clients with tokens of scopes."""

    def __init__(self, address: str, store: PluginData) -> None:
        self.address, self._store = address, store
        self._clients: list[httpx.Client] = []

    def of(self, **other: str) -> httpx.Client:
        """A plugin of the shop, or of what is said."""
        token = self._store.mint(attrs.evolve(SHOP, **other), MINUTES)
        headers = {"Authorization": f"Bearer {token}"}
        made = httpx.Client(base_url=self.address, headers=headers, timeout=60, trust_env=False)
        self._clients.append(made)
        return made

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def plugins(served: tuple[str, uvicorn.Server], store: PluginData) -> Iterator[Plugins]:
    """Of an API with the usual limits."""
    made = Plugins(served[0], store)
    yield made
    made.close()


def test_a_plugin_reads_what_another_told(plugins: Plugins) -> None:
    """Metrics and data, typed, newest first, from the moment that they were accepted."""
    lint, cover = plugins.of(), plugins.of(plugin="cover", step="test")
    told = {
        "name": "findings",
        "value": 3,
        "unit": "1",
        "labels": {"severity": "high"},
        "at": "2026-01-02T03:04:05+01:00",
    }
    answer = lint.post(f"{DATA}/metrics", content=lines(told, {"name": "lines", "value": 1200}))
    assert answer.json() == {"accepted": 2, "rejected": 0, "reasons": [], "is_cut": False}
    lint.post(f"{DATA}/data", content=lines({"kind": "licence", "key": "requests", "value": {"id": "Apache-2.0"}}))
    found = cover.get(f"{DATA}/metrics", params={"plugin": "lint", "name": "findings"}).json()
    assert len(found) == 1
    assert found[0] | {"seq": 0, "received_at": ""} == {
        **{"seq": 0, "received_at": "", "tenant": "default", "project": "shop", "commit": "c" * 40, "run_id": "run-1"},
        **{"step": "scan", "plugin": "lint", "environment": None, "name": "findings", "value": 3.0, "unit": "1"},
        **{"kind": "gauge", "labels": {"severity": "high"}, "measured_at": "2026-01-02T02:04:05Z"},
    }
    data = cover.get(f"{DATA}/data", params={"kind": "licence", "key": "requests"}).json()
    assert [row["value"] for row in data] == [{"id": "Apache-2.0"}]
    asked = cover.post(f"{DATA}/query", json={"sql": "SELECT name, value FROM plugin_metrics ORDER BY name"})
    assert asked.json() == {
        "columns": [{"name": "name", "type": "VARCHAR"}, {"name": "value", "type": "DOUBLE"}],
        "rows": [["findings", 3.0], ["lines", 1200.0]],
        "is_cut": False,
    }


def test_rows_come_in_pages(plugins: Plugins) -> None:
    """By the Link header; those of the time that was asked for."""
    lint = plugins.of()
    days = [{"name": "n", "value": day, "at": f"2026-01-{day:02d}T00:00:00Z"} for day in range(1, 8)]
    lint.post(f"{DATA}/metrics", content=lines(*days))
    address: str | None = f"{DATA}/metrics?limit=2&since=2026-01-02T00:00:00Z&until=2026-01-07T00:00:00Z"
    seen = []
    while address:
        answer = lint.get(address)
        seen.append([row["value"] for row in answer.json()])
        link = re.match(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
        address = link[1] if link else None
    assert seen == [[6, 5], [4, 3], [2]]


def test_another_project_is_empty_and_asking_is_audited(plugins: Plugins, database: sa.Engine) -> None:
    """By filter, by SQL, and by the words of a line."""
    secret, rival = plugins.of(project="secret"), plugins.of(tenant="rival")
    for other in (secret, rival):
        assert other.post(f"{DATA}/metrics", content=lines({"name": "hidden", "value": 1})).status_code == 200
    lint = plugins.of()
    assert lint.get(f"{DATA}/metrics").json() == []
    assert lint.get(f"{DATA}/metrics", params={"project": "secret"}).json() == []
    assert lint.get(f"{DATA}/data", params={"tenant": "rival"}).json() == []
    asked = lint.post(f"{DATA}/query", json={"sql": "SELECT * FROM plugin_metrics WHERE project = 'secret'"})
    assert asked.json()["rows"] == []
    forged = lines({"name": "x", "value": 1, "project": "secret"})
    assert "unknown field" in problem_of(lint.post(f"{DATA}/metrics", content=forged), 422)
    refused = lint.post(f"{DATA}/query", json={"sql": "SELECT * FROM read_text('/etc/passwd')"})
    assert "read_text" in problem_of(refused, 403)
    with database.connect() as connection:
        rows = connection.execute(sa.select(audit.c.actor, audit.c.subject, audit.c.detail)).all()
    assert [row.detail["named"] for row in rows] == [["project secret"], ["tenant rival"], ["project secret"], []]
    assert {(row.actor, row.subject) for row in rows} == {("plugin lint", "shop")}


def test_a_token_opens_nothing_when_the_step_is_over(plugins: Plugins, store: PluginData) -> None:
    """Nor do none, another's, or the machine's own; a plugin's opens nothing else."""
    lint = plugins.of()
    assert lint.get(f"{API}/projects").status_code == 401
    assert lint.get(f"{DATA}/metrics").status_code == 200
    store.revoke(lint.headers["Authorization"].removeprefix("Bearer "))
    for call in ("metrics", "data"):
        problem_of(lint.get(f"{DATA}/{call}"), 401)
        problem_of(lint.post(f"{DATA}/{call}", content=b""), 401)
    problem_of(lint.post(f"{DATA}/query", json={"sql": "SELECT 1"}), 401)
    problem_of(httpx.get(f"{plugins.address}{DATA}/metrics", trust_env=False), 401)


def test_the_machines_own_token_is_no_plugins(api: httpx.Client) -> None:
    """Whose tenant and project would it be?"""
    problem_of(api.get(f"{DATA}/metrics"), 401)


def test_plaintext_from_another_machine_is_refused(plugins: Plugins) -> None:
    """A proxy on this machine says who asked, and how; TLS before the proxy is enough."""
    lint = plugins.of()
    away = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http"}
    assert "use https" in problem_of(lint.get(f"{DATA}/metrics", headers=away), 403)
    assert "use https" in problem_of(lint.post(f"{DATA}/metrics", headers=away, content=b""), 403)
    assert lint.get(f"{DATA}/metrics", headers={**away, "X-Forwarded-Proto": "https"}).status_code == 200


def test_lines_sent_again_are_there_once(plugins: Plugins) -> None:
    """Under an Idempotency-Key."""
    lint = plugins.of()
    body, key = lines({"name": "n", "value": 1}), {"Idempotency-Key": "batch-1"}
    answers = [lint.post(f"{DATA}/metrics", content=body, headers=key).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(lint.get(f"{DATA}/metrics").json()) == 1
    problem_of(lint.post(f"{DATA}/metrics", content=body, headers={"Idempotency-Key": "x" * 201}), 422)


def test_bad_bodies_are_refused(plugins: Plugins) -> None:
    """With one line each."""
    lint = plugins.of()
    for body, status, why in (
        (b"NaN\n", 422, "1 of 1 lines are broken"),
        (b"\xff\xfe", 422, "1 of 1 lines are broken"),
        (b'{"name": "x", "value": ' + b"9" * 10_000_000 + b"}", 422, "longer than 65536 bytes"),
        (b"x" * (64 * 1024**2 + 1), 413, "larger than"),
    ):
        assert why in problem_of(lint.post(f"{DATA}/metrics", content=body), status)


def test_an_encoded_body_is_refused(plugins: Plugins) -> None:
    """Its size would be known too late."""
    answer = plugins.of().post(f"{DATA}/data", content=b"x", headers={"Content-Encoding": "gzip"})
    assert "without Content-Encoding" in problem_of(answer, 415)


def test_wrong_questions_are_refused(plugins: Plugins) -> None:
    """With what is wrong; a filter that is misspelt would give everything."""
    lint = plugins.of()
    for query in (
        "plugn=lint",
        "limit=0",
        "limit=1001",
        "cursor=x",
        "since=yesterday",
        "until=274",
        "since=2026-01-01T00:00",
    ):
        problem_of(lint.get(f"{DATA}/metrics?{query}"), 422)
    for body in ({}, {"sql": ""}, {"sql": "x" * 20_001}, {"sql": "SELEC 1"}, {"sql": "SELECT 1", "x": 1}):
        problem_of(lint.post(f"{DATA}/query", json=body), 422)


SLOW = DataLimits(lines_per_s=1 / 3600, burst_lines=3.0, asks_per_s=1 / 3600, burst_asks=3.0)


@pytest.mark.parametrize("limits", [Limits(plugin_data=SLOW)])
def test_who_tells_or_asks_too_fast_waits(plugins: Plugins) -> None:
    """Retry-After says for how long; another step does not."""
    lint, other = plugins.of(), plugins.of(step="other")
    body = lines(*[{"name": "n", "value": 1}] * 4)
    assert lint.post(f"{DATA}/metrics", content=body).status_code == 200
    refused = lint.post(f"{DATA}/metrics", content=body)
    problem_of(refused, 429)
    assert int(refused.headers["Retry-After"]) > 3000
    assert other.post(f"{DATA}/metrics", content=body).status_code == 200
    assert [other.get(f"{DATA}/data").status_code for _ in range(4)] == [200, 200, 200, 429]
