"""Tokens are bound to one step, live for minutes, and are nobody's when it ends."""

from datetime import timedelta

import attrs
import pytest
import sqlalchemy as sa

from penstock.errors import InputError
from penstock.plugins.data import PluginData, Scope
from penstock.plugins.data.mover import Mover
from penstock.state.plugin_tables import plugin_tokens

SHOP = Scope("default", "shop", "run-1", "scan", "c" * 40, "lint", "production")
MINUTES = timedelta(minutes=5)


def test_a_token_says_whose_it_is(store: PluginData) -> None:
    """Each its own scope, whole."""
    other = attrs.evolve(SHOP, project="secret", environment=None)
    mine, others = store.mint(SHOP, MINUTES), store.mint(other, MINUTES)
    assert mine != others
    assert (store.scope_of(mine), store.scope_of(others)) == (SHOP, other)


def test_a_token_can_be_recognised_and_has_256_bits(store: PluginData) -> None:
    """So that masking finds one that it was never told."""
    token = store.mint(SHOP, MINUTES)
    assert token.startswith("ppd_")
    assert len(token) >= 4 + 43


def test_the_database_cannot_tell_a_token(store: PluginData, database: sa.Engine) -> None:
    """It knows a hash."""
    token = store.mint(SHOP, MINUTES)
    with database.connect() as connection:
        row = connection.execute(
            sa.select(sa.cast(sa.literal_column("plugin_tokens"), sa.Text)).select_from(plugin_tokens)
        )
        said = str(row.scalar_one())
    assert token not in said
    assert token[4:] not in said


def test_a_revoked_token_is_nobodys(store: PluginData) -> None:
    """At once, and revoking it twice is no error; others live on."""
    token, other = store.mint(SHOP, MINUTES), store.mint(SHOP, MINUTES)
    store.revoke(token)
    store.revoke(token)
    assert store.scope_of(token) is None
    assert store.scope_of(other) == SHOP


def test_an_expired_token_is_nobodys(store: PluginData, database: sa.Engine) -> None:
    """Also when nobody revoked it: the run may have been killed."""
    token = store.mint(SHOP, MINUTES)
    with database.begin() as connection:
        connection.execute(sa.update(plugin_tokens).values(expires_at=sa.func.now()))
    assert store.scope_of(token) is None


@pytest.mark.parametrize("token", ["", "ppd_", "pst_abc", "ppd_" + "x" * 10_000, "ppd_\0", "ppd_\ud800", "ppd_'--"])
def test_what_is_no_token_is_nobodys(store: PluginData, token: str) -> None:
    """Without an error."""
    store.mint(SHOP, MINUTES)
    assert store.scope_of(token) is None


@pytest.mark.parametrize("lives", [timedelta(0), timedelta(seconds=-1), timedelta(days=3)])
def test_a_token_lives_neither_for_nothing_nor_for_days(store: PluginData, lives: timedelta) -> None:
    """Two days is the longest a step could need."""
    with pytest.raises(InputError, match="a token lives"):
        store.mint(SHOP, lives)


def test_records_of_old_tokens_are_swept(store: PluginData, database: sa.Engine, mover: Mover) -> None:
    """Those of the last days stay, for whoever asks what happened."""
    store.mint(SHOP, MINUTES)
    with database.begin() as connection:
        connection.execute(sa.update(plugin_tokens).values(expires_at=sa.func.now() - timedelta(days=8)))
    token = store.mint(SHOP, MINUTES)
    mover.sweep()
    with database.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(plugin_tokens)).scalar_one() == 1
    assert store.scope_of(token) == SHOP
