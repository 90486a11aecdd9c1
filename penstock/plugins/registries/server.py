"""
A folder of plugins served to others: `penstock registry serve`.

Anybody who reaches it may read; publishing and yanking want the token. A package is unpacked and checked before it is
listed: without a manifest, README and docs there is no entry.
"""

import base64
import binascii
import hashlib
import hmac
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated

import attrs
import msgspec
from fastapi import FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from penstock.errors import AccessError, ConflictError, InputError, NotFoundError, PenstockError
from penstock.plugins.registries.folder import FolderRegistry
from penstock.plugins.registries.package import Package, digest_of, unpacked
from penstock.plugins.registries.wire import PACKAGE_BYTES, PAGE, Detail, Page, Signature, Versions

Describe = Callable[[Path, Package], Detail]
_STATUS: tuple[tuple[type[PenstockError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (AccessError, 403),
    (InputError, 422),
)


class Yank(BaseModel):
    """Why nobody should install it any more; empty takes that back."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(max_length=500)


@attrs.frozen
class Shelf:
    """What the server serves. describe: a package's folder → what is told of it, or InputError. token: for writing."""

    registry: FolderRegistry
    describe: Describe
    token: str = attrs.field(repr=False)

    def check_token(self, header: str | None) -> None:
        """Raises: AccessError unless the header holds the token."""
        given = (header or "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise AccessError("a valid token is needed")

    def accept(self, name: str, version: str, package: Path, signature: Signature | None) -> Detail:
        """Check and list. Raises: InputError, ConflictError."""
        packed = Package(package, digest_of(package), package.stat().st_size)
        with unpacked(package) as folder:
            detail = self.describe(folder, packed)
        if (detail.entry.name, detail.entry.version) != (name, version):
            raise InputError(f"the package is {detail.entry}", where=f"{name}@{version}")
        signed = msgspec.structs.replace(detail.entry, signatures=(signature,) if signature else ())
        return self.registry.publish(msgspec.structs.replace(detail, entry=signed), package)


def create_registry_app(shelf: Shelf) -> FastAPI:
    """The server's application."""
    app = FastAPI(title="Penstock plugin registry", docs_url=None, redoc_url=None)
    app.state.shelf = shelf
    app.exception_handler(PenstockError)(_refused)
    app.get("/v1/plugins")(search)
    app.get("/v1/plugins/{name}")(versions)
    app.get("/v1/plugins/{name}/{version}")(get)
    app.get("/v1/plugins/{name}/{version}/package")(package)
    app.put("/v1/plugins/{name}/{version}")(publish)
    app.post("/v1/plugins/{name}/{version}/yank")(yank)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, status_code=status)


def search(request: Request, q: str = "", kind: str | None = None) -> Response:
    """The newest version of each plugin that fits."""
    found = _shelf(request).registry.search(q, kind).entries
    return _answer(request, Page(plugins=found[:PAGE], more=len(found) > PAGE))


def versions(request: Request, name: str) -> Response:
    """Every version, the newest first."""
    return _answer(request, Versions(versions=_shelf(request).registry.versions(name)))


def get(request: Request, name: str, version: str) -> Response:
    """Manifest and docs of one version."""
    return _answer(request, _shelf(request).registry.get(name, version))


def package(request: Request, name: str, version: str) -> Response:
    """The package's bytes."""
    return FileResponse(_shelf(request).registry.package(name, version), media_type="application/x-tar")


async def publish(
    request: Request,
    name: str,
    version: str,
    authorization: Annotated[str | None, Header()] = None,
    x_penstock_signature: Annotated[str | None, Header()] = None,
) -> Response:
    """Take a package. Answers as `get` does."""
    shelf = _shelf(request)
    shelf.check_token(authorization)
    signature = _signature(x_penstock_signature)
    with tempfile.TemporaryDirectory(prefix="penstock-registry-") as folder:
        path = Path(folder) / "package.tar"
        await _receive(request.stream(), path)
        detail = await run_in_threadpool(shelf.accept, name, version, path, signature)
    return _answer(request, detail)


def yank(
    request: Request, name: str, version: str, asked: Yank, authorization: Annotated[str | None, Header()] = None
) -> Response:
    """Have nobody install it any more, or take that back."""
    shelf = _shelf(request)
    shelf.check_token(authorization)
    return _answer(request, shelf.registry.yank(name, version, asked.why))


def _shelf(request: Request) -> Shelf:
    shelf: Shelf = request.app.state.shelf
    return shelf


async def _receive(stream: AsyncIterator[bytes], path: Path) -> None:
    counted = 0
    with path.open("wb") as file:
        async for chunk in stream:
            counted += len(chunk)
            if counted > PACKAGE_BYTES:
                raise InputError(f"the package is larger than {PACKAGE_BYTES} bytes")
            file.write(chunk)


def _signature(header: str | None) -> Signature | None:
    if header is None:
        return None
    key, _, text = header.partition(":")
    try:
        right = len(base64.b64decode(text, validate=True)) == 64 and re.fullmatch(r"[0-9a-f]{16}", key)
    except binascii.Error:
        right = None
    if not right:
        raise InputError("the signature is none", where="X-Penstock-Signature", remedy="write KEY-ID:BASE64")
    return Signature(key_id=key, signature=text)


def _answer(request: Request, value: msgspec.Struct) -> Response:
    body = msgspec.json.encode(value)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})
