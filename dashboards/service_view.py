"""One service in one environment: what is live, the rollout under way, every release, and two of them compared."""

from collections.abc import Mapping, Sequence

import attrs
import streamlit as st

from dashboards import releasing
from dashboards.comparing import choose_two, show_difference
from dashboards.connecting import take_notice
from dashboards.markup import Column, Content, facts, join, page_link, table, tag, web_link
from dashboards.reading import database, settings
from dashboards.releasing import order_buttons, release_buttons
from dashboards.rolling import live_rollout, show_rollout, watched
from dashboards.showing import ago, commit, empty, moment, put, run_link, said_plainly, section, state, trouble
from dashboards.tables import shortened
from penstock.deploy.looking import Running, approvals_of, history_of, kept, rollouts_by_release, running
from penstock.deploy.operations import Order
from penstock.deploy.pins import Pin, pin_of
from penstock.deploy.plan import Service
from penstock.deploy.releases import Release, service_url
from penstock.deploy.rollouts import Rollout, get_rollout, open_rollouts

SHOWN = 50
HISTORY = (
    *(Column("state"), Column("release"), Column("commit"), Column("strategy"), Column("how", "wide")),
    *(Column("approved by", "name"), Column("made"), Column("live from"), Column("run")),
)


@attrs.frozen
class Seen:
    """
    All that there is to know of a service at this moment.

    history: newest first. kept: those of it that can be gone back to. rollouts, approvals: by release.
    """

    service: Service
    history: tuple[Release, ...]
    kept: tuple[Release, ...]
    open: Rollout | None
    rollouts: Mapping[str, Rollout]
    approvals: Mapping[str, tuple[str, ...]]
    running: Mapping[str, Running]
    pin: Pin | None
    url: str | None

    @property
    def live(self) -> Release | None:
        """What traffic goes to."""
        return next((one for one in self.history if one.state == "live"), None)


def look(service: Service) -> Seen:
    """Raises: NotFoundError when there is no release of it."""
    with database().connect() as connection:
        history = history_of(connection, service)
        going = open_rollouts(connection, service)
        shown = history[:SHOWN]
        return Seen(
            service=service,
            history=tuple(shown),
            kept=tuple(kept(connection, settings(), [one for one in history if one.state == "superseded"])),
            open=going[0] if going else None,
            rollouts=rollouts_by_release(connection, service),
            approvals=approvals_of(database(), shown),
            running=running(connection, [one.id for one in shown]),
            pin=pin_of(connection, service),
            url=service_url(database(), service),
        )


def replicas(release: Release, found: Running | None) -> Content:
    """How many instances are ready, of those that there shall be."""
    here, wanted = found or Running(), release.configuration.replicas
    restarts = f", {here.restarts} restarts" if here.restarts else ""
    words = f"{here.ready} of {wanted} ready{restarts}"
    return words if here.ready >= wanted else tag("span", words, class_="ps-state warn")


def _live(seen: Seen) -> None:
    live = seen.live
    if live is None:
        empty(
            "Nothing of this service is live. What was tried is below, with why it failed. "
            "Push a commit that mends it, or run its pipeline again:",
            "penstock run",
        )
        return
    put(
        facts(
            {
                "live": join((state("live"), f" release {live.number}")),
                "commit": page_link("diff", commit(live.commit), project=seen.service.project, commit=live.commit),
                "since": ago(live.live_at),
                "address": web_link(seen.url, (seen.url or "").removeprefix("http://")) if seen.url else None,
                "replicas": replicas(live, seen.running.get(live.id)),
                "strategy": _strategy(live, seen),
                "digest": tag("code", live.digest.removeprefix("sha256:")[:16], title=live.digest),
                "target": live.configuration.target,
                "approved by": ", ".join(seen.approvals.get(live.id, ())),
                "run": run_link(live.run_id),
                "pinned": str(seen.pin) if seen.pin else "no",
            }
        )
    )


def _strategy(release: Release, seen: Seen) -> str:
    """That by which it came, which of a rollback need not be its own."""
    rollout = seen.rollouts.get(release.id)
    return (rollout.strategy if rollout else release.configuration.strategy).name.replace("_", "/")


def _how(release: Release, seen: Seen) -> Content:
    """What brought it, who asked for it and why, and what became of it."""
    rollout = seen.rollouts.get(release.id)
    source = next((one.number for one in seen.history if one.id == release.rollback_of), None)
    kind = {"roll_forward": "roll-forward", "rollback": "rollback"}.get(rollout.kind if rollout else "", "rollback")
    back = f"{kind} to #{source}" if source else kind if release.rollback_of else "deployment"
    by = f" by {rollout.actor}" if rollout and rollout.actor else ""
    why = f": {rollout.asked_why}" if rollout and rollout.asked_why else ""
    trouble_ = (
        tag("div", shortened(release.reason), class_="ps-muted", title=release.reason) if release.reason else None
    )
    return join((f"{back}{by}{why}", trouble_))


def _row(release: Release, seen: Seen) -> tuple[Content, ...]:
    return (
        state(release.state),
        f"#{release.number}",
        page_link("diff", commit(release.commit), project=seen.service.project, commit=release.commit),
        _strategy(release, seen),
        _how(release, seen),
        ", ".join(seen.approvals.get(release.id, ())),
        moment(release.created_at),
        moment(release.live_at),
        run_link(release.run_id),
    )


def _history(seen: Seen) -> None:
    section("Releases", f"the newest {SHOWN}" if len(seen.history) == SHOWN else str(len(seen.history)))
    put(table(HISTORY, (_row(one, seen) for one in seen.history), caption="Releases of this service, newest first"))


def _compare(history: Sequence[Release]) -> None:
    section("Difference between two releases")
    chosen = choose_two(history)
    if chosen is None:
        put(tag("p", "There is one release only; the next one can be compared with it.", class_="ps-muted"))
        return
    show_difference(*chosen)


def _rollout(seen: Seen) -> Order | None:
    """Returns: what was clicked about the rollout under way."""
    if seen.open:
        section("Rollout under way", "renewed every second")
        st.session_state["watched-rollout"] = seen.open.id
        live_rollout(seen.open)
        return order_buttons(seen.open)
    _last(seen)
    return None


def _last(seen: Seen) -> None:
    """The newest rollout, for who wants to know how it went."""
    last = next((seen.rollouts[one.id] for one in seen.history if one.id in seen.rollouts), None)
    if last:
        with st.expander("How the last rollout went"):
            show_rollout(watched(last.id))


def _outcome(seen: Seen) -> None:
    """What somebody has just watched has ended: said once."""
    kept_id = st.session_state.get("watched-rollout")
    if kept_id is None or (seen.open and seen.open.id == kept_id):
        return
    del st.session_state["watched-rollout"]
    with database().connect() as connection:
        rollout = get_rollout(connection, kept_id)
    if rollout.service != seen.service:
        return
    if rollout.state == "succeeded":
        st.success(f"The {rollout.kind.replace('_', '-')} of {seen.service} is done.")
    elif rollout.state == "failed":
        trouble(f"the {rollout.kind.replace('_', '-')} of {seen.service} failed: {rollout.trouble or 'it was aborted'}")


def show_service(service: Service) -> None:
    """The whole of it."""
    put(tag("p", page_link("deployments", "all services"), " / ", service.environment, class_="ps-muted"))
    section(f"{service.project}/{service.name}", f"in {service.environment}")
    if told := take_notice(releasing.NOTICE):
        st.success(told)
    with said_plainly():
        seen = look(service)
        _outcome(seen)
        _live(seen)
        clicked = release_buttons(seen.live, seen.kept, pinned=seen.pin is not None) if seen.live else None
        order = _rollout(seen)
        _history(seen)
        _compare(seen.history)
        _ask(seen, clicked, order)  # last: a click in it while the page is still being drawn would be lost


def _ask(seen: Seen, clicked: str | None, order: Order | None) -> None:
    if order and seen.open:
        releasing.confirm_order(seen.open, order)
    elif seen.live and clicked == "rollback":
        releasing.confirm_rollback(seen.live, seen.kept)
    elif seen.live and clicked == "forward":
        releasing.confirm_forward(seen.live)
    elif seen.live and clicked == "pin":
        releasing.confirm_pin(seen.live)
    elif seen.live and clicked == "unpin":
        releasing.confirm_unpin(seen.live)
