"""`penstock artifacts`, called as people do."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.artifacts import open_store
from penstock.settings import Settings
from penstock.state.tables import artifacts

Called = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def penstock(env: dict[str, str], tmp_path: Path) -> Called:
    """penstock(words…) → what `penstock artifacts words…` did."""
    hidden = ("PENSTOCK_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name("penstock")), "artifacts", *words]
        whole = {**inherited, "COLUMNS": "200", **env}
        return subprocess.run(
            command, cwd=tmp_path, env=whole, capture_output=True, text=True, check=False, timeout=120
        )

    return call


@pytest.fixture
def row(database: sa.Engine, settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """A program that a step put out 60 days ago, on record."""
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    store = open_store(settings.artifacts_path)
    blob, kind = store.put_path(tmp_path / "tool")
    stored = Path(settings.artifacts_path) / "sha256" / blob.digest[:2] / blob.digest[2:]
    os.utime(stored, (0, 0))
    made = {"project": "shop", "commit": "c" * 40, "ref": "refs/heads/main", "run_id": "run-1", "step": "build"}
    made |= {"key": "tool", "path": "bin/tool", "kind": kind, "digest": blob.digest, "size_bytes": blob.size_bytes}
    with database.begin() as connection:
        values = {**made, "created_at": datetime.now(UTC) - timedelta(days=60)}
        made["id"] = connection.execute(sa.insert(artifacts).values(values).returning(artifacts.c.id)).scalar_one()
    return made


def test_listed_and_shown(penstock: Called, row: dict[str, Any]):
    """By project and key, by number and by digest."""
    assert row["digest"][:12] in penstock("list", "--project", "shop", "--key", "tool").stdout
    assert row["digest"][:12] not in penstock("list", "--key", "other").stdout
    for name in (str(row["id"]), f"sha256:{row['digest'][:8]}"):
        shown = penstock("show", name)
        assert (shown.returncode, row["digest"] in shown.stdout, "there" in shown.stdout) == (0, True, True)


def test_fetched_verified(penstock: Called, row: dict[str, Any], tmp_path: Path):
    """With its exec bit, and never over something."""
    done = penstock("fetch", str(row["id"]), "out/tool")
    assert "verified" in done.stdout, done.stderr
    assert os.access(tmp_path / "out" / "tool", os.X_OK)
    again = penstock("fetch", str(row["id"]), "out/tool")
    assert (again.returncode, again.stderr) == (
        2,
        "penstock: out/tool: it is there already; name a path where nothing is\n",
    )


def test_swept(penstock: Called, row: dict[str, Any], settings: Settings):
    """First only said, then done; the store then has nothing."""
    said = penstock("sweep", "--older-than", "30d", "--dry-run")
    assert "would go: 1 artifacts, 0 caches, 1 blobs" in said.stdout, said.stderr
    kept = penstock("sweep", "--older-than", "30d", "--keep", "1")
    assert "gone: 0 artifacts" in kept.stdout, kept.stderr
    done = penstock("sweep", "--older-than", "30d")
    assert "gone: 1 artifacts, 0 caches, 1 blobs" in done.stdout, done.stderr
    assert list(open_store(settings.artifacts_path).blobs()) == []


def test_removed(penstock: Called, row: dict[str, Any]):
    """Off the record, and then unknown."""
    done = penstock("remove", str(row["id"]))
    assert "its bytes are gone" in done.stdout, done.stderr
    gone = penstock("show", str(row["id"]))
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "words",
    [
        ("show", "999999"),
        ("show", "zz"),
        ("show", "sha256:"),
        ("sweep", "--older-than", "soon"),
        ("sweep", "--total", "much"),
        ("sweep", "--grace", "0h"),
        ("list", "--run", "none"),
    ],
)
def test_wrong_words_are_one_line(penstock: Called, words: tuple[str, ...]):
    """No traceback, exit code 2."""
    done = penstock(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("penstock: ")
