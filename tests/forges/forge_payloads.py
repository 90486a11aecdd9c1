"""Deliveries written by hand after each forge's documentation: only the members that the documents name."""

from __future__ import annotations

import json
from typing import Any

A = "a" * 40
B = "b" * 40
C = "c" * 40
ZERO = "0" * 40

Json = dict[str, Any]


def as_bytes(payload: object) -> bytes:
    return json.dumps(payload).encode()


def listed(commit: str = B, message: str = "Count orders", **files: list[str]) -> Json:
    return {"id": commit, "message": message, "added": [], "modified": ["app.py"], "removed": [], **files}


# GitHub: https://docs.github.com/en/webhooks/webhook-events-and-payloads


def github_repository() -> Json:
    return {"id": 7, "name": "api", "full_name": "shop/api", "owner": {"login": "shop"}}


def github_push(**changes: Any) -> Json:
    return {
        "ref": "refs/heads/main",
        "before": A,
        "after": B,
        "created": False,
        "deleted": False,
        "forced": False,
        "compare": f"https://github.test/shop/api/compare/{A[:12]}...{B[:12]}",
        "commits": [listed()],
        "head_commit": listed(),
        "pusher": {"name": "ada", "email": "ada@shop.test"},
        "repository": github_repository(),
        "sender": {"login": "ada"},
    } | changes


def github_pull_request(action: str = "opened", *, head_repo: Json | None = None, **changes: Any) -> Json:
    request = {
        "number": 12,
        "html_url": "https://github.test/shop/api/pull/12",
        "title": "Count orders once",
        "draft": False,
        "merged": False,
        "updated_at": "2025-03-01T10:00:00Z",
        "user": {"login": "grace"},
        "head": {"ref": "orders", "sha": B, "repo": head_repo or github_repository()},
        "base": {"ref": "main", "sha": A, "repo": github_repository()},
    } | changes
    return {
        "action": action,
        "number": 12,
        "pull_request": request,
        "repository": github_repository(),
        "sender": {"login": "ada"},
    }


def github_release(action: str = "published", **changes: Any) -> Json:
    release = {
        "tag_name": "v1.2.0",
        "target_commitish": "main",
        "name": "Spring",
        "draft": False,
        "html_url": "https://github.test/shop/api/releases/tag/v1.2.0",
        "author": {"login": "ada"},
        "published_at": "2025-03-02T10:00:00Z",
    } | changes
    return {
        "action": action,
        "release": release,
        "repository": github_repository(),
        "sender": {"login": "ada"},
    }


def github_ref(ref: str, ref_type: str) -> Json:
    return {
        "ref": ref,
        "ref_type": ref_type,
        "repository": github_repository(),
        "sender": {"login": "ada"},
    }


# GitLab: https://docs.gitlab.com/user/project/integrations/webhook_events/


def gitlab_project() -> Json:
    return {"id": 15, "path_with_namespace": "shop/web/api", "web_url": "https://gitlab.test/shop/web/api"}


def gitlab_push(**changes: Any) -> Json:
    return {
        "object_kind": "push",
        "event_name": "push",
        "before": A,
        "after": B,
        "ref": "refs/heads/main",
        "checkout_sha": B,
        "user_username": "ada",
        "project": gitlab_project(),
        "commits": [listed()],
        "total_commits_count": 1,
        "push_options": {},
    } | changes


def gitlab_merge_request(action: str | None = "open", **changes: Any) -> Json:
    attributes = {
        "iid": 3,
        "title": "Count orders once",
        "state": "opened",
        "draft": False,
        "url": "https://gitlab.test/shop/web/api/-/merge_requests/3",
        "source_branch": "orders",
        "target_branch": "main",
        "source_project_id": 15,
        "target_project_id": 15,
        "source": gitlab_project(),
        "target": gitlab_project(),
        "last_commit": {"id": B, "message": "Count orders"},
        "updated_at": "2025-03-01 10:00:00 UTC",
    } | changes
    if action is not None:
        attributes["action"] = action
    return {
        "object_kind": "merge_request",
        "user": {"username": "ada"},
        "project": gitlab_project(),
        "object_attributes": attributes,
    }


def gitlab_release(action: str = "create") -> Json:
    return {
        "object_kind": "release",
        "action": action,
        "tag": "v1.2.0",
        "name": "Spring",
        "url": "https://gitlab.test/shop/web/api/-/releases/v1.2.0",
        "commit": {"id": B, "message": "Count orders"},
        "project": gitlab_project(),
    }


# Gitea and Forgejo: https://docs.gitea.com/usage/webhooks


def gitea_repository(repository_id: int = 7, full_name: str = "shop/api") -> Json:
    return {"id": repository_id, "name": "api", "full_name": full_name, "owner": {"login": "shop"}}


def gitea_push(**changes: Any) -> Json:
    return {
        "ref": "refs/heads/main",
        "before": A,
        "after": B,
        "compare_url": "https://gitea.test/shop/api/compare/main",
        "commits": [listed()],
        "total_commits": 1,
        "head_commit": listed(),
        "repository": gitea_repository(),
        "pusher": {"login": "ada"},
        "sender": {"login": "ada"},
    } | changes


def gitea_pull_request(action: str = "opened", *, head_repo: Json | None = None, **changes: Any) -> Json:
    request = {
        "number": 4,
        "html_url": "https://gitea.test/shop/api/pulls/4",
        "title": "Count orders once",
        "merged": False,
        "user": {"login": "grace"},
        "head": {"label": "orders", "ref": "orders", "sha": B, "repo": head_repo or gitea_repository()},
        "base": {"label": "main", "ref": "main", "sha": A, "repo": gitea_repository()},
        "updated_at": "2025-03-01T10:00:00Z",
    } | changes
    return {
        "action": action,
        "number": 4,
        "pull_request": request,
        "repository": gitea_repository(),
        "sender": {"login": "ada"},
    }


def gitea_created(ref: str = "v1.2.0", ref_type: str = "tag", sha: str = B) -> Json:
    return {
        "sha": sha,
        "ref": ref,
        "ref_type": ref_type,
        "repository": gitea_repository(),
        "sender": {"login": "ada"},
    }


def gitea_release(action: str | None = "published") -> Json:
    return {
        "action": action,
        "release": {
            "tag_name": "v1.2.0",
            "target_commitish": "main",
            "name": "Spring",
            "draft": False,
            "author": {"login": "ada"},
        },
        "repository": gitea_repository(),
    }


# Bitbucket Cloud: https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/


def cloud_repository(full_name: str = "shop/api", uuid: str = "{1}") -> Json:
    return {"type": "repository", "full_name": full_name, "uuid": uuid, "scm": "git"}


def cloud_ref(name: str, commit: str, ref_type: str = "branch", message: str = "Count orders") -> Json:
    return {"type": ref_type, "name": name, "target": {"hash": commit, "message": message}}


def cloud_push(*changes: Json, **members: Any) -> Json:
    one = {
        "new": cloud_ref("main", B),
        "old": cloud_ref("main", A),
        "forced": False,
        "truncated": False,
        "commits": [{"hash": B, "message": "Count orders"}],
    }
    return {
        "push": {"changes": list(changes) or [one]},
        "repository": cloud_repository(),
        "actor": {"nickname": "ada"},
    } | members


def cloud_pull_request(state: str = "OPEN", *, source: Json | None = None, **changes: Any) -> Json:
    request = {
        "id": 5,
        "title": "Count orders once",
        "state": state,
        "author": {"nickname": "grace"},
        "source": {
            "branch": {"name": "orders"},
            "commit": {"hash": B[:12]},
            "repository": source or cloud_repository(),
        },
        "destination": {
            "branch": {"name": "main"},
            "commit": {"hash": A[:12]},
            "repository": cloud_repository(),
        },
        "links": {"html": {"href": "https://bitbucket.test/shop/api/pull-requests/5"}},
        "updated_on": "2025-03-01T10:00:00Z",
    } | changes
    return {"pullrequest": request, "repository": cloud_repository(), "actor": {"nickname": "ada"}}


# Bitbucket Data Center: https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html


def server_repository(repository_id: int = 7, key: str = "SHOP") -> Json:
    return {"id": repository_id, "slug": "api", "project": {"key": key}}


def server_change(ref: str = "refs/heads/main", before: str = A, after: str = B, kind: str = "UPDATE") -> Json:
    ref_type = "TAG" if ref.startswith("refs/tags/") else "BRANCH"
    return {
        "ref": {"id": ref, "type": ref_type},
        "refId": ref,
        "fromHash": before,
        "toHash": after,
        "type": kind,
    }


def server_push(*changes: Json, **members: Any) -> Json:
    return {
        "eventKey": "repo:refs_changed",
        "actor": {"name": "ada"},
        "repository": server_repository(),
        "changes": list(changes) or [server_change()],
    } | members


def server_pull_request(event: str = "pr:opened", *, source: Json | None = None) -> Json:
    return {
        "eventKey": event,
        "actor": {"name": "ada"},
        "pullRequest": {
            "id": 6,
            "version": 2,
            "title": "Count orders once",
            "fromRef": {
                "id": "refs/heads/orders",
                "latestCommit": B,
                "repository": source or server_repository(),
            },
            "toRef": {"id": "refs/heads/main", "latestCommit": A, "repository": server_repository()},
            "author": {"user": {"name": "grace"}},
            "links": {"self": [{"href": "https://bitbucket.test/projects/SHOP/repos/api/pull-requests/6"}]},
        },
    }


def addon_push() -> Json:
    change = {
        "new": {"type": "branch", "name": "main", "target": {"hash": B, "commitMessage": "Count orders"}},
        "old": {"type": "branch", "name": "main", "target": {"hash": A, "commitMessage": "First"}},
    }
    return {"repository": server_repository(), "actor": {"username": "ada"}, "push": {"changes": [change]}}


def addon_pull_request() -> Json:
    def end(branch: str, commit: str) -> Json:
        return {"branch": {"name": branch}, "commit": {"hash": commit}, "repository": server_repository()}

    return {
        "repository": server_repository(),
        "pullrequest": {
            "id": "6",
            "title": "Count orders once",
            "authorLogin": "grace",
            "fromRef": end("orders", B),
            "toRef": end("main", A),
        },
    }


# Azure DevOps: https://learn.microsoft.com/azure/devops/service-hooks/events


def azure_repository(name: str = "api") -> Json:
    return {
        "id": "r1",
        "name": name,
        "project": {"id": "p1", "name": "Shop"},
        "remoteUrl": f"https://dev.azure.test/org/Shop/_git/{name}",
    }


def azure(event: str, resource: Json | None) -> Json:
    return {
        "subscriptionId": "s1",
        "notificationId": 1,
        "id": "d1",
        "eventType": event,
        "publisherId": "tfs",
        "resource": resource,
        "resourceContainers": {"project": {"id": "p1"}},
        "createdDate": "2025-03-01T10:00:00Z",
    }


def azure_update(ref: str = "refs/heads/main", before: str = A, after: str = B) -> Json:
    return {"name": ref, "oldObjectId": before, "newObjectId": after}


def azure_push(*updates: Json, comment: str = "Count orders") -> Json:
    return azure(
        "git.push",
        {
            "pushId": 14,
            "commits": [{"commitId": B, "comment": comment}],
            "refUpdates": list(updates) or [azure_update()],
            "repository": azure_repository(),
            "pushedBy": {"uniqueName": "ada@shop.test"},
        },
    )


def azure_pull_request(event: str = "git.pullrequest.created", **changes: Any) -> Json:
    return azure(
        event,
        {
            "repository": azure_repository(),
            "pullRequestId": 8,
            "status": "active",
            "createdBy": {"uniqueName": "grace@shop.test"},
            "title": "Count orders once",
            "sourceRefName": "refs/heads/orders",
            "targetRefName": "refs/heads/main",
            "lastMergeSourceCommit": {"commitId": B},
            "lastMergeTargetCommit": {"commitId": A},
        }
        | changes,
    )


# CodeCommit: https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html


def codecommit_trigger(*references: Json) -> Json:
    return {
        "Records": [
            {
                "awsRegion": "eu-central-1",
                "codecommit": {"references": list(references) or [{"commit": B, "ref": "refs/heads/main"}]},
                "eventId": "e1",
                "eventName": "ReferenceChanges",
                "eventSourceARN": "arn:aws:codecommit:eu-central-1:123456789012:api",
                "userIdentityARN": "arn:aws:iam::123456789012:user/ada",
            }
        ]
    }


def codecommit_event(event: str, **detail: Any) -> Json:
    return {
        "version": "0",
        "id": "b1",
        "detail-type": "CodeCommit Repository State Change",
        "source": "aws.codecommit",
        "time": "2025-03-01T10:00:00Z",
        "resources": ["arn:aws:codecommit:eu-central-1:123456789012:api"],
        "detail": {
            "event": event,
            "repositoryName": "api",
            "callerUserArn": "arn:aws:iam::123456789012:user/ada",
        }
        | detail,
    }


def codecommit_reference(event: str = "referenceUpdated", **detail: Any) -> Json:
    return codecommit_event(
        event,
        **{
            "referenceType": "branch",
            "referenceName": "main",
            "referenceFullName": "refs/heads/main",
            "commitId": B,
            "oldCommitId": A,
        }
        | detail,
    )


def codecommit_pull_request(event: str = "pullRequestCreated", **detail: Any) -> Json:
    return codecommit_event(
        event,
        **{
            "pullRequestId": "9",
            "pullRequestStatus": "Open",
            "isMerged": "False",
            "title": "Count orders once",
            "author": "arn:aws:sts::123456789012:assumed-role/Dev/grace",
            "repositoryNames": ["api"],
            "sourceReference": "refs/heads/orders",
            "destinationReference": "refs/heads/main",
            "sourceCommit": B,
            "destinationCommit": A,
        }
        | detail,
    )


def sns_envelope(message: Json | str, **members: Any) -> Json:
    text = message if isinstance(message, str) else json.dumps(message)
    return {
        "Type": "Notification",
        "MessageId": "m1",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:pushes",
        "Message": text,
        "Timestamp": "2025-03-01T10:00:00.000Z",
        "SignatureVersion": "2",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
    } | members
