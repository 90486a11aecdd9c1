"""Schemathesis over the OpenAPI document: whatever it allows and forbids, the API answers as it says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import sqlalchemy as sa
from api_calls import API
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

from penstock.artifacts import open_store
from penstock.pipeline import records
from penstock.pipeline.log import FileLog, log_path
from penstock.settings import Settings
from penstock.steps.context import Artifact, RunInfo, StepResult

load_all_checks()
CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "ignored_auth",
    )
]
# Always the same examples, and none that a busy machine calls slow.
BOUNDED = hypothesis_settings(
    max_examples=4,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def known(run: RunInfo, database: sa.Engine, settings: Settings) -> dict[str, str]:
    """Path parameter → what is there under it: a run that is over, with a log and an artifact."""
    with FileLog(log_path(settings.home, run.id, "hello")) as log:
        log.output(b"one\ntwo\n")
    blob = open_store(settings.artifacts_path).put_bytes(b"made by the step")
    made = Artifact("app", "dist/app", "file", blob.digest, blob.size_bytes)
    records.finish_step(database, run, "hello", StepResult("failed", reason="x", artifacts=(made,), exit_code=1))
    records.finish_step(database, run, "hello", StepResult("succeeded", artifacts=(made,), exit_code=0))
    records.finish_run(database, run.id)
    return {"run_id": run.id, "step": "hello", "key": "app", "digest": blob.digest, "name": "shop"}


@pytest.fixture
def document(api: httpx.Client) -> dict[str, Any]:
    """The API's own."""
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def schema_of(document: dict[str, Any]) -> schemathesis.BaseSchema:
    tokens_stay = ProjectConfig(generation=GenerationConfig(with_security_parameters=False))
    config = SchemathesisConfig(seed=1, projects=ProjectsConfig(default=tokens_stay))
    return schemathesis.openapi.from_dict(document, config=config)


@pytest.fixture
def anything(document: dict[str, Any], known: dict[str, str]) -> schemathesis.BaseSchema:
    """The document as it is: names are mostly those of nothing."""
    return schema_of(document)


@pytest.fixture
def what_is_there(document: dict[str, Any], known: dict[str, str]) -> schemathesis.BaseSchema:
    """The document where every name in an address is one of something; without what would take it away."""
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            for parameter in _path_parameters(operation):
                if parameter["name"] in known and not path.startswith(f"{API}/step-types"):
                    parameter["schema"] = {"enum": [known[parameter["name"]]]}
    for path in (f"{API}/projects/{{name}}", f"{API}/connections/{{name}}", f"{API}/artifacts/{{digest}}"):
        del document["paths"][path]["delete"]
    return schema_of(document)


def _path_parameters(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "path")


@pytest.mark.timeout(900)
def test_answers_to_anything_are_as_documented(anything: schemathesis.BaseSchema, api: httpx.Client) -> None:
    """No server error, no undocumented status, type, header or body; what the document forbids is refused."""
    assert ask_everything(anything, api) >= 26


@pytest.mark.timeout(900)
def test_answers_about_what_is_there_are_as_documented(
    what_is_there: schemathesis.BaseSchema, api: httpx.Client
) -> None:
    """The same where names are those of a project, a run, a step and an artifact."""
    assert ask_everything(what_is_there, api) >= 24


def ask_everything(schema: schemathesis.BaseSchema, api: httpx.Client) -> int:
    """Each operation with what it allows and with what it forbids. Returns: how many there are."""
    operations = [found.ok() for found in schema.get_all_operations()]
    with requests.Session() as session:
        session.headers["Authorization"] = api.headers["Authorization"]
        for operation in operations:
            for mode in GenerationMode:
                ask(operation, mode, session, str(api.base_url).rstrip("/"))
    return len(operations)


def ask(operation: schemathesis.APIOperation, mode: GenerationMode, session: requests.Session, address: str) -> None:
    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=address, session=session, checks=CHECKED, timeout=60)

    try:
        answered()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # it takes nothing that could be wrong
