"""/pipelines/check: is this penstock.yaml right?"""

from typing import Any

import msgspec
import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from penstock.api.models import PipelineOut
from penstock.api.problems import problems
from penstock.errors import InputError
from penstock.pipeline.load import load_spec
from penstock.pipeline.plan import compile_graph
from penstock.pipeline.templates import Library, read_template
from penstock.plugins.checking import PluginCheck
from penstock.plugins.resolve import InstalledPlugins
from penstock.settings import Settings

router = APIRouter(tags=["pipelines"])


class PipelineFile(msgspec.Struct, forbid_unknown_fields=True):
    """As JSON. file: the text of penstock.yaml. templates: path in the repository → text, of what it includes."""

    file: str
    templates: dict[str, str] = {}


_EXAMPLE = "version: 1\nsteps:\n  - name: hello\n    type: step.shell_exec\n    commands: [echo hello]\n"
_JSON = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "description": "The text of penstock.yaml."},
        "templates": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Path in the repository → text, of the files that it includes.",
        },
    },
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/yaml": {"schema": {"type": "string", "format": "binary"}, "example": _EXAMPLE},
        "application/json": {"schema": _JSON, "example": {"file": _EXAMPLE}},
    },
}


async def _sent(request: Request) -> PipelineFile | bytes:
    """The body, as its media type says: JSON, or else the file's own bytes."""
    body = await request.body()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return body
    try:
        return msgspec.json.decode(body, type=PipelineFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(str(error), where="body", remedy='send {"file": TEXT}, or the file as it is') from error


@router.post("/pipelines/check", openapi_extra={"requestBody": _BODY}, responses=problems(413))
async def check_pipeline(request: Request) -> PipelineOut:
    """
    Compile a penstock.yaml, sent as it is or as JSON.

    One that is wrong is a problem (422) whose `detail` is the line that `penstock check` prints.
    """
    state = request.app.state
    return await run_in_threadpool(_compiled, await _sent(request), state.settings, state.database)


def _compiled(sent: PipelineFile | bytes, settings: Settings, database: sa.Engine) -> PipelineOut:
    file = sent if isinstance(sent, bytes) else _encoded(sent.file)
    templates = {} if isinstance(sent, bytes) else {name: _encoded(text) for name, text in sent.templates.items()}
    library = Library(templates.get, lambda pinned: read_template(settings.templates_path, pinned))
    plugins = PluginCheck(InstalledPlugins(database))
    return PipelineOut.of(compile_graph(load_spec(file, library=library, look_at=plugins)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
