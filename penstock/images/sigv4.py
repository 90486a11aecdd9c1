"""Signature Version 4: how a request to AWS proves who sends it."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit

import attrs

_ALGORITHM = "AWS4-HMAC-SHA256"


@attrs.frozen
class AwsKey:
    """An access key. session_token: of a temporary one."""

    id: str
    secret: str = attrs.field(repr=False)
    session_token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Scope:
    """What a signature is good for, and when: `at` is UTC."""

    region: str
    service: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.at:%Y%m%d}/{self.region}/{self.service}/aws4_request"


@attrs.frozen
class Unsigned:
    """A request. url: its query is sorted and encoded already, its path has nothing to encode."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


def signed_headers(request: Unsigned, key: AwsKey, scope: Scope) -> dict[str, str]:
    """
    The request's headers and those that make it a signed one.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
    """
    parts = urlsplit(request.url)
    sent = {**request.headers, "Host": parts.netloc, "X-Amz-Date": f"{scope.at:%Y%m%dT%H%M%SZ}"}
    if key.session_token:
        sent["X-Amz-Security-Token"] = key.session_token
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items())
    names = ";".join(name for name, _ in lines)
    canonical = "\n".join(f"{name}:{value}" for name, value in lines)
    whole = "\n".join([request.method, parts.path or "/", parts.query, canonical, "", names, _hash(request.body)])
    to_sign = "\n".join([_ALGORITHM, sent["X-Amz-Date"], str(scope), _hash(whole.encode())])
    signature = hmac.new(_signing_key(key, scope), to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "Authorization": f"{_ALGORITHM} {credential}"}


def _signing_key(key: AwsKey, scope: Scope) -> bytes:
    made = f"AWS4{key.secret}".encode()
    for part in str(scope).split("/"):
        made = hmac.new(made, part.encode(), hashlib.sha256).digest()
    return made


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
