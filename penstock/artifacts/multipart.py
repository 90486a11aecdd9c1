"""
Uploads in parts that nobody finishes: listed and aborted, which obstore cannot do.

Two requests of S3's protocol (ListMultipartUploads, AbortMultipartUpload), signed with version 4:
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

import hashlib
import hmac
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import attrs

from penstock.artifacts.opening import S3Access
from penstock.errors import PlatformError

if TYPE_CHECKING:
    import httpx
    from obstore.store import ObjectStore

LIMIT_S = 60.0
# 404: no such upload any more, or (rclone) no upload ever. 501: a server that has no such list.
_NONE = (404, 501)
_EMPTY = hashlib.sha256(b"").hexdigest()


@attrs.frozen
class Upload:
    """An upload that was begun and neither completed nor aborted."""

    key: str
    id: str
    begun_at: datetime


def abort_uploads(backend: "ObjectStore", access: S3Access, before: datetime) -> int:
    """
    Abort the uploads under the store's prefix that began before then. Returns: how many.

    A machine that has a role instead of a key cannot sign here: there, the bucket's own rule does it.
    Raises: PlatformError when the server refuses.
    """
    import httpx

    if access.key_id is None:
        return 0
    config: Any = backend.config  # type: ignore[union-attr]
    bucket, prefix = str(config["bucket"]), str(getattr(backend, "prefix", None) or "")
    inner = f"{prefix}/sha256/" if prefix else "sha256/"
    with httpx.Client(timeout=LIMIT_S) as client:
        found = [upload for upload in _uploads(client, access, bucket, inner) if upload.begun_at < before]
        for upload in found:
            _ask(client, access, "DELETE", f"{bucket}/{upload.key}", {"uploadId": upload.id})
    return len(found)


def _uploads(client: "httpx.Client", access: S3Access, bucket: str, prefix: str) -> Iterator[Upload]:
    more: dict[str, str] = {}
    while True:
        answer = _ask(client, access, "GET", bucket, {"uploads": "", "prefix": prefix, **more})
        try:
            page = ET.fromstring(answer)
        except ET.ParseError as error:
            raise PlatformError("the list of uploads cannot be read", where="artifact store") from error
        for found in page.findall("{*}Upload"):
            begun = datetime.fromisoformat(found.findtext("{*}Initiated") or "1970-01-01T00:00:00+00:00")
            key = found.findtext("{*}Key") or ""
            if key.startswith(prefix):
                yield Upload(key, found.findtext("{*}UploadId") or "", begun.astimezone(UTC))
        if page.findtext("{*}IsTruncated") != "true":
            return
        more = {
            "key-marker": page.findtext("{*}NextKeyMarker") or "",
            "upload-id-marker": page.findtext("{*}NextUploadIdMarker") or "",
        }


def _ask(client: "httpx.Client", access: S3Access, method: str, name: str, query: Mapping[str, str]) -> bytes:
    import httpx

    base = urlsplit(access.endpoint or f"https://s3.{access.region}.amazonaws.com")
    path, words = quote(f"{base.path.rstrip('/')}/{name}"), urlencode(sorted(query.items()), quote_via=quote)
    url = urlunsplit((base.scheme, base.netloc, path, words, ""))
    try:
        answer = client.request(method, url, headers=signed_headers(access, method, url, datetime.now(UTC)))
    except httpx.HTTPError as error:
        raise PlatformError(f"the store does not answer: {type(error).__name__}", where="artifact store") from error
    if answer.status_code in _NONE:
        return b"<none/>"
    if answer.is_error:
        raise PlatformError(f"the store answers {answer.status_code} about uploads", where="artifact store")
    return answer.content


def signed_headers(access: S3Access, method: str, url: str, at: datetime) -> dict[str, str]:
    """The headers of a request without a body, signed. url: its path encoded, its query sorted and encoded."""
    asked = urlsplit(url)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    headers = {"host": asked.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if access.token:
        headers["x-amz-security-token"] = access.token
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    request = "\n".join([method, asked.path, asked.query, *lines, "", names, _EMPTY])
    scope = f"{day}/{access.region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{access.secret}".encode()
    for part in (day, access.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    credential = f"Credential={access.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
