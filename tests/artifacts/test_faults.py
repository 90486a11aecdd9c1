"""The store when things break: servers, connections, disks, processes."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import BUCKET, BreakingProxy, Fault, S3Server, s3_env

from penstock.artifacts import ArtifactStore, open_store
from penstock.artifacts.opening import Patience
from penstock.artifacts.remote import PART_BYTES
from penstock.errors import InputError, PlatformError

LARGE = os.urandom(1024 * 1024) * (3 * PART_BYTES // 1024**2) + b"end"  # four parts
AFTER_ALL = timedelta(days=2)
KILLS = 20


class Now:
    """Breaks the first `times` requests of a method; of those whose path holds `words`."""

    def __init__(self, method: str, fault: Fault, times: int = 10_000, words: str = "") -> None:
        self.method, self.fault, self.left, self.words = method, fault, times, words

    def __call__(self, method: str, path: str) -> Fault:
        if method != self.method or self.words not in path or not self.left:
            return None
        self.left -= 1
        return self.fault


def everything(store: ArtifactStore) -> list[str]:
    """The digests of all blobs, each of which was read and is whole."""
    found = [blob.digest for blob in store.blobs()]
    for digest in found:
        for _ in store.read(digest):
            pass
    return found


# Servers and connections


@pytest.mark.parametrize("fault", [500, 503, ("cut", 0)], ids=["500", "503", "cut"])
@pytest.mark.parametrize("words", ["partNumber", "uploadId", "sha256"])
def test_upload_survives_what_passes(broken_bucket: ArtifactStore, proxy: BreakingProxy, fault: Fault, words: str):
    """A server that fails twice and then works again: the blob is there, whole."""
    proxy.decide = Now("PUT", fault, times=2, words=words)
    blob = broken_bucket.put_bytes(LARGE)
    assert everything(broken_bucket) == [blob.digest]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("fault", [500, ("cut", 0)], ids=["500", "cut"])
def test_upload_that_fails_leaves_nothing(
    broken_bucket: ArtifactStore, bucket: ArtifactStore, proxy: BreakingProxy, fault: Fault, method: str
):
    """A server that goes on failing: one line, no name, and no parts that somebody pays for."""
    proxy.decide = Now(method, fault)
    with pytest.raises(PlatformError, match="cannot store it") as caught:
        broken_bucket.put_bytes(LARGE)
    assert "\n" not in str(caught.value)
    assert list(bucket.blobs()) == []
    bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL)
    assert bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL) == 0


def test_upload_that_cannot_even_be_aborted_is_swept(
    broken_bucket: ArtifactStore, bucket: ArtifactStore, proxy: BreakingProxy, s3_server: S3Server
):
    """The network is gone in the middle of an upload: its parts wait in the bucket until the next sweep."""
    before = len(s3_server.objects)
    proxy.decide = lambda method, path: 500 if "partNumber=3" in path or method == "DELETE" else None
    with pytest.raises(PlatformError):
        broken_bucket.put_bytes(LARGE)
    assert list(bucket.blobs()) == []
    assert bucket.sweep_leftovers(datetime.now(UTC) - AFTER_ALL) == 0
    assert bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL) == 1
    assert len(s3_server.objects) == before


@pytest.mark.parametrize("fault", [500, ("cut", 0), ("cut", 3_000_000), ("cut", 20_000_000)])
def test_download_goes_on_where_it_broke_off(
    broken_bucket: ArtifactStore, proxy: BreakingProxy, tmp_path: Path, fault: Fault
):
    """Twice cut in the middle: the file is whole all the same."""
    blob = broken_bucket.put_bytes(LARGE)
    proxy.decide = Now("GET", fault, times=2)
    broken_bucket.fetch_file(blob.digest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE


@pytest.mark.parametrize("fault", [500, ("cut", 0), ("cut", 3_000_000)], ids=str)
def test_download_that_fails_leaves_nothing(
    broken_bucket: ArtifactStore, proxy: BreakingProxy, tmp_path: Path, fault: Fault
):
    """A server that breaks off every time: one line, and no file, not even a part of one."""
    blob = broken_bucket.put_bytes(LARGE)
    proxy.decide = Now("GET", fault)
    with pytest.raises(PlatformError, match="cannot read it") as caught:
        broken_bucket.fetch_file(blob.digest, tmp_path / "out" / "file")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_server_that_is_away_is_one_line():
    """Nobody listens: PlatformError, so the step is retried as such."""
    store = open_store(f"s3://{BUCKET}/x", s3_env(1), patience=Patience(retries=1, within_s=5.0))
    with pytest.raises(PlatformError) as caught:
        store.put_bytes(b"x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1000, len(LARGE)], ids=["small", "in parts"])
def test_file_that_changes_before_an_upload_gets_no_name(
    broken_bucket: ArtifactStore, proxy: BreakingProxy, tmp_path: Path, size: int
):
    """It was hashed, and has changed when it is sent: its digest is no name for what it is now."""
    path = tmp_path / "file"
    path.write_bytes(LARGE[:size])

    def change(method: str, _: str) -> Fault:
        if method == "HEAD":  # the store asks whether the bucket has it already
            path.write_bytes(LARGE[: size - 1] + b"?")
        return None

    proxy.decide = change
    with pytest.raises(InputError, match="changed while it was being stored"):
        broken_bucket.put_file(path)
    assert list(broken_bucket.blobs()) == []
    assert broken_bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL) == 0


# Disks


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = home / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode and os.geteuid():
        pytest.skip("only root mounts a small disk")
    assert done.returncode == 0, f"cannot mount a small disk: {done.stderr}"
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_store_says_so_and_stays_whole(small_disk: Path, tmp_path: Path):
    """No half blob, the room is free again, and what fits is stored afterwards."""
    store = open_store(str(small_disk / "store"))
    small = store.put_bytes(b"small")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(LARGE)
    for put in (
        lambda: store.put_bytes(LARGE),
        lambda: store.put_file(tmp_path / "source" / "file"),
        lambda: store.put_tree(tmp_path / "source"),
        lambda: store.put_chunks([LARGE]),
    ):
        with pytest.raises(PlatformError, match="the disk is full; make room"):
            put()
    assert list((small_disk / "store" / "incoming").iterdir()) == []
    store.put_bytes(LARGE[:10_000_000])
    assert small.digest in everything(store)


def test_full_workspace_says_so_and_holds_no_half_file(small_disk: Path, tmp_path: Path):
    """A disk without room is not the step's fault."""
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(LARGE)
    with pytest.raises(PlatformError, match=os.strerror(errno.ENOSPC)):
        store.fetch_file(store.put_bytes(LARGE).digest, small_disk / "out" / "file")
    assert list((small_disk / "out").iterdir()) == []
    with pytest.raises(PlatformError, match=os.strerror(errno.ENOSPC)):
        store.fetch_tree(store.put_tree(tmp_path / "source").digest, small_disk / "tree")


def test_full_bucket_is_one_line(bucket: ArtifactStore, small_disk: Path, monkeypatch: pytest.MonkeyPatch):
    """Where folders are packed before they are sent."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(PlatformError, match="the disk is full"):
        bucket.put_chunks([LARGE])
    assert list(bucket.blobs()) == []


# Processes


def killed_writer(location: str, source: Path, env: dict[str, str], after_s: float) -> None:
    """A writer, killed so long after it began."""
    source.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("writer_process.py")
    words = [sys.executable, str(script), location, str(source)]
    process = subprocess.Popen(words, env={**os.environ, **env}, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.timeout(600)
def test_killed_writer_leaves_no_half_blob(tmp_path: Path):
    """`kill -9` at any moment, twenty times: every name has all of its bytes, and the rest is swept."""
    store, dice = open_store(str(tmp_path / "store")), random.Random(20)
    left = 0
    for _ in range(KILLS):
        killed_writer(str(tmp_path / "store"), tmp_path / "source", {}, dice.uniform(0, 0.4))
        everything(store)
        left += len(list((tmp_path / "store" / "incoming").iterdir()))
        store.sweep_leftovers(datetime.now(UTC) + AFTER_ALL)
        assert list((tmp_path / "store" / "incoming").iterdir()) == []
        for blob in store.blobs():
            store.delete(blob.digest)
    assert left, "no kill met a writer at work"


@pytest.mark.timeout(300)
def test_killed_writer_leaves_no_half_object(bucket: ArtifactStore, s3_server: S3Server, tmp_path: Path):
    """The same in a bucket, five times."""
    dice, location = random.Random(5), f"s3://{BUCKET}/team/{tmp_path.name}"
    for _ in range(5):
        killed_writer(location, tmp_path / "source", s3_env(s3_server.port), dice.uniform(0, 0.6))
        everything(bucket)
        bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL)
        assert bucket.sweep_leftovers(datetime.now(UTC) + AFTER_ALL) == 0
        for blob in bucket.blobs():
            bucket.delete(blob.digest)


def test_writer_at_work_is_not_swept(tmp_path: Path):
    """Its file is locked for as long as it lives."""
    store = open_store(str(tmp_path / "store"))

    def chunks() -> Iterator[bytes]:
        yield b"half"
        assert store.sweep_leftovers(datetime.now(UTC) + AFTER_ALL) == 0
        yield b"whole"

    blob = store.put_chunks(chunks())
    assert b"".join(store.read(blob.digest)) == b"halfwhole"
