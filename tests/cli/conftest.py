"""The command in a repository, on a database and a home of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import Penstock
from git_builder import GitRepository


@pytest.fixture
def penstock(env: dict[str, str], tmp_path: Path) -> Penstock:
    """Called in an empty folder."""
    return Penstock(env, tmp_path)


@pytest.fixture
def bare_penstock(tmp_path: Path) -> Penstock:
    """For what needs no database."""
    return Penstock({}, tmp_path)


@pytest.fixture
def in_repository(
    make_repository: Callable[..., GitRepository], env: dict[str, str]
) -> Callable[[str], tuple[Penstock, GitRepository]]:
    """in_repository(pipeline) → the command, called in a repository with that penstock.yaml."""

    def make(pipeline: str) -> tuple[Penstock, GitRepository]:
        repository = make_repository("shop", {"penstock.yaml": pipeline})
        return Penstock(env, repository.root), repository

    return make
