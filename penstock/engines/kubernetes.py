"""
The engine of a cluster: a job is a Kubernetes Job with one Pod, and nothing but the API is needed to reach it.

The workspace goes in and comes back over the API; the log is followed live; secrets are a Secret that is deleted
with the job; a NetworkPolicy closes the Pod. See `kubernetes_manifests` for what a Pod is made of.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from penstock.engines import Exit, Job, OnOutput
from penstock.engines.kubernetes_cluster import Cluster, open_cluster
from penstock.engines.kubernetes_manifests import (
    job_manifest,
    labels,
    network_policy,
    secret_manifest,
    selector,
)
from penstock.engines.kubernetes_running import Running
from penstock.errors import InputError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import Settings

LOOK_EVERY_S = 0.5
SECRETS_LIMIT = 1_000_000  # the cluster keeps no Secret beyond 1 MiB
_STOP_LIMIT_S = 10.0
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


class JobsEngine:
    """Runs jobs as Jobs of the namespace that PENSTOCK_KUBERNETES_NAMESPACE names."""

    name = "kubernetes"

    def __init__(self, settings: Settings, *, look_every_s: float = LOOK_EVERY_S) -> None:
        """look_every_s: seconds between two looks at a Pod."""
        self.settings, self._look_every_s = settings, look_every_s

    @cached_property
    def _cluster(self) -> Cluster:
        return open_cluster(self.settings)

    def isolation(self) -> str:
        """One sentence that says plainly how far a job is kept apart from this machine."""
        return (
            "a Pod of the cluster: no capabilities, default seccomp, read-only root, no service account; no network "
            "unless asked, where the cluster's network enforces NetworkPolicies; processes limited by the node alone"
        )

    def image_digest(self, image: str) -> str | None:
        """What is written behind the @; None for a tag, which only the cluster's nodes resolve."""
        found = _DIGEST.search(image)
        return found[1] if found else None

    def run(self, job: Job, on_output: OnOutput, token: CancelToken) -> Exit:
        """Run the job to its end; see `Engine.run`."""
        token.raise_if_cancelled()
        check(job)
        with self._begun(job, on_output) as name:
            running = Running(
                self._cluster, job, name, on_output=on_output, token=token, look_every_s=self._look_every_s
            )
            return running.until_end()

    def shell(self, job: Job) -> int:
        """Raises: InputError, a Pod's terminal is kubectl's business."""
        raise InputError(
            f"the kubernetes engine opens no shell in {job.step}",
            remedy="use kubectl exec while it runs, or the docker or process engine",
        )

    def reap(self, run_id: str, step: str = "") -> int:
        """Delete the Jobs of this run, or of one step of it; see `Engine.reap`."""
        names = self._cluster.jobs(selector(self._marks(run_id, step)))
        for name in names:
            self._cluster.delete_job(name)
            self._cluster.delete_secret(name)
        return len(names)

    def _marks(self, run_id: str, step: str) -> dict[str, str]:
        return labels(os.fspath(self.settings.home), run_id, step)

    @contextmanager
    def _begun(self, job: Job, on_output: OnOutput) -> Iterator[str]:
        """The Job, closed off and with its secrets before it begins; gone afterwards."""
        cluster, marks, name = self._cluster, self._marks(job.run_id, job.step), _name(job)
        owner = cluster.create(job_manifest(job, name, marks))
        try:
            cluster.create(network_policy(job, name, owner, marks))
            if job.secrets:
                cluster.create(secret_manifest(job, name, owner, marks))
            cluster.begin(name)
            yield name
        finally:
            self._remove(name, job, on_output)

    def _remove(self, name: str, job: Job, on_output: OnOutput) -> None:
        """What cannot be removed now, the cluster removes by itself later; the log says so."""
        try:
            if job.secrets:
                self._cluster.delete_secret(name)
            self._cluster.delete_job(name)
            wait_until(lambda: self._cluster.pod_of(name) is None, limit_s=_STOP_LIMIT_S, every_s=0.2)
        except PlatformError as error:
            on_output(f"Job {name} was not removed, the cluster will do so after its time: {error}\n".encode())


def check(job: Job) -> None:
    """Raises: InputError, StepFailure for what cannot be asked of this engine."""
    if not job.image:
        raise StepFailure("the kubernetes engine needs an image", where=job.step, remedy="name one: image: …")
    if job.read_only:
        folders = ", ".join(map(str, job.read_only))
        raise StepFailure(
            f"it needs folders of Penstock's machine ({folders}), which a cluster does not have",
            where=job.step,
            remedy="run this step with the docker or process engine",
        )
    for name in job.secrets:
        if not _SECRET_NAME.fullmatch(name):
            raise InputError(f'"{name}" is no name for a secret', remedy="use letters, digits, _, - and .")
    if sum(map(len, job.secrets.values())) > SECRETS_LIMIT:
        raise InputError("its secrets are larger than 1 MB together, more than a cluster keeps", where=job.step)
    for sidecar in job.services:
        if not sidecar.image:
            raise StepFailure(f'service "{sidecar.name}" needs an image', remedy="name one: image: …")
        if sidecar.ready and not (sidecar.ready.port or sidecar.ready.command):
            raise InputError(f'service "{sidecar.name}": its probe asks nothing', remedy="give a port or a command")


def _name(job: Job) -> str:
    """Valid as a label and a name: what it belongs to is in its labels."""
    of_step = hashlib.sha256(f"{job.run_id}/{job.step}".encode()).hexdigest()[:12]
    return f"penstock-{of_step}-{uuid.uuid4().hex[:8]}"
