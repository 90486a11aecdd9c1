"""The git command on real repositories, friendly and hostile."""

import os
import threading
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import pytest
from git_builder import PIPELINE, GitRepository

from penstock.errors import InputError, NotFoundError, PenstockError, PlatformError, SpecError
from penstock.pipeline.plan import read_graph
from penstock.sources.git import Remote, Repository, WorkTree, default_branch, git, ls_remote, mirror
from penstock.sources.reaching import Reach

Make = Callable[..., GitRepository]


@pytest.fixture
def repository(make_repository: Make) -> GitRepository:
    return make_repository(files={"penstock.yaml": PIPELINE, "src/a.py": "a = 1\n"})


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def forged_commit(repository: GitRepository, entries: list[tuple[str, str, bytes]]) -> str:
    """A commit whose tree has entries (mode, name, blob) that git's own commands would not make."""
    tree = b""
    for mode, name, content in entries:
        blob = content.decode() if mode == "160000" else repository.git("hash-object", "-w", "--stdin", data=content)
        tree += f"{mode} {name}".encode() + b"\0" + bytes.fromhex(blob)
    made = repository.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", data=tree)
    commit = f"tree {made}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nforged\n"
    return repository.git("hash-object", "-t", "commit", "-w", "--stdin", data=commit.encode())


# Snapshots of a work tree


def test_clean_work_tree_is_its_head(repository: GitRepository):
    """Nothing is made up when nothing changed."""
    assert WorkTree(repository.root).snapshot() == repository.git("rev-parse", "HEAD")


def test_snapshot_of_uncommitted_changes_is_reproducible(repository: GitRepository, tmp_path: Path):
    """Changed, new, deleted, staged: the same state is the same commit, and the developer's index stays as it is."""
    repository.commit({"old.txt": "old", ".gitignore": "ignored\n"})
    repository.write({"src/a.py": "a = 2\n", "new.txt": "new", "ignored": "x", "staged.txt": "s"})
    (repository.root / "old.txt").unlink()
    repository.git("add", "staged.txt")
    status = repository.git("status", "--porcelain")
    tree = WorkTree(repository.root)
    first = tree.snapshot()
    os.utime(repository.root / "new.txt", (1, 1))
    assert tree.snapshot() == first != repository.git("rev-parse", "HEAD")
    assert repository.git("status", "--porcelain") == status
    assert repository.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"
    tree.repository.check_out(first, tmp_path / "out")
    assert set(tree_of(tmp_path / "out")) == {".gitignore", "penstock.yaml", "src/a.py", "new.txt", "staged.txt"}
    assert (tmp_path / "out" / "src" / "a.py").read_text() == "a = 2\n"
    assert tree.repository.info(first).title == "Uncommitted changes"


def test_snapshot_from_a_folder_of_the_repository_is_all_of_it(repository: GitRepository):
    """Whatever GIT_* variables a hook has set."""
    repository.write({"new.txt": "new"})
    os.environ["GIT_INDEX_FILE"] = "/nowhere/index"
    try:
        found = WorkTree(repository.root).snapshot()
    finally:
        del os.environ["GIT_INDEX_FILE"]
    assert Repository(repository.root / ".git").read_file(found, "new.txt", limit_bytes=10) == b"new"


def test_repository_without_commits_is_one_line(make_repository: Make):
    """It says what to do."""
    with pytest.raises(InputError, match="there is no commit yet; commit something first"):
        WorkTree(make_repository("empty").root).snapshot()


def test_linked_work_tree_has_the_same_repository(repository: GitRepository, tmp_path: Path):
    """`git worktree add`: `.git` is a file there."""
    repository.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    tree = WorkTree(tmp_path / "side")
    assert tree.branch() == "refs/heads/side"
    assert tree.repository.resolve("main") == tree.snapshot()


def test_detached_head_has_no_branch(repository: GitRepository):
    """HEAD is what it is called."""
    repository.git("checkout", "--quiet", "--detach")
    assert WorkTree(repository.root).branch() == "HEAD"


# Reading


def test_commit_tells_about_itself(repository: GitRepository):
    """Author, first line, time in UTC."""
    commit = repository.commit({"b": "b"}, "Grün\n\nand more")
    info = WorkTree(repository.root).repository.info(commit[:10])
    assert (info.commit, info.author, info.title) == (commit, "Ada <ada@example.org>", "Grün")
    assert info.committed_at.tzinfo is UTC


@pytest.mark.parametrize("revision", ["nowhere", "--help", "-", "", "HEAD:src", "HEAD^{tree}", "x y", "0" * 40])
def test_what_is_no_commit_is_one_line(repository: GitRepository, revision: str):
    """Options are not taken for revisions either."""
    with pytest.raises(NotFoundError, match="no commit is called"):
        WorkTree(repository.root).repository.resolve(revision)


def test_file_at_a_commit(repository: GitRepository):
    """Its bytes; None when there is none; refused when it is too large."""
    found = WorkTree(repository.root).repository
    assert found.read_file("HEAD", "src/a.py", limit_bytes=100) == b"a = 1\n"
    assert found.read_file("HEAD", "src/b.py", limit_bytes=100) is None
    with pytest.raises(InputError, match="too large"):
        found.read_file("HEAD", "src/a.py", limit_bytes=3)


def test_commit_without_pipeline_is_one_line(make_repository: Make):
    """It says how to write one; a folder of that name is none."""
    without = make_repository("without", {"a": "a"})
    folder = make_repository("folder", {"penstock.yaml/a": "a"})
    for made in (without, folder):
        with pytest.raises(SpecError, match=r"has no penstock\.yaml; write one with `penstock init`"):
            read_graph(WorkTree(made.root).repository, made.git("rev-parse", "HEAD"))


def test_changed_files_between_two_commits(repository: GitRepository):
    """Added, changed and removed ones, by path; a commit that is not here makes the question unanswerable."""
    old = repository.git("rev-parse", "HEAD")
    new = repository.commit({"b": "b", "src/ü.py": "1"})
    found = WorkTree(repository.root).repository
    assert found.changed_files(old, new) == ("b", "src/ü.py")
    assert found.changed_files(new, new) == ()
    assert found.changed_files("1" * 40, new) is None
    assert set(found.files(new)) >= {"b", "src/ü.py"}


# Remotes


def test_ls_remote_tells_branch_heads(repository: GitRepository):
    """Branches only, by their full names."""
    commit = repository.git("rev-parse", "HEAD")
    repository.git("tag", "v1")
    repository.git("branch", "side/one")
    assert ls_remote(str(repository.root)) == {"refs/heads/main": commit, "refs/heads/side/one": commit}
    assert default_branch(str(repository.root)) == "main"


def test_default_branch_is_what_head_names(make_repository: Make):
    """Whatever it is called; `main` where nothing tells."""
    made = make_repository()
    made.git("symbolic-ref", "HEAD", "refs/heads/trunk")
    assert default_branch(str(made.root)) == "main"
    made.commit({"a": "a"})
    assert default_branch(str(made.root)) == "trunk"


@pytest.mark.parametrize("url", ["/nowhere", "file:///nowhere", "https://127.0.0.1:1/x.git", "ext::sh -c id", "-x"])
def test_remote_that_is_not_there_is_one_line(url: str):
    """With git's own reason, not the last line of its advice."""
    with pytest.raises(PlatformError, match=r"^git ls-remote failed: fatal: ") as caught:
        ls_remote(Remote(url, reach=Reach(True)))
    assert "\n" not in str(caught.value)


def test_mirror_follows_force_pushes_and_deletions(repository: GitRepository, tmp_path: Path):
    """Also where a branch becomes a folder of branches; old commits stay readable."""
    repository.git("branch", "side")
    old = repository.commit({"b": "b"})
    found = mirror(str(repository.root), tmp_path / "mirrors" / "shop.git")
    assert found.resolve("main") == old
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    new = repository.commit({"c": "c"})
    repository.git("branch", "-D", "side")
    repository.git("branch", "side/one")
    repository.git("tag", "v1")
    mirror(str(repository.root), tmp_path / "mirrors" / "shop.git")
    assert found.resolve("main") == new
    assert found.resolve("v1") == found.resolve("side/one") == new
    assert found.has(old)
    with pytest.raises(NotFoundError):
        found.resolve("side")
    repository.git("tag", "--force", "v1", old)
    mirror(str(repository.root), tmp_path / "mirrors" / "shop.git")
    assert found.resolve("v1") == old


def test_mirrors_brought_up_to_date_at_once(repository: GitRepository, tmp_path: Path):
    """Several runs of a project begin together: none fails because another one fetches."""
    for number in range(20):
        repository.git("branch", f"b{number}")
    errors: list[PenstockError] = []

    def fetch() -> None:
        try:
            mirror(str(repository.root), tmp_path / "shop.git")
        except PenstockError as error:
            errors.append(error)

    for _ in range(2):
        threads = [threading.Thread(target=fetch) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        repository.commit({"b": os.urandom(4).hex()})
    assert errors == []


# Hostile repositories


def test_hooks_never_run(repository: GitRepository, tmp_path: Path):
    """Neither those of a work tree nor those of a remote that is fetched from."""
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        path = repository.root / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\n")
        path.chmod(0o755)
    repository.write({"new.txt": "new"})
    tree = WorkTree(repository.root)
    tree.repository.check_out(tree.snapshot(), tmp_path / "out")
    mirror(str(repository.root), tmp_path / "m.git").check_out("main", tmp_path / "out2")
    assert not list(tmp_path.glob("ran-*"))


def test_attributes_name_filters_that_do_not_run(make_repository: Make, tmp_path: Path):
    """A filter is a command; only the machine's own configuration can define one."""
    made = make_repository(
        files={
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {tmp_path}/ran\n\tclean = touch {tmp_path}/ran\n',
            "a": "a",
        }
    )
    mirror(str(made.root), tmp_path / "m.git").check_out("main", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "a"
    assert not (tmp_path / "ran").exists()


def test_links_out_of_the_tree_write_nothing_outside(repository: GitRepository, tmp_path: Path):
    """A link is checked out as a link; a file below it is refused or lies inside, never where the link leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (repository.root / "link").symlink_to(outside)
    commit = repository.commit()
    found = WorkTree(repository.root).repository
    found.check_out(commit, tmp_path / "out")
    assert (tmp_path / "out" / "link").is_symlink()
    blob = repository.git("hash-object", "-w", "--stdin", data=b"x")
    inner = repository.git("mktree", data=f"100644 blob {blob}\tfile\n".encode())
    target = repository.git("hash-object", "-w", "--stdin", data=str(outside).encode())
    tree = repository.git("mktree", data=f"120000 blob {target}\tlink\n040000 tree {inner}\tLINK\n".encode())
    forged = repository.git("commit-tree", tree, "-m", "x")
    found.check_out(forged, tmp_path / "out2")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", "../x", "a/../../x"])
def test_names_that_lead_elsewhere_are_refused(repository: GitRepository, tmp_path: Path, name: str):
    """A tree that git would not make, but anybody can push."""
    commit = forged_commit(repository, [("100644", name, b"[core]\n")])
    with pytest.raises(PlatformError):
        WorkTree(repository.root).repository.check_out(commit, tmp_path / "a" / "out")
    assert not (tmp_path / "a" / "x").exists()
    assert not list((tmp_path / "a" / "out").rglob("*"))


def test_odd_names_are_only_names(repository: GitRepository, tmp_path: Path):
    """Newlines, quotes, dashes, bytes that are no text."""
    names = ["-rf", "a\nb", "'; touch x #", "$(touch x)", "ü", " ", "*", "--help"]
    repository.commit(dict.fromkeys(names, "content"))
    odd = os.fsdecode(b"caf\xe9")
    (repository.root / odd).write_text("content")
    tree = WorkTree(repository.root)
    assert len(tree.changed_files()) == 1
    tree.repository.check_out(tree.snapshot(), tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == {*names, odd, "penstock.yaml", "src"}  # noqa: PTH208


def test_submodules_are_left_empty(repository: GitRepository, make_repository: Make, tmp_path: Path):
    """Their addresses are the repository's word; nothing is fetched from them, nothing they name is run."""
    commit = repository.git("rev-parse", "HEAD")
    modules = (
        f'[submodule "x"]\n\tpath = sub\n\turl = ext::sh -c "touch {tmp_path}/ran"\n\tupdate = !touch {tmp_path}/ran\n'
    )
    forged = forged_commit(
        repository, [("100644", ".gitmodules", modules.encode()), ("160000", "sub", commit.encode())]
    )
    repository.git("config", "submodule.recurse", "true")
    WorkTree(repository.root).repository.check_out(forged, tmp_path / "out")
    assert list((tmp_path / "out" / "sub").iterdir()) == []
    assert not (tmp_path / "ran").exists()


def test_pipeline_that_is_a_link_is_not_followed(repository: GitRepository):
    """penstock.yaml → /etc/passwd shows nothing of it."""
    (repository.root / "penstock.yaml").unlink()
    (repository.root / "penstock.yaml").symlink_to("/etc/passwd")
    commit = repository.commit()
    with pytest.raises(SpecError) as caught:
        read_graph(WorkTree(repository.root).repository, commit)
    assert "root" not in str(caught.value)


def test_dates_beyond_time_are_dates(repository: GitRepository):
    """A commit may claim any second."""
    tree = repository.git("rev-parse", "HEAD^{tree}")
    for seconds in ("99999999999999", "0", "253402300800"):
        text = f"tree {tree}\nauthor A <a@b> {seconds} +0000\ncommitter A <a@b> {seconds} +0000\n\nx\n"
        commit = repository.git("hash-object", "-t", "commit", "-w", "--stdin", data=text.encode())
        assert 1970 <= WorkTree(repository.root).repository.info(commit).committed_at.year <= 9999


def test_commit_without_words_is_read(repository: GitRepository):
    """No title, no author's name, bytes that are no text."""
    tree = repository.git("rev-parse", "HEAD^{tree}")
    text = f"tree {tree}\nauthor  <> 1 +0000\ncommitter  <> 1 +0000\n\n".encode() + b"caf\xe9\n"
    commit = repository.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", data=text)
    assert WorkTree(repository.root).repository.info(commit).title.startswith("caf")
    empty = repository.git("commit-tree", tree, data=b"")
    assert WorkTree(repository.root).repository.info(empty).title == ""


def test_local_configuration_does_not_open_protocols(repository: GitRepository, tmp_path: Path):
    """`ext::` runs a command; the work tree's own configuration cannot allow it."""
    repository.git("config", "protocol.ext.allow", "always")
    with pytest.raises(PlatformError, match="not allowed"):
        git("-C", str(repository.root), "fetch", f"ext::sh -c touch% {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()
