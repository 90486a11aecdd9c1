"""One flag that everything started for a run obeys."""

import threading

import pytest

from penstock.errors import Cancelled
from penstock.pipeline.cancel import CancelToken, current_token, token_in_use


def test_what_is_registered_is_stopped_newest_first():
    """And what has ended is not."""
    token, stopped = CancelToken(), []
    with token.stopping(lambda: stopped.append("outer")):
        with token.stopping(lambda: stopped.append("over")):
            pass
        with token.stopping(lambda: stopped.append("inner")):
            token.cancel("enough")
    assert stopped == ["inner", "outer"]


def test_first_reason_stays():
    """Cancelling twice stops once."""
    token, stopped = CancelToken(), []
    with token.stopping(lambda: stopped.append(1)):
        token.cancel("first")
        token.cancel("second")
    assert (token.reason, stopped) == ("first", [1])
    with pytest.raises(Cancelled, match="first"):
        token.raise_if_cancelled()


def test_what_registers_too_late_is_stopped_at_once():
    """A job that starts while the run is being cancelled does not slip through."""
    token, stopped = CancelToken(), []
    token.cancel("early")
    with token.stopping(lambda: stopped.append(1)):
        assert stopped == [1]


def test_waiting_ends_when_cancelled():
    """Nobody sleeps through it."""
    token = CancelToken()
    threading.Thread(target=token.cancel, args=("now",)).start()
    assert token.wait(60)
    assert not CancelToken().wait(0)


def test_token_belongs_to_the_context():
    """Outside of a run there is a fresh one; inside, the run's, and the former one afterwards."""
    outer, inner = CancelToken(), CancelToken()
    with token_in_use(outer):
        with token_in_use(inner):
            assert current_token() is inner
        assert current_token() is outer
    assert current_token() is not outer
