"""/artifacts: what steps put out and people send, in both directions as a stream."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from penstock.api import access, artifact_rows
from penstock.api.access import Actor
from penstock.api.artifact_rows import SentArtifact
from penstock.api.downloads import BYTES, HEAD, READ, AskedOfGet, AskedOfHead, send
from penstock.api.models import ArtifactKey, ArtifactOut, ArtifactQuery, Digest, Name, NewArtifact, Removed
from penstock.api.paging import PAGED, link_next
from penstock.api.problems import problems
from penstock.api.ranges import etag, expected_digest
from penstock.api.uploads import receive
from penstock.artifacts import retention
from penstock.artifacts.reports import archived_reports
from penstock.errors import ConflictError, InputError
from penstock.pipeline.records import ref_of
from penstock.sources.projects import get_project

router = APIRouter(tags=["artifacts"])

_SENT: dict[str, Any] = {"requestBody": {"required": True, **BYTES}}
_WRITE = {200: {"model": ArtifactOut, "description": "It was there already."}, **problems(404, 413, 415)}
_Hash = Annotated[str | None, Header(description="SHA-256 of the bytes as sha-256=:BASE64:")]


def _checksum(
    x_checksum_sha256: Annotated[str | None, Header(description="SHA-256 of the bytes, 64 hex digits.")] = None,
    repr_digest: _Hash = None,
    content_digest: _Hash = None,
    plain_digest: Annotated[str | None, Header(alias="Digest", description="SHA-256 as sha-256=BASE64.")] = None,
) -> str | None:
    """The SHA-256 that the headers name."""
    hashes = {"Repr-Digest": repr_digest, "Content-Digest": content_digest, "Digest": plain_digest}
    return expected_digest(x_checksum_sha256, {name: text for name, text in hashes.items() if text is not None})


Checksum = Annotated[str | None, Depends(_checksum)]


@router.get("/artifacts", responses=PAGED)
def list_artifacts(request: Request, response: Response, query: Annotated[ArtifactQuery, Query()]) -> list[ArtifactOut]:
    """What is on record, newest first; the Link header says where the next page is."""
    found, cursor = artifact_rows.find(request.app.state.database, query)
    if cursor:
        link_next(request, response, cursor)
    return list(found)


@router.post("/artifacts", status_code=HTTPStatus.CREATED, openapi_extra=_SENT, responses=_WRITE)
async def write_artifact(
    request: Request, response: Response, actor: Actor, new: Annotated[NewArtifact, Query()], checksum: Checksum
) -> ArtifactOut:
    """
    Send an artifact and publish it under a key, for `step.artifact_pull`.

    Nothing is stored when the bytes are not those that a checksum names. Sent again, it is the one that is there (200).
    """
    return await _write(request, response, actor, new, checksum)


@router.put("/artifacts/{digest}", status_code=HTTPStatus.CREATED, openapi_extra=_SENT, responses=_WRITE)
async def put_artifact(
    *,
    request: Request,
    response: Response,
    actor: Actor,
    digest: Digest,
    new: Annotated[NewArtifact, Query()],
    checksum: Checksum,
) -> ArtifactOut:
    """The same where the client knows the digest; nothing is stored when the bytes have another."""
    if checksum not in (None, digest):
        raise InputError("the address and a header name different hashes", where="headers", remedy="send one checksum")
    return await _write(request, response, actor, new, digest)


async def _write(
    request: Request, response: Response, actor: str, new: NewArtifact, expected: str | None
) -> ArtifactOut:
    ref = await run_in_threadpool(_ref, request, new)
    blob = await receive(request, expected)
    sent = SentArtifact(new.project, new.commit, ref, new.key, new.path or new.key, blob.digest, blob.size_bytes)
    made, is_new = await run_in_threadpool(artifact_rows.add, request.app.state.database, sent, actor)
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    response.headers["Location"] = f"/api/v1/artifacts/{made.digest}"
    response.headers["ETag"] = etag(made.digest)
    return made


def _ref(request: Request, new: NewArtifact) -> str:
    """
    The ref that the artifact is of.

    Raises: NotFoundError when there is no such project or commit.
    """
    state = request.app.state
    project = get_project(state.database, new.project)
    project.with_commit(state.settings, new.commit)
    known = new.ref or ref_of(state.database, new.project, new.commit)
    return known or f"refs/heads/{project.default_branch}"


@router.get("/artifacts/{digest}", response_class=Response, responses=READ)
def read_artifact(request: Request, digest: Digest, asked: AskedOfGet) -> Response:
    """The bytes of an artifact, verified while they are sent, or a range of them."""
    artifact_rows.record_ids(request.app.state.database, digest)
    return send(request, digest, asked)


@router.head("/artifacts/{digest}", response_class=Response, responses=HEAD)
def head_artifact(request: Request, digest: Digest, asked: AskedOfHead) -> Response:
    """The size of an artifact, without its bytes."""
    artifact_rows.record_ids(request.app.state.database, digest)
    return send(request, digest, asked)


@router.get("/runs/{run_id}/steps/{step}/artifacts/{key}", response_class=Response, responses=READ)
def read_step_artifact(request: Request, run_id: Name, step: Name, key: ArtifactKey, asked: AskedOfGet) -> Response:
    """The bytes of what a step put out under a key, as under its digest."""
    return send(request, artifact_rows.of_step(request.app.state.database, run_id, step, key).digest, asked)


@router.head("/runs/{run_id}/steps/{step}/artifacts/{key}", response_class=Response, responses=HEAD)
def head_step_artifact(request: Request, run_id: Name, step: Name, key: ArtifactKey, asked: AskedOfHead) -> Response:
    """Digest and size of what a step put out under a key."""
    return send(request, artifact_rows.of_step(request.app.state.database, run_id, step, key).digest, asked)


@router.delete("/artifacts/{digest}", responses=problems(404, 409))
def delete_artifact(request: Request, digest: Digest, actor: Actor) -> Removed:
    """
    Take an artifact off the record, wherever it is; its bytes go when nobody needs them.

    Refused (409) while a release that serves, or may come back, or a run that is not over refers to it.
    """
    state = request.app.state
    records = artifact_rows.record_ids(state.database, digest)
    if why := artifact_rows.who_needs(state.database, digest):
        raise ConflictError(why, where=f"artifact {digest[:12]}")
    reports, now = archived_reports(state.settings), datetime.now(UTC)
    gone = [retention.remove(state.database, state.store, one, now, reports=reports) for one in records]
    access.record(state.database, actor, "artifact.delete", digest, records=len(gone))
    return Removed(digest=digest, records=len(gone), bytes_removed=any(gone))
