"""A repository that does not answer is asked less and less often."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.events import inbox
from penstock.events.poll import LONGEST_PAUSE_S, pause_s, poll_all
from penstock.settings import Settings
from penstock.sources.projects import add_project
from penstock.state.tables import polls


@pytest.mark.parametrize(
    ("failures", "shortest", "longest"), [(1, 24, 36), (2, 48, 72), (5, 384, 576), (99, 1440, 2160)]
)
def test_pause_doubles_up_to_half_an_hour_give_or_take(failures: int, shortest: float, longest: float):
    """Luck spreads those that failed at the same moment."""
    assert pause_s(failures, 0.0) == pytest.approx(shortest)
    assert pause_s(failures, 1.0) == pytest.approx(longest)
    assert pause_s(10_000, 0.5) == LONGEST_PAUSE_S


def test_project_that_is_away_rests_and_is_asked_when_its_time_has_come(
    settings: Settings, database: sa.Engine, make_repository: Callable[..., GitRepository]
):
    """One line each time that it was asked; once it answers, the count begins anew."""
    made = make_repository("shop", {"readme": "x"})
    add_project(database, "shop", str(made.root))
    elsewhere = made.root.rename(made.root.with_name("elsewhere"))
    assert len(list(poll_all(database, settings))) == 1
    assert list(poll_all(database, settings)) == []
    for failures in (2, 3):
        _let_time_pass(database)
        assert len(list(poll_all(database, settings))) == 1
        assert _row(database)["failures"] == failures
    elsewhere.rename(made.root)
    _let_time_pass(database)
    assert list(poll_all(database, settings)) == []
    assert (_row(database)["failures"], _row(database)["next_at"]) == (0, None)
    assert len(inbox.list_events(database)) == 1


def _let_time_pass(database: sa.Engine) -> None:
    with database.begin() as connection:
        connection.execute(sa.update(polls).values(next_at=sa.func.now() - timedelta(seconds=1)))


def _row(database: sa.Engine) -> sa.RowMapping:
    with database.connect() as connection:
        return connection.execute(sa.select(polls)).mappings().one()
