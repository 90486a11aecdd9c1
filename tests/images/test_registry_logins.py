"""The token calls of three clouds, against what their documentation says they are asked and answer."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from penstock.errors import InputError, PlatformError, StepFailure
from penstock.images.logins import Account, Credentials, Login, account_of
from penstock.images.sigv4 import AwsKey, Scope, Unsigned, signed_headers
from penstock.images.tokens import ACR_USER, GOOGLE_TOKEN_URL, credentials_for

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
Answer = Callable[[httpx.Request], httpx.Response]


def asked(account: Account, registry: str, answer: Answer) -> Credentials:
    """The login, with a server that answers so."""
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        return credentials_for(account, registry, http, lambda: NOON)


def test_signature_is_that_of_awss_own_example():
    """The published example of Signature Version 4 gives the published signature."""
    key = AwsKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    scope = Scope("us-east-1", "iam", datetime(2015, 8, 30, 12, 36, 0, tzinfo=UTC))
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    content = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    signed = signed_headers(Unsigned("GET", url, content), key, scope)
    assert signed["Authorization"].endswith(
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_ecr_gives_a_name_and_password_for_a_signed_question():
    """The token is `AWS:password` in base64; the secret key itself is not sent."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://api.ecr.eu-central-1.amazonaws.com/"
        assert request.headers["x-amz-target"].endswith(".GetAuthorizationToken")
        assert "Credential=AKID/20260301/eu-central-1/ecr/aws4_request" in request.headers["authorization"]
        assert "x-amz-security-token" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == "session"
        assert b"hidden" not in str(request.headers).encode() + request.content
        token = base64.b64encode(b"AWS:for-twelve-hours").decode()
        return httpx.Response(200, json={"authorizationData": [{"authorizationToken": token}]})

    account = Account("ecr", "AKID", "hidden", session_token="session")
    assert asked(account, ECR, answer) == Credentials("AWS", "for-twelve-hours")


def test_ecr_of_china_and_with_fips_have_their_own_addresses():
    """By the registry's name."""
    hosts = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(200, json={"authorizationData": [{"authorizationToken": "QVdTOng="}]})

    for registry in (f"{ECR}.cn", ECR.replace(".ecr.", ".ecr-fips.")):
        asked(Account("ecr", "AKID", "hidden"), registry, answer)
    assert hosts == ["api.ecr.eu-central-1.amazonaws.com.cn", "ecr-fips.eu-central-1.amazonaws.com"]


def test_google_gives_a_token_for_an_assertion_that_the_key_has_signed():
    """The JWT is checked as Google checks it: signature, issuer, audience, ten minutes."""
    private = rsa.generate_private_key(65537, 2048)

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == GOOGLE_TOKEN_URL
        form = parse_qs(request.content.decode())
        head, claims, signature = form["assertion"][0].split(".")
        private.public_key().verify(
            _unpacked(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        assert json.loads(_unpacked(head)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        found = json.loads(_unpacked(claims))
        assert (found["iss"], found["aud"]) == ("ci@shop.example", GOOGLE_TOKEN_URL)
        assert found["exp"] - found["iat"] == 600
        return httpx.Response(200, json={"access_token": "ya29", "expires_in": 3600})

    account = Account("gcr", "", _key_file(private))
    assert asked(account, "europe-docker.pkg.dev", answer) == Credentials("oauth2accesstoken", "ya29")


@pytest.mark.parametrize("key", ["no json", "{}", '{"private_key": 1}', "[]", "null"])
def test_secret_that_is_no_key_of_google_says_what_to_store(key: str):
    """And does not repeat it."""
    with pytest.raises(InputError, match="store the JSON file that Google gave"):
        asked(Account("gcr", "", key), "gcr.io", lambda _request: httpx.Response(500))


def test_key_of_another_kind_is_refused():
    """Google's are RSA."""
    with pytest.raises(InputError, match="no service account's key"):
        asked(
            Account("gcr", "", _key_file(ec.generate_private_key(ec.SECP256R1()))),
            "gcr.io",
            lambda _request: httpx.Response(500),
        )


def test_azure_gives_a_refresh_token_in_two_steps():
    """The directory's token is exchanged at the registry itself."""

    def answer(request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        if request.url.host == "login.microsoftonline.com":
            assert request.url.path == "/tenant-1/oauth2/v2.0/token"
            assert (form["client_id"], form["client_secret"]) == ("app", "hidden")
            return httpx.Response(200, json={"access_token": "of-the-directory"})
        assert str(request.url) == "https://shop.azurecr.io/oauth2/exchange"
        assert (form["service"], form["access_token"]) == ("shop.azurecr.io", "of-the-directory")
        return httpx.Response(200, json={"refresh_token": "of-the-registry"})

    account = Account("acr", "app", "hidden", tenant="tenant-1")
    assert asked(account, "shop.azurecr.io", answer) == Credentials(ACR_USER, "of-the-registry")


@pytest.mark.parametrize("auth", ["ecr", "acr"])
@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, {"error": "invalid_client", "error_description": "hidden"}, StepFailure, r"refused .* 400 \(invalid_cli"),
        (400, {"__type": "com.amazon#UnrecognizedClientException"}, StepFailure, "UnrecognizedClientException"),
        (403, "nothing", StepFailure, "refused the login with 403; check the account"),
        (500, {}, PlatformError, "answered 500"),
        (429, {}, PlatformError, "answered 429"),
        (200, {}, PlatformError, "no token"),
        (200, [], PlatformError, "no token"),
        (200, "{", PlatformError, "no token"),
        (200, {"authorizationData": [{"authorizationToken": "*"}], "access_token": 1}, PlatformError, "no token"),
    ],
)
def test_refusals_and_nonsense_are_told_apart(auth: str, status: int, body: object, error: type, words: str):
    """Refused: the pipeline's fault. Broken: the cloud's. The account's secret is in no message."""

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, **({"text": body} if isinstance(body, str) else {"json": body}))

    account = Account(auth, "app", "hidden", tenant="t")  # type: ignore[arg-type]
    with pytest.raises(error, match=words) as raised:
        asked(account, ECR, answer)
    assert "hidden" not in str(raised.value)


def test_cloud_that_does_not_answer_is_not_the_users_fault():
    """It is tried again like a registry that is away."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(PlatformError, match="AWS does not answer: refused"):
        asked(Account("ecr", "AKID", "hidden"), ECR, answer)


def test_registry_that_is_none_of_ecr_is_refused():
    """Before anybody is asked."""
    with pytest.raises(InputError, match="no registry of ECR"):
        asked(Account("ecr", "AKID", "hidden"), "registry.example", lambda _request: httpx.Response(500))


def test_basic_login_asks_nobody():
    """Name and password as they are, without the line break that ends most secrets' files."""
    login = Login(username="ada", password_secret="password")
    account = account_of(login, {"password": "p4ss\n"}.__getitem__)
    assert account is not None
    assert asked(account, "registry.example", lambda _request: httpx.Response(500)) == Credentials("ada", "p4ss")
    assert account_of(Login(), {}.__getitem__) is None
    assert "p4ss" not in repr(account)


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _key_file(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps({"private_key": pem.decode(), "private_key_id": "k1", "client_email": "ci@shop.example"})
