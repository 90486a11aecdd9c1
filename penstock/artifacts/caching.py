"""
Folders that steps keep from run to run. Whatever becomes of a cache, a step sees it whole or not at all.

A cache belongs to a project, a scope (a ref, or `shared`) and a key; the first writer wins, and it never changes.
What the workspace holds already is never overwritten: the commit's files and needed artifacts come first.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.artifacts.errors import BlobDamaged, BlobLost
from penstock.artifacts.inputs import hash_files
from penstock.artifacts.store import ArtifactStore, Blob
from penstock.errors import InputError, PlatformError
from penstock.folders import remove_tree
from penstock.state.tables import caches

__all__ = ["hash_files", "restore", "save"]

Log = Callable[[str], None]


@attrs.frozen
class _Cache:
    """A cache on record."""

    project: str
    scope: str
    key: str
    digest: str


def restore(
    database: sa.Engine,
    store: ArtifactStore,
    *,
    project: str,
    scopes: Sequence[str],
    key: str,
    prefixes: Sequence[str],
    workspace: Path,
    paths: Sequence[str],
    log: Log,
) -> str | None:
    """
    Put the best cache in place. Returns: its key; None when there is none that is whole.

    scopes, prefixes: best first. The exact key in any scope comes before prefixes; of one prefix, the newest counts.
    A cache that is lost, damaged or not to be trusted is dropped and the next is tried; while the store does not
    answer, there is none.
    Raises: InputError for paths that lead out of the workspace.
    """
    wanted = [_place(workspace, path) for path in paths]
    for cache in _candidates(database, project, scopes, key, prefixes):
        try:
            placed = _unpack(store, cache, workspace, wanted)
        except (BlobLost, BlobDamaged, InputError) as error:
            _drop(database, store, cache, error)
            log(f"the cache {cache.key} is of no use and was dropped: {error}")
            continue
        except PlatformError as error:
            log(f"the cache {cache.key} cannot be read now: {error}")
            return None
        _mark_used(database, cache)
        log(f"cache {cache.key}: {placed} put in place")
        return cache.key
    return None


def save(
    database: sa.Engine,
    store: ArtifactStore,
    *,
    project: str,
    scope: str | None,
    key: str,
    workspace: Path,
    paths: Sequence[str],
) -> Blob | None:
    """
    Keep the paths under a key that the scope has not. Returns: None when nothing was kept.

    scope: None keeps nothing: the run may not write caches.
    Raises: InputError for paths that lead out of the workspace or cannot be read, PlatformError.
    """
    names = [str(_place(workspace, path).relative_to(workspace)) for path in paths]
    there = [name for name in names if os.path.lexists(workspace / name)]
    if scope is None or not there or _is_known(database, project, scope, key):
        return None
    blob = store.put_tree(workspace, there)
    row = {"project": project, "scope": scope, "key": key, "digest": blob.digest, "size_bytes": blob.size_bytes}
    with database.begin() as connection:
        made = connection.execute(insert(caches).values(row).on_conflict_do_nothing().returning(caches.c.key))
        return blob if made.first() else None


def _is_known(database: sa.Engine, project: str, scope: str, key: str) -> bool:
    wanted = sa.select(caches.c.key).where(caches.c.project == project, caches.c.scope == scope, caches.c.key == key)
    with database.connect() as connection:
        return connection.execute(wanted).first() is not None


def _candidates(
    database: sa.Engine, project: str, scopes: Sequence[str], key: str, prefixes: Sequence[str]
) -> Iterator[_Cache]:
    seen: set[_Cache] = set()
    exact = [(scope, caches.c.key == key) for scope in scopes]
    begins = [(scope, caches.c.key.startswith(prefix, autoescape=True)) for prefix in prefixes for scope in scopes]
    for scope, condition in (*exact, *begins):
        for cache in _newest(database, project, scope, condition):
            if cache not in seen:
                seen.add(cache)
                yield cache


def _newest(database: sa.Engine, project: str, scope: str, condition: sa.ColumnElement[bool]) -> list[_Cache]:
    columns = (caches.c.project, caches.c.scope, caches.c.key, caches.c.digest)
    wanted = sa.select(*columns).where(caches.c.project == project, caches.c.scope == scope, condition)
    with database.connect() as connection:
        rows = connection.execute(wanted.order_by(caches.c.created_at.desc(), caches.c.key).limit(5))
        return [_Cache(*row) for row in rows]


def _unpack(store: ArtifactStore, cache: _Cache, workspace: Path, wanted: Sequence[Path]) -> str:
    """Unpack beside the workspace, look, then move. Returns: what was put in place, in words."""
    beside = Path(tempfile.mkdtemp(dir=workspace.parent, prefix=".cache-"))
    try:
        tree = beside / "tree"
        store.fetch_tree(cache.digest, tree)
        _check(tree, [path.relative_to(workspace) for path in wanted])
        moved = _move_all(tree, workspace, wanted)
        return f"{moved} of {len(wanted)} paths" if moved != len(wanted) else f"{moved} paths"
    except OSError as error:
        raise PlatformError(f"cannot put it in place: {error.strerror}", where=f"cache {cache.key}") from error
    finally:
        remove_tree(beside)


def _check(tree: Path, allowed: Sequence[Path]) -> None:
    """
    Nothing lies outside of the paths, and no relative link climbs out of the workspace.

    Raises: InputError.
    """
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            path = Path(folder) / name
            relative = path.relative_to(tree)
            is_above = (
                path.is_dir() and not path.is_symlink() and any(place.is_relative_to(relative) for place in allowed)
            )
            if not is_above and not any(relative.is_relative_to(place) for place in allowed):
                raise InputError(f'it holds "{_shown(relative)}", which is none of its paths', where="cache")
            if path.is_symlink() and _climbs(relative.parent, path.readlink()):
                raise InputError(f'its link "{_shown(relative)}" leads out of the workspace', where="cache")


def _climbs(folder: Path, link: Path) -> bool:
    """An absolute one says where something is on the machine, as a virtual environment does, and is left as it is."""
    if link.is_absolute():
        return False
    depth = len(folder.parts)
    for part in link.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _move_all(tree: Path, workspace: Path, wanted: Sequence[Path]) -> int:
    """All of the paths, or none: what was moved goes back when one cannot be."""
    moved: list[Path] = []
    try:
        found = 0
        for path in wanted:
            if os.path.lexists(source := tree / path.relative_to(workspace)):
                _make_parents(path.parent, workspace, moved)
                _move(source, path, moved)
                found += 1
        return found
    except OSError:
        for path in reversed(moved):
            _take_back(path)
        raise


def _make_parents(folder: Path, workspace: Path, made: list[Path]) -> None:
    missing = [place for place in (folder, *folder.parents) if place.is_relative_to(workspace) and not place.exists()]
    for place in reversed(missing):
        place.mkdir()
        made.append(place)


def _move(source: Path, target: Path, moved: list[Path]) -> None:
    """What is there stays; two folders become one."""
    if not os.path.lexists(target):
        source.rename(target)
        moved.append(target)
    elif _is_folder(source) and _is_folder(target):
        for entry in sorted(source.iterdir()):
            _move(entry, target / entry.name, moved)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _take_back(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _place(workspace: Path, path: str) -> Path:
    """
    A cache's path in the workspace; no link is on the way to it.

    Raises: InputError.
    """
    name = PurePosixPath(path)
    target = workspace / name
    if name.is_absolute() or ".." in name.parts or not name.parts or "\0" in path:
        raise InputError(f'"{path}" is no path in the workspace', where="cache")
    if target.parent.resolve() != workspace.resolve() / name.parent:
        raise InputError(f'"{path}" leads out of the workspace', where="cache", remedy="give a path without links")
    return target


def _drop(database: sa.Engine, store: ArtifactStore, cache: _Cache, error: Exception) -> None:
    """Off the record; damaged bytes go too, so that the next who saves the same stores it anew."""
    of_cache = [getattr(caches.c, name) == value for name, value in attrs.asdict(cache).items()]
    with database.begin() as connection:
        connection.execute(sa.delete(caches).where(*of_cache))
    if isinstance(error, BlobDamaged):
        with suppress(PlatformError):  # then it stays, off the record, until a sweep takes it
            store.discard_damaged(cache.digest)


def _mark_used(database: sa.Engine, cache: _Cache) -> None:
    of_cache = [getattr(caches.c, name) == value for name, value in attrs.asdict(cache).items()]
    with database.begin() as connection:
        connection.execute(sa.update(caches).where(*of_cache).values(used_at=sa.func.now()))


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
