"""A registry's own HTTP API, as far as it is needed to see that what was pushed is there."""

import base64
import hashlib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import httpx

from penstock.errors import PlatformError, StepFailure
from penstock.images.logins import Credentials
from penstock.images.names import DOCKER_HUB, ImageName

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LONGEST_MANIFEST_BYTES = 16 * 1024 * 1024
REQUEST_LIMIT_S = 30.0
_HUB_API = "registry-1.docker.io"
_DOCKER_CERTIFICATES = Path("/etc/docker/certs.d")
_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


@contextmanager
def registry_http(registry: str) -> Iterator[httpx.Client]:
    """A client that trusts what this machine trusts, and the authority that Docker is told to trust for `registry`."""
    trust = ssl.create_default_context()
    authority = _DOCKER_CERTIFICATES / registry / "ca.crt"
    if authority.is_file():
        trust.load_verify_locations(authority)
    with httpx.Client(verify=trust, timeout=REQUEST_LIMIT_S) as http:
        yield http


@attrs.frozen
class Registry:
    """
    Reads manifests.

    insecure: whether plain HTTP will do when there is no TLS; on loopback it always does, as with Docker.
    """

    http: httpx.Client
    credentials: Credentials | None = None
    insecure: bool = False

    def manifest_digest(self, name: ImageName, reference: str) -> str:
        """
        `sha256:…` of the manifest that the registry gives for a tag or digest, computed from its bytes.

        Raises: StepFailure when the registry refuses or has none, PlatformError when it does not answer.
        """
        path = f"/v2/{name.path}/manifests/{reference}"
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        base = self._base(name)
        answer, body = self._get(name, base + path, headers)
        if answer.status_code == 401:
            headers["Authorization"] = self._authorization(name, answer.headers.get("www-authenticate", ""))
            answer, body = self._get(name, base + path, headers)
        _check(answer, name, reference)
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _base(self, name: ImageName) -> str:
        host = _HUB_API if name.registry == DOCKER_HUB else name.registry
        if not (self.insecure or name.loopback):
            return f"https://{host}"
        try:
            self.http.get(f"https://{host}/v2/")
        except httpx.HTTPError:
            return f"http://{host}"
        return f"https://{host}"

    def _get(self, name: ImageName, url: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        try:
            with self.http.stream("GET", url, headers=headers, follow_redirects=True) as answer:
                return answer, _bounded(answer, name)
        except httpx.HTTPError as error:
            raise _away(name, str(error) or type(error).__name__) from error

    def _authorization(self, name: ImageName, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self.credentials:
            return _basic(self.credentials)
        if scheme.lower() != "bearer":
            raise _refused(name, 401)
        return f"Bearer {self._token(name, dict(_PARAMETER.findall(rest)))}"

    def _token(self, name: ImageName, challenge: dict[str, str]) -> str:
        """Source: https://distribution.github.io/distribution/spec/auth/token/"""
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and (self.insecure or name.loopback)):
            raise StepFailure(f'wants a login at "{realm[:80]}", which is not safe', where=name.registry)
        query = {"service": challenge.get("service", ""), "scope": f"repository:{name.path}:pull"}
        headers = {"Authorization": _basic(self.credentials)} if self.credentials else {}
        try:
            answer = self.http.get(realm, params=query, headers=headers)
        except httpx.HTTPError as error:
            raise _away(name, str(error) or type(error).__name__) from error
        _check(answer, name, "its token")
        try:
            found = answer.json()
            return str(found.get("token") or found["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise _away(name, "its token server gave no token") from error


def _bounded(answer: httpx.Response, name: ImageName) -> bytes:
    body = b""
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > LONGEST_MANIFEST_BYTES:
            raise StepFailure("gave a manifest of more than 16 MiB", where=name.registry)
    return body


def _check(answer: httpx.Response, name: ImageName, reference: str) -> None:
    if answer.status_code in (401, 403):
        raise _refused(name, answer.status_code)
    if answer.status_code == 404:
        raise StepFailure(f"has no {name.path}:{reference}", where=name.registry)
    if answer.status_code != 200:
        raise _away(name, f"it answered {answer.status_code}")


def _refused(name: ImageName, status: int) -> StepFailure:
    return StepFailure(
        f"refused to show {name.path} after the push ({status})",
        where=name.registry,
        remedy="let the account read as well as write: the digest is verified",
    )


def _away(name: ImageName, why: str) -> PlatformError:
    return PlatformError(f"the registry does not answer: {why}", where=name.registry)


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
