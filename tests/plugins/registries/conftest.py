"""A registry as it is served to others: uvicorn on loopback over a folder, and packages to put there."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import uvicorn

from penstock.errors import InputError
from penstock.plugins.registries import Detail, Entry
from penstock.plugins.registries.folder import FolderRegistry
from penstock.plugins.registries.package import Package, pack
from penstock.plugins.registries.remote import RemoteRegistry
from penstock.plugins.registries.server import Describe, Shelf, create_registry_app
from penstock.processes import wait_until

TOKEN = "a-token-for-writing"


def describe(folder: Path, package: Package) -> Detail:
    """What a package says of itself, as far as these tests need it."""
    try:
        told = json.loads((folder / "about.json").read_text())
    except FileNotFoundError as error:
        raise InputError("there is no about.json", where=folder.name) from error
    entry = Entry(kind="report", digest=package.digest, size_bytes=package.size_bytes, **told)
    return Detail(entry=entry, manifest=told, readme="# Read me", docs={"index.md": "# Use"})


@attrs.frozen
class Site:
    """A served registry. folder: what lies there."""

    url: str
    folder: FolderRegistry
    scratch: Path
    server: uvicorn.Server
    thread: threading.Thread

    def remote(self, **options: object) -> RemoteRegistry:
        """Somebody who asks it."""
        given = {"cache": self.scratch / "cache", "allow_private": True, "token": TOKEN, **options}
        return RemoteRegistry("hub", self.url, **given)  # type: ignore[arg-type]

    def packed(self, name: str, version: str, **files: str) -> Package:
        """A package of that name; `files` are further ones."""
        folder = self.scratch / f"{name}-{version}-{len(list(self.scratch.iterdir()))}"
        folder.mkdir()
        about = {"name": name, "version": version, "summary": f"What {name} does"}
        for path, text in {"about.json": json.dumps(about), **files}.items():
            (folder / path).write_text(text)
        return pack(folder, folder.with_suffix(".tar"))

    def stop(self) -> None:
        """Nobody answers any more."""
        self.server.should_exit = True


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty registry, served."""
    with served_site(tmp_path, describe) as site:
        yield site


@contextmanager
def served_site(tmp_path: Path, described: Describe) -> Iterator[Site]:
    """An empty registry on loopback; its packages are looked into by `described`."""
    folder, scratch = FolderRegistry(tmp_path / "root"), tmp_path / "scratch"
    scratch.mkdir()
    app = create_registry_app(Shelf(folder, described, TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_until(lambda: server.started, limit_s=20)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(f"http://127.0.0.1:{port}", folder, scratch, server, thread)
    server.should_exit = True
    thread.join(timeout=20)
