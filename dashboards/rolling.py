"""A rollout as it goes on: where it stands, its instances, what happened and why; renewed every second."""

from collections.abc import Iterable, Sequence

import attrs
import streamlit as st

from dashboards.markup import Column, Content, Html, facts, table, tag
from dashboards.reading import database
from dashboards.showing import ago, empty, put, said_plainly, span, state
from dashboards.tables import service_link
from penstock.deploy.releases import Instance, Release, get_release, instances_of
from penstock.deploy.rollouts import Rollout, get_rollout, open_rollouts

EVENTS_SHOWN = 50
INSTANCES = (
    *(Column("release"), Column("instance"), Column("state"), Column("requests"), Column("restarts", "number")),
    Column("why", "wide"),
)
EVENTS = (Column("when"), Column("what happened", "wide"))
UNDER_WAY = (
    *(Column("service"), Column("environment"), Column("what"), Column("state"), Column("strategy")),
    *(Column("weight", "number"), Column("why", "wide"), Column("asked")),
)
_STATES = {"requested": "queued", "going": "running"}
_KINDS = {"deployment": "deployment", "rollback": "rollback", "roll_forward": "roll-forward"}


@attrs.frozen
class Watched:
    """A rollout with the releases that it is about, those that there are, and the instances of each."""

    rollout: Rollout
    releases: tuple[Release, ...]
    instances: tuple[tuple[Release, Instance], ...]


def watched(rollout_id: str) -> Watched:
    """As it is now. Raises: NotFoundError."""
    with database().connect() as connection:
        rollout = get_rollout(connection, rollout_id)
        ids = dict.fromkeys(filter(None, (rollout.release_id or rollout.source_id, rollout.former_id)))
        releases = tuple(get_release(connection, each) for each in ids)
        found = [(each, one) for each in releases for one in instances_of(connection, each.id)]
    return Watched(rollout, releases, tuple(pair for pair in found if pair[1].state != "stopped"))


def rollout_state(rollout: Rollout) -> Html:
    """Whether it waits, goes on, is paused or over."""
    if rollout.is_open and rollout.paused:
        return tag("span", "◔ paused", class_="ps-state warn")
    return state(_STATES.get(rollout.state, rollout.state))


def _aim(seen: Watched) -> str:
    new = seen.releases[0] if seen.releases else None
    if new is None:
        return seen.rollout.kind
    return f"release {new.number}" if seen.rollout.release_id else f"what release {new.number} was"


def _facts(seen: Watched) -> None:
    rollout, progress = seen.rollout, seen.rollout.progress
    former = next((one for one in seen.releases if one.id == rollout.former_id), None)
    put(
        facts(
            {
                "state": rollout_state(rollout),
                "what": _KINDS[rollout.kind],
                "to": _aim(seen),
                "from": f"release {former.number}" if former else "nothing that is live",
                "strategy": rollout.strategy.name.replace("_", "/"),
                "phase": f"{progress.phase.replace('_', ' ')}, step {progress.step + 1}",
                "by": rollout.actor,
                "reason": rollout.asked_why,
                "at work for": span(rollout.clock_s),
                "was told": f"{rollout.command}, which it will obey" if rollout.command else None,
                "last probe": rollout.probe,
            }
        )
    )


def _instance_row(release: Release, one: Instance) -> tuple[Content, ...]:
    gets = "gets them" if one.ready else "drained" if one.desired == "draining" else "not yet"
    words = state({"starting": "pending"}.get(one.state, one.state))
    return f"#{release.number}", tag("code", one.id[:8]), words, gets, one.restarts, one.reason


def _events(rollout: Rollout) -> None:
    rows = [(tag("time", f"{one.at:%H:%M:%S} UTC"), one.text) for one in rollout.events[-EVENTS_SHOWN:][::-1]]
    if rows:
        put(table(EVENTS, rows, caption="What happened, newest first"))


def show_rollout(seen: Watched) -> None:
    """All that is known of it."""
    rollout = seen.rollout
    _facts(seen)
    st.progress(rollout.weight / 100, text=f"{rollout.weight} % of the requests go to {_aim(seen)}")
    if rollout.why and rollout.is_open:
        put(tag("p", rollout.why))
    if rollout.trouble:
        put(tag("p", rollout.trouble, class_="ps-trouble"))
    if seen.instances and rollout.is_open:
        rows = (_instance_row(*pair) for pair in seen.instances)
        put(table(INSTANCES, rows, caption="Instances of both releases"))
    _events(rollout)


@st.fragment(run_every="1s")
def live_rollout(drawn: Rollout) -> None:
    """Renewed every second; what stands around it is drawn again when it is paused, resumed or over."""
    with said_plainly():
        seen = watched(drawn.id)
        if (seen.rollout.state, seen.rollout.paused) != (drawn.state, drawn.paused):
            st.rerun()
        show_rollout(seen)


def under_way() -> list[Rollout]:
    """All that are not over."""
    with database().connect() as connection:
        return open_rollouts(connection)


@st.fragment(run_every="1s")
def live_list(drawn: Sequence[Rollout]) -> None:
    """Of those under way, everywhere."""
    with said_plainly():
        found = under_way()
        if {one.id for one in found} != {one.id for one in drawn}:
            st.rerun()
        if found:
            put(table(UNDER_WAY, _rows(found), caption="Rollouts under way"))
        else:
            empty("No rollout is under way.")


def _rows(found: Iterable[Rollout]) -> Iterable[tuple[Content, ...]]:
    for one in found:
        service = one.service
        yield (
            service_link(service.project, service.environment, service.name),
            service.environment,
            _KINDS[one.kind],
            rollout_state(one),
            one.strategy.name.replace("_", "/"),
            f"{one.weight} %",
            one.why or one.asked_why,
            ago(one.created_at),
        )
