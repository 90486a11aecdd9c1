"""
AWS CodeCommit: it knows no statuses, so a comment on the commit says how it stands.

https://docs.aws.amazon.com/codecommit/latest/APIReference/ (JSON 1.1, Signature Version 4).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penstock.errors import InputError
from penstock.forges.clients.values import Comment, Place, Shown, Status
from penstock.forges.clients.wire import ForgeAway, ForgeRefused, OnWire, Wire
from penstock.images.sigv4 import AwsKey, Scope, Unsigned, signed_headers

if TYPE_CHECKING:
    from penstock.forges.clients import Link

_MOST_PAGES = 20
_REGION = re.compile(r"codecommit(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_GONE = ("CommentDoesNotExistException", "CommentDeletedException", "CommentNotCreatedByCallerException")


class CodeCommit(OnWire):
    """
    secret: JSON with `access_key_id`, `secret_access_key` and, for another host than AWS's own, `region`.

    The place's address is https://codecommit.REGION.amazonaws.com.
    """

    def __init__(self, place: Place, secret: str, link: "Link") -> None:
        self._place, self._link = place, link
        self._key, told_region = aws_key(secret)
        found = _REGION.fullmatch(urlsplit(place.url).hostname or "")
        self._region = found[1] if found else told_region
        if not self._region:
            raise InputError("the region is not known", where="aws-codecommit", remedy='add "region" to the secret')
        secrets = (self._key.secret, self._key.session_token or "")
        self._wire = Wire(place.url, self._proof, link, secrets=secrets)
        self._action = ""

    def show(self, status: Status, known: str | None) -> Shown:
        """One comment on the commit for each context."""
        marker = f"[penstock]: # ({status.context})"
        mark = {"succeeded": "✅", "skipped": "✅", "failed": "❌", "timed_out": "❌", "infra_error": "❌"}
        line = f"{mark.get(status.state, '⏳')} **{status.context}**: {status.line} ([log and results]({status.url}))"
        content = f"{marker}\n\n{line}"
        on = {"repositoryName": self._place.repository, "afterCommitId": status.commit}
        return self._write("ForComparedCommit", on, marker, content, known)

    def comment(self, comment: Comment, known: str | None) -> Shown:
        """A comment on the pull request."""
        asked = {"pullRequestId": str(comment.pull_request)}
        target = self._call("GetPullRequest", asked)["pullRequest"]["pullRequestTargets"][0]
        commits = {"beforeCommitId": target["destinationCommit"], "afterCommitId": target["sourceCommit"]}
        on = {**asked, "repositoryName": self._place.repository, **commits}
        return self._write("ForPullRequest", on, comment.marker, comment.body, known)

    def _write(self, kind: str, on: Mapping[str, str], marker: str, content: str, known: str | None) -> Shown:
        known = known or next(self._written_before(kind, on, marker), None)
        if known:
            try:
                self._call("UpdateComment", {"commentId": known, "content": content})
            except ForgeRefused as error:
                if not any(name in str(error) for name in _GONE):
                    raise
            else:
                return Shown(known)
        # The same token with the same text is the same comment, should the answer get lost.
        token = hashlib.sha256(json.dumps([dict(on), content, known]).encode()).hexdigest()
        made = self._call(f"PostComment{kind}", {**on, "content": content, "clientRequestToken": token})
        return Shown(str(made["comment"]["commentId"]))

    def _written_before(self, kind: str, on: Mapping[str, str], marker: str) -> Iterator[str]:
        asked = dict(on)
        if kind == "ForPullRequest":  # comments on its earlier heads too
            asked = {name: on[name] for name in ("pullRequestId", "repositoryName")}
        for _ in range(_MOST_PAGES):
            page = self._call(f"GetComments{kind}", asked)
            for group in page.get(f"comments{kind}Data", ()):
                for one in group.get("comments", ()):
                    if not one.get("deleted") and str(one.get("content") or "").startswith(marker):
                        yield str(one["commentId"])
            if not page.get("nextToken"):
                break
            asked["nextToken"] = page["nextToken"]

    def check(self) -> str:
        """The repository, as the key sees it."""
        found = self._call("GetRepository", {"repositoryName": self._place.repository})
        return f"{found['repositoryMetadata']['repositoryName']} in {self._region}"

    def _call(self, action: str, body: Mapping[str, Any]) -> Any:
        self._action = action
        reply = self._wire.ask("POST", "/", json.dumps(body).encode())
        found = reply.value() if reply.body.strip() else {}
        if not isinstance(found, dict):
            raise ForgeAway("the answer is no object", where=self._wire.host)
        return found

    def _proof(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        target = f"CodeCommit_20150413.{self._action}"
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        scope = Scope(str(self._region), "codecommit", self._link.clock())
        return signed_headers(Unsigned(method, url, headers, body), self._key, scope)


def aws_key(secret: str) -> tuple[AwsKey, str | None]:
    """The key that a secret is, and its region where it names one. Raises: InputError for what is no key."""
    try:
        told = json.loads(secret)
        key = AwsKey(str(told["access_key_id"]), str(told["secret_access_key"]), told.get("session_token"))
    except (ValueError, KeyError, TypeError) as error:
        remedy = 'write {"access_key_id": "…", "secret_access_key": "…"}'
        raise InputError("the secret is no key of AWS", where="aws-codecommit", remedy=remedy) from error
    return key, told.get("region")
