"""Caches: whole and right, or as if there were none."""

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.artifacts import ArtifactStore, open_store
from penstock.artifacts.caching import hash_files, restore, save
from penstock.errors import InputError
from penstock.state.tables import artifacts, caches

MAIN, BRANCH = "refs/heads/main", "refs/heads/feature"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


class Caches:
    """Saves from and restores to workspaces of one project. said: what the last one logged."""

    def __init__(self, database: sa.Engine, store: ArtifactStore, folder: Path) -> None:
        self.database, self.store, self.folder = database, store, folder
        self.said: list[str] = []

    def workspace(self, name: str, files: dict[str, str] | None = None) -> Path:
        root = self.folder / "workspaces" / name
        root.mkdir(parents=True, exist_ok=True)
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    def save(self, root: Path, key: str, scope: str | None = MAIN, paths: Sequence[str] = ("deps",)) -> bool:
        made = save(self.database, self.store, project="shop", scope=scope, key=key, workspace=root, paths=paths)
        return made is not None

    def restore(
        self, root: Path, key: str, prefixes: Sequence[str] = (), scopes: Sequence[str] = (MAIN,), paths=("deps",)
    ) -> str | None:
        self.said.clear()
        options = {"project": "shop", "scopes": scopes, "key": key, "prefixes": prefixes}
        return restore(self.database, self.store, workspace=root, paths=paths, log=self.said.append, **options)

    def keys(self) -> set[str]:
        with self.database.connect() as connection:
            return set(connection.execute(sa.select(caches.c.key)).scalars())

    def file_of(self, key: str) -> Path:
        with self.database.connect() as connection:
            digest = connection.execute(sa.select(caches.c.digest).where(caches.c.key == key)).scalar_one()
        return self.folder / "store" / "sha256" / digest[:2] / digest[2:]

    def plant(self, key: str, *members: tuple[str, bytes, str]) -> None:
        """A cache that `save` would not have written."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name, kind, text in members:
                member = tarfile.TarInfo(name)
                member.type, member.mode, member.linkname = kind, 0o755, "" if kind == tarfile.REGTYPE else text
                member.size = len(text) if kind == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(text.encode()) if kind == tarfile.REGTYPE else None)
        blob = self.store.put_bytes(made.getvalue())
        row = {"project": "shop", "scope": MAIN, "key": key, "digest": blob.digest, "size_bytes": blob.size_bytes}
        with self.database.begin() as connection:
            connection.execute(sa.insert(caches).values(row))


@pytest.fixture
def kept(database: sa.Engine, store: ArtifactStore, tmp_path: Path) -> Caches:
    return Caches(database, store, tmp_path)


def tree(root: Path) -> dict[str, str]:
    """Everything in a folder: path → text, link or nothing."""
    found = {}
    for path in sorted(root.rglob("*")):
        text = f"-> {path.readlink()}" if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(root))] = text
    return found


def test_cache_comes_back(kept: Caches):
    """With its folders, links and exec bits; of several paths, those that were there."""
    source = kept.workspace("a", {"deps/x/lib": "lib", "tool": "#!/bin/sh", "src": "left out"})
    (source / "tool").chmod(0o755)
    (source / "deps" / "link").symlink_to("x/lib")
    paths = ("deps", "tool", "absent")
    assert kept.save(source, "k", paths=paths)
    target = kept.workspace("b")
    assert kept.restore(target, "k", paths=paths) == "k"
    assert tree(target) == {"deps": "", "deps/link": "-> x/lib", "deps/x": "", "deps/x/lib": "lib", "tool": "#!/bin/sh"}
    assert os.access(target / "tool", os.X_OK)
    assert [path.name for path in target.parent.iterdir() if path.name.startswith(".")] == []


def test_first_writer_wins(kept: Caches):
    """A cache never changes under its key; another scope has its own."""
    assert kept.save(kept.workspace("a", {"deps/v": "1"}), "k")
    assert not kept.save(kept.workspace("b", {"deps/v": "2"}), "k")
    assert kept.save(kept.workspace("b"), "k", scope=BRANCH)
    target = kept.workspace("c")
    kept.restore(target, "k")
    assert (target / "deps" / "v").read_text() == "1"


def test_exact_key_comes_first_then_the_newest_of_a_prefix(kept: Caches):
    """The own scope before the default branch's, the first prefix before the second."""
    for scope, key in ((MAIN, "v1-a"), (MAIN, "v1-b"), (BRANCH, "v1-old"), (MAIN, "v0-z"), (MAIN, "exact")):
        assert kept.save(kept.workspace(key, {"deps/name": key}), key, scope)
    asked = [("exact", ("v1-",), "exact"), ("no", ("v1-",), "v1-old"), ("no", ("x", "v0-"), "v0-z"), ("no", (), None)]
    for key, prefixes, expected in asked:
        target = kept.workspace(f"target-{expected}")
        assert kept.restore(target, key, prefixes, (BRANCH, MAIN)) == expected
        assert expected is None or (target / "deps" / "name").read_text() == expected
    assert kept.restore(kept.workspace("m"), "no", ("v1-",), (MAIN,)) == "v1-b"


@pytest.mark.parametrize("prefix", ["%", "_", "v%", "V1"])
def test_prefix_is_no_pattern(kept: Caches, prefix: str):
    """What SQL takes for a wildcard is a letter like others."""
    kept.save(kept.workspace("a", {"deps/x": "x"}), "v1-a")
    assert kept.restore(kept.workspace("b"), "no", (prefix,)) is None


def test_other_projects_and_scopes_are_not_read(kept: Caches, database: sa.Engine):
    """A pull request reads what its caller names, and no more."""
    kept.save(kept.workspace("a", {"deps/x": "x"}), "k", BRANCH)
    assert kept.restore(kept.workspace("b"), "k", ("",), (MAIN,)) is None
    with database.begin() as connection:
        connection.execute(sa.update(caches).values(project="blog"))
    assert kept.restore(kept.workspace("b"), "k", ("",), (BRANCH,)) is None


def test_saving_can_be_switched_off(kept: Caches):
    """Without a scope nothing is written; nor where there is nothing to keep."""
    assert not kept.save(kept.workspace("a", {"deps/x": "x"}), "k", None)
    assert not kept.save(kept.workspace("b"), "k")
    assert kept.keys() == set()


def test_what_the_workspace_has_stays(kept: Caches):
    """The commit's files come before a cache's; folders become one."""
    kept.save(kept.workspace("a", {"deps/mine": "cache", "deps/deep/more": "cache", "deps/other": "cache"}), "k")
    target = kept.workspace("b", {"deps/mine": "commit", "deps/deep/own": "commit"})
    (target / "deps" / "other").symlink_to("/nowhere")
    assert kept.restore(target, "k") == "k"
    assert tree(target / "deps") == {
        "mine": "commit",
        "deep": "",
        "deep/own": "commit",
        "deep/more": "cache",
        "other": "-> /nowhere",
    }


# Damage


def missing(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [missing, cut, flipped, emptied])
def test_damaged_cache_is_as_none(kept: Caches, damage: Callable[[Path], None]):
    """The workspace is as a clean one, the cache is dropped, and saving it anew heals it."""
    source = kept.workspace("a", {"deps/x": "content", "deps/y": "content"})
    kept.save(source, "k")
    damage(kept.file_of("k"))
    target = kept.workspace("b", {"src": "src"})
    assert kept.restore(target, "k", ("k",)) is None
    assert tree(target) == {"src": "src"}
    assert kept.keys() == set()
    assert "was dropped" in kept.said[0]
    assert kept.save(source, "k")
    assert kept.restore(target, "k") == "k"
    assert (target / "deps" / "y").read_text() == "content"


def test_next_best_is_taken_for_a_damaged_one(kept: Caches):
    """A prefix still helps."""
    kept.save(kept.workspace("a", {"deps/x": "old"}), "v1-old")
    kept.save(kept.workspace("b", {"deps/x": "new"}), "v1-new")
    cut(kept.file_of("v1-new"))
    target = kept.workspace("c")
    assert kept.restore(target, "v1-new", ("v1-",)) == "v1-old"
    assert (target / "deps" / "x").read_text() == "old"


def test_store_that_does_not_answer_drops_nothing(kept: Caches, tmp_path: Path):
    """It is away, not lost: the clean result, and the cache is there next time."""
    kept.save(kept.workspace("a", {"deps/x": "x"}), "k")
    stored = kept.file_of("k")
    stored.rename(tmp_path / "away")
    stored.mkdir()  # reading it is an error, and not that it is absent
    target = kept.workspace("b")
    assert kept.restore(target, "k") is None
    assert tree(target) == {}
    stored.rmdir()
    (tmp_path / "away").rename(stored)
    assert kept.restore(target, "k") == "k"


REG, SYM, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", REG, "x")],
        [("deps/../../out", REG, "x")],
        [("/tmp/penstock-cache-out", REG, "x")],
        [("src", REG, "poison")],
        [("other/file", REG, "x")],
        [("depsy", REG, "x")],
        [("deps/link", SYM, "../../out")],
        [("deps", SYM, "..")],
        [("deps/a", SYM, "../.."), ("deps/a/out", REG, "x")],
        [("deps/a", SYM, "/tmp"), ("deps/a/penstock-cache-out", REG, "x")],
        [("deps/pipe", tarfile.FIFOTYPE, "")],
        [("deps/hard", tarfile.LNKTYPE, "/etc/passwd")],
    ],
)
def test_tree_that_leaves_its_paths_is_refused(kept: Caches, members: list[tuple[str, bytes, str]]):
    """By names, through links or as a device: nothing of it is in the workspace, and it is dropped."""
    kept.plant("k", ("deps/first", REG, "first"), *members) if members[0][0] != "deps" else kept.plant("k", *members)
    target = kept.workspace("b", {"src": "src"})
    assert kept.restore(target, "k") is None
    assert tree(target) == {"src": "src"}
    assert not Path("/tmp/penstock-cache-out").exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["b"]
    assert kept.keys() == set()


def test_links_within_and_to_the_machine_are_left_as_they_are(kept: Caches):
    """A virtual environment's link to its Python; a package's link to its neighbour."""
    source = kept.workspace("a", {"deps/lib/x": "x"})
    (source / "deps" / "python").symlink_to("/usr/bin/python3")
    (source / "deps" / "lib" / "up").symlink_to("../../src")
    kept.save(source, "k")
    target = kept.workspace("b")
    assert kept.restore(target, "k") == "k"
    assert (target / "deps" / "python").readlink() == Path("/usr/bin/python3")


@pytest.mark.parametrize("path", ["..", "../x", "/etc", "a/../../b", "", ".", "linked/x"])
def test_paths_lead_nowhere_else(kept: Caches, path: str):
    """Neither when saving nor when restoring."""
    root = kept.workspace("a")
    (root / "linked").symlink_to("/tmp")
    with pytest.raises(InputError, match="workspace"):
        kept.save(root, "k", paths=(path,))
    with pytest.raises(InputError, match="workspace"):
        kept.restore(root, "k", paths=(path,))


def test_folder_that_is_a_link_is_not_followed(kept: Caches):
    """The step may have made it one; a cache keeps the link, not what lies behind it."""
    source = kept.workspace("a")
    (source / "deps").symlink_to("/etc")
    kept.save(source, "k")
    target = kept.workspace("b")
    kept.restore(target, "k")
    assert (target / "deps").readlink() == Path("/etc")


def test_dropped_cache_leaves_artifacts_alone(kept: Caches, database: sa.Engine):
    """Records of artifacts with the same bytes stay; the bytes were damaged for them too."""
    kept.save(kept.workspace("a", {"deps/x": "content"}), "k")
    of = {"project": "shop", "commit": "c", "ref": MAIN, "run_id": "r", "step": "s", "key": "k", "path": "p"}
    digest = kept.file_of("k").parent.name + kept.file_of("k").name
    with database.begin() as connection:
        connection.execute(sa.insert(artifacts).values(**of, kind="tree", digest=digest, size_bytes=1))
    flipped(kept.file_of("k"))
    kept.restore(kept.workspace("b"), "k")
    with database.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(artifacts)).scalar() == 1


# hash_files


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    for name in ("a.lock", "b/c/d.lock", "b/x.txt", ".git/index.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_hash_is_that_of_names_and_contents(sources: Path):
    """Not of times, of the order of patterns, or of how often a file matches."""
    first = hash_files(sources, "**/*.lock")
    assert len(first) == 64
    os.utime(sources / "a.lock", (0, 0))
    assert hash_files(sources, "b/**/*.lock", "a.lock", "**/*.lock") == first
    (sources / "b" / "x.txt").write_text("other")
    (sources / ".git" / "index.lock").write_text("other")
    assert hash_files(sources, "**/*.lock") == first
    (sources / "a.lock").rename(sources / "z.lock")
    renamed = hash_files(sources, "**/*.lock")
    (sources / "z.lock").write_text("other")
    assert len({first, renamed, hash_files(sources, "**/*.lock")}) == 3


def test_nothing_matches(sources: Path):
    """An empty hash, so that a key can say so."""
    assert hash_files(sources, "*.none") == hash_files(sources) == hash_files(sources, "b") == ""


def test_links_are_not_followed(sources: Path):
    """Neither to files nor to folders, inside or outside."""
    before = hash_files(sources, "**/*", "*/*")
    (sources / "passwd.lock").symlink_to("/etc/passwd")
    (sources / "etc").symlink_to("/etc")
    (sources / "inner").symlink_to("b")
    assert hash_files(sources, "**/*", "*/*", "etc/passwd") == before


@pytest.mark.parametrize("pattern", ["../*", "/etc/passwd", "a/../../x", "", "a\0b", "a**b/**c"])
def test_patterns_stay_inside(sources: Path, pattern: str):
    """One line says what a pattern is."""
    with pytest.raises(InputError) as caught:
        hash_files(sources, pattern)
    assert "\n" not in str(caught.value)


def test_bottomless_folder_is_one_line(bottomless: Path):
    """A step can nest folders deeper than any path may be."""
    with pytest.raises(InputError, match="cannot hash the files"):
        hash_files(bottomless, "**/*.lock")
