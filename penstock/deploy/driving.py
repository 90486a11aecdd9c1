"""
One rollout, driven from wherever it stands to its end.

Look at the instances, ask the strategy, do what it wants in one transaction, and again. All that must outlive a
`kill -9` is in the tables: whoever holds the service's lock next goes on from there.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import attrs
import msgspec
import sqlalchemy as sa

from penstock.deploy import rollouts
from penstock.deploy.changes import Changes, changes
from penstock.deploy.measuring import Measuring
from penstock.deploy.output import tail
from penstock.deploy.probing import Health, Probes, fleet
from penstock.deploy.releases import (
    Instance,
    Release,
    drain_instances,
    draining_instances,
    instance_log,
    instances_of,
    make_live,
    service_url,
    set_ready,
    take_back,
    want_instance,
)
from penstock.deploy.rollouts import Rollout
from penstock.deploy.routing import ensure_route, set_shares
from penstock.deploy.site import Drains, Site, traffic, wait_for_caddy
from penstock.deploy.strategies import Observed, Progress, Wanted, open_strategy
from penstock.deploy.strategies.way_back import is_back
from penstock.deploy.verification import Check, Checked
from penstock.deploy.verifying import ask_instance, ask_service
from penstock.errors import StepFailure

LOG_LINES = 10
SAVE_EVERY_S = 1.0
QUICK_S, SLOW_S = 0.02, 0.2
Asked = Literal["verified", "smoked"]


@attrs.frozen
class View:
    """
    What a turn sees: the instances that shall run, of both sides, and how they are.

    leaving: how many of both were asked to stop and have not.
    """

    new: list[Instance]
    old: list[Instance]
    leaving: int
    health: Mapping[str, Health]

    def of(self, side: list[Instance]) -> Mapping[str, Health]:
        """How the instances of one side are."""
        return {one.id: self.health[one.id] for one in side}


class Drive:
    """
    The driver of one rollout; the caller holds the service's lock, and undoes what fails.

    release: what takes over. former: from what, if there is something.
    """

    def __init__(self, site: Site, rollout: Rollout, release: Release, former: Release | None) -> None:
        self._site, self._rollout, self._release, self._former = site, rollout, release, former
        self._strategy = open_strategy(rollout.strategy)
        self._drains = Drains(site)
        self._new = Probes(site.target(release), release, strict=True)
        self._old = Probes(site.target(former), former, strict=False) if former else None
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="checks")
        asked = rollout.strategy.analysis
        self._measuring = Measuring(site, release, former, asked) if asked else None
        self._asked: dict[Asked, Future[Checked]] = {}
        self._told: list[str] = []
        self._ran: set[str] = set()
        self._is_obeyed = False
        self._saved_s = self._last_s = time.monotonic()
        self._look_again_s = QUICK_S

    def run(self) -> Release:
        """
        Until the release has taken over. Returns: it, live.

        Raises: StepFailure when it must not, with the last probe's answer and the last lines of an instance's log;
        Cancelled; PlatformError when the keeper, Caddy or the database are away.
        """
        self._resume()
        try:
            while not self._turn():
                self._site.token.wait(self._pause_s())
                self._site.token.raise_if_cancelled()
        finally:
            self._new.close()
            if self._old:
                self._old.close()
            if self._measuring:
                self._measuring.close()
            self._checks.shutdown(wait=False, cancel_futures=True)
        return self._release

    def _resume(self) -> None:
        """What an earlier driver was waiting for."""
        with self._site.locked.begin():
            leaving = draining_instances(self._site.locked, self._site.service)
        for release, instance in leaving:
            self._drains.begin(release, instance)

    def _turn(self) -> bool:
        """One look and what follows from it. Returns: whether all is done."""
        view = self._look()
        self._tick()
        waited_for = self._drains.stop_drained()
        if self._is_held(view):
            self._save_now_and_then()
            return False
        progress, wanted = self._decide(view)
        self._do(view, progress, wanted)
        if wanted.verdict == "failed":
            raise self._failure(view, wanted)
        return wanted.verdict == "succeeded" and not waited_for and len(view.old) <= wanted.old

    def _look(self) -> View:
        site = self._site
        with site.locked.begin():
            fresh = rollouts.get_rollout(site.locked, self._rollout.id)
            of_new = instances_of(site.locked, self._release.id)
            of_old = instances_of(site.locked, self._former.id) if self._former else []
        self._rollout = attrs.evolve(
            self._rollout, paused=fresh.paused, command=fresh.command, command_why=fresh.command_why
        )
        new, old = ([one for one in side if one.desired == "running"] for side in (of_new, of_old))
        leaving = sum(1 for one in (*of_new, *of_old) if one.desired != "running" and one.state != "stopped")
        health = {**self._new.look(new), **(self._old.look(old) if self._old else {})}
        self._tell_of(new, health)
        return View(new, old, leaving, health)

    def _tell_of(self, new: list[Instance], health: Mapping[str, Health]) -> None:
        """That an instance runs, and that it is healthy, once each."""
        for one in new:
            if one.port is not None and one.state == "running" and one.id not in self._ran:
                self._ran.add(one.id)
                self._say(f"instance {one.id} runs on port {one.port}")
            if not one.ready and health[one.id].condition == "healthy":
                self._say(f"instance {one.id} is healthy after {self._rollout.clock_s:.2f} s: {health[one.id].text}")

    def _tick(self) -> None:
        """The rollout's clock goes on while it is driven and not paused."""
        now_s = time.monotonic()
        if not self._rollout.paused:
            self._rollout = attrs.evolve(self._rollout, clock_s=self._rollout.clock_s + now_s - self._last_s)
        self._last_s = now_s

    def _is_held(self, view: View) -> bool:
        """Paused, and nothing has failed: what fails is taken back all the same."""
        has_failed = bool(fleet(view.of(view.new)).failed) or is_back(self._rollout.progress)
        return self._rollout.paused and not has_failed

    def _decide(self, view: View) -> tuple[Progress, Wanted]:
        before = self._rollout.progress
        seen = self._observed(view)
        if self._rollout.smoked is False and not is_back(before):  # as if somebody had asked for it
            seen = msgspec.structs.replace(seen, command="abort")
        progress, wanted = self._strategy.next(before, seen)
        self._is_obeyed = self._changes_something(before, seen, (progress, wanted))
        self._note_trouble(view, seen, progress)
        if wanted.verify:
            self._ask("verified", self._release.configuration.verify, view)
        if self._measuring:
            self._measure(self._measuring, progress, seen, wanted)
        if is_back(progress) or self._has_stood(view, seen, wanted):
            return progress, wanted
        # What the strategy takes for its end is none yet.
        return (before if wanted.verdict == "succeeded" else progress), self._kept(view, wanted)

    def _changes_something(self, before: Progress, seen: Observed, asked: tuple[Progress, Wanted]) -> bool:
        """Whether a command had an effect; a promotion that comes before its stage is held waits for that."""
        if self._rollout.command is None:
            return False
        unasked = self._strategy.next(before, msgspec.structs.replace(seen, command=None))
        return self._rollout.command == "abort" or is_back(before) or asked != unasked

    def _measure(self, measuring: Measuring, progress: Progress, seen: Observed, wanted: Wanted) -> None:
        if not wanted.analyse:
            measuring.end()
        elif text := measuring.go_on(progress.step, progress.measured, is_old_well=seen.old.healthy > 0):
            self._say(f"measured: {text}")

    def _has_stood(self, view: View, seen: Observed, wanted: Wanted) -> bool:
        """Whether the whole new release, with all traffic, has answered what it was asked and lived long enough."""
        configuration, live_s = self._release.configuration, self._rollout.live_s
        is_asked = configuration.smoke or configuration.watch_s
        if wanted.weight < 100 or seen.new.healthy < seen.replicas or not is_asked:
            return True
        if live_s is None:
            return False
        self._ask("smoked", configuration.smoke, view)
        return bool(self._rollout.smoked) and self._rollout.clock_s >= live_s + configuration.watch_s

    def _kept(self, view: View, wanted: Wanted) -> Wanted:
        """Until it has stood that, what there is of the former one stays."""
        watch_s = self._release.configuration.watch_s
        why = f"watched for {watch_s:g} s" if self._rollout.smoked else "answering its smoke tests"
        kept = msgspec.structs.replace(wanted, old=max(wanted.old, len(view.old)), verdict="going", why=why)
        return msgspec.structs.replace(kept, look_again_s=min(kept.look_again_s, SLOW_S))

    def _observed(self, view: View) -> Observed:
        return Observed(
            now_s=self._rollout.clock_s,
            replicas=self._release.configuration.replicas,
            old_replicas=self._former.configuration.replicas if self._former else 0,
            new=fleet(view.of(view.new)),
            old=fleet(view.of(view.old)),
            leaving=view.leaving,
            weight=self._rollout.weight,
            analysis=self._measuring.verdict if self._measuring else "none",
            measured=self._measuring.counted if self._measuring else 0,
            verified=self._verified(),
            command=self._rollout.command,
        )

    def _verified(self) -> bool | None:
        """Without questions there is nothing to wait for."""
        return self._rollout.verified if self._release.configuration.verify else True

    def _note_trouble(self, view: View, seen: Observed, progress: Progress) -> None:
        """The first thing that went wrong: by the time that all is undone, who had it is gone."""
        if self._rollout.trouble is not None:
            return
        trouble = None
        if seen.new.failed:
            trouble = self._instance_trouble(view)
        elif seen.analysis == "failed" and self._measuring:
            trouble = f"the analysis failed: {self._measuring.text}" if is_back(progress) else None
        elif seen.command == "abort":
            trouble = f"aborted: {self._rollout.command_why}" if self._rollout.command_why else "aborted"
        if trouble is not None:
            self._rollout = attrs.evolve(self._rollout, trouble=trouble)

    def _instance_trouble(self, view: View) -> str:
        name = next(one.id for one in view.new if view.health[one.id].condition == "failed")
        return self._with_last_lines(view.health[name].text, name)

    def _with_last_lines(self, what: str, instance_id: str) -> str:
        lines = tail(instance_log(self._site.settings, instance_id), LOG_LINES)
        for line in lines:
            self._site.log(f"  | {line}")
        return what if "last lines:" in what or not lines else f"{what}, last lines: {' | '.join(lines)}"

    def _ask(self, name: Asked, questions: tuple[Check, ...], view: View) -> None:
        """Have the questions asked beside the driving; their answer is written down."""
        if getattr(self._rollout, name) is not None:
            return
        if not questions:
            self._answered(name, passed=True)
        elif name in self._asked:
            if self._asked[name].done():
                self._take_answer(name, self._asked.pop(name).result())
        elif work := self._questions(name, questions, view):
            self._asked[name] = self._checks.submit(work)

    def _questions(self, name: Asked, questions: tuple[Check, ...], view: View) -> Callable[[], Checked] | None:
        """None while nobody is there to be asked."""
        well = [one for one in view.new if view.health[one.id].condition == "healthy"]
        if not well:
            return None
        target, check = self._site.target(self._release), self._release.configuration.health
        if name == "verified":
            return lambda: ask_instance(questions, target, check, well[-1])
        url = service_url(self._site.engine, self._site.service)
        return lambda: ask_service(questions, target, check, well[-1], url)

    def _take_answer(self, name: Asked, answer: Checked) -> None:
        what = "verification" if name == "verified" else "smoke tests"
        self._say(f"{what}: {answer.text}")
        trouble = self._rollout.trouble
        if not answer.passed and trouble is None:
            trouble = f"{what} failed: {answer.text}"
        self._rollout = attrs.evolve(self._rollout, trouble=trouble)
        self._answered(name, passed=answer.passed)

    def _answered(self, name: Asked, *, passed: bool) -> None:
        if name == "verified":
            self._rollout = attrs.evolve(self._rollout, verified=passed)
        else:
            self._rollout = attrs.evolve(self._rollout, smoked=passed)

    def _do(self, view: View, progress: Progress, wanted: Wanted) -> None:
        """Everything of one turn in one transaction; where traffic changes, Caddy goes first."""
        steps = changes(wanted, view.new, view.old, view.health)
        before, self._look_again_s = self._rollout, wanted.look_again_s
        if wanted.why and wanted.why != before.why:
            self._say(wanted.why)
        self._rollout = attrs.evolve(before, progress=progress, why=wanted.why or before.why, probe=_last_text(view))
        goes_live = self._goes_live(view, steps, wanted)
        if goes_live or wanted.weight != before.weight or steps.ready or steps.unready or steps.drain:
            self._change_traffic(steps, wanted.weight, goes_live=goes_live)
        elif steps != Changes() or self._told or progress != before.progress or self._is_obeyed:
            with self._site.locked.begin():
                self._write(self._site.locked, steps)
        else:
            self._save_now_and_then()
        self._begin_drains(view, steps)

    def _goes_live(self, view: View, steps: Changes, wanted: Wanted) -> bool:
        """All traffic goes to it, and it can take it."""
        ready = {one.id for one in view.new if one.ready} | set(steps.ready)
        there = {one.id for one in view.new} - set(steps.drain) - set(steps.unready)
        return self._release.state == "pending" and wanted.weight == 100 and bool(ready & there)

    def _change_traffic(self, steps: Changes, weight: int, *, goes_live: bool) -> None:
        if goes_live or weight > self._rollout.weight:
            wait_for_caddy(self._site)
        back = self._release.state == "live" and weight < 100 and self._former is not None
        live_s = self._rollout.clock_s if goes_live else None if back else self._rollout.live_s
        self._rollout = attrs.evolve(self._rollout, weight=weight, live_s=live_s)
        with traffic(self._site) as connection:
            port = ensure_route(connection, self._site.service, self._site.settings)
            self._write(connection, steps)
            self._share(connection, weight)
            if goes_live:
                make_live(connection, self._release)
            elif back and self._former is not None:
                take_back(connection, self._release, self._former)
        if goes_live:
            self._release = attrs.evolve(self._release, state="live")
            names = "".join(f", {name}" for name in self._release.configuration.domains)
            self._site.log(f"traffic goes to {self._release}: http://127.0.0.1:{port}{names}")
        elif back:
            self._release = attrs.evolve(self._release, state="pending")
            self._site.log(f"traffic goes back to {self._former}")

    def _share(self, connection: sa.Connection, weight: int) -> None:
        shares = {self._release.id: weight}
        if self._former:
            shares[self._former.id] = 100 - weight
        set_shares(connection, self._site.service, {name: part for name, part in shares.items() if part})

    def _write(self, connection: sa.Connection, steps: Changes) -> None:
        for _ in range(steps.start_new):
            want_instance(connection, self._release.id)
        for _ in range(steps.start_old if self._former else 0):
            want_instance(connection, self._former.id if self._former else "")
        drain_instances(connection, steps.drain)
        set_ready(connection, steps.ready, ready=True)
        set_ready(connection, steps.unready, ready=False)
        if self._is_obeyed:
            rollouts.obeyed(connection, self._rollout)
        self._save(connection)

    def _save(self, connection: sa.Connection) -> None:
        rollouts.save(connection, self._rollout, self._told)
        self._told, self._saved_s = [], time.monotonic()

    def _save_now_and_then(self) -> None:
        """The clock, and that somebody drives."""
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            with self._site.locked.begin():
                self._save(self._site.locked)

    def _begin_drains(self, view: View, steps: Changes) -> None:
        for side, release in ((view.new, self._release), (view.old, self._former)):
            for one in side:
                if one.id in steps.drain and release is not None:
                    self._drains.begin(release, one)

    def _failure(self, view: View, wanted: Wanted) -> StepFailure:
        what = self._rollout.trouble or wanted.why or "the rollout failed"
        serving = "the former release goes on serving" if self._former else None
        if view.new and "last lines:" not in what and "aborted" not in what:
            what = self._with_last_lines(what, view.new[-1].id)
        return StepFailure(what, where=str(self._release), remedy=serving)

    def _pause_s(self) -> float:
        """Until something may have changed: an answer, a command, the strategy's own time."""
        asked = SLOW_S if self._rollout.paused or self._look_again_s > SLOW_S else max(QUICK_S, self._look_again_s)
        return max(QUICK_S / 2, min(asked, self._new.next_due_s()))

    def _say(self, text: str) -> None:
        self._told.append(text)
        self._site.log(text)


def _last_text(view: View) -> str:
    """The last answer of a new instance; a failed one's first."""
    texts = [view.health[one.id] for one in view.new if view.health[one.id].text]
    failed = [one.text for one in texts if one.condition == "failed"]
    return (failed or [one.text for one in texts] or [""])[-1]
