"""
Amazon SQS: receive and delete messages, in its JSON protocol.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/ (JSON 1.0, Signature Version 4).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from penstock.errors import InputError
from penstock.forges.clients.codecommit import aws_key
from penstock.forges.clients.wire import ForgeAway, Wire
from penstock.images.sigv4 import Scope, Unsigned, signed_headers

if TYPE_CHECKING:
    from penstock.forges.clients import Link

WAIT_S = 20  # SQS holds a request so long when there is nothing
MOST = 10  # messages at once
_TAKEN_FOR_S = 60  # what was received and not deleted comes again after so long
_REGION = re.compile(r"sqs(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


@attrs.frozen
class QueueMessage:
    """One message. id: the same however often it is received; receipt: of this time, to delete it by."""

    id: str
    receipt: str
    body: bytes


class Queue:
    """
    One queue. url: as AWS shows it. secret: the JSON of a key, as for CodeCommit.

    All methods raise ForgeAway when it is worth trying again and ForgeRefused when it is not.
    """

    def __init__(self, url: str, secret: str, link: "Link") -> None:
        self._url, self._link, self._action = url, link, ""
        self._key, told_region = aws_key(secret)
        parts = urlsplit(url)
        found = _REGION.fullmatch(parts.hostname or "")
        self._region = found[1] if found else told_region
        if not self._region:
            raise InputError("the queue's region is not known", where="sqs", remedy='add "region" to the key')
        longer = attrs.evolve(link, timeout_s=link.timeout_s + WAIT_S)
        secrets = (self._key.secret, self._key.session_token or "")
        self._wire = Wire(f"{parts.scheme}://{parts.netloc}", self._proof, longer, secrets=secrets)

    def receive(self, wait_s: int = WAIT_S) -> tuple[QueueMessage, ...]:
        """Up to ten messages, which nobody else gets for a minute; none after `wait_s` seconds of waiting."""
        asked = {"MaxNumberOfMessages": MOST, "WaitTimeSeconds": wait_s, "VisibilityTimeout": _TAKEN_FOR_S}
        told = self._call("ReceiveMessage", asked).get("Messages") or ()
        try:
            return tuple(QueueMessage(m["MessageId"], m["ReceiptHandle"], m["Body"].encode()) for m in told)
        except (KeyError, TypeError, AttributeError) as error:
            raise ForgeAway("the answer holds no messages", where=self._wire.host) from error

    def delete(self, messages: Sequence[QueueMessage]) -> None:
        """Never receive them again. One that cannot be deleted comes again, and is known then."""
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)]
            self._call("DeleteMessageBatch", {"Entries": entries})

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def _call(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._action = action
        reply = self._wire.ask("POST", "/", json.dumps({"QueueUrl": self._url, **body}).encode())
        found = reply.value() if reply.body.strip() else {}
        if not isinstance(found, dict):
            raise ForgeAway("the answer is no object", where=self._wire.host)
        return found

    def _proof(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{self._action}"}
        scope = Scope(str(self._region), "sqs", self._link.clock())
        return signed_headers(Unsigned(method, url, headers, body), self._key, scope)
