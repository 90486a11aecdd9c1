"""The eight forges, each with one repository: they answer as their documentation says."""
# ruff: noqa: ARG002 - routes are called alike

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from forge_server import COMMIT, TARGET, Answer, ForgeServer, Route, Seen

from penstock.images.sigv4 import AwsKey, Scope, Unsigned, signed_headers


class GitHubServer(ForgeServer):
    """https://docs.github.com/rest (2022-11-28). app: its public key's check of a JSON web token, for an app."""

    name, path = "github", ""
    limited = Answer(
        403,
        {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."},
        {"Retry-After": "17"},
    )
    states = frozenset({"pending", "success", "failure", "error"})
    conclusions = frozenset({"action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"})

    def __init__(self) -> None:
        super().__init__()
        self.checks: dict[int, dict[str, Any]] = {}
        self.releases: dict[str, dict[str, Any]] = {}
        self.is_app = False
        self.tokens_given = 0
        self.files: dict[str, bytes] = {}

    def may(self, seen: Seen) -> bool:
        assert seen.headers["x-github-api-version" if "installation" not in seen.path else "accept"]
        if seen.path.endswith("/installation") or seen.path.startswith("/app/"):
            return seen.headers["authorization"].count(".") == 2
        return seen.headers["authorization"] == f"Bearer {self.token}"

    def routes(self) -> list[tuple[str, str, Route]]:
        repo = "/repos/shop/api"
        return [
            ("GET", repo, lambda _: Answer(200, {"full_name": "shop/api"})),
            ("POST", f"{repo}/hooks", self.hook),
            ("POST", f"{repo}/statuses/([0-9a-f]+)", self._status),
            ("POST", f"{repo}/check-runs", self._check),
            ("PATCH", f"{repo}/check-runs/(\\d+)", self._change_check),
            ("GET", f"{repo}/commits/([0-9a-f]+)/check-runs", self._checks),
            ("GET", f"{repo}/issues/7/comments", self._page),
            ("POST", f"{repo}/issues/7/comments", lambda s: Answer(201, self.write(s, s.value["body"]))),
            ("PATCH", f"{repo}/issues/comments/(\\d+)", self._change),
            ("GET", f"{repo}/installation", lambda _: Answer(200, {"id": 55})),
            ("POST", "/app/installations/55/access_tokens", self._app_token),
            ("GET", f"{repo}/releases/tags/(.+)", self._release),
            ("POST", f"{repo}/releases", self._new_release),
            ("POST", "/uploads/(.+)", self._upload),
            ("DELETE", f"{repo}/releases/assets/(\\d+)", self._remove_asset),
        ]

    def _status(self, seen: Seen, commit: str) -> Answer:
        told = seen.value
        if told["state"] not in self.states or len(told["description"]) > 140:
            return Answer(422, {"message": "Validation Failed", "errors": [{"field": "state"}]})
        if commit not in self.commits:
            return Answer(422, {"message": f"No commit found for SHA: {commit}"})
        self.statuses.append(told)
        return Answer(201, {"id": self.number(), **told})

    def _check(self, seen: Seen) -> Answer:
        if not self.is_app:
            return Answer(403, {"message": "You must authenticate via a GitHub App."})
        number = self.number()
        self.checks[number] = {"id": number, **seen.value}
        return self._checked(number)

    def _change_check(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.checks:
            return Answer(404, {"message": "Not Found"})
        self.checks[int(number)] |= seen.value
        return self._checked(int(number))

    def _checked(self, number: int) -> Answer:
        check = self.checks[number]
        fine = check.get("conclusion") in self.conclusions if check["status"] == "completed" else True
        return Answer(201 if fine else 422, check)

    def _checks(self, seen: Seen, commit: str) -> Answer:
        found = [c for c in self.checks.values() if c["name"] == seen.query["check_name"] and c["head_sha"] == commit]
        return Answer(200, {"total_count": len(found), "check_runs": found})

    def shown(self) -> dict[str, str]:
        checks = {one["name"]: one.get("conclusion") or one["status"] for one in self.checks.values()}
        return checks if self.is_app else super().shown()

    def _page(self, seen: Seen) -> Answer:
        size, page = int(seen.query.get("per_page", 30)), int(seen.query.get("page", 1))
        return Answer(200, list(self.notes.values())[(page - 1) * size : page * size])

    def _change(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"message": "Not Found"})
        if self.notes[int(number)].get("stranger"):
            return Answer(403, {"message": "Must have admin rights to Repository."})
        self.notes[int(number)]["body"] = seen.value["body"]
        return Answer(200, self.notes[int(number)])

    def _app_token(self, seen: Seen) -> Answer:
        self.tokens_given += 1
        return Answer(201, {"token": self.token, "expires_at": "2026-03-01T13:00:00Z"})

    def _release(self, seen: Seen, tag: str) -> Answer:
        return Answer(200, self.releases[tag]) if tag in self.releases else Answer(404, {"message": "Not Found"})

    def _new_release(self, seen: Seen) -> Answer:
        tag = seen.value["tag_name"]
        upload = f"{self.origin}/uploads/{tag}{{?name,label}}"
        self.releases[tag] = {"id": self.number(), "tag_name": tag, "assets": [], "upload_url": upload}
        return Answer(201, self.releases[tag])

    def _upload(self, seen: Seen, tag: str) -> Answer:
        assets = self.releases[tag]["assets"]
        if any(one["name"] == seen.query["name"] for one in assets):
            return Answer(422, {"message": "Validation Failed", "errors": [{"code": "already_exists"}]})
        made = {"id": self.number(), "name": seen.query["name"], "size": len(seen.body), "state": "uploaded"}
        self.files[made["name"]] = seen.body
        assets.append(made)
        return Answer(201, made)

    def _remove_asset(self, seen: Seen, number: str) -> Answer:
        for release in self.releases.values():
            release["assets"] = [one for one in release["assets"] if one["id"] != int(number)]
        return Answer(204)


class GitLabServer(ForgeServer):
    """https://docs.gitlab.com/api/commits/ and notes: a state cannot be told twice."""

    name, path = "gitlab", "/api/v4"
    repository = "group/sub/api"
    states = frozenset({"pending", "running", "success", "failed", "canceled", "skipped"})
    limited = Answer(429, raw=b"Retry later\n", headers={"Retry-After": "17"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, Any]] = []
        self.released = False
        self.files: dict[str, bytes] = {}

    def may(self, seen: Seen) -> bool:
        return seen.headers.get("private-token") == self.token

    def denied(self) -> Answer:
        return Answer(401, {"message": "401 Unauthorized"})

    def routes(self) -> list[tuple[str, str, Route]]:
        project = "/api/v4/projects/group%2Fsub%2Fapi"
        notes = f"{project}/merge_requests/7/notes"
        return [
            ("GET", project, lambda _: Answer(200, {"path_with_namespace": "group/sub/api"})),
            ("POST", f"{project}/hooks", self.hook),
            ("POST", f"{project}/statuses/([0-9a-f]+)", self._status),
            ("GET", f"{project}/repository/commits/([0-9a-f]+)/statuses", self._statuses),
            ("GET", notes, self._page),
            ("POST", notes, lambda s: Answer(201, self.write(s, s.value["body"], system=False))),
            ("PUT", f"{notes}/(\\d+)", self._change),
            ("GET", f"{project}/releases/v1", self._release),
            ("POST", f"{project}/releases", self._new_release),
            ("PUT", f"{project}/packages/generic/penstock-release/v1/(.+)", self._package),
            ("POST", f"{project}/releases/v1/assets/links", self._link),
        ]

    def _status(self, seen: Seen, commit: str) -> Answer:
        told = seen.value
        if told["state"] not in self.states:
            return Answer(400, {"error": "state does not have a valid value"})
        if commit not in self.commits:
            return Answer(404, {"message": "404 Commit Not Found"})
        if self.shown().get(told["name"]) == told["state"]:
            what = f"Cannot transition status via :run from :{told['state']} (Reason(s): Status cannot transition)"
            return Answer(400, {"message": what})
        self.statuses.append({**told, "context": told["name"]})
        return Answer(201, {"id": self.number(), "status": told["state"]})

    def _statuses(self, seen: Seen, commit: str) -> Answer:
        return Answer(200, [{"name": name, "status": state} for name, state in self.shown().items()])

    def _page(self, seen: Seen) -> Answer:
        size, page = int(seen.query.get("per_page", 20)), int(seen.query.get("page", 1))
        return Answer(200, list(self.notes.values())[(page - 1) * size : page * size])

    def _change(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"message": "404 Not found"})
        if self.notes[int(number)].get("stranger"):
            return Answer(403, {"message": "403 Forbidden"})
        self.notes[int(number)]["body"] = seen.value["body"]
        return Answer(200, self.notes[int(number)])

    def _release(self, seen: Seen) -> Answer:
        if not self.released:
            return Answer(403, {"message": "403 Forbidden"})
        return Answer(200, {"tag_name": "v1", "assets": {"links": self.links}})

    def _new_release(self, seen: Seen) -> Answer:
        self.released = True
        return self._release(seen)

    def _package(self, seen: Seen, name: str) -> Answer:
        self.files[name] = seen.body
        return Answer(201, {"message": "201 Created"})

    def _link(self, seen: Seen) -> Answer:
        self.links.append({"id": self.number(), **seen.value})
        return Answer(201, self.links[-1])


class BitbucketCloudServer(ForgeServer):
    """https://developer.atlassian.com/cloud/bitbucket/rest/: a status of the same key takes the other's place."""

    name, path = "bitbucket-cloud", "/2.0"
    states = frozenset({"INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"})

    def may(self, seen: Seen) -> bool:
        return seen.headers["authorization"] == f"Bearer {self.token}"

    def denied(self) -> Answer:
        return Answer(401, {"type": "error", "error": {"message": "Token is invalid or expired"}})

    def routes(self) -> list[tuple[str, str, Route]]:
        repo = "/2.0/repositories/shop/api"
        comments = f"{repo}/pullrequests/7/comments"
        return [
            ("GET", repo, lambda _: Answer(200, {"full_name": "shop/api"})),
            ("POST", f"{repo}/hooks", self.hook),
            ("POST", f"{repo}/commit/([0-9a-f]+)/statuses/build", self._status),
            ("GET", comments, self._page),
            ("POST", comments, lambda s: Answer(201, self.write(s, s.value["content"]["raw"]))),
            ("PUT", f"{comments}/(\\d+)", self._change),
        ]

    def _status(self, seen: Seen, commit: str) -> Answer:
        told = seen.value
        if told["state"] not in self.states or len(told["key"]) > 40:
            return Answer(400, {"type": "error", "error": {"message": "Bad request"}})
        self.statuses.append({**told, "context": told["name"]})
        return Answer(201, told)

    def _page(self, seen: Seen) -> Answer:
        start = int(seen.query.get("page", 1)) - 1
        found = list(self.notes.values())[start * 2 : start * 2 + 2]
        values = [{"id": note["id"], "deleted": False, "content": {"raw": note["body"]}} for note in found]
        more = len(self.notes) > start * 2 + 2
        rest = {"next": f"{self.origin}{seen.path}?pagelen=2&page={start + 2}"} if more else {}
        return Answer(200, {"values": values, **rest})

    def _change(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"type": "error", "error": {"message": "Not found"}})
        if self.notes[int(number)].get("stranger"):
            return Answer(403, {"type": "error", "error": {"message": "Forbidden"}})
        self.notes[int(number)]["body"] = seen.value["content"]["raw"]
        return Answer(200, {"id": int(number)})


class BitbucketServerServer(ForgeServer):
    """https://developer.atlassian.com/server/bitbucket/rest/: who changes a comment names the version they know."""

    name, path = "bitbucket-server", "/rest"
    repository = "SHOP/api"
    states = frozenset({"INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED", "UNKNOWN"})

    def may(self, seen: Seen) -> bool:
        return seen.headers["authorization"] == f"Bearer {self.token}"

    def denied(self) -> Answer:
        return Answer(401, {"errors": [{"context": None, "message": "Authentication failed."}]})

    def routes(self) -> list[tuple[str, str, Route]]:
        repo = "/rest/api/1.0/projects/SHOP/repos/api"
        comments = f"{repo}/pull-requests/7/comments"
        return [
            ("GET", repo, lambda _: Answer(200, {"slug": "api", "project": {"key": "SHOP"}})),
            ("POST", f"{repo}/webhooks", self.hook),
            ("POST", f"{repo}/commits/([0-9a-f]+)/builds", self._status),
            ("GET", f"{repo}/pull-requests/7/activities", self._page),
            ("POST", comments, lambda s: Answer(201, self._comment(self.write(s, s.value["text"], version=0)))),
            ("GET", f"{comments}/(\\d+)", self._one),
            ("PUT", f"{comments}/(\\d+)", self._change),
        ]

    def _status(self, seen: Seen, commit: str) -> Answer:
        told = seen.value
        if told["state"] not in self.states or not told["ref"].startswith("refs/"):
            return Answer(400, {"errors": [{"message": "Please enter a valid state"}]})
        self.statuses.append({**told, "context": told["key"]})
        return Answer(204)

    @staticmethod
    def _comment(note: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": note["id"], "text": note["body"], "version": note.get("version", 0)}

    def _page(self, seen: Seen) -> Answer:
        start = int(seen.query.get("start", 0))
        said = [{"action": "COMMENTED", "comment": self._comment(note)} for note in self.notes.values()]
        everything = [{"action": "OPENED"}, *said]
        last = start + 2 >= len(everything)
        page = {"values": everything[start : start + 2], "isLastPage": last}
        return Answer(200, page if last else {**page, "nextPageStart": start + 2})

    def _one(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"errors": [{"message": "Comment does not exist."}]})
        return Answer(200, self._comment(self.notes[int(number)]))

    def _change(self, seen: Seen, number: str) -> Answer:
        note = self.notes[int(number)]
        if note.get("stranger"):
            return Answer(403, {"errors": [{"message": "You are not permitted to edit this comment."}]})
        if seen.value["version"] != note.get("version", 0):
            return Answer(409, {"errors": [{"message": "The comment is out of date."}]})
        note |= {"body": seen.value["text"], "version": note.get("version", 0) + 1}
        return Answer(200, self._comment(note))


class GiteaServer(ForgeServer):
    """https://docs.gitea.com/api/: an issue's comments come all at once."""

    name, path = "gitea", "/api/v1"
    states = frozenset({"pending", "success", "error", "failure", "warning"})

    def __init__(self) -> None:
        super().__init__()
        self.release: dict[str, Any] | None = None
        self.files: dict[str, bytes] = {}

    def may(self, seen: Seen) -> bool:
        return seen.headers["authorization"] == f"token {self.token}"

    def denied(self) -> Answer:
        return Answer(401, {"message": "invalid username, password or token", "url": f"{self.origin}/api/swagger"})

    def routes(self) -> list[tuple[str, str, Route]]:
        repo = "/api/v1/repos/shop/api"
        return [
            ("GET", repo, lambda _: Answer(200, {"full_name": "shop/api"})),
            ("POST", f"{repo}/hooks", self.hook),
            ("POST", f"{repo}/statuses/([0-9a-f]+)", self._status),
            ("GET", f"{repo}/issues/7/comments", lambda _: Answer(200, list(self.notes.values()))),
            ("POST", f"{repo}/issues/7/comments", lambda s: Answer(201, self.write(s, s.value["body"]))),
            ("PATCH", f"{repo}/issues/comments/(\\d+)", self._change),
            ("GET", f"{repo}/releases/tags/v1", self._release),
            ("POST", f"{repo}/releases", self._new_release),
            ("POST", f"{repo}/releases/(\\d+)/assets", self._upload),
        ]

    def _status(self, seen: Seen, commit: str) -> Answer:
        if seen.value["state"] not in self.states:
            return Answer(422, {"message": "unknown state"})
        self.statuses.append(seen.value)
        return Answer(201, seen.value)

    def _change(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"message": "comment does not exist"})
        if self.notes[int(number)].get("stranger"):
            return Answer(403, {"message": "user should have permission"})
        self.notes[int(number)]["body"] = seen.value["body"]
        return Answer(200, self.notes[int(number)])

    def _release(self, seen: Seen) -> Answer:
        return Answer(200, self.release) if self.release else Answer(404, {"message": "release not found"})

    def _new_release(self, seen: Seen) -> Answer:
        self.release = {"id": self.number(), "tag_name": seen.value["tag_name"], "assets": []}
        return Answer(201, self.release)

    def _upload(self, seen: Seen, number: str) -> Answer:
        boundary = seen.headers["content-type"].partition("boundary=")[2].encode()
        _, part, end = seen.body.split(b"--" + boundary)
        assert end == b"--\r\n"
        content = part.partition(b"\r\n\r\n")[2][:-2]
        self.files[seen.query["name"]] = content
        assert self.release is not None
        made = {"id": self.number(), "name": seen.query["name"], "size": len(content)}
        self.release["assets"].append(made)
        return Answer(201, made)


class ForgejoServer(GiteaServer):
    """Forgejo keeps Gitea's API."""

    name = "forgejo"


class AzureServer(ForgeServer):
    """https://learn.microsoft.com/rest/api/azure/devops/git/ (7.1): who is not known is shown a page to sign in."""

    name, path = "azure-devops", "/shop-org"
    repository = "Shop/api"
    states = frozenset({"notSet", "notApplicable", "pending", "succeeded", "failed", "error"})

    def __init__(self) -> None:
        super().__init__()
        self.on_request: list[dict[str, Any]] = []
        self.known: dict[tuple[str, str], dict[str, Any]] = {}

    def knows(self, delivery: Mapping[str, Any]) -> None:
        """What a delivery tells of is as it tells."""
        resource = delivery.get("resource") or {}
        for kind, name in (("pushes", "pushId"), ("pullRequests", "pullRequestId")):
            if name in resource:
                self.known[kind, str(resource[name])] = resource

    def _known(self, seen: Seen, kind: str, number: str) -> Answer:
        found = self.known.get((kind, number))
        return Answer(200, found) if found else Answer(404, {"message": f"TF401179: there is no {number}."})

    def may(self, seen: Seen) -> bool:
        assert seen.query["api-version"] == "7.1"
        return base64.b64decode(seen.headers["authorization"].removeprefix("Basic ")).decode() == f":{self.token}"

    def denied(self) -> Answer:
        return Answer(203, raw=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})

    def routes(self) -> list[tuple[str, str, Route]]:
        repo = "/shop-org/Shop/_apis/git/repositories/api"
        threads = f"{repo}/pullRequests/7/threads"
        return [
            ("GET", repo, lambda _: Answer(200, {"id": "r1", "name": "api", "project": {"id": "p1", "name": "Shop"}})),
            ("POST", "/shop-org/_apis/hooks/subscriptions", self.hook),
            ("GET", f"{repo}/(pushes|pullRequests)/(\\d+)", self._known),
            ("POST", f"{repo}/commits/[0-9a-f]+/statuses", lambda s: self._status(s, self.statuses)),
            ("POST", f"{repo}/pullRequests/7/statuses", lambda s: self._status(s, self.on_request)),
            ("GET", threads, lambda _: Answer(200, {"value": [self._thread(note) for note in self.notes.values()]})),
            ("POST", threads, self._new_thread),
            ("PATCH", f"{threads}/(\\d+)/comments/1", self._change),
        ]

    def _status(self, seen: Seen, kept: list[dict[str, Any]]) -> Answer:
        told = seen.value
        if told["state"] not in self.states:
            return Answer(400, {"message": "invalid state"})
        kept.append({**told, "context": "/".join((told["context"]["genre"], told["context"]["name"]))})
        return Answer(201, {"id": self.number()})

    @staticmethod
    def _thread(note: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": note["id"], "isDeleted": False, "comments": [{"id": 1, "content": note["body"]}]}

    def _new_thread(self, seen: Seen) -> Answer:
        return Answer(200, self._thread(self.write(seen, seen.value["comments"][0]["content"])))

    def _change(self, seen: Seen, number: str) -> Answer:
        if int(number) not in self.notes:
            return Answer(404, {"message": "The thread does not exist."})
        if self.notes[int(number)].get("stranger"):
            return Answer(403, {"message": "TF401027: You need the Git permission."})
        self.notes[int(number)]["body"] = seen.value["content"]
        return Answer(200, {"id": 1})


class CodeCommitServer(ForgeServer):
    """https://docs.aws.amazon.com/codecommit/latest/APIReference/: JSON 1.1, signed requests."""

    name, path = "aws-codecommit", ""
    repository = "api"
    key: ClassVar = {"access_key_id": "AKIDEXAMPLE", "region": "eu-central-1"}
    limited = Answer(400, {"__type": "ThrottlingException", "message": "Rate exceeded"})

    def __init__(self) -> None:
        super().__init__()
        self.on_commit: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.queue: list[dict[str, str]] = []
        self.deleted: list[str] = []
        self.receipts: dict[str, str] = {}

    @property
    def queue_url(self) -> str:
        """Of an SQS queue with EventBridge's events, which this server holds too."""
        return f"{self.origin}/123456789012/pushes"

    def put(self, event: Mapping[str, Any], message_id: str) -> None:
        """EventBridge's rule sends an event to the queue."""
        self.queue.append({"MessageId": message_id, "Body": json.dumps(event)})

    @property
    def secret(self) -> str:
        return json.dumps({**self.key, "secret_access_key": self.token})

    def may(self, seen: Seen) -> bool:
        return self._signature(seen) == seen.headers["authorization"]

    def _signature(self, seen: Seen) -> str:
        at = datetime.strptime(seen.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        names = {"Content-Type": "content-type", "X-Amz-Target": "x-amz-target"}
        headers = {name: seen.headers[lower] for name, lower in names.items()}
        service = "sqs" if seen.headers["x-amz-target"].startswith("AmazonSQS.") else "codecommit"
        scope = Scope(self.key["region"], service, at)
        url = f"http://{seen.headers['host']}{seen.path}"
        key = AwsKey(self.key["access_key_id"], self.token)
        return signed_headers(Unsigned("POST", url, headers, seen.body), key, scope)["Authorization"]

    def denied(self) -> Answer:
        return Answer(403, {"__type": "UnrecognizedClientException", "message": "The security token is invalid."})

    def routes(self) -> list[tuple[str, str, Route]]:
        return [("POST", "/", self._action)]

    def _action(self, seen: Seen) -> Answer:
        name = seen.headers["x-amz-target"].removeprefix("CodeCommit_20150413.").removeprefix("AmazonSQS.")
        actions: dict[str, Callable[[Any], Answer]] = {
            "GetRepository": lambda _: Answer(200, {"repositoryMetadata": {"repositoryName": "api"}}),
            "GetPullRequest": self._request,
            "PostCommentForComparedCommit": lambda told: self._post(told, self.on_commit),
            "GetCommentsForComparedCommit": lambda told: self._list(told, "ForComparedCommit", self.on_commit),
            "PostCommentForPullRequest": lambda told: self._post(told, self.notes),
            "GetCommentsForPullRequest": lambda told: self._list(told, "ForPullRequest", self.notes),
            "UpdateComment": self._update,
            "ReceiveMessage": self._receive,
            "DeleteMessageBatch": self._delete,
        }
        return actions[name](seen.value)

    def _receive(self, told: Any) -> Answer:
        """What is not deleted comes again, with another receipt. It does not hold the request for long."""
        if told["QueueUrl"] != self.queue_url:
            return Answer(400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no such queue"})
        if not self.queue:
            time.sleep(0.05)
        given = [
            message | {"ReceiptHandle": f"r{self.number()}"} for message in self.queue[: told["MaxNumberOfMessages"]]
        ]
        self.receipts |= {message["ReceiptHandle"]: message["MessageId"] for message in given}
        return Answer(200, {"Messages": given} if given else {})

    def _delete(self, told: Any) -> Answer:
        gone = [self.receipts[entry["ReceiptHandle"]] for entry in told["Entries"]]
        self.deleted += gone
        self.queue = [message for message in self.queue if message["MessageId"] not in gone]
        return Answer(200, {"Successful": [{"Id": entry["Id"]} for entry in told["Entries"]], "Failed": []})

    def _request(self, told: Any) -> Answer:
        target = {"destinationCommit": TARGET, "sourceCommit": COMMIT, "repositoryName": "api"}
        return Answer(200, {"pullRequest": {"pullRequestId": "7", "pullRequestTargets": [target]}})

    def _post(self, told: Any, kept: dict[Any, dict[str, Any]]) -> Answer:
        if told["afterCommitId"] not in self.commits or told.get("beforeCommitId", TARGET) != TARGET:
            return Answer(400, {"__type": "CommitDoesNotExistException", "message": "no such commit"})
        if found := self.tokens.get(told["clientRequestToken"]):
            return Answer(200, {"comment": found})
        number = self.number()
        kept[number] = {"id": number, "body": told["content"], "commentId": str(number), "content": told["content"]}
        self.tokens[told["clientRequestToken"]] = kept[number]
        return Answer(200, {"comment": kept[number]})

    def _list(self, told: Any, kind: str, kept: dict[Any, dict[str, Any]]) -> Answer:
        start = int(told.get("nextToken", 0))
        found = list(kept.values())[start : start + 2]
        comments = [{"commentId": str(one["id"]), "content": one["body"], "deleted": False} for one in found]
        more = {"nextToken": str(start + 2)} if len(kept) > start + 2 else {}
        return Answer(200, {f"comments{kind}Data": [{"comments": comments}], **more})

    def _update(self, told: Any) -> Answer:
        for kept in (self.on_commit, self.notes):
            if note := kept.get(int(told["commentId"])):
                if note.get("stranger"):
                    what = {"__type": "CommentNotCreatedByCallerException", "message": "not yours"}
                    return Answer(400, what)
                note["body"] = told["content"]
                return Answer(200, {"comment": {"commentId": told["commentId"]}})
        return Answer(400, {"__type": "CommentDoesNotExistException", "message": "there is none"})

    def shown(self) -> dict[str, str]:
        found = (re.search(r"\*\*(.+?)\*\*: (\S+)", one["body"]) for one in self.on_commit.values())
        return {match[1]: match[2].rstrip(":") for match in found if match}


SERVERS = {
    server.name: server
    for server in (
        *(GitHubServer, GitLabServer, BitbucketCloudServer, BitbucketServerServer),
        *(GiteaServer, ForgejoServer, AzureServer, CodeCommitServer),
    )
}
