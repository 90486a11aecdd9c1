"""A made-up run from its first step to its last."""

import random
from datetime import datetime, timedelta
from typing import Any

from penstock.warehouse.rows import Step

_WORST = {"infra_error": 2, "failed": 1}


class Work:
    """
    Steps one after the other. After one that did not succeed the others still run, but for the deployment.

    of: project, commit and run_id. now: when the last step ended.
    """

    def __init__(self, of: dict[str, Any], at: datetime, chance: random.Random) -> None:
        self.of, self.queued_at, self._random = of, at, chance
        self.started_at = self.now = at + timedelta(seconds=0.2 + chance.expovariate(1 / 5))
        self.steps: list[Step] = []
        self.state = "succeeded"
        self.reason: str | None = None

    def step(
        self,
        name: str,
        kind: str,
        typical_s: float,
        state: str = "succeeded",
        reason: str | None = None,
        *,
        reused_from: str | None = None,
    ) -> None:
        """The next step; it takes about `typical_s` seconds."""
        seconds = typical_s * self._random.uniform(0.8, 1.4)
        began, self.now = self.now, self.now + timedelta(seconds=seconds)
        ran = state != "skipped" and reused_from is None
        self.steps.append(
            Step(
                **self.of,
                step=name,
                type=kind,
                kind=kind.removeprefix("step."),
                state=state,
                reason=reason,
                queued_at=self.queued_at,
                started_at=began if ran else None,
                finished_at=self.now,
                seconds=seconds if ran else None,
                exit_code={"succeeded": 0, "failed": 1}.get(state),
                reused_from=reused_from,
                cpu_s=seconds * self._random.uniform(0.3, 1.6) if ran else None,
                memory_peak_bytes=round(self._random.uniform(60, 900) * 1e6) if ran else None,
            )
        )
        if _WORST.get(state, 0) > _WORST.get(self.state, 0):
            self.state, self.reason = state, f"{name}: {reason}"
