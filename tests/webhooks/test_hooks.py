"""Hooks: made, rotated, removed; and the command that does it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.errors import ConflictError, InputError, NotFoundError
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.vault import Vault
from penstock.webhooks import hooks
from penstock.webhooks.hooks import Pins, add_hook, new_secret, repository_in


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/shop/api.git", "shop/api"),
        ("git@github.com:shop/api.git", "shop/api"),
        ("ssh://git@bitbucket.example:7999/shop/api.git", "shop/api"),
        ("https://bitbucket.example/scm/shop/api.git", "shop/api"),
        ("https://gitlab.example/shop/web/api", "shop/web/api"),
        ("https://dev.azure.com/org/Shop/_git/api", "Shop/api"),
        ("git@ssh.dev.azure.com:v3/org/Shop/api", "Shop/api"),
        ("https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/api", "api"),
        ("/srv/git/shop.git", None),
        ("file:///srv/git/shop.git", None),
    ],
)
def test_repositorys_name_is_read_from_its_address(url: str, name: str | None):
    """As the forge will call it in its deliveries; a path on this machine has none."""
    assert repository_in(url) == name


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 15, "with\ncontrol characters", "whsec_not base64!!"])
def test_hook_without_a_proper_secret_is_refused(database: sa.Engine, vault: Vault, shop: GitRepository, secret: str):
    """An empty one would let anybody in at some forges."""
    with pytest.raises(InputError):
        add_hook(database, vault, "shop", "gitlab", secret=secret)
    assert hooks.list_hooks(database) == ()


def test_codecommit_needs_a_topic(database: sa.Engine, vault: Vault, shop: GitRepository):
    """It has no secret: the pinned topic is what is believed."""
    with pytest.raises(InputError, match="topic"):
        add_hook(database, vault, "shop", "aws-codecommit", secret=None, pins=Pins(topic_arn="arn:aws:sqs:x"))


def test_two_secrets_live_at_most(database: sa.Engine, vault: Vault, shop: GitRepository):
    """A third one waits for the end of the rotation; there is nothing to end before one has begun."""
    hook = add_hook(database, vault, "shop", "github", secret=new_secret())
    with pytest.raises(ConflictError):
        hooks.end_rotation(database, vault, hook.id)
    assert len(hooks.rotate(database, vault, hook.id, new_secret()).secrets) == 2
    with pytest.raises(ConflictError):
        hooks.rotate(database, vault, hook.id, new_secret())
    assert hooks.end_rotation(database, vault, hook.id).secrets == (f"{hook.id}-2",)


def test_removed_hook_leaves_no_secret(database: sa.Engine, vault: Vault, shop: GitRepository):
    """Nor an address."""
    hook = add_hook(database, vault, "shop", "github", secret=new_secret())
    hooks.remove_hook(database, vault, hook.id)
    assert vault.names(hooks.VAULT_PROJECT) == ()
    with pytest.raises(NotFoundError):
        hooks.get_hook(database, hook.id)


def test_no_project_may_be_called_like_the_vaults_place_for_hooks(
    database: sa.Engine, make_repository: Callable[..., GitRepository]
):
    """Its steps could be granted the secrets of every hook."""
    with pytest.raises(InputError):
        add_project(database, hooks.VAULT_PROJECT, str(make_repository("x", {"a": "b"}).root))


def test_command_makes_lists_rotates_and_removes(
    database: sa.Engine, settings: Settings, env: dict[str, str], shop: GitRepository, tmp_path: Path
):
    """The secret is shown once, and in no list."""
    penstock = str(Path(sys.executable).parent / "penstock")
    named = {**os.environ, **env, "PENSTOCK_VAULT_KEY_FILE": str(settings.vault_key_file)}

    def say(*words: str) -> str:
        done = subprocess.run(
            [penstock, "hook", *words], env=named, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = say("add", "shop", "github")
    secret, hook = re.search(r"^secret +(\S+)$", made, re.M)[1], re.search(r"^hook +(\S+)$", made, re.M)[1]  # type: ignore[index]
    assert f"/api/v1/hooks/{hook}" in made
    listed = say("list", "--project", "shop")
    assert hook in listed
    assert secret not in listed
    assert re.search(r"^secret +whsec_", say("rotate", hook, "--signing"), re.M)
    say("rotate", hook, "--finish")
    say("deliveries")
    say("remove", hook)
    assert hook not in say("list")
