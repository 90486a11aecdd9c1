"""Sends deliveries as each forge does: its headers, its signature, its delivery id."""

import base64
import datetime as dt
import hashlib
import hmac
import itertools
import json
import time
import uuid
from functools import cache
from typing import Any

import attrs
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from penstock.forges.sns import Message, string_to_sign

_numbers = itertools.count(1)
TOPIC = "arn:aws:sns:eu-central-1:123456789012:pushes"


@attrs.define
class Sender:
    """A forge that tells of one repository. id: of the next delivery; a new one each time when it is None."""

    client: httpx.Client
    forge: str
    path: str
    secret: str
    api: Any = None  # Azure DevOps', which knows what it tells

    def send(self, payload: Any, event: str = "", *, delivery: str | None = None, **headers: str) -> httpx.Response:
        """Post a payload, signed."""
        if self.forge == "aws-codecommit":
            payload = signed_by_sns(payload)
        elif self.forge == "azure-devops":
            payload = payload | {"id": delivery or str(uuid.uuid4())}
            if "pushId" in (payload.get("resource") or {}):
                payload["resource"] = payload["resource"] | {"pushId": next(_numbers)}
            if self.api:
                self.api.knows(payload)
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.post(body, self.headers(body, event, delivery or str(uuid.uuid4())) | headers)

    def post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Post bytes as they are."""
        return self.client.post(self.path, content=body, headers=headers)

    def headers(self, body: bytes, event: str, delivery: str) -> dict[str, str]:
        """What the forge sends with a body."""
        made = {"Content-Type": "application/json", **_HEADERS[self.forge](self.secret, body, event, delivery)}
        return {name: value for name, value in made.items() if value}


def _mac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _gitlab(secret: str, body: bytes, event: str, delivery: str) -> dict[str, str]:
    if not secret.startswith("whsec_"):
        return {"X-Gitlab-Event": event, "X-Gitlab-Token": secret, "Idempotency-Key": delivery}
    now = str(int(time.time()))
    signed = f"{delivery}.{now}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": delivery, "webhook-timestamp": now, "webhook-signature": signature, "X-Gitlab-Event": event}


def _azure(secret: str, body: bytes, event: str, delivery: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'penstock:{secret}'.encode()).decode()}"}


_HEADERS = {
    "github": lambda s, b, e, d: {
        "X-GitHub-Event": e,
        "X-GitHub-Delivery": d,
        "X-Hub-Signature-256": f"sha256={_mac(s, b)}",
    },
    "gitlab": _gitlab,
    "gitea": lambda s, b, e, d: {"X-Gitea-Event": e, "X-Gitea-Delivery": d, "X-Gitea-Signature": _mac(s, b)},
    "forgejo": lambda s, b, e, d: {"X-Forgejo-Event": e, "X-Forgejo-Delivery": d, "X-Forgejo-Signature": _mac(s, b)},
    "bitbucket-cloud": lambda s, b, e, d: {
        "X-Event-Key": e,
        "X-Request-UUID": d,
        "X-Hub-Signature": f"sha256={_mac(s, b)}",
    },
    "bitbucket-server": lambda s, b, e, d: {
        "X-Event-Key": e,
        "X-Request-Id": d,
        "X-Hub-Signature": f"sha256={_mac(s, b)}",
    },
    "azure-devops": _azure,
    "aws-codecommit": lambda *_: {"x-amz-sns-message-type": "Notification"},
}


@cache
def _sns_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sns_certificate(_url: str) -> bytes:
    """What SNS's server has at the address of its certificate."""
    now, name = dt.datetime.now(dt.UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(_sns_key().public_key())
    made = made.serial_number(1).not_valid_before(now - dt.timedelta(days=1))
    return (
        made.not_valid_after(now + dt.timedelta(days=1))
        .sign(_sns_key(), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def signed_by_sns(envelope: dict[str, Any]) -> dict[str, Any]:
    """An envelope with SNS's signature, version 2."""
    known = {name: envelope.get(name) for name in Message.__struct_fields__}
    signature = _sns_key().sign(string_to_sign(Message(**known)) or b"", padding.PKCS1v15(), hashes.SHA256())
    return envelope | {"Signature": base64.b64encode(signature).decode()}
