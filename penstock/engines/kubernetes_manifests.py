"""
What a job is on Kubernetes: a Job with one Pod, a NetworkPolicy, and a Secret when there are secrets. Pure values.

The Pod has a container that waits until the workspace has been copied in, the sidecars (init containers that keep
running, Kubernetes 1.29), the job's own container, and one that keeps the workspace until it has been copied out.
All but the sidecars are of the job's image, so a job needs no other; it must have /bin/sh and tar.
"""

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from penstock.engines import SECRETS_FOLDER, Job, Probe, Sidecar
from penstock.pipeline.spec import WORKSPACE

Manifest = dict[str, Any]
JOB, COPY_IN, COPY_OUT = "job", "workspace-in", "workspace-out"
SIDECAR_PREFIX = "service-"
CONTROL = "/penstock"
LABEL = "penstock.dev"
STOP_GRACE_S = 3
KEPT_AFTER_S = 300
START_SLACK_S = 1800  # for a node, the images, the workspace: what the job's own limit does not count
_WAIT = "until [ -e {file} ]; do sleep 0.2 || sleep 1; done"
_OF_SERVICES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
_ROOMS = (("workspace", WORKSPACE), ("tmp", "/tmp"))


def labels(home: str, run_id: str = "", step: str = "") -> dict[str, str]:
    """What finds a job again: hashes, since names of runs and steps may hold what a label may not."""
    words = {"home": home, "run": run_id, "step": step}
    return {f"{LABEL}/{name}": _hash(word) for name, word in words.items() if word}


def selector(found: Mapping[str, str]) -> str:
    """The labels as a query."""
    return ",".join(f"{name}={value}" for name, value in found.items())


def job_manifest(job: Job, name: str, marks: Mapping[str, str]) -> Manifest:
    """The Job, suspended: it begins once its NetworkPolicy and Secret are there."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": dict(marks), "annotations": _annotations(job)},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": math.ceil(job.timeout_s) + START_SLACK_S,
            "ttlSecondsAfterFinished": KEPT_AFTER_S,
            "template": {
                "metadata": {"labels": {**marks, f"{LABEL}/job": name}},
                "spec": _pod(job, name),
            },
        },
    }


def network_policy(job: Job, name: str, owner: Manifest, marks: Mapping[str, str]) -> Manifest:
    """Nothing comes in; nothing goes out either, unless the job asked for the network."""
    closed: Manifest = {"podSelector": {"matchLabels": {f"{LABEL}/job": name}}, "policyTypes": ["Ingress"]}
    if not job.network:
        closed["policyTypes"] = ["Ingress", "Egress"]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _owned(name, owner, marks),
        "spec": closed,
    }


def secret_manifest(job: Job, name: str, owner: Manifest, marks: Mapping[str, str]) -> Manifest:
    """The Secret whose keys are the files; it goes with the Job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": _owned(name, owner, marks),
        "data": {key: base64.b64encode(value).decode() for key, value in job.secrets.items()},
    }


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _annotations(job: Job) -> dict[str, str]:
    return {f"{LABEL}/run": job.run_id, f"{LABEL}/step": job.step}


def _owned(name: str, owner: Manifest, marks: Mapping[str, str]) -> Manifest:
    """Owned by the Job, so that the cluster removes it with the Job, also when Penstock is gone."""
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner["metadata"]["uid"]}
    return {"name": name, "labels": dict(marks), "ownerReferences": [reference]}


def _pod(job: Job, name: str) -> Manifest:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": STOP_GRACE_S,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "hostAliases": [{"ip": "127.0.0.1", "hostnames": [sidecar.name for sidecar in job.services]}]
        if job.services
        else [],
        "initContainers": [_copier(job, COPY_IN, "ready"), *map(_sidecar, job.services)],
        "containers": [_main(job), _copier(job, COPY_OUT, "done")],
        "volumes": _volumes(job, name),
    }


def _main(job: Job) -> Manifest:
    secrets = [{"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": True}] if job.secrets else []
    told = {"HOME": "/tmp", "WORKSPACE": WORKSPACE} | ({"PENSTOCK_SECRETS": SECRETS_FOLDER} if job.secrets else {})
    return {
        "name": JOB,
        "image": job.image,
        "command": list(job.argv),
        "workingDir": str(PurePosixPath(WORKSPACE, job.work_dir)),
        "env": _env({**told, **job.env}),
        "resources": _resources(job),
        "securityContext": _closed(),
        "volumeMounts": [*_mounts(_ROOMS), *secrets],
    }


def _copier(job: Job, name: str, file: str) -> Manifest:
    """Waits until a file says that the copying is over; the copying itself is commands run in it."""
    return {
        "name": name,
        "image": job.image,
        "command": ["/bin/sh", "-c", _WAIT.format(file=f"{CONTROL}/{file}")],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": _closed(),
        "volumeMounts": _mounts((*_ROOMS, ("control", CONTROL))),
    }


def _sidecar(sidecar: Sidecar) -> Manifest:
    made: Manifest = {
        "name": f"{SIDECAR_PREFIX}{sidecar.name}",
        "image": sidecar.image,
        "restartPolicy": "Always",
        "env": _env(sidecar.env),
        # Images of databases write where they expect to, and change from root to a user of their own.
        "securityContext": _closed(read_only=False, capabilities=_OF_SERVICES),
    }
    if sidecar.argv:
        made["command"] = list(sidecar.argv)
    if sidecar.ready:
        made["startupProbe"] = _probe(sidecar.ready)
    return made


def _probe(ready: Probe) -> Manifest:
    interval = max(1, round(ready.interval_s))
    made: Manifest = {
        "periodSeconds": interval,
        "failureThreshold": max(1, math.ceil(ready.limit_s / interval)),
        "timeoutSeconds": 5,
    }
    if ready.command:
        return {**made, "exec": {"command": list(ready.command)}}
    if ready.http:
        return {**made, "httpGet": {"path": ready.http, "port": ready.port}}
    return {**made, "tcpSocket": {"port": ready.port}}


def _closed(*, read_only: bool = True, capabilities: Sequence[str] = ()) -> Manifest:
    kept = {"add": list(capabilities)} if capabilities else {}
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"], **kept},
    }


def _resources(job: Job) -> Manifest:
    """What is limited is also asked for: a node that cannot give it is not chosen."""
    limits: dict[str, str] = {}
    if job.cpus is not None:
        limits["cpu"] = f"{max(1, round(job.cpus * 1000))}m"
    if job.memory_bytes is not None:
        limits["memory"] = str(job.memory_bytes)
    return {"limits": limits, "requests": limits} if limits else {}


def _volumes(job: Job, name: str) -> list[Manifest]:
    volumes: list[Manifest] = [{"name": room, "emptyDir": {}} for room, _ in _ROOMS]
    volumes.append({"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if job.secrets:  # a Secret's volume is in the node's memory
        volumes.append({"name": "secrets", "secret": {"secretName": name, "defaultMode": 0o444}})
    return volumes


def _mounts(rooms: Sequence[tuple[str, str]]) -> list[Manifest]:
    return [{"name": name, "mountPath": path} for name, path in rooms]


def _env(given: Mapping[str, str]) -> list[Manifest]:
    # Kubernetes replaces $(NAME) in values; $$ keeps it as it was written.
    return [{"name": name, "value": value.replace("$(", "$$(")} for name, value in given.items()]
