"""What the API's tests say and expect."""

import httpx
import jsonschema
from git_builder import PIPELINE

from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import Graph, compile_graph

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
        "detail": {"type": "string", "minLength": 1, "pattern": "^[^\\n]*$"},
        "where": {"type": "string"},
        "what": {"type": "string"},
        "remedy": {"type": "string"},
        "line": {"type": "integer"},
    },
}


def problem_of(answer: httpx.Response, status: int) -> str:
    """The detail of a well-formed problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    jsonschema.validate(body, PROBLEM)
    assert body["status"] == status
    return str(body["detail"])


def graph(pipeline: str = PIPELINE) -> Graph:
    """What a pipeline compiles to."""
    return compile_graph(load_spec(pipeline.encode()))
