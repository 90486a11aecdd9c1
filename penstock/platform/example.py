"""The bundled example: a bare repository with a hook, a work tree beside it, and a commit to push."""

import shutil
import sys
from pathlib import Path

import attrs
import sqlalchemy as sa

from penstock.api.tokens import token_file
from penstock.platform import post_receive
from penstock.platform.parts import checkout
from penstock.settings import Settings
from penstock.sources.command import git
from penstock.sources.projects import Project, add_project

NAME = "shop"
_AUTHOR = ("-c", "user.name=Penstock", "-c", "user.email=penstock@localhost")


@attrs.frozen
class Example:
    """The example's repository (what one clones and pushes to) and the work tree that Penstock commits in."""

    bare: Path
    tree: Path

    @classmethod
    def under(cls, settings: Settings) -> "Example":
        """Where it lies."""
        folder = settings.home / "repositories"
        return cls(folder / f"{NAME}.git", folder / NAME)


def connect_example(database: sa.Engine, settings: Settings) -> tuple[Example, Project]:
    """Make the repository if it is not there, and connect it."""
    example = Example.under(settings)
    if not (example.bare / "penstock.ready").exists():
        shutil.rmtree(example.bare, ignore_errors=True)
        shutil.rmtree(example.tree, ignore_errors=True)
        example.bare.parent.mkdir(exist_ok=True)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(example.bare))
        (example.bare / "penstock.ready").touch()
    write_hook(settings, example.bare, NAME)
    return example, add_project(database, NAME, str(example.bare))


def write_hook(settings: Settings, bare: Path, project: str) -> None:
    """Let a bare repository on this machine tell Penstock of pushes."""
    url = f"{settings.api_url}/api/v1/projects/{project}/events"
    words = [sys.executable, "-IS", post_receive.__file__, url, str(token_file(settings))]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    hook = bare / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {quoted}\n")
    hook.chmod(0o755)


def push_example(example: Example) -> str:
    """
    Push a commit to the example: its files the first time, then an empty commit on what is there.

    Returns: the commit.
    """
    if not (example.tree / ".git").exists():
        shutil.rmtree(example.tree, ignore_errors=True)
        git("clone", "--quiet", str(example.bare), str(example.tree))
    tree = ("-C", str(example.tree))
    if git("-C", str(example.bare), "for-each-ref", "refs/heads/main"):
        git(*tree, "fetch", "--quiet", "origin")
        git(*tree, "checkout", "--quiet", "--force", "-B", "main", "origin/main")
        message = "Run the example again"
    else:
        git(*tree, "checkout", "--quiet", "-B", "main")
        ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", "reports", "dist", ".penstock")
        shutil.copytree(checkout() / "examples" / NAME, example.tree, dirs_exist_ok=True, ignore=ignored)
        git(*tree, "add", "--all")
        message = "Open the shop"
    git(*tree, *_AUTHOR, "commit", "--quiet", "--allow-empty", "-m", message)
    git(*tree, "push", "--quiet", "origin", "main", guarded=False)
    return git(*tree, "rev-parse", "HEAD").decode().strip()
