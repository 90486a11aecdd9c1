"""Stores to test on: a folder, and a bucket of a real S3 server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_parts import short_folder
from s3_server import BUCKET, BreakingProxy, S3Server, running_s3, s3_env

from penstock.artifacts import ArtifactStore, open_store
from penstock.artifacts.opening import Patience

QUICK = Patience(retries=3, within_s=20.0, first_pause_s=0.02, longest_pause_s=0.1, silence_s=30.0)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """`rclone serve s3`, for the tests of a file."""
    folder = short_folder()
    with running_s3(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[BreakingProxy]:
    """Before the server; breaks nothing until it is told to."""
    with BreakingProxy(s3_server.port).running() as running:
        yield running


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> ArtifactStore:
    """A store in the bucket, under a prefix of the test's own."""
    return open_store(f"s3://{BUCKET}/team/{tmp_path.name}", s3_env(s3_server.port), patience=QUICK)


@pytest.fixture
def broken_bucket(proxy: BreakingProxy, tmp_path: Path) -> ArtifactStore:
    """The same, reached through the proxy."""
    return open_store(f"s3://{BUCKET}/team/{tmp_path.name}", s3_env(proxy.port), patience=QUICK)


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """The test runs twice: on a folder and on a bucket."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    found: ArtifactStore = request.getfixturevalue("bucket")
    return found
