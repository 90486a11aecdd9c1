"""Files that name dependencies, as they are found in a checkout."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

LOCK_FILES = (  # what both Trivy and Grype read
    *("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"),
    *("requirements.txt", "poetry.lock", "uv.lock", "Pipfile.lock"),
    *("go.mod", "Cargo.lock", "Gemfile.lock", "composer.lock", "pom.xml", "gradle.lockfile", "packages.lock.json"),
    *("pubspec.lock", "mix.lock", "conan.lock", "Podfile.lock", "Package.resolved"),
)


def find_manifests(
    workspace: Path, paths: Sequence[str], exclude: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """
    Files below `paths` whose name is like one of `names`, relative to the workspace, ascending.

    A file that is itself one of `paths` is taken whatever its name. Links to folders are not followed.
    """
    found: set[str] = set()
    for path in paths:
        if (workspace / path).is_file():
            found.add(str(PurePosixPath(path)))
        else:
            found.update(one for one in _files(workspace, path, exclude) if _like(PurePosixPath(one).name, names))
    return tuple(sorted(found))


def _files(workspace: Path, path: str, exclude: Sequence[str]) -> Iterator[str]:
    for folder, folders, files in os.walk(workspace / path):
        here = PurePosixPath(Path(folder).relative_to(workspace).as_posix())
        folders[:] = [name for name in folders if not excluded(str(here / name), exclude)]
        for name in files:
            if not excluded(str(here / name), exclude):
                yield str(here / name)


def excluded(path: str, words: Sequence[str]) -> bool:
    """Whether a name, path or glob among `words` stands for this file or folder."""
    name = PurePosixPath(path).name
    return any(
        fnmatchcase(name, word) or fnmatchcase(path, word) or fnmatchcase(path, f"*/{word}")
        for word in (one.strip("/") for one in words)
    )


def _like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
