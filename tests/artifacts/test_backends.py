"""The same promises on a folder and on a real S3 server."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, S3Server, s3_env

from penstock.artifacts import ArtifactStore, BlobDamaged, BlobLost, open_store
from penstock.artifacts.remote import PART_BYTES
from penstock.errors import InputError, PlatformError, SettingsError

LARGE = os.urandom(1024 * 1024) * (2 * PART_BYTES // 1024**2) + b"end"  # three parts
LATER = timedelta(days=2)


@pytest.mark.parametrize("data", [b"", b"a", LARGE], ids=["empty", "small", "in parts"])
def test_bytes_come_back(any_store: ArtifactStore, tmp_path: Path, data: bytes):
    """Under their SHA-256, by every way in and out."""
    (tmp_path / "in").write_bytes(data)
    blob = any_store.put_bytes(data)
    assert any_store.put_file(tmp_path / "in") == blob
    assert any_store.put_chunks([data[:5], data[5:]], blob.digest) == blob
    assert any_store.size_bytes(blob.digest) == blob.size_bytes == len(data)
    any_store.fetch_file(blob.digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"".join(any_store.read(blob.digest)) == data
    assert [found.digest for found in any_store.blobs()] == [blob.digest]


def test_tree_comes_back(any_store: ArtifactStore, tmp_path: Path):
    """Folders, links and exec bits, and only the paths that were asked for."""
    source = tmp_path / "source"
    for name in ("dist/app", "dist/deep/file", "left/out"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "dist/app").chmod(0o755)
    (source / "dist/link").symlink_to("deep/file")
    blob = any_store.put_tree(source, ["dist", "dist/deep", "absent"])
    any_store.fetch_tree(blob.digest, tmp_path / "target")
    assert (tmp_path / "target/dist/link").read_text() == "dist/deep/file"
    assert os.access(tmp_path / "target/dist/app", os.X_OK)
    assert not (tmp_path / "target/left").exists()


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_single_file_keeps_its_exec_bit(any_store: ArtifactStore, tmp_path: Path, mode: int):
    """A program that a step puts out can be run by the next; its bytes are still its bytes."""
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(mode)
    blob, kind = any_store.put_path(tmp_path / "tool")
    any_store.fetch_path(blob.digest, kind, tmp_path / "out" / "tool")
    assert stat.S_IMODE((tmp_path / "out" / "tool").stat().st_mode) == mode
    assert b"".join(any_store.read(blob.digest)) == b"#!/bin/sh\n"


def test_folder_comes_back_by_its_kind(any_store: ArtifactStore, tmp_path: Path):
    """`fetch_path` needs no more than digest and kind."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "a").write_text("a")
    blob, kind = any_store.put_path(tmp_path / "dist")
    any_store.fetch_path(blob.digest, kind, tmp_path / "out")
    assert (kind, (tmp_path / "out" / "a").read_text()) == ("tree", "a")


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(LARGE)), st.integers(0, len(LARGE) + 10))
def test_ranges(any_store: ArtifactStore, start: int, end: int):
    """Any part of a blob can be read alone; what it does not have is refused before the first byte."""
    digest = any_store.put_bytes(LARGE).digest
    if start >= min(end, len(LARGE)):
        with pytest.raises(InputError, match="bytes"):
            any_store.open_range(digest, start, end)
        return
    assert b"".join(any_store.open_range(digest, start, end)) == LARGE[start:end]
    assert b"".join(any_store.open_range(digest, start)) == LARGE[start:]


def test_blob_that_is_there_is_not_sent_again(any_store: ArtifactStore):
    """Storing twice writes once."""
    any_store.put_bytes(LARGE)
    (before,) = any_store.blobs()
    any_store.put_bytes(LARGE)
    assert list(any_store.blobs()) == [before]


def test_wrong_expected_digest_stores_nothing(any_store: ArtifactStore):
    """A client's checksum counts."""
    with pytest.raises(InputError, match="send it again"):
        any_store.put_chunks([b"abc"], "0" * 64)
    assert list(any_store.blobs()) == []


def test_writer_that_fails_leaves_nothing(any_store: ArtifactStore):
    """An upload whose client goes away."""

    def chunks():
        yield LARGE
        raise ConnectionResetError("gone")

    with pytest.raises(PlatformError):
        any_store.put_chunks(chunks())
    assert list(any_store.blobs()) == []
    assert any_store.sweep_leftovers(datetime.now(UTC) + LATER) == 0


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65])
def test_only_digests_name_blobs(any_store: ArtifactStore, digest: str):
    """No name leads anywhere else."""
    for use in (any_store.has, any_store.size_bytes, any_store.delete, lambda name: list(any_store.read(name))):
        with pytest.raises(InputError, match="no SHA-256"):
            use(digest)


def test_lost_blob_is_not_the_steps_fault(any_store: ArtifactStore, tmp_path: Path):
    """It is a PlatformError, so the step ends as infra_error; and nothing is made at the target."""
    blob = any_store.put_bytes(b"x")
    any_store.delete(blob.digest)
    for take in (any_store.fetch_file, any_store.fetch_tree):
        with pytest.raises(BlobLost, match="the store has lost it"):
            take(blob.digest, tmp_path / "target" / "file")
    assert list(tmp_path.glob("target/*")) == []
    assert not any_store.claim(blob.digest)


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "emptied"])
def test_damaged_object_is_not_given_out(bucket: ArtifactStore, s3_server: S3Server, tmp_path: Path, damage: str):
    """Wrong bytes in the bucket: no file appears; and who makes it again heals it."""
    blob = bucket.put_bytes(LARGE)
    name = f"{blob.digest[:2]}/{blob.digest[2:]}"
    (stored,) = [path for path in s3_server.objects if str(path).endswith(f"{tmp_path.name}/sha256/{name}")]
    stored.write_bytes(
        {"flipped": LARGE[:-1] + b"?", "cut": LARGE[:-9], "longer": LARGE + b"x", "emptied": b""}[damage]
    )
    with pytest.raises(PlatformError):
        bucket.fetch_file(blob.digest, tmp_path / "out" / "file")
    assert list((tmp_path / "out").iterdir()) == []
    bucket.discard_damaged(blob.digest)
    bucket.put_bytes(LARGE)
    assert b"".join(bucket.read(blob.digest)) == LARGE


def test_whole_blob_is_not_discarded(any_store: ArtifactStore):
    """Only damage is."""
    blob = any_store.put_bytes(b"x")
    assert not any_store.discard_damaged(blob.digest)
    assert any_store.has(blob.digest)


def test_flipped_bit_is_discarded_and_healed(tmp_path: Path):
    """A blob of the right size but with wrong bytes is stored anew once it was found out."""
    store = open_store(str(tmp_path / "store"))
    blob = store.put_bytes(b"good")
    next((tmp_path / "store" / "sha256").rglob("*/*")).write_bytes(b"evil")
    with pytest.raises(BlobDamaged):
        list(store.read(blob.digest))
    assert store.discard_damaged(blob.digest)
    store.put_bytes(b"good")
    assert list(store.read(blob.digest)) == [b"good"]


# Claims: a sweep and a writer at the same blob


def test_old_blob_that_nobody_needs_goes(any_store: ArtifactStore):
    """Once it is older than the grace period."""
    blob = any_store.put_bytes(b"x")
    assert not any_store.remove_unclaimed(blob.digest, datetime.now(UTC) - LATER, lambda: False)
    assert any_store.remove_unclaimed(blob.digest, datetime.now(UTC) + LATER, lambda: False)
    assert not any_store.has(blob.digest)


def test_claimed_and_needed_blobs_stay(any_store: ArtifactStore):
    """Somebody is about to record it, or has just done so."""
    blob = any_store.put_bytes(b"x")
    between = datetime.now(UTC) + timedelta(hours=1)
    assert not any_store.remove_unclaimed(blob.digest, between, lambda: True)
    assert any_store.claim(blob.digest)
    assert not any_store.remove_unclaimed(blob.digest, datetime.now(UTC) - timedelta(minutes=1), lambda: False)
    assert any_store.has(blob.digest)


def test_old_claims_are_swept(any_store: ArtifactStore):
    """They do not heap up."""
    digest = any_store.put_bytes(b"x").digest
    any_store.claim(digest)
    assert any_store.sweep_leftovers(datetime.now(UTC) - LATER) == 0
    assert any_store.sweep_leftovers(datetime.now(UTC) + LATER) == 1
    assert any_store.has(digest)


# Addresses


@pytest.mark.parametrize(
    ("location", "env", "words"),
    [
        ("s3://b", {"AWS_ENDPOINT_URL": "http://store.example:9000"}, "without TLS"),
        ("s3://b", {"PENSTOCK_ARTIFACTS_ENDPOINT": "store.example"}, "no endpoint"),
        ("s3://b", {"PENSTOCK_ARTIFACTS_ENDPOINT": "https://user:hush@store.example"}, "no endpoint"),
        ("s3://b", {"AWS_ACCESS_KEY_ID": "x"}, "key and secret go together"),
        ("s3://b", {"AWS_SECRET_ACCESS_KEY": "hush"}, "key and secret go together"),
        ("s3://b", {"PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY_FILE": "/nowhere"}, "cannot read"),
        ("s3://key:hush@b/x", {}, "more than bucket and prefix"),
        ("s3://b/x?secret=hush", {}, "more than bucket and prefix"),
    ],
)
def test_bad_address_is_one_line(location: str, env: dict[str, str], words: str):
    """It says what to do, and shows no secret."""
    with pytest.raises(SettingsError, match=words) as caught:
        open_store(location, env)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_http_can_be_asked_for():
    """In a network that one trusts; nothing is reached when a store is opened."""
    env = {"AWS_ENDPOINT_URL": "http://store.example:9000", "PENSTOCK_ARTIFACTS_ALLOW_HTTP": "1"}
    assert open_store("s3://b/x", env).folder is None


def test_secret_from_a_file(s3_server: S3Server, tmp_path: Path):
    """It need not be in the environment, and is in no listing."""
    env = s3_env(s3_server.port)
    (tmp_path / "secret").write_text(env.pop("AWS_SECRET_ACCESS_KEY") + "\n")
    store = open_store(
        f"s3://{BUCKET}/f", {**env, "PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret")}
    )
    assert store.has(store.put_bytes(b"x").digest)
    assert "test-secret-key" not in repr(store)


def test_wrong_secret_is_one_line(s3_server: S3Server):
    """The server checks it."""
    env = {**s3_env(s3_server.port), "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(PlatformError) as caught:
        open_store(f"s3://{BUCKET}/x", env).put_bytes(b"x")
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value)
