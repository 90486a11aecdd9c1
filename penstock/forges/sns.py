"""
Amazon SNS messages: signature versions 1 and 2, and the subscription's confirmation.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec

from penstock.errors import AccessError, PlatformError, SettingsError
from penstock.forges.payload import decode
from penstock.forges.verify import Trust

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

_HOST = r"https://sns\.[a-z]{2}(?:-[a-z0-9]+){1,4}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(_HOST + r"/SimpleNotificationService(?:-[0-9a-f]{1,64})?\.pem")
_CONFIRM_URL = re.compile(_HOST + r"/\?[\x21-\x7e]{1,4096}")

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]


class Message(msgspec.Struct, frozen=True):
    """The envelope as SNS writes it; all None for a body that is none."""

    Type: str | None = None
    MessageId: str | None = None
    TopicArn: str | None = None
    Subject: str | None = None
    Message: str | None = None
    Timestamp: str | None = None
    Token: str | None = None
    SubscribeURL: str | None = None
    SignatureVersion: str | None = None
    Signature: str | None = None
    SigningCertURL: str | None = None


def verify_message(forge: str, message: Message, trust: Trust, now_s: float) -> None:
    """
    The pinned topic, a certificate from Amazon's own host, and a right signature over the signed members.

    now_s: seconds since the epoch, for the certificate's dates.
    Raises: AccessError; SettingsError where topic or certificate fetcher are not configured;
    PlatformError without the `cryptography` package. `trust.fetch_certificate` may raise its own.
    """
    if not trust.topic_arn or trust.fetch_certificate is None:
        raise SettingsError("no SNS topic is pinned", where=forge, remedy="connect the repository with its topic")
    _check_topic(forge, message, trust.topic_arn)
    address = message.SigningCertURL or ""
    if not _CERTIFICATE_URL.fullmatch(address):
        raise AccessError("the signing certificate is not on an SNS host", where=forge)
    key = _public_key(forge, trust.fetch_certificate(address), now_s)
    _check_signature(forge, message, key)


def confirmation_url(forge: str, body: bytes, topic_arn: str) -> str | None:
    """
    The address that confirms the subscription to `topic_arn`; None where the body is another message.

    To be called after `verify_message`.
    Raises: AccessError for another topic or a host that is not SNS's; EventError for what is not JSON.
    """
    message = decode(forge, body, Message)
    if message.Type != "SubscriptionConfirmation":
        return None
    _check_topic(forge, message, topic_arn)
    address = message.SubscribeURL or ""
    if not _CONFIRM_URL.fullmatch(address):
        raise AccessError("the confirmation's address is not on an SNS host", where=forge)
    asked = parse_qs(urlsplit(address).query, max_num_fields=16)
    if asked.get("Action") != ["ConfirmSubscription"] or asked.get("TopicArn") != [topic_arn]:
        raise AccessError("the confirmation's address is for another topic", where=forge)
    return address


def string_to_sign(message: Message) -> bytes | None:
    """The signed members, each as name and value on lines of their own; None for an unknown type."""
    names = _SIGNED.get(message.Type or "")
    if names is None:
        return None
    pairs = [(name, getattr(message, name)) for name in names]
    lines = [f"{name}\n{value}\n" for name, value in pairs if value is not None]
    return "".join(lines).encode("utf-8", "backslashreplace")


def _check_topic(forge: str, message: Message, topic_arn: str) -> None:
    given = (message.TopicArn or "").encode("utf-8", "backslashreplace")
    if not hmac.compare_digest(given, topic_arn.encode()):
        raise AccessError(
            "the message is not of the pinned SNS topic",
            where=forge,
            remedy=f"subscribe this address to {topic_arn} only",
        )


def _check_signature(forge: str, message: Message, key: RSAPublicKey) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    signed = string_to_sign(message)
    signature = _decoded(message.Signature)
    algorithm = _hash(message.SignatureVersion)
    if signed is None or not signature or algorithm is None:
        raise AccessError("the SNS message is not signed in version 1 or 2", where=forge)
    try:
        key.verify(signature, signed, PKCS1v15(), algorithm)
    except InvalidSignature as fault:
        raise AccessError("the SNS message's signature is wrong", where=forge) from fault


def _hash(version: str | None) -> HashAlgorithm | None:
    from cryptography.hazmat.primitives import hashes

    if version == "2":
        return hashes.SHA256()
    # Version 1 is SNS's default to this day; it is SHA-1 by its definition.
    return hashes.SHA1() if version == "1" else None


def _public_key(forge: str, pem: bytes, now_s: float) -> RSAPublicKey:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    except ImportError as fault:
        raise PlatformError(
            "SNS signatures need the cryptography package", where=forge, remedy="pip install cryptography"
        ) from fault
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError as fault:
        raise AccessError("SNS's signing certificate cannot be read", where=forge) from fault
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise AccessError("SNS's signing certificate is out of date", where=forge)
    if not isinstance(key, RSAPublicKey):
        raise AccessError("SNS's signing certificate holds no RSA key", where=forge)
    return key


def _decoded(signature: str | None) -> bytes | None:
    try:
        return base64.b64decode((signature or "").encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
