"""The calls to the Kubernetes API that jobs need, as plain dicts, with errors in Penstock's words."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import attrs

from penstock.engines.kubernetes_exec import Exec
from penstock.engines.kubernetes_manifests import LABEL, Manifest
from penstock.errors import PenstockError, PlatformError
from penstock.settings import Settings

CALL_LIMIT_S = (10, 60)  # to connect, to answer
_REMEDIES = {
    401: "give Penstock a kubeconfig whose login is valid",
    403: "give its account the role that docs/engines.md shows",
    404: "make the namespace that PENSTOCK_KUBERNETES_NAMESPACE names",
}


@attrs.frozen
class Cluster:
    """One namespace of one cluster. configuration: the kubernetes package's own."""

    configuration: Any
    namespace: str

    def create(self, manifest: Manifest) -> Manifest:
        """Make a Job, NetworkPolicy or Secret. Returns: as the cluster keeps it. Raises: PlatformError."""
        kind = manifest["kind"]
        with self._calling(f"make a {kind}") as api:
            call = {
                "Job": api.BatchV1Api(self._client(api)).create_namespaced_job,
                "NetworkPolicy": api.NetworkingV1Api(self._client(api)).create_namespaced_network_policy,
                "Secret": api.CoreV1Api(self._client(api)).create_namespaced_secret,
            }[kind]
            return _decoded(call(self.namespace, manifest, _preload_content=False, _request_timeout=CALL_LIMIT_S))

    def begin(self, job: str) -> None:
        """Let a suspended Job begin. Raises: PlatformError."""
        with self._calling("begin a Job") as api:
            api.BatchV1Api(self._client(api)).patch_namespaced_job(
                job, self.namespace, {"spec": {"suspend": False}}, _request_timeout=CALL_LIMIT_S
            )

    def pod_of(self, job: str) -> Manifest | None:
        """The Pod of a Job; None when there is none. Raises: PlatformError."""
        found = self.pods(f"{LABEL}/job={job}")
        return found[-1] if found else None

    def pods(self, selector: str) -> list[Manifest]:
        """Pods with these labels, oldest first. Raises: PlatformError."""
        with self._calling("look at Pods") as api:
            answer = api.CoreV1Api(self._client(api)).list_namespaced_pod(
                self.namespace, label_selector=selector, _preload_content=False, _request_timeout=CALL_LIMIT_S
            )
            items: list[Manifest] = _decoded(answer)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def jobs(self, selector: str) -> list[str]:
        """Names of Jobs with these labels. Raises: PlatformError."""
        with self._calling("look at Jobs") as api:
            answer = api.BatchV1Api(self._client(api)).list_namespaced_job(
                self.namespace, label_selector=selector, _preload_content=False, _request_timeout=CALL_LIMIT_S
            )
            return [item["metadata"]["name"] for item in _decoded(answer)["items"]]

    def delete_job(self, name: str) -> None:
        """Take away a Job and all that it owns; one that is gone is fine. Raises: PlatformError."""
        with self._calling("delete a Job", gone_is_fine=True) as api:
            api.BatchV1Api(self._client(api)).delete_namespaced_job(
                name, self.namespace, propagation_policy="Background", _request_timeout=CALL_LIMIT_S
            )

    def delete_secret(self, name: str) -> None:
        """Take away a Secret at once; one that is gone is fine. Raises: PlatformError."""
        with self._calling("delete a Secret", gone_is_fine=True) as api:
            api.CoreV1Api(self._client(api)).delete_namespaced_secret(
                name, self.namespace, _request_timeout=CALL_LIMIT_S
            )

    def log(self, pod: str, container: str, *, since_s: int | None = None) -> Iterator[bytes]:
        """A container's output as it comes, each line after its time stamp. Raises: PlatformError."""
        with self._calling("read a log") as api:
            since = {} if since_s is None else {"since_seconds": since_s}
            answer = api.CoreV1Api(self._client(api)).read_namespaced_pod_log(
                pod, self.namespace, container=container, follow=True, timestamps=True, _preload_content=False, **since
            )
            yield from answer.stream(amt=None)

    def last_lines(self, pod: str, container: str, *, previous: bool = False) -> str:
        """What a container printed last. Raises: PlatformError."""
        with self._calling("read a log") as api:
            answer = api.CoreV1Api(self._client(api)).read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                previous=previous,
                tail_lines=20,
                _preload_content=False,
                _request_timeout=CALL_LIMIT_S,
            )
            return str(answer.data.decode(errors="replace")).strip()

    @contextmanager
    def running(self, pod: str, container: str, argv: Sequence[str], *, stdin: bool) -> Iterator[Exec]:
        """A command in a container. Raises: PlatformError."""
        from kubernetes.stream.ws_client import create_websocket

        asked = [*(("command", word) for word in argv), ("container", container), ("stdin", str(stdin).lower())]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/exec"
        query = urlencode([*asked, ("stdout", "true"), ("stderr", "true")])
        address = f"ws{self.configuration.host.removeprefix('http')}{path}?{query}"
        with self._calling("run a command in a Pod"):
            socket = create_websocket(self.configuration, address, self._login())  # type: ignore[no-untyped-call]
            try:
                yield Exec(socket)
            finally:
                socket.close()

    def _login(self) -> dict[str, str]:
        """The headers by which the API knows Penstock, renewed if need be."""
        settings = self.configuration.auth_settings().values()
        return {setting["key"].lower(): setting["value"] for setting in settings if setting["in"] == "header"}

    def _client(self, api: Any) -> Any:
        return api.ApiClient(self.configuration)

    @contextmanager
    def _calling(self, doing: str, *, gone_is_fine: bool = False) -> Iterator[Any]:
        import urllib3
        import websocket
        from kubernetes import client

        try:
            yield client
        except client.ApiException as error:
            if not (gone_is_fine and error.status == 404):
                raise _refused(doing, error, self.namespace) from error
        except (urllib3.exceptions.HTTPError, websocket.WebSocketException, OSError) as error:
            raise PlatformError(f"the Kubernetes API does not answer: {_short(error)}", where=doing) from error


def open_cluster(settings: Settings) -> Cluster:
    """
    The cluster of PENSTOCK_KUBECONFIG, else the one that Penstock runs in, else that of ~/.kube/config.

    Raises: PlatformError when there is none, or the package is not installed.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise PlatformError("the kubernetes package is not installed", remedy="install penstock[kubernetes]") from error
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is None and _is_inside():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            file = None if settings.kubeconfig is None else str(settings.kubeconfig)
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=file, client_configuration=configuration, persist_config=False
            )
    except config.ConfigException as error:
        raise PlatformError(
            f"no cluster is configured: {_short(error)}", where="kubernetes", remedy="set PENSTOCK_KUBECONFIG"
        ) from error
    configuration.retries = 2
    return Cluster(configuration, settings.kubernetes_namespace)


def _is_inside() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _decoded(answer: Any) -> Manifest:
    decoded: Manifest = json.loads(answer.data)
    return decoded


def _refused(doing: str, error: Any, namespace: str) -> PenstockError:
    return PlatformError(
        f"the cluster refuses to {doing} ({error.status}): {_message(error)}",
        where=f"namespace {namespace}",
        remedy=_REMEDIES.get(error.status or 0),
    )


def _message(error: Any) -> str:
    """The API's own words: a Status with a message, if it is one."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "it says no more")


def _short(error: BaseException) -> str:
    """Without addresses of objects, headers of an answer and nested causes."""
    cause = getattr(error, "reason", None) or error
    return re.split(r"object at|-\+-\+-", str(cause))[0].strip() or type(error).__name__
