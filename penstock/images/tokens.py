"""The token calls of ECR, Google's registries and ACR: an account's keys in, a name and a password for minutes out."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from penstock.errors import InputError, PlatformError, StepFailure
from penstock.images.logins import Account, Auth, Credentials
from penstock.images.sigv4 import AwsKey, Scope, Unsigned, signed_headers

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
AZURE_LOGIN = "https://login.microsoftonline.com"
AZURE_SCOPE = "https://containerregistry.azure.net/.default"
ACR_USER = "00000000-0000-0000-0000-000000000000"  # ACR knows by the password alone who it is
_ECR_HOST = re.compile(r"(\d{12})\.dkr\.ecr(-fips)?\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def credentials_for(account: Account, registry: str, http: httpx.Client, now: Now = utc_now) -> Credentials:
    """
    What the account logs in with at `registry` now.

    Raises: StepFailure when the cloud refuses the account, PlatformError when it does not answer, InputError when the
    account or the registry is not of this kind.
    """
    return _CALLS[account.auth](account, registry, http, now)


def _basic(account: Account, registry: str, http: httpx.Client, now: Now) -> Credentials:
    del registry, http, now
    return Credentials(account.username, account.password)


def _ecr(account: Account, registry: str, http: httpx.Client, now: Now) -> Credentials:
    """Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html"""
    match = _ECR_HOST.fullmatch(registry)
    if not match:
        raise InputError(
            f'"{registry}" is no registry of ECR', remedy="write 123456789012.dkr.ecr.eu-central-1.amazonaws.com/app"
        )
    _, fips, region, china = match.groups()
    url = f"https://{'ecr-fips' if fips else 'api.ecr'}.{region}.amazonaws.com{china or ''}/"
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
    }
    body = b"{}"
    key = AwsKey(account.username, account.password, account.session_token)
    signed = signed_headers(Unsigned("POST", url, headers, body), key, Scope(region, "ecr", now()))
    answer = _asked("AWS", http, url, content=body, headers=signed)
    try:
        pair = base64.b64decode(answer["authorizationData"][0]["authorizationToken"], validate=True).decode()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _nonsense("AWS") from error
    user, _, password = pair.partition(":")
    return Credentials(user, password)


def _gcr(account: Account, registry: str, http: httpx.Client, now: Now) -> Credentials:
    """Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest"""
    del registry
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    form = {"grant_type": grant, "assertion": _assertion(account.password, int(now().timestamp()))}
    answer = _asked("Google", http, GOOGLE_TOKEN_URL, data=form)
    return Credentials("oauth2accesstoken", _text(answer, "access_token", "Google"))


def _assertion(key_file: str, issued_at: int) -> str:
    """A JWT that the service account's key signs; good for ten minutes. issued_at: Unix seconds."""
    # Slow to load, and needed by no other login.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    wrong = InputError("the secret is no service account's key", remedy="store the JSON file that Google gave")
    try:
        key = json.loads(key_file)
        private = load_pem_private_key(key["private_key"].encode(), None)
        head = {"alg": "RS256", "typ": "JWT", "kid": key["private_key_id"]}
        claims = {"iss": key["client_email"], "scope": GOOGLE_SCOPE, "aud": GOOGLE_TOKEN_URL}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong from error
    if not isinstance(private, RSAPrivateKey):
        raise wrong
    signed = f"{_packed(head)}.{_packed({**claims, 'iat': issued_at, 'exp': issued_at + 600})}"
    return f"{signed}.{_base64url(private.sign(signed.encode(), PKCS1v15(), hashes.SHA256()))}"


def _packed(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(bytes.maketrans(b"+/", b"-_"), b"=").decode()


def _acr(account: Account, registry: str, http: httpx.Client, now: Now) -> Credentials:
    """Source: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md"""
    del now
    form = {
        "grant_type": "client_credentials",
        "client_id": account.username,
        "client_secret": account.password,
        "scope": AZURE_SCOPE,
    }
    answer = _asked("Azure", http, f"{AZURE_LOGIN}/{account.tenant}/oauth2/v2.0/token", data=form)
    exchange = {
        "grant_type": "access_token",
        "service": registry,
        "tenant": account.tenant,
        "access_token": _text(answer, "access_token", "Azure"),
    }
    answer = _asked("ACR", http, f"https://{registry}/oauth2/exchange", data=exchange)
    return Credentials(ACR_USER, _text(answer, "refresh_token", "ACR"))


_CALLS: Mapping[Auth, Callable[[Account, str, httpx.Client, Now], Credentials]] = {
    "basic": _basic,
    "ecr": _ecr,
    "gcr": _gcr,
    "acr": _acr,
}


def _asked(who: str, http: httpx.Client, url: str, **sent: Any) -> Mapping[str, Any]:
    where = httpx.URL(url).host
    try:
        answer = http.post(url, **sent)
    except httpx.HTTPError as error:
        raise PlatformError(f"{who} does not answer: {error or type(error).__name__}", where=where) from error
    if answer.status_code >= 500 or answer.status_code == 429:
        raise PlatformError(f"{who} answered {answer.status_code} to the login", where=where)
    if answer.status_code != 200:
        raise StepFailure(
            f"{who} refused the login with {answer.status_code}{_why(answer)}",
            where=where,
            remedy="check the account, its key, and whether the clock is right",
        )
    try:
        found = answer.json()
    except ValueError as error:
        raise _nonsense(who) from error
    if not isinstance(found, dict):
        raise _nonsense(who)
    return found


def _why(answer: httpx.Response) -> str:
    """The error's short name: its long text may repeat what was sent."""
    try:
        found = answer.json()
        name = found.get("error") or found.get("__type", "").rpartition("#")[2]
    except (ValueError, AttributeError):
        return ""
    return f" ({name[:80]})" if isinstance(name, str) and name else ""


def _text(answer: Mapping[str, Any], name: str, who: str) -> str:
    if not isinstance(answer.get(name), str) or not answer[name]:
        raise _nonsense(who)
    return str(answer[name])


def _nonsense(who: str) -> PlatformError:
    return PlatformError(f"{who} answered the login with something that is no token")
