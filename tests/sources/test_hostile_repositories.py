"""Repositories that somebody made to do harm: too large, too many, too deep, named or linked to lead elsewhere."""

import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import attrs
import pytest
from git_builder import GitRepository

from penstock.errors import InputError, PenstockError, PlatformError
from penstock.processes import wait_until
from penstock.sources.command import Bounds, TooLarge, git
from penstock.sources.git import LIMITS, Limits, Remote, Repository, WorkTree, mirror
from penstock.sources.reaching import Reach

Make = Callable[..., GitRepository]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 12345\n"


@pytest.fixture
def made(make_repository: Make) -> GitRepository:
    return make_repository(files={"a": "a\n"})


def opened(made: GitRepository) -> Repository:
    return WorkTree(made.root).repository


def tree_of(made: GitRepository, entries: list[tuple[str, bytes, str]]) -> str:
    """A tree that git's own commands would not make: mode, name, object."""
    raw = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(found) for mode, name, found in entries)
    return made.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", data=raw)


def blob_of(made: GitRepository, content: bytes) -> str:
    return made.git("hash-object", "-w", "--stdin", data=content)


def commit_of(made: GitRepository, tree: str) -> str:
    text = f"tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"
    return made.git("hash-object", "-t", "commit", "-w", "--stdin", data=text.encode())


# Size


def test_repository_that_is_too_large_is_one_line(made: GitRepository, tmp_path: Path):
    """The mirror stops at its bound and keeps nothing of what it had begun."""
    made.commit({"noise": os.urandom(3_000_000)})
    folder = tmp_path / "m.git"
    with pytest.raises(InputError, match=r"^the repository is larger than 1 MB; keep large files out of git$"):
        mirror(str(made.root), folder, Limits(mirror_bytes=1_000_000))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 200_000
    assert mirror(str(made.root), folder).resolve("main")


def test_repository_that_grows_beyond_its_bound_is_refused(made: GitRepository, tmp_path: Path):
    """Every fetch alone is small enough; what is there counts too, and stays readable."""
    folder = tmp_path / "m.git"
    limits = Limits(mirror_bytes=1_000_000)
    first = mirror(str(made.root), folder, limits).resolve("main")
    made.commit({"one": os.urandom(700_000)})
    mirror(str(made.root), folder, limits)
    made.commit({"two": os.urandom(700_000)})
    with pytest.raises(InputError, match="larger than 1 MB"):
        mirror(str(made.root), folder, limits)
    assert Repository(folder).has(first)


def test_files_that_unpack_to_too_much_are_not_written(made: GitRepository, tmp_path: Path):
    """Zeros take next to nothing in a pack."""
    commit = made.commit({"zeros": b"\0" * 20_000_000})
    found = mirror(str(made.root), tmp_path / "m.git", Limits(mirror_bytes=1_000_000))
    with pytest.raises(InputError, match=r"it has 20 MB of files, more than 10"):
        found.check_out(commit, tmp_path / "out", Limits(checkout_bytes=10_000_000))
    assert not (tmp_path / "out").exists()
    assert found.check_out(commit, tmp_path / "out").size_bytes == 20_000_002


def test_too_many_files_are_not_written(made: GitRepository, tmp_path: Path):
    """Counted before the first one is."""
    commit = made.commit({f"d/{number}": "" for number in range(150)})
    with pytest.raises(InputError, match=r"it has 151 files, more than 100"):
        opened(made).check_out(commit, tmp_path / "out", Limits(files=100))
    assert not (tmp_path / "out").exists()


def test_trees_that_hold_each_other_are_not_walked_to_their_end(made: GitRepository, tmp_path: Path):
    """Ten folders, each with the same ten below, ten deep: ten thousand million files in a kilobyte."""
    tree = tree_of(made, [("100644", b"f%d" % n, blob_of(made, b"x")) for n in range(10)])
    for _ in range(9):
        tree = tree_of(made, [("40000", b"d%d" % n, tree) for n in range(10)])
    commit = commit_of(made, tree)
    limits = attrs.evolve(LIMITS, files=50_000)
    with pytest.raises(InputError, match="more than 50000 files"):
        opened(made).check_out(commit, tmp_path / "out", limits)
    with pytest.raises(PenstockError):
        opened(made).files(commit)
    assert not (tmp_path / "out").exists()


def test_deep_trees_are_written_or_refused_in_one_line(made: GitRepository, tmp_path: Path):
    """Deeper than a path may be long."""
    tree = tree_of(made, [("100644", b"f", blob_of(made, b"x"))])
    for _ in range(3000):
        tree = tree_of(made, [("40000", b"dd", tree)])
    commit = commit_of(made, tree)
    with pytest.raises(PenstockError) as caught:
        opened(made).check_out(commit, tmp_path / "out")
    assert "\n" not in str(caught.value)
    subprocess.run(["rm", "-rf", str(tmp_path / "out")], check=True)


def test_pipeline_file_is_not_read_beyond_its_bound(made: GitRepository):
    """However well it is packed."""
    commit = made.commit({"penstock.yaml": b" " * 5_000_000})
    with pytest.raises(InputError, match="5 MB is too large"):
        opened(made).read_file(commit, "penstock.yaml", limit_bytes=1_000_000)


def test_more_output_than_can_be_read_is_refused(made: GitRepository):
    """What a remote lists is bounded too."""
    for number in range(40):
        made.git("branch", f"b{number}")
    with pytest.raises(TooLarge, match="git ls-remote prints more than"):
        git("ls-remote", str(made.root), bounds=Bounds(output_bytes=1000))


# Time


class _Silent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Headers, and then nothing for longer than anybody waits."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.end_headers()
        self.wfile.flush()
        self.rfile.read(1)

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that begins to answer and never ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Silent)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/x.git"
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_that_never_ends_is_left(silent: str, tmp_path: Path):
    """After the time that a command has; git's helpers are gone with it."""
    with pytest.raises(PlatformError, match=r"^git ls-remote took longer than 1 s$"):
        git("ls-remote", silent, bounds=Bounds(time_s=1.0))
    assert wait_until(lambda: silent not in _running(), limit_s=20)
    with pytest.raises(PlatformError, match="git fetch took longer than 1 s"):
        mirror(Remote(silent, reach=Reach(("127.0.0.1",))), tmp_path / "m.git", Limits(fetch_s=1.0))


def _running() -> str:
    """The words of every process."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


# Names and links


@pytest.mark.parametrize(
    "name",
    [
        ".git",
        ".GIT",
        ".gIt",
        "git~1",
        "GIT~1",
        ".git ",
        ".git.",
        ".g\u200cit",
        ".git\u200d",
        ".git::$INDEX_ALLOCATION",
        "..",
        ".",
    ],
)
def test_git_folder_in_any_spelling_is_refused(made: GitRepository, tmp_path: Path, name: str):
    """Also in those that only macOS and Windows take for it: a workspace may be copied there."""
    inner = tree_of(made, [("100644", b"config", blob_of(made, b"[core]\n\tfsmonitor = touch /tmp/x\n"))])
    commit = commit_of(made, tree_of(made, [("40000", name.encode(), inner)]))
    with pytest.raises(PlatformError, match="git checkout failed") as caught:
        opened(made).check_out(commit, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    "name", [b"-rf", b"--upload-pack=touch x", b"a\nb", b"caf\xe9", b"\xff\xfe", b" ", b"a\\b", b"\x1b[2J"]
)
def test_odd_names_are_only_names(made: GitRepository, tmp_path: Path, name: bytes):
    """In folders and files; listings keep them byte for byte."""
    inner = tree_of(made, [("100644", name, blob_of(made, b"x"))])
    commit = commit_of(made, tree_of(made, [("40000", name, inner)]))
    found = opened(made).check_out(commit, tmp_path / "out")
    assert found.files == 1
    assert (Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/" + name + b"/" + name))).read_text() == "x"
    assert set(opened(made).files(commit)) == {os.fsdecode(name + b"/" + name)}


def test_file_below_a_link_is_not_written_where_the_link_leads(made: GitRepository, tmp_path: Path):
    """The same name once as a link and once as a folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inner = tree_of(made, [("100644", b"file", blob_of(made, b"x"))])
    link = blob_of(made, str(outside).encode())
    commit = commit_of(made, tree_of(made, [("120000", b"link", link), ("40000", b"link", inner)]))
    with suppress(PenstockError):  # one of both is refused, whichever git comes to first
        opened(made).check_out(commit, tmp_path / "out")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% {ran}",
        "--upload-pack=touch {ran}",
        "-u./payload",
        "file:///etc",
        "../../../etc",
        "ssh://-oProxyCommand=touch${{IFS}}{ran}/x",
    ],
)
@pytest.mark.parametrize("path", ["sub", "../sub", ".git/hooks", "-sub"])
def test_submodules_run_and_fetch_nothing(made: GitRepository, tmp_path: Path, url: str, path: str):
    """Wherever they claim to come from or to belong."""
    ran = tmp_path / "ran"
    text = f'[submodule "x"]\n\tpath = {path}\n\turl = {url.format(ran=ran)}\n\tupdate = !touch {ran}\n'
    modules, commit = blob_of(made, text.encode()), made.git("rev-parse", "HEAD")
    forged = commit_of(made, tree_of(made, [("100644", b".gitmodules", modules), ("160000", b"sub", commit)]))
    made.git("branch", "--force", "forged", forged)
    found = mirror(str(made.root), tmp_path / "m.git")
    found.check_out(forged, tmp_path / "out")
    assert list((tmp_path / "out" / "sub").iterdir()) == []
    assert not ran.exists()


# Git LFS


def test_lfs_pointers_stay_pointers_and_are_told(made: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where the machine has Git LFS installed: it would fetch from wherever the repository says."""
    (tmp_path / ".gitconfig").write_text(
        f'[filter "lfs"]\n\tsmudge = touch {tmp_path}/ran; cat\n\tprocess = touch {tmp_path}/ran\n\trequired = true\n'
    )
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    commit = made.commit({".gitattributes": attributes, "big.bin": POINTER, "o/ü\n.bin": POINTER, "text": "version"})
    monkeypatch.setenv("HOME", str(tmp_path))
    found = opened(made).check_out(commit, tmp_path / "out")
    assert (tmp_path / "out" / "big.bin").read_text() == POINTER
    assert not (tmp_path / "ran").exists()
    assert set(found.lfs_pointers) == {"big.bin", "o/ü\n.bin"}
    note = found.lfs_note()
    assert note is not None
    assert note.startswith("Git LFS pointers are left as they are")
    assert "big.bin" in note
    assert "\n" not in note


def test_repository_without_lfs_has_no_note(made: GitRepository, tmp_path: Path):
    """Nothing is read twice for it."""
    assert opened(made).check_out("HEAD", tmp_path / "out").lfs_note() is None


# Mirrors


def test_many_fetches_leave_few_packs(made: GitRepository, tmp_path: Path):
    """Each brings one; they are joined, and every commit stays readable."""
    commits = []
    for number in range(14):
        commits.append(made.commit({"n": str(number)}))
        found = mirror(str(made.root), tmp_path / "m.git", Limits(packs=5))
    assert len(list((tmp_path / "m.git" / "objects" / "pack").glob("*.pack"))) <= 6
    assert all(found.has(commit) for commit in commits)


def test_damaged_objects_are_one_line(made: GitRepository, tmp_path: Path):
    """A remote may send what it likes."""
    found = blob_of(made, b"content that is damaged")
    path = made.root / ".git" / "objects" / found[:2] / found[2:]
    path.chmod(0o600)
    path.write_bytes(zlib.compress(b"blob 5\0other"))
    commit = commit_of(made, tree_of(made, [("100644", b"f", found)]))
    made.git("update-ref", "refs/heads/damaged", commit)
    with pytest.raises(PlatformError) as caught:
        mirror(str(made.root), tmp_path / "m.git")
    assert "\n" not in str(caught.value)
