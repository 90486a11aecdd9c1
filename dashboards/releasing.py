"""What people do to a release or a rollout on the pages: each asks first, says who may undo it, and takes a reason."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

from dashboards.connecting import asked, keep_notice
from dashboards.markup import tag
from dashboards.reading import live_services
from dashboards.showing import put, trouble
from penstock.deploy.operations import Order
from penstock.deploy.plan import Service
from penstock.deploy.releases import Release
from penstock.deploy.rollouts import Rollout
from penstock.errors import PenstockError

NOTICE = "deployments"
_WHY = "Why (for the record)"
_OWN = "By the release's own strategy; else all instances beside the present ones, then the switch"
_PIN = "Pin it: no run deploys the service meanwhile"
_ORDERS: Mapping[Order, tuple[str, str]] = {
    "pause": ("Pause", "Nothing changes until it is resumed, unless the new release fails: that is undone."),
    "resume": ("Resume", "It goes on where it was."),
    "promote": ("Promote", "The stage that is held counts as done; the next one begins."),
    "abort": ("Abort", "All traffic goes back to the former release, and the new one has failed."),
}


def _send(path: Sequence[str], told: str, **body: Any) -> None:
    """Have the API do it; in a dialog, which stays open with the API's words when it will not."""
    try:
        asked("POST", *path, body=body)
    except PenstockError as error:
        trouble(str(error))
        return
    live_services.clear()
    keep_notice(NOTICE, told)
    st.rerun()


def _label(release: Release) -> str:
    since = f", live from {release.live_at:%Y-%m-%d %H:%M} UTC" if release.live_at else ""
    return f"#{release.number} · {release.commit[:12]}{since}"


def _first(live: Release, kept: Sequence[Release]) -> int | None:
    """The release that was live before; nobody is led back to what somebody has just left by a rollback."""
    ids = [one.id for one in kept]
    return ids.index(live.previous) if live.previous in ids and live.rollback_of is None else None


@st.dialog("Roll back")
def confirm_rollback(live: Release, kept: Sequence[Release]) -> None:
    """To one of the kept releases."""
    put(tag("p", tag("strong", f"{live.service}"), f": release {live.number} is live."))
    source = st.selectbox("Back to", kept, index=_first(live, kept), format_func=_label, placeholder="choose a release")
    st.write("Its digest and configuration go live again, as a release with a number of its own. Data stays as it is.")
    _return("rollback", source, f"back to release {source.number}" if source else "")


@st.dialog("Roll forward")
def confirm_forward(live: Release) -> None:
    """To the newest release that was live before somebody went back."""
    put(tag("p", tag("strong", f"{live.service}"), ": the newest release that was live before somebody went back."))
    _return("roll-forward", live, "forward")


def _return(verb: Literal["rollback", "roll-forward"], release: Release | None, where: str) -> None:
    why = st.text_area(_WHY, key="return-why", max_chars=2000)
    own = st.checkbox(_OWN, key="return-own")
    pin = st.checkbox(_PIN, key="return-pin")
    word = "Roll back" if verb == "rollback" else "Roll forward"
    if st.button(f"{word} now", type="primary", key="really", disabled=release is None) and release is not None:
        told = f"{release.service} goes {where}."
        _send(("releases", release.id, verb), told, why=why, own_strategy=own, pin=pin)


@st.dialog("Pin")
def confirm_pin(live: Release) -> None:
    """Hold a service at what is live."""
    st.write(f"{live.service} stays at release {live.number}: runs that would deploy it fail, and say who holds it.")
    why = st.text_area(_WHY, key="pin-why", max_chars=2000)
    if st.button("Pin it", type="primary", key="really"):
        _send(("releases", live.id, "pin"), f"{live.service} is pinned to release {live.number}.", why=why)


@st.dialog("Unpin")
def confirm_unpin(release: Release) -> None:
    """Let runs deploy a service again. release: any of it."""
    st.write(f"Runs may deploy {release.service} again. Those that failed meanwhile are not run again.")
    why = st.text_area(_WHY, key="unpin-why", max_chars=2000)
    if st.button("Unpin it", type="primary", key="really"):
        _send(("releases", release.id, "unpin"), f"{release.service} is no longer pinned.", why=why)


@st.dialog("Tell the rollout")
def confirm_order(rollout: Rollout, order: Order) -> None:
    """Pause, resume, promote or abort a rollout."""
    word, meaning = _ORDERS[order]
    put(tag("p", tag("strong", f"{word} the {rollout.kind.replace('_', ' ')} of {rollout.service}?")))
    st.write(meaning)
    why = st.text_area(_WHY, key=f"{order}-why", max_chars=2000)
    if st.button(f"{word} it", type="primary", key="really"):
        _send(("rollouts", rollout.id, order), f"{word}: the rollout of {rollout.service} was told.", why=why)


def order_buttons(rollout: Rollout) -> Order | None:
    """Returns: what was clicked."""
    held: Order = "resume" if rollout.paused else "pause"
    orders: tuple[Order, ...] = (held, "promote", "abort") if rollout.state == "going" else ("abort",)
    with st.container(horizontal=True):
        clicked = [order for order in orders if st.button(f"{_ORDERS[order][0]} …", key=f"{order}-{rollout.id}")]
    return clicked[0] if clicked else None


def release_buttons(live: Release, kept: Sequence[Release], *, pinned: bool) -> str | None:
    """Returns: what was clicked: rollback, forward, pin or unpin."""
    nowhere = None if kept else "No former release is kept: deploy another commit first."
    with st.container(horizontal=True):
        back = st.button("Roll back …", icon=":material/undo:", disabled=not kept, help=nowhere)
        forward = live.rollback_of is not None and st.button("Roll forward …", icon=":material/redo:")
        hold = st.button("Unpin …" if pinned else "Pin …", icon=":material/keep:")
    if hold:
        return "unpin" if pinned else "pin"
    return "rollback" if back else "forward" if forward else None


def service_of(parameters: Mapping[str, str]) -> Service | None:
    """The service that an address names; None when it names none."""
    named = [parameters.get(name) for name in ("project", "environment", "service")]
    return Service(*(each for each in named if each)) if all(named) else None
