"""
Whether a delivery may be believed: checked on the raw bytes, in constant time, before anything is parsed.

The scheme follows what is configured, never the header that happens to be there. Up to two secrets live
at once, so that one can be rotated without losing a delivery.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping

from attrs import field, frozen

from penstock.errors import AccessError, SettingsError
from penstock.forges.payload import header

MAX_LIVE_SECRETS = 2
TOLERANCE_S = 300
_SIGNING_PREFIX = "whsec_"


@frozen
class Trust:
    """
    What the deliveries of one connected repository are checked against.

    secrets: one, or two while rotating, newest first; never empty strings. Not shown in `repr`.
    username: Azure DevOps: the name of the basic authentication; may be empty there.
    topic_arn: CodeCommit: the one SNS topic that is believed.
    fetch_certificate: CodeCommit: `https URL → PEM bytes`; it only ever sees addresses that passed the
        host and path check, and may keep what it fetched.
    """

    secrets: tuple[str, ...] = field(default=(), repr=False)
    username: str = ""
    topic_arn: str | None = None
    fetch_certificate: Callable[[str], bytes] | None = None

    @secrets.validator
    def _check_secrets(self, _attribute: object, secrets: tuple[str, ...]) -> None:
        if len(secrets) > MAX_LIVE_SECRETS:
            raise SettingsError(f"a hook has {len(secrets)} secrets", remedy=f"keep {MAX_LIVE_SECRETS}")
        if not all(secrets):
            raise SettingsError("a hook's secret is empty", remedy="set one, or leave it out")


def verify_hub_signature(forge: str, body: bytes, signature: str | None, trust: Trust) -> None:
    """
    `sha256=` and the hex HMAC of the body, as GitHub and Bitbucket send it.

    Raises: AccessError. SHA-1 signatures are not taken.
    """
    sent = _given(forge, signature, "signature")
    _accept(forge, [_same(sent, f"sha256={_hex_hmac(s, body)}") for s in _secrets(forge, trust)])


def verify_hex_signature(forge: str, body: bytes, signature: str | None, trust: Trust) -> None:
    """
    The bare hex HMAC of the body, as Gitea and Forgejo send it; empty when the hook has no secret.

    Raises: AccessError.
    """
    sent = _given(forge, signature, "signature")
    _accept(forge, [_same(sent, _hex_hmac(s, body)) for s in _secrets(forge, trust)])


def verify_gitlab(forge: str, body: bytes, headers: Mapping[str, str], trust: Trust, now_s: float) -> None:
    """
    A signing token (`whsec_…`, GitLab 19 and later) or a secret token, each by its own scheme.

    now_s: seconds since the epoch; a signature is good for 300 s before and after.
    Raises: AccessError; SettingsError where a signing token is not `whsec_` and base64.
    """
    checks = [
        _gitlab_signed(body, headers, secret, now_s)
        if secret.startswith(_SIGNING_PREFIX)
        else _same(header(headers, "X-Gitlab-Token") or "", secret)
        for secret in _secrets(forge, trust)
    ]
    _accept(forge, checks)


def verify_basic(forge: str, headers: Mapping[str, str], trust: Trust) -> None:
    """
    HTTP basic authentication, user name and password together.

    Raises: AccessError.
    """
    sent = _given(forge, header(headers, "Authorization"), "Authorization header")
    scheme, _, encoded = sent.partition(" ")
    given = _base64(encoded.strip()) if scheme.lower() == "basic" else None
    expected = [f"{trust.username}:{secret}".encode() for secret in _secrets(forge, trust)]
    _accept(forge, [hmac.compare_digest(given or b"", each) for each in expected])


def _gitlab_signed(body: bytes, headers: Mapping[str, str], secret: str, now_s: float) -> bool:
    key = _base64(secret.removeprefix(_SIGNING_PREFIX))
    if not key:
        raise SettingsError("the signing token is not whsec_ and base64", remedy="copy it from GitLab again")
    message_id = header(headers, "webhook-id") or ""
    sent_at = header(headers, "webhook-timestamp") or ""
    signed = f"{message_id}.{sent_at}.".encode("utf-8", "backslashreplace") + body
    right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # The header may list several signatures, parted by blanks, while GitLab itself rotates.
    sent = (header(headers, "webhook-signature") or "").split()[:8]
    matches = [_same(each, right) for each in sent]
    return any(matches) and bool(message_id) and _is_recent(sent_at, now_s)


def _is_recent(sent_at: str, now_s: float) -> bool:
    if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= 12):
        return False
    return abs(now_s - int(sent_at)) <= TOLERANCE_S


def _secrets(forge: str, trust: Trust) -> tuple[str, ...]:
    if not trust.secrets:
        raise AccessError("the hook has no secret", where=forge, remedy="set one on both sides")
    return trust.secrets


def _given(forge: str, value: str | None, what: str) -> str:
    if not value:
        raise AccessError(f"the delivery has no {what}", where=forge, remedy="set the hook's secret at the forge")
    return value


def _accept(forge: str, checks: list[bool]) -> None:
    # The list is complete before it is looked at: which secret matched does not show in the time.
    if not any(checks):
        raise AccessError(
            "the delivery is not signed with a live secret",
            where=forge,
            remedy="compare the hook's secret on both sides",
        )


def _hex_hmac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _same(sent: str, right: str) -> bool:
    # Bytes, because compare_digest refuses text beyond ASCII and a stranger may send anything.
    return hmac.compare_digest(sent.encode("utf-8", "backslashreplace"), right.encode())


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
