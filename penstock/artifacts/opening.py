"""
From an address to an obstore backend.

    a folder's path                the embedded default
    s3://bucket/prefix             AWS S3 and what speaks its protocol
    gs://bucket/prefix             Google Cloud Storage; obstore's own GOOGLE_* variables
    az://container/prefix          Azure Blob Storage; obstore's own AZURE_* variables

What an address does not say comes from the environment; the first of each line that is set counts:

    PENSTOCK_ARTIFACTS_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_ENDPOINT
    PENSTOCK_ARTIFACTS_REGION, AWS_REGION, AWS_DEFAULT_REGION         default us-east-1
    PENSTOCK_ARTIFACTS_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID               neither: the machine's or pod's own role
    PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY_FILE                         a file that holds it
    PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY
    PENSTOCK_ARTIFACTS_SESSION_TOKEN, AWS_SESSION_TOKEN
    PENSTOCK_ARTIFACTS_ALLOW_HTTP=1, AWS_ALLOW_HTTP=true              an endpoint without TLS that is not loopback
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import attrs

from penstock.errors import PlatformError, SettingsError
from penstock.settings import is_loopback

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ENDPOINT = ("PENSTOCK_ARTIFACTS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGION = ("PENSTOCK_ARTIFACTS_REGION", "AWS_REGION", "AWS_DEFAULT_REGION")
KEY_ID = ("PENSTOCK_ARTIFACTS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")
SECRET_FILE = "PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY_FILE"
SECRET = ("PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
TOKEN = ("PENSTOCK_ARTIFACTS_SESSION_TOKEN", "AWS_SESSION_TOKEN")
PLAIN = ("PENSTOCK_ARTIFACTS_ALLOW_HTTP", "AWS_ALLOW_HTTP")
SCHEMES = ("s3", "gs", "az")


@attrs.frozen
class Patience:
    """How long a store that fails is asked again. retries: per request; within_s: from its first try on."""

    retries: int = 8
    within_s: float = 120.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0
    silence_s: float = 60.0

    def client(self) -> dict[str, Any]:
        """What obstore calls client_options: no limit for a whole request, but one for silence."""
        return {
            "timeout": timedelta(days=1),
            "read_timeout": timedelta(seconds=self.silence_s),
            "connect_timeout": timedelta(seconds=10),
        }

    def retry(self) -> dict[str, Any]:
        """What obstore calls retry_config."""
        pauses = {
            "init_backoff": timedelta(seconds=self.first_pause_s),
            "max_backoff": timedelta(seconds=self.longest_pause_s),
        }
        return {
            "max_retries": self.retries,
            "retry_timeout": timedelta(seconds=self.within_s),
            "backoff": pauses,
        }


@attrs.frozen
class S3Access:
    """How a bucket is reached. endpoint: None is AWS itself; key_id: None is the machine's own role."""

    endpoint: str | None
    region: str
    key_id: str | None
    secret: str | None = attrs.field(repr=False)
    token: str | None = attrs.field(repr=False)
    plain_http: bool

    def config(self) -> dict[str, str]:
        """What obstore takes, without what is not said."""
        said = {
            "endpoint": self.endpoint,
            "region": self.region,
            "access_key_id": self.key_id,
            "secret_access_key": self.secret,
            "session_token": self.token,
        }
        return {name: value for name, value in said.items() if value}


def open_backend(location: str, env: Mapping[str, str], patience: Patience) -> "ObjectStore":
    """
    The backend at an address.

    Raises: PlatformError when it cannot be opened, SettingsError when what is said about it cannot be.
    """
    url = urlsplit(location)
    if url.scheme not in SCHEMES:
        raise PlatformError(
            "cannot open the artifact store: no such kind of store",
            where=f"{url.scheme}://",
            remedy="name a folder, or an s3://, gs:// or az:// address",
        )
    _check_address(url)
    return _s3(url, s3_access(env), patience) if url.scheme == "s3" else _other(url, patience)


def _check_address(url: SplitResult) -> None:
    address = f"{url.scheme}://{url.hostname or ''}"
    if not url.hostname:
        raise PlatformError("cannot open the artifact store: it names no bucket", where=address)
    if "@" in url.netloc or url.query or url.fragment:
        raise SettingsError(
            "the address of the artifact store holds more than bucket and prefix",
            where=address,
            remedy="give credentials by the variables in docs/artifacts.md",
        )


def s3_access(env: Mapping[str, str]) -> S3Access:
    """
    Endpoint, region and credentials that the environment names.

    Raises: SettingsError for half a credential, an unreadable file, or an endpoint without TLS.
    """
    endpoint, key_id, secret = _first(env, ENDPOINT), _first(env, KEY_ID), _secret(env)
    if bool(key_id) != bool(secret):
        raise SettingsError("key and secret go together", where=KEY_ID[0], remedy=f"set {SECRET_FILE} too, or neither")
    return S3Access(
        endpoint=endpoint,
        region=_first(env, REGION) or "us-east-1",
        key_id=key_id,
        secret=secret,
        token=_first(env, TOKEN),
        plain_http=_plain_http(endpoint, env),
    )


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)


def _secret(env: Mapping[str, str]) -> str | None:
    if not (named := env.get(SECRET_FILE)):
        return _first(env, SECRET)
    try:
        return Path(named).read_text().strip() or None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f'cannot read "{named}": {what}', where=SECRET_FILE) from error


def _plain_http(endpoint: str | None, env: Mapping[str, str]) -> bool:
    if endpoint is None:
        return False
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise SettingsError("this is no endpoint", where=ENDPOINT[0], remedy="write https://host or https://host:port")
    if url.scheme == "https":
        return False
    asked = (_first(env, PLAIN) or "").lower() in ("1", "true", "yes")
    if not asked and not is_loopback(url.hostname):
        raise SettingsError(
            f"refusing to send artifacts to {url.hostname} without TLS",
            where=ENDPOINT[0],
            remedy=f"use https://, or set {PLAIN[0]}=1 in a network that you trust",
        )
    return True


def _s3(url: SplitResult, access: S3Access, patience: Patience) -> "ObjectStore":
    from obstore.store import S3Store

    client = {**patience.client(), "allow_http": access.plain_http}
    prefix = url.path.strip("/") or None
    config: Any = access.config()
    retry: Any = patience.retry()
    return S3Store(url.netloc, prefix=prefix, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]


def _other(url: SplitResult, patience: Patience) -> "ObjectStore":
    from obstore.store import from_url

    client: Any = patience.client()
    retry: Any = patience.retry()
    return from_url(f"{url.scheme}://{url.netloc}{url.path}", client_options=client, retry_config=retry)
