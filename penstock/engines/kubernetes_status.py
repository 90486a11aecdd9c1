"""
What a Pod's status means for a job: where it stands, and what is wrong, in words. Pure: a dict in, a value out.

Source: kubernetes.io/docs, "Pod Lifecycle" and "Sidecar Containers"; reasons as kubelet and scheduler write them.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

from penstock.engines.kubernetes_manifests import COPY_IN, COPY_OUT, JOB, SIDECAR_PREFIX
from penstock.errors import PenstockError, PlatformError, StepFailure

Stage = Literal["pending", "copying in", "starting", "running", "ended"]
Status = Mapping[str, Any]
_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})
_ITS_OWN_FAULT = re.compile(
    r"not found|manifest unknown|unauthorized|denied|invalid reference|no match for platform|InvalidImageName", re.I
)
_KILLED_BY_START = frozenset({"StartError", "ContainerCannotRun"})


@attrs.frozen
class Look:
    """
    One look at a job's Pod.

    code: exit code of the job's container, once it has ended. waiting_for: in words, while it is pending.
    unschedulable: no node takes it at the moment. seconds: how long the job's container ran.
    """

    stage: Stage
    code: int | None = None
    out_of_memory: bool = False
    deadline: bool = False
    waiting_for: str = ""
    unschedulable: bool = False
    trouble: PenstockError | None = None
    seconds: float | None = None


def look_at(pod: Status | None) -> Look:
    """pod: the Pod as the API gives it; None before there is one."""
    if pod is None:
        return Look("pending", waiting_for="the cluster to make its Pod")
    status: Status = pod.get("status") or {}
    main = _terminated(_container(status, JOB))
    if main is not None:
        return _ended(status, main)
    if trouble := _trouble(status):
        return Look("pending", trouble=trouble)
    if status.get("reason") == "DeadlineExceeded":
        return Look("pending", deadline=True)
    return _on_its_way(status)


def is_keeping_workspace(pod: Status) -> bool:
    """Whether the container that the workspace can be copied out of runs."""
    return "running" in _state(_container(pod.get("status") or {}, COPY_OUT))


def failed_sidecar(pod: Status) -> tuple[str, str] | None:
    """(name, how it ended) of a sidecar that has ended at least once; None when all have kept running."""
    for container in (pod.get("status") or {}).get("initContainerStatuses") or ():
        if container["name"].startswith(SIDECAR_PREFIX):
            ended = _terminated(container) or (container.get("lastState") or {}).get("terminated")
            if ended is not None:
                return container["name"].removeprefix(SIDECAR_PREFIX), _how(ended)
    return None


def _on_its_way(status: Status) -> Look:
    if "running" in _state(_container(status, JOB)):
        return Look("running")
    if "running" in _state(_container(status, COPY_IN)):
        return Look("copying in")
    if _terminated(_container(status, COPY_IN)) is not None:
        return Look("starting", waiting_for="its services")
    return _pending(status)


def _ended(status: Status, main: Status) -> Look:
    reason = main.get("reason")
    if reason in _KILLED_BY_START:
        return Look("ended", trouble=StepFailure(f"its command cannot be started: {_said(main)}"))
    if status.get("reason") == "Evicted":
        return Look("ended", trouble=_evicted(status))
    return Look(
        "ended",
        code=int(main.get("exitCode", 1)),
        out_of_memory=reason == "OOMKilled",
        deadline=status.get("reason") == "DeadlineExceeded",
        seconds=_seconds(main),
    )


def _trouble(status: Status) -> PenstockError | None:
    if status.get("reason") == "Evicted":
        return _evicted(status)
    for container in _containers(status):
        waiting = _state(container).get("waiting") or {}
        if waiting.get("reason") in _NO_IMAGE:
            return _no_image(container, waiting)
        if waiting.get("reason") in _CANNOT_START:
            return StepFailure(f"container {container['name']} cannot be started: {_said(waiting)}")
    copier = _terminated(_container(status, COPY_IN))
    if copier is not None and copier.get("exitCode"):
        return StepFailure(f"its image cannot take the workspace: {_how(copier)}", remedy="it needs /bin/sh and tar")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return PlatformError(f"the cluster has taken its Pod away: {_said(condition)}")
    return _failed_otherwise(status)


def _failed_otherwise(status: Status) -> PenstockError | None:
    """A Pod that has failed although no container says why, as when its node went away."""
    if status.get("phase") == "Failed" and status.get("reason") != "DeadlineExceeded":
        return PlatformError(f"its Pod has failed: {_said(status)}")
    if status.get("phase") == "Unknown":
        return PlatformError("the node that its Pod runs on does not answer")
    return None


def _pending(status: Status) -> Look:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Look("pending", waiting_for=f"a node: {_said(condition)}", unschedulable=True)
    waiting = [_state(container).get("waiting") or {} for container in _containers(status)]
    said = next((_said(state) for state in waiting if state.get("reason") not in (None, "PodInitializing")), "")
    return Look("pending", waiting_for=said or "its containers")


def _no_image(container: Status, waiting: Status) -> PenstockError:
    text = f"image {container.get('image')} cannot be pulled: {_said(waiting)}"
    if _ITS_OWN_FAULT.search(f"{waiting.get('reason')} {waiting.get('message')}"):
        return StepFailure(text, remedy="mend its name, or give the cluster the right to pull it")
    return PlatformError(text)


def _evicted(status: Status) -> PlatformError:
    return PlatformError(f"its node has evicted it: {status.get('message') or 'it says no more'}")


def _containers(status: Status) -> Iterator[Status]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _container(status: Status, name: str) -> Status:
    return next((container for container in _containers(status) if container["name"] == name), {})


def _state(container: Status) -> Status:
    state: Status = container.get("state") or {}
    return state


def _terminated(container: Status) -> Status | None:
    ended: Status | None = _state(container).get("terminated")
    return ended


def _said(state: Status) -> str:
    """`Reason: message`, whichever of them there is, on one line."""
    return " ".join(": ".join(filter(None, (state.get("reason"), state.get("message")))).split()) or "it says no more"


def _how(ended: Status) -> str:
    if ended.get("reason") == "OOMKilled":
        return "out of memory"
    return f"exit code {ended.get('exitCode')}"


def _seconds(ended: Status) -> float | None:
    try:
        times = [datetime.fromisoformat(ended[name]) for name in ("startedAt", "finishedAt")]
    except (KeyError, TypeError, ValueError):
        return None
    return (times[1] - times[0]).total_seconds()
