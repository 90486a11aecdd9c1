"""Asking a cluster what it is, and what we may do there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.engines.kubernetes_cluster import CALL_LIMIT_S, Cluster, open_cluster
from penstock.environments.model import KubernetesTarget
from penstock.errors import InputError, PlatformError
from penstock.pipeline.document import read_document
from penstock.settings import Settings


def open_named_cluster(target: KubernetesTarget, settings: Settings, secret: Callable[[str], bytes]) -> Cluster:
    """
    The cluster and namespace that an environment names; nothing is connected yet.

    secret: name → value. Raises: PlatformError when there is none; InputError for a kubeconfig that cannot be read.
    """
    namespace = target.namespace or settings.kubernetes_namespace
    if target.kubeconfig_secret is None and target.context is None:
        return Cluster(open_cluster(settings).configuration, namespace)
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        if target.kubeconfig_secret is None:
            file = str(settings.kubeconfig) if settings.kubeconfig else None
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=file, context=target.context, client_configuration=configuration, persist_config=False
            )
        else:
            values = read_document(secret(target.kubeconfig_secret), "kubeconfig").values()
            config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
                values, context=target.context, client_configuration=configuration, persist_config=False
            )
    except config.ConfigException as error:
        said = str(error).splitlines()[0]
        raise InputError(f"the kubeconfig cannot be used: {said}", remedy="name another context or file") from error
    configuration.retries = 0
    return Cluster(configuration, namespace)


def version_of(cluster: Cluster) -> str:
    """Such as v1.31.2. Raises: PlatformError."""
    with _calling("ask for its version") as client:
        found = client.VersionApi(client.ApiClient(cluster.configuration)).get_code(_request_timeout=CALL_LIMIT_S)
        return str(found.git_version)


def may(cluster: Cluster, verb: str, group: str, resource: str) -> bool:
    """Whether we may do that in the namespace, as the cluster itself says. Raises: PlatformError."""
    asked = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    with _calling("say what we may do") as client:
        api = client.AuthorizationV1Api(client.ApiClient(cluster.configuration))
        found = api.create_self_subject_access_review(review, _request_timeout=CALL_LIMIT_S)
        return bool(found.status and found.status.allowed)


@contextmanager
def _calling(doing: str) -> Iterator[Any]:
    import urllib3
    from kubernetes import client

    try:
        yield client
    except client.ApiException as error:
        what = f"the cluster refuses to {doing} ({error.status}): {error.reason}"
        raise PlatformError(what, remedy="see the login in the kubeconfig") from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        said = str(getattr(error, "reason", None) or error).partition("object at")[0].strip()
        raise PlatformError(f"the cluster does not answer: {said}", remedy="see that it is reachable") from error
