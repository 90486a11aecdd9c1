"""The artifact store: what is in it is whole, or it is not in it."""

import io
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.artifacts import ArtifactStore, BlobLost, open_store
from penstock.artifacts.store import CHUNK_BYTES, read_tree, write_tree
from penstock.errors import InputError, PenstockError, PlatformError

LARGE = os.urandom(CHUNK_BYTES) + b"and more" * 100_000


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


def blobs(folder: Path) -> list[Path]:
    return [path for path in (folder / "store").rglob("*") if path.is_file()]


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """A tar with (name, type, link or content) members, also ones that nobody of good will writes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o777
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                tar.addfile(member)
    made.seek(0)
    return made


@pytest.mark.parametrize("data", [b"", b"a", LARGE])
def test_bytes_come_back(store: ArtifactStore, tmp_path: Path, data: bytes):
    """Under their SHA-256, empty or larger than a chunk."""
    blob = store.put_bytes(data)
    assert b"".join(store.read(blob.digest)) == data
    assert blob.size_bytes == len(data)
    store.fetch_file(blob.digest, tmp_path / "out" / "file")
    assert (tmp_path / "out" / "file").read_bytes() == data
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_file_and_bytes_are_the_same_blob(store: ArtifactStore, tmp_path: Path):
    """Equal contents are stored once."""
    (tmp_path / "file").write_bytes(LARGE)
    assert store.put_file(tmp_path / "file") == store.put_bytes(LARGE)
    assert len(blobs(tmp_path)) == 1


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "b/c", "b/d/e", "ü ", "-x"]), st.binary(max_size=50)))
def test_tree_comes_back(store: ArtifactStore, tmp_path: Path, files: dict[str, bytes]):
    """Files, folders, links, empty folders, exec bits."""
    source = tmp_path / os.urandom(4).hex()
    (source / "empty").mkdir(parents=True)
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("nowhere/at all")
    target = tmp_path / os.urandom(4).hex()
    store.fetch_tree(store.put_tree(source).digest, target)
    assert {name: (target / name).read_bytes() for name in files} == files
    assert (target / "empty").is_dir()
    assert os.access(target / "run", os.X_OK)
    assert (target / "link").readlink() == Path("nowhere/at all")
    assert store.put_tree(target) == store.put_tree(source)


def test_hash_of_a_tree_is_that_of_its_contents(store: ArtifactStore, tmp_path: Path):
    """Neither times, nor owners, nor modes beyond the exec bit, nor the order of creation change it."""
    digests = []
    for place, names in enumerate((["a", "b", "z"], ["z", "b", "a"])):
        folder = tmp_path / str(place)
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / "file").write_text(name)
            (folder / name / "file").chmod(0o600 if place else 0o664)
            os.utime(folder / name / "file", (place, place))
        digests.append(store.put_tree(folder).digest)
    assert digests[0] == digests[1]
    (tmp_path / "0" / "a" / "file").chmod(0o755)
    assert store.put_tree(tmp_path / "0").digest != digests[0]


def test_names_that_are_no_text_survive(store: ArtifactStore, tmp_path: Path):
    """A file's name is bytes; newlines and Latin-1 too."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    names = [b"caf\xe9", b"a\nb", b" ", b"x" * 200, "日本".encode()]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(source), name))).write_bytes(name)  # noqa: PTH118
    store.fetch_tree(store.put_tree(source).digest, target)
    assert sorted(os.listdir(os.fsencode(target))) == sorted(names)  # noqa: PTH208


def test_sockets_and_pipes_are_left_out(store: ArtifactStore, tmp_path: Path):
    """A named pipe in a folder does not make the upload wait for ever."""
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "pipe")
    store.fetch_tree(store.put_tree(source).digest, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_large_tree_in_constant_memory(store: ArtifactStore, tmp_path: Path):
    """A file of many chunks goes through, up and down."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(LARGE * 4)
    store.fetch_tree(store.put_tree(tmp_path / "source").digest, tmp_path / "target")
    assert (tmp_path / "target" / "large").read_bytes() == LARGE * 4


# Damage


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "emptied"])
def test_damaged_blob_is_not_given_out(store: ArtifactStore, tmp_path: Path, damage: str):
    """One wrong bit on the disk: no file appears, and the error says which artifact."""
    blob = store.put_bytes(LARGE)
    (stored,) = blobs(tmp_path)
    data = {"flipped": LARGE[:-1] + b"?", "cut": LARGE[:-9], "longer": LARGE + b"x", "emptied": b""}[damage]
    stored.chmod(0o644)
    stored.write_bytes(data)
    with pytest.raises(PlatformError, match=f"artifact {blob.digest[:12]}: the stored bytes are damaged"):
        store.fetch_file(blob.digest, tmp_path / "out" / "file")
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_tree_is_not_unpacked(store: ArtifactStore, tmp_path: Path):
    """Nothing of an archive is believed before all of it is."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("x")
    blob = store.put_tree(tmp_path / "source")
    (stored,) = blobs(tmp_path)
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    with pytest.raises(PlatformError, match="damaged"):
        store.fetch_tree(blob.digest, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_blob_that_was_cut_short_is_stored_anew(store: ArtifactStore, tmp_path: Path):
    """A build after a full disk heals what the disk cut off."""
    blob = store.put_bytes(LARGE)
    (stored,) = blobs(tmp_path)
    stored.write_bytes(LARGE[:100])
    assert store.put_bytes(LARGE) == blob
    assert b"".join(store.read(blob.digest)) == LARGE


def test_absent_blob_is_said_to_be_absent(store: ArtifactStore, tmp_path: Path):
    """The store has lost it, which is no fault of a step; and deleting it again is fine."""
    blob = store.put_bytes(b"x")
    store.delete(blob.digest)
    store.delete(blob.digest)
    assert not store.has(blob.digest)
    for take in (
        lambda: store.fetch_file(blob.digest, tmp_path / "file"),
        lambda: store.fetch_tree(blob.digest, tmp_path / "tree"),
        lambda: list(store.read(blob.digest)),
        lambda: store.open_range(blob.digest, 0, 1),
    ):
        with pytest.raises(BlobLost, match="the store has lost it"):
            take()
    assert list(tmp_path.glob("file")) + list(tmp_path.glob("tree")) == []


def test_file_that_changes_meanwhile_is_not_stored(store: ArtifactStore, tmp_path: Path):
    """A writer at work on the file: either one whole state of it is stored, or none."""
    path, stop = tmp_path / "file", threading.Event()
    path.write_bytes(b"\0" * CHUNK_BYTES * 3)

    def write() -> None:
        with path.open("r+b") as file:
            while not stop.is_set():
                file.seek(-1, os.SEEK_END)
                file.write(os.urandom(1))
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    refused = 0
    try:
        for _ in range(12):
            try:
                store.put_file(path)
            except InputError as error:
                assert "changed while it was being stored" in str(error)  # noqa: PT017
                refused += 1
    finally:
        stop.set()
        writer.join()
    assert refused
    for stored in blobs(tmp_path):
        digest = stored.parent.name + stored.name
        assert b"".join(store.read(digest))


def test_many_put_the_same_at_once(store: ArtifactStore, tmp_path: Path):
    """Steps that end together with the same artifact: one blob, nobody fails."""
    found, errors = set(), []

    def put() -> None:
        try:
            found.add(store.put_bytes(LARGE))
        except PenstockError as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), errors, len(blobs(tmp_path))) == (1, [], 1)
    assert b"".join(store.read(found.pop().digest)) == LARGE


# Attacks


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "x")],
        [("a/../../out", tarfile.REGTYPE, "x")],
        [("/tmp/penstock-out", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, "/"), ("link/tmp/penstock-out", tarfile.REGTYPE, "x")],
        [("a", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, ".."), ("a/out", tarfile.REGTYPE, "x")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.SYMTYPE, "/etc/passwd")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.DIRTYPE, "")],
        [("out", tarfile.LNKTYPE, "/etc/passwd")],
        [("out", tarfile.CHRTYPE, "")],
        [("out", tarfile.FIFOTYPE, "")],
        [(".", tarfile.REGTYPE, "x")],
    ],
)
def test_archive_cannot_write_outside(tmp_path: Path, members: list[tuple[str, bytes, str]]):
    """Neither by its names, nor through links that it brings, nor as a device."""
    with pytest.raises(InputError):
        read_tree(archive(*members), tmp_path / "in" / "folder")
    assert not Path("/tmp/penstock-out").exists()
    assert not (tmp_path / "in" / "out").exists()
    assert not (tmp_path / "out").exists()


def test_file_over_a_link_replaces_the_link(tmp_path: Path):
    """A member with the name of a link that leads out does not write through it."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    members = [("a", tarfile.SYMTYPE, str(outside)), ("a", tarfile.REGTYPE, "theirs")]
    read_tree(archive(*members), tmp_path / "folder")
    assert outside.read_text() == "mine"
    assert not (tmp_path / "folder" / "a").is_symlink()


def test_link_in_the_target_is_replaced_not_followed(store: ArtifactStore, tmp_path: Path):
    """A repository that holds links where artifacts go cannot send them elsewhere."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "target"
    target.mkdir()
    digest = store.put_bytes(b"theirs").digest
    for name in ("file", ".file.part", ".part-"):
        (target / name).symlink_to(outside)
    store.fetch_file(digest, target / "file")
    read_tree(archive(("file", tarfile.REGTYPE, "theirs")), target)
    assert outside.read_text() == "mine"
    assert (target / "file").read_text() == "theirs"


def test_modes_of_members_give_no_rights(tmp_path: Path):
    """No setuid, nothing that others may write."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.mode = 0o6777
        tar.addfile(member)
    made.seek(0)
    read_tree(made, tmp_path / "folder")
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o755


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 5000, b"PK\x03\x04" + b"x" * 600])
def test_what_is_no_archive_is_one_line(tmp_path: Path, data: bytes):
    """Zeros are an empty archive; everything else is refused."""
    try:
        read_tree(io.BytesIO(data), tmp_path / "folder")
    except InputError as error:
        assert "cannot unpack the archive" in str(error)  # noqa: PT017
    assert not list((tmp_path / "folder").iterdir())


def test_cut_archive_is_refused(tmp_path: Path):
    """A file shorter than its header says."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x" * 5000)
    made = io.BytesIO()
    write_tree(tmp_path / "source", made)
    with pytest.raises(InputError):
        read_tree(io.BytesIO(made.getvalue()[:2000]), tmp_path / "target")


def test_folder_in_the_way_is_one_line(store: ArtifactStore, tmp_path: Path):
    """A file cannot replace a folder, and says so."""
    (tmp_path / "target" / "file").mkdir(parents=True)
    digest = store.put_bytes(b"x").digest
    with pytest.raises(InputError, match="cannot put an artifact there"):
        store.fetch_file(digest, tmp_path / "target" / "file")
    with pytest.raises(InputError, match="cannot unpack"):
        read_tree(archive(("file", tarfile.REGTYPE, "x")), tmp_path / "target")


def test_only_regular_files_are_files(store: ArtifactStore, tmp_path: Path):
    """A link is not followed."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="no regular file"):
        store.put_file(tmp_path / "link")


def test_bottomless_folder_is_one_line(store: ArtifactStore, bottomless: Path):
    """A step can nest folders deeper than any path may be."""
    with pytest.raises(InputError, match="cannot store the folder"):
        store.put_tree(bottomless)


@pytest.mark.parametrize("location", ["/proc/nowhere/store", "s3://", "ftp://example.org/x", "/dev/null/x"])
def test_store_that_cannot_be_opened_is_one_line(location: str):
    """It names the place."""
    with pytest.raises(PlatformError) as caught:
        open_store(location)
    assert str(caught.value).startswith(location.split("//", maxsplit=1)[0])
    assert "\n" not in str(caught.value)
