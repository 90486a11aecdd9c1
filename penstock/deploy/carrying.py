"""The platform's own driver of rollouts: what somebody asked for by hand, and what was cut off."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.deploy.rollout import LettingGo, carry
from penstock.deploy.rollouts import Rollout, open_rollouts
from penstock.errors import PenstockError
from penstock.rounds import Rounds
from penstock.settings import Settings

LOOK_EVERY_S = 1.0
DRIVEN_WITHIN = timedelta(seconds=3)  # who drives writes that down every second
MOST_AT_ONCE = 16
_log = logging.getLogger(__name__)


class Carrier:
    """Looks for open rollouts that nobody drives, and drives each in a thread of its own until it is told to stop."""

    def __init__(self, engine: sa.Engine, settings: Settings) -> None:
        self._engine, self._settings = engine, settings
        self._token = LettingGo()
        self._busy: dict[Service, threading.Thread] = {}
        self._rounds = Rounds("rollouts", self._look, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        """Begin, with what was left over."""
        self._rounds.start()

    def wake(self) -> None:
        """Something was asked for."""
        self._rounds.wake()

    def stop(self, limit_s: float = 10.0) -> None:
        """Let go of everything: the next one goes on from there."""
        self._token.cancel("Penstock stops")
        self._rounds.stop(limit_s)
        for thread in list(self._busy.values()):
            thread.join(timeout=limit_s)

    def _look(self) -> int:
        """Returns: 0, since what is begun is not looked for again at once."""
        self._busy = {service: thread for service, thread in self._busy.items() if thread.is_alive()}
        with self._engine.begin() as connection:
            waiting = [one for one in open_rollouts(connection) if not _is_driven(one)]
        for service in dict.fromkeys(one.service for one in waiting):
            if service not in self._busy and len(self._busy) < MOST_AT_ONCE:
                thread = threading.Thread(target=self._carry, args=(service,), name=f"rollout {service}", daemon=True)
                self._busy[service] = thread
                thread.start()
        return 0

    def _carry(self, service: Service) -> None:
        try:
            carry(self._engine, self._settings, _log.info, self._token, service)
        except PenstockError as error:  # it is undone, and its row says why
            _log.info("%s", error)
        except sa.exc.DBAPIError as error:
            _log.warning("the database is away: %s", str(error.orig).splitlines()[0])
        except Exception:  # noqa: BLE001 - the boundary: a defect in one keeps no other from going on
            _log.exception("the rollout of %s was cut off", service)


def _is_driven(rollout: Rollout) -> bool:
    seen = rollout.seen_at
    return rollout.state == "going" and seen is not None and datetime.now(UTC) - seen < DRIVEN_WITHIN
