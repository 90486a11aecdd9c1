"""Asking a registry what it holds: logins by token, redirects, and answers that are none."""

import hashlib
from collections.abc import Callable

import httpx
import pytest

from penstock.errors import PlatformError, StepFailure
from penstock.images.logins import Credentials
from penstock.images.names import parse_image
from penstock.images.registries import LONGEST_MANIFEST_BYTES, Registry

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
ADA = Credentials("ada", "p4ss")
Answer = Callable[[httpx.Request], httpx.Response]


def digest(answer: Answer, image: str = "registry.example/team/shop:1", *, insecure: bool = False) -> str:
    """What the registry holds, if it answers so."""
    name = parse_image(image)
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        return Registry(http, ADA, insecure=insecure).manifest_digest(name, name.tag or "")


def test_bearer_token_is_fetched_with_the_same_account():
    """As Docker Hub, GitHub and GitLab want it; the password goes to the token server alone."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.example":
            assert request.url.params["scope"] == "repository:team/shop:pull"
            assert request.url.params["service"] == "registry"
            assert request.headers["authorization"].startswith("Basic ")
            return httpx.Response(200, json={"token": "for-a-minute"})
        if request.headers.get("authorization") == "Bearer for-a-minute":
            assert "application/vnd.oci.image.index.v1+json" in request.headers["accept"]
            return httpx.Response(200, content=MANIFEST)
        challenge = 'Bearer realm="https://auth.example/token",service="registry",scope="x"'
        return httpx.Response(401, headers={"www-authenticate": challenge})

    assert digest(answer) == DIGEST


def test_docker_hubs_registry_has_another_name_than_its_images():
    """`busybox` is library/busybox at registry-1.docker.io."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://registry-1.docker.io/v2/library/busybox/manifests/latest"
        return httpx.Response(200, content=MANIFEST)

    assert digest(answer, "busybox") == DIGEST


@pytest.mark.parametrize("image", ["127.0.0.1:5000/shop:1", "localhost:5000/shop:1"])
def test_plain_http_will_do_on_this_machine(image: str):
    """And TLS is asked for first."""
    assert digest(_without_tls, image) == DIGEST


def test_plain_http_elsewhere_must_be_asked_for():
    """Without `insecure: true` neither password nor question goes over it."""
    with pytest.raises(PlatformError, match="no TLS here"):
        digest(_without_tls)
    assert digest(_without_tls, insecure=True) == DIGEST


@pytest.mark.parametrize("realm", ["http://auth.example/token", "file:///etc/passwd", ""])
def test_login_is_not_sent_to_a_token_server_without_tls(realm: str):
    """Whatever the registry says."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "registry.example"
        return httpx.Response(401, headers={"www-authenticate": f'Bearer realm="{realm}",service="s"'})

    with pytest.raises(StepFailure, match="not safe"):
        digest(answer)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, StepFailure, r"refused to show team/shop after the push \(401\); let the account read"),
        (403, StepFailure, "refused to show"),
        (404, StepFailure, "has no team/shop:1"),
        (500, PlatformError, "it answered 500"),
        (429, PlatformError, "it answered 429"),
    ],
)
def test_answer_that_is_no_manifest_says_whose_fault_it_is(status: int, error: type[Exception], words: str):
    """Refused or absent: a failure. Broken: not the user's fault."""
    with pytest.raises(error, match=words):
        digest(lambda _request: httpx.Response(status))


def test_token_server_that_talks_nonsense_is_not_the_users_fault():
    """No token, no digest."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "auth.example":
            return httpx.Response(200, text="welcome")
        return httpx.Response(401, headers={"www-authenticate": 'Bearer realm="https://auth.example/token"'})

    with pytest.raises(PlatformError, match="gave no token"):
        digest(answer)


def test_endless_manifest_is_not_read_to_its_end():
    """Sixteen MiB are more than any has."""
    with pytest.raises(StepFailure, match="more than 16 MiB"):
        digest(lambda _request: httpx.Response(200, content=b"x" * (LONGEST_MANIFEST_BYTES + 1)))


def test_redirect_to_another_host_does_not_get_the_password():
    """Some registries keep manifests in a store elsewhere."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "store.example":
            assert "authorization" not in request.headers
            return httpx.Response(200, content=MANIFEST)
        if "authorization" not in request.headers:
            return httpx.Response(401, headers={"www-authenticate": 'Basic realm="x"'})
        return httpx.Response(307, headers={"location": "https://store.example/m"})

    assert digest(answer) == DIGEST


def _without_tls(request: httpx.Request) -> httpx.Response:
    if request.url.scheme == "https":
        raise httpx.ConnectError("no TLS here", request=request)
    return httpx.Response(200, content=MANIFEST)
