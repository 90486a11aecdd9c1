"""Which deliveries are believed: every scheme, right and wrong, with the real cryptography."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac

import forge_payloads as made
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from forge_payloads import as_bytes

from penstock.errors import AccessError, EventError, SettingsError
from penstock.forges import azure_devops
from penstock.forges.registry import FORGES
from penstock.forges.sns import Message, confirmation_url, string_to_sign
from penstock.forges.verify import Trust

BODY = as_bytes(made.github_push())
NOW_S = 1_750_000_000.0
OLD, NEW = "the old secret", "the new secret"


def hex_hmac(secret: str, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def verify(forge: str, headers: dict[str, str], *secrets: str, body: bytes = BODY, now_s: float = NOW_S) -> None:
    FORGES[forge].verify(body, headers, Trust(secrets=secrets), now_s)


HMAC_FORGES = [
    ("github", "X-Hub-Signature-256", "sha256="),
    ("bitbucket-cloud", "X-Hub-Signature", "sha256="),
    ("bitbucket-server", "X-Hub-Signature", "sha256="),
    ("gitea", "X-Gitea-Signature", ""),
    ("forgejo", "X-Forgejo-Signature", ""),
    ("forgejo", "X-Gitea-Signature", ""),
]


@pytest.mark.parametrize(("forge", "name", "prefix"), HMAC_FORGES)
def test_either_live_secret_is_believed(forge, name, prefix):
    """Rotation loses no delivery: both the old and the new secret verify, in any header case."""
    for secret in (OLD, NEW):
        verify(forge, {name: prefix + hex_hmac(secret)}, NEW, OLD)
        verify(forge, {name.lower(): prefix + hex_hmac(secret)}, NEW, OLD)


@pytest.mark.parametrize(("forge", "name", "prefix"), HMAC_FORGES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda good: good[:-1],
        lambda good: good + "0",
        lambda good: good[:-1] + ("0" if good[-1] != "0" else "1"),
        lambda _: "sha1=" + hashlib.sha1(BODY).hexdigest(),
        lambda _: "sha256=",
        lambda _: "ü" * 64,
        lambda _: "\udcff" * 64,
    ],
)
def test_a_wrong_signature_is_refused(forge, name, prefix, spoil):
    """Empty, cut, longer, altered, of another algorithm, or not even ASCII."""
    with pytest.raises(AccessError):
        verify(forge, {name: spoil(prefix + hex_hmac(NEW))}, NEW, OLD)


@pytest.mark.parametrize(("forge", "name", "prefix"), HMAC_FORGES)
def test_the_signature_is_over_the_raw_bytes(forge, name, prefix):
    """A body that means the same but is written otherwise is refused."""
    with pytest.raises(AccessError):
        verify(forge, {name: prefix + hex_hmac(NEW)}, NEW, body=BODY + b" ")


@pytest.mark.parametrize("forge", ["github", "bitbucket-cloud", "bitbucket-server"])
def test_a_bare_digest_is_no_hub_signature(forge):
    """The prefix names the algorithm and is part of what is compared."""
    with pytest.raises(AccessError):
        verify(forge, {"X-Hub-Signature-256": hex_hmac(NEW), "X-Hub-Signature": hex_hmac(NEW)}, NEW)


@pytest.mark.parametrize("forge", list(FORGES))
def test_nothing_is_believed_without_a_secret(forge):
    """Also where the sender signed with an empty one."""
    signature = hex_hmac("")
    headers = {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-Hub-Signature": f"sha256={signature}",
        "X-Gitea-Signature": signature,
        "X-Gitlab-Token": "",
        "Authorization": "Basic " + base64.b64encode(b":").decode(),
    }
    with pytest.raises((AccessError, SettingsError)):
        verify(forge, headers)


@pytest.mark.parametrize("forge", list(FORGES))
def test_nothing_is_believed_without_headers(forge):
    """A delivery that is not signed at all."""
    with pytest.raises((AccessError, SettingsError)):
        verify(forge, {}, NEW)


@pytest.mark.parametrize("secrets", [("",), ("a", ""), ("a", "b", "c")])
def test_empty_and_too_many_secrets_cannot_be_configured(secrets):
    """At most two live at once, and an empty one would believe everybody."""
    with pytest.raises(SettingsError):
        Trust(secrets=secrets)


def test_secrets_do_not_show():
    """A Trust in a log line or traceback keeps them to itself."""
    assert NEW not in repr(Trust(secrets=(NEW,)))


@pytest.mark.parametrize("own", ["", "0" * 64])
def test_forgejos_own_header_is_not_rescued_by_giteas(own):
    """A bad or empty X-Forgejo-Signature is final, whatever X-Gitea-Signature says."""
    with pytest.raises(AccessError):
        verify("forgejo", {"X-Forgejo-Signature": own, "X-Gitea-Signature": hex_hmac(NEW)}, NEW)


# GitLab

KEY = b"k" * 32
SIGNING = "whsec_" + base64.b64encode(KEY).decode()


def gitlab_headers(*, key: bytes = KEY, sent_at: str = str(int(NOW_S)), message_id: str = "m1") -> dict[str, str]:
    signed = f"{message_id}.{sent_at}.".encode() + BODY
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{signature}",
    }


def test_a_gitlab_signing_token_verifies():
    """HMAC over id, time stamp and body with the decoded key."""
    verify("gitlab", gitlab_headers(), SIGNING)


def test_one_right_signature_among_several_is_enough():
    """The header lists several, parted by blanks, while a key is being rotated."""
    headers = gitlab_headers()
    headers["webhook-signature"] = f"v1,AAAA v2,BBBB {headers['webhook-signature']}"
    verify("gitlab", headers, SIGNING)


@pytest.mark.parametrize("offset_s", [-300, -1, 0, 299, 300])
def test_a_fresh_gitlab_signature_is_believed(offset_s):
    """Within 300 s before and after."""
    verify("gitlab", gitlab_headers(sent_at=str(int(NOW_S) + offset_s)), SIGNING)


@pytest.mark.parametrize(
    "changed",
    [
        gitlab_headers(sent_at=str(int(NOW_S) - 301)),
        gitlab_headers(sent_at=str(int(NOW_S) + 301)),
        gitlab_headers(sent_at="soon"),
        gitlab_headers(sent_at="-1750000000"),
        gitlab_headers(sent_at="9" * 5000),
        gitlab_headers(sent_at=""),
        gitlab_headers(message_id=""),
        gitlab_headers(key=b"x" * 32),
        gitlab_headers() | {"webhook-id": "m2"},
        gitlab_headers() | {"webhook-timestamp": str(int(NOW_S) + 1)},
        gitlab_headers() | {"webhook-signature": ""},
        gitlab_headers() | {"webhook-signature": "v1,"},
        {k: v for k, v in gitlab_headers().items() if k != "webhook-signature"},
    ],
)
def test_a_stale_or_altered_gitlab_signature_is_refused(changed):
    """Too old, too new, no number, another id, another key, or gone."""
    with pytest.raises(AccessError):
        verify("gitlab", changed, SIGNING)


def test_a_gitlab_token_is_compared_whole():
    """The older scheme: the secret itself in X-Gitlab-Token."""
    verify("gitlab", {"X-Gitlab-Token": OLD}, NEW, OLD)
    for wrong in ("", OLD[:-1], OLD + "x", "ü"):
        with pytest.raises(AccessError):
            verify("gitlab", {"X-Gitlab-Token": wrong}, NEW, OLD)


def test_the_scheme_follows_the_secret_and_not_the_header():
    """Whoever learns a signing token's text may not send it as a token, nor sign with a plain token."""
    with pytest.raises(AccessError):
        verify("gitlab", {"X-Gitlab-Token": SIGNING}, SIGNING)
    with pytest.raises(AccessError):
        verify("gitlab", gitlab_headers(key=NEW.encode()), NEW)


def test_a_hook_can_move_from_token_to_signing_token():
    """With one secret of each scheme alive, either delivery is believed by its own."""
    verify("gitlab", gitlab_headers(), SIGNING, OLD)
    verify("gitlab", {"X-Gitlab-Token": OLD}, SIGNING, OLD)


@pytest.mark.parametrize("token", ["whsec_", "whsec_not base64"])
def test_a_signing_token_that_holds_no_key_is_a_wrong_setting(token):
    """An empty key would let everybody sign."""
    with pytest.raises(SettingsError, match="signing token"):
        verify("gitlab", gitlab_headers(key=b""), token)


# Azure DevOps


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def azure_verify(headers: dict[str, str]) -> None:
    FORGES["azure-devops"].verify(BODY, headers, Trust(secrets=(NEW, OLD), username="penstock"), NOW_S)


def test_azure_deliveries_carry_basic_authentication():
    """User and either live password."""
    azure_verify(basic("penstock", NEW))
    azure_verify(basic("penstock", OLD))


@pytest.mark.parametrize(
    "headers",
    [
        basic("penstock", "wrong"),
        basic("", NEW),
        basic("penstock:" + NEW, ""),
        {"Authorization": f"Bearer {NEW}"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic ü"},
        {"Authorization": "Basic ===="},
    ],
)
def test_other_credentials_are_refused_by_azure_hooks(headers):
    """Another user, another password, another scheme, or no base64."""
    with pytest.raises(AccessError):
        azure_verify(headers)


def test_an_azure_delivery_must_name_its_own_subscription_and_project():
    """The body is not signed; what it says must at least be what was set up."""
    body = as_bytes(made.azure_push())
    azure_devops.verify_origin(body, azure_devops.Origin("s1", "p1"))
    azure_devops.verify_origin(body, azure_devops.Origin(None, "p1"))
    for expected in (azure_devops.Origin("s2", "p1"), azure_devops.Origin("s1", "p2")):
        with pytest.raises(AccessError, match="the delivery is of"):
            azure_devops.verify_origin(body, expected)
    with pytest.raises(AccessError):
        azure_devops.verify_origin(b"{}", azure_devops.Origin("s1", None))


# AWS CodeCommit

TOPIC = "arn:aws:sns:eu-central-1:123456789012:pushes"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"


@pytest.fixture(scope="module")
def sns_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, days: int = 30) -> bytes:
    now = dt.datetime.fromtimestamp(NOW_S, dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def signed_envelope(key: rsa.RSAPrivateKey, **members: str) -> dict[str, str]:
    envelope = made.sns_envelope(made.codecommit_trigger(), **members)
    known = {name: envelope.get(name) for name in Message.__struct_fields__}
    algorithm = hashes.SHA1() if envelope["SignatureVersion"] == "1" else hashes.SHA256()
    signature = key.sign(string_to_sign(Message(**known)) or b"", padding.PKCS1v15(), algorithm)
    return envelope | {"Signature": base64.b64encode(signature).decode()}


def sns_verify(envelope: dict[str, str], pem: bytes, *, topic: str = TOPIC) -> list[str]:
    fetched: list[str] = []

    def fetch(address: str) -> bytes:
        fetched.append(address)
        return pem

    trust = Trust(topic_arn=topic, fetch_certificate=fetch)
    FORGES["aws-codecommit"].verify(as_bytes(envelope), {}, trust, NOW_S)
    return fetched


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [{}, {"Subject": "UPDATE: push"}])
def test_a_signed_sns_message_of_the_topic_is_believed(sns_key, version, subject):
    """SHA-1 and SHA-256, with and without a subject; the certificate is fetched from where it says."""
    envelope = signed_envelope(sns_key, SignatureVersion=version, **subject)
    assert sns_verify(envelope, certificate_pem(sns_key)) == [CERTIFICATE_URL]


def test_the_confirmation_of_a_subscription_is_signed_too(sns_key):
    """Other members are signed then: the token and the address that confirms."""
    envelope = signed_envelope(
        sns_key,
        Type="SubscriptionConfirmation",
        Token="t",
        SubscribeURL=f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t",
    )
    sns_verify(envelope, certificate_pem(sns_key))
    assert confirmation_url("aws-codecommit", as_bytes(envelope), TOPIC) == envelope["SubscribeURL"]
    with pytest.raises(AccessError):
        sns_verify(envelope | {"Token": "u"}, certificate_pem(sns_key))


@pytest.mark.parametrize(
    "spoiled",
    [
        {"Message": "{}"},
        {"MessageId": "m2"},
        {"Timestamp": "2026-01-01T00:00:00.000Z"},
        {"Subject": "added"},
        {"Signature": ""},
        {"Signature": "AAAA"},
        {"Signature": "ü"},
        {"SignatureVersion": "1"},
        {"SignatureVersion": "3"},
        {"Type": "Other"},
        {"TopicArn": TOPIC + "2"},
        {"TopicArn": None},
    ],
)
def test_an_altered_sns_message_is_refused(sns_key, spoiled):
    """Every signed member, the signature itself, its version and the topic."""
    with pytest.raises(AccessError):
        sns_verify(signed_envelope(sns_key) | spoiled, certificate_pem(sns_key))


@pytest.mark.parametrize(
    "address",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
        "https://sns.eu-central-1.amazonaws.com.eve.test/SimpleNotificationService-0123abcd.pem",
        "https://eve.test/sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
        "https://sns.eu-central-1.amazonaws.com@eve.test/SimpleNotificationService-0123abcd.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
        "https://sns.eu-central-1.amazonaws.com/eve/SimpleNotificationService-0123abcd.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem?x",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem\n",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123abcd.pem",
        "file:///etc/passwd",
        "",
    ],
)
def test_certificates_are_fetched_from_sns_alone(sns_key, address):
    """Scheme, host and path are checked before anything is fetched."""
    fetched: list[str] = []

    def fetch(where: str) -> bytes:
        fetched.append(where)
        return certificate_pem(sns_key)

    body = as_bytes(signed_envelope(sns_key) | {"SigningCertURL": address})
    with pytest.raises(AccessError, match="not on an SNS host"):
        FORGES["aws-codecommit"].verify(body, {}, Trust(topic_arn=TOPIC, fetch_certificate=fetch), NOW_S)
    assert fetched == []


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "ap-southeast-4"])
def test_every_region_has_its_sns_host(sns_key, region):
    """Also the long names."""
    address = CERTIFICATE_URL.replace("eu-central-1", region)
    sns_verify(signed_envelope(sns_key, SigningCertURL=address), certificate_pem(sns_key))


def test_certificates_that_cannot_vouch_are_refused(sns_key):
    """Out of date, of another kind of key, somebody else's, or no certificate at all."""
    envelope = signed_envelope(sns_key)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    pems = [
        certificate_pem(sns_key, days=-1),
        certificate_pem(elliptic),
        certificate_pem(other),
        b"not a certificate",
    ]
    for pem in pems:
        with pytest.raises(AccessError):
            sns_verify(envelope, pem)


def test_a_topic_must_be_pinned():
    """Without one every AWS account could start runs."""
    with pytest.raises(SettingsError, match="no SNS topic"):
        FORGES["aws-codecommit"].verify(b"{}", {}, Trust(fetch_certificate=lambda _: b""), NOW_S)


def test_bridge_events_are_not_believed_over_http(sns_key):
    """They are unsigned; they come through our own queue."""
    with pytest.raises(AccessError):
        sns_verify(made.codecommit_reference(), certificate_pem(sns_key))
    with pytest.raises(AccessError):
        FORGES["aws-codecommit"].verify(b"[", {}, Trust(topic_arn=TOPIC), NOW_S)


@pytest.mark.parametrize(
    "address",
    [
        f"https://eve.test/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}2",
        f"https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&TopicArn={TOPIC}",
        "",
    ],
)
def test_only_the_pinned_topics_subscription_is_confirmed(address):
    """The address is called by us: host, action and topic must be right."""
    body = as_bytes(made.sns_envelope("x", Type="SubscriptionConfirmation", SubscribeURL=address))
    with pytest.raises(AccessError):
        confirmation_url("aws-codecommit", body, TOPIC)


def test_a_notification_asks_for_no_confirmation():
    """None; and another topic's request is refused."""
    assert confirmation_url("aws-codecommit", as_bytes(made.sns_envelope("x")), TOPIC) is None
    with pytest.raises(AccessError):
        confirmation_url(
            "aws-codecommit", as_bytes(made.sns_envelope("x", Type="SubscriptionConfirmation")), TOPIC + "2"
        )


# Delivery ids


@pytest.mark.parametrize(
    ("forge", "headers", "body", "expected"),
    [
        ("github", {"x-github-delivery": "d"}, b"", "d"),
        ("gitlab", {"webhook-id": "d", "Idempotency-Key": "e"}, b"", "d"),
        ("gitlab", {"Idempotency-Key": "e", "X-Gitlab-Event-UUID": "f"}, b"", "e"),
        ("gitlab", {"X-Gitlab-Event-UUID": "f"}, b"", "f"),
        ("bitbucket-cloud", {"X-Request-UUID": "d"}, b"", "d"),
        ("bitbucket-server", {"X-Request-Id": "d"}, b"", "d"),
        ("gitea", {"X-Gitea-Delivery": "d"}, b"", "d"),
        ("forgejo", {"X-Forgejo-Delivery": "d", "X-Gitea-Delivery": "e"}, b"", "d"),
        ("forgejo", {"X-Gitea-Delivery": "e"}, b"", "e"),
        ("azure-devops", {}, as_bytes(made.azure_push()), "d1"),
        ("aws-codecommit", {}, as_bytes(made.sns_envelope({})), "m1"),
        ("aws-codecommit", {}, as_bytes(made.codecommit_reference()), "b1"),
        ("aws-codecommit", {}, as_bytes(made.codecommit_trigger()), "e1"),
        ("github", {"X-GitHub-Delivery": " "}, b"", None),
        ("azure-devops", {}, b"{}", None),
    ],
)
def test_a_delivery_has_the_forges_own_id(forge, headers, body, expected):
    """From the header or the body; None where the forge sent none."""
    assert FORGES[forge].delivery_id(body, headers) == expected


@pytest.mark.parametrize("forge", ["azure-devops", "aws-codecommit"])
def test_an_id_in_a_body_that_is_not_json_is_an_event_error(forge):
    """Only these two forges keep it in the body."""
    with pytest.raises(EventError):
        FORGES[forge].delivery_id(b"{", {})
