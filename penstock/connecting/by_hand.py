"""What a person sets at a forge where no token may: which page, which address, which secret, which events."""

from collections.abc import Mapping

import attrs

from penstock.connecting.detect import PLAIN


@attrs.frozen
class ByHand:
    """One forge's page. token: what a token needs so that Penstock does it itself next time."""

    page: str
    events: tuple[str, ...]
    secret: str
    token: str
    besides: str = ""


FORGES: Mapping[str, ByHand] = {
    "github": ByHand(
        "Settings → Webhooks → Add webhook",
        ("Pushes", "Pull requests", "Releases", "Branch or tag deletion"),
        "Secret",
        "a fine-grained token with Contents (read) and Webhooks (read and write), or a classic one with repo",
        "Content type: application/json.",
    ),
    "gitlab": ByHand(
        "Settings → Webhooks → Add new webhook",
        ("Push events", "Tag push events", "Merge request events", "Releases events"),
        "Secret token",
        "a project access token with the role Maintainer and the scope api",
    ),
    "gitea": ByHand(
        "Settings → Webhooks → Add Webhook → Gitea",
        ("Push", "Create", "Delete", "Pull Request", "Pull Request Synchronized", "Release"),
        "Secret",
        "a token with write:repository of somebody who administers the repository",
        "Content type: application/json.",
    ),
    "forgejo": ByHand(
        "Settings → Webhooks → Add webhook → Forgejo",
        ("Push", "Create", "Delete", "Pull request", "Pull request synchronized", "Release"),
        "Secret",
        "a token with write:repository of somebody who administers the repository",
        "Content type: application/json.",
    ),
    "bitbucket-cloud": ByHand(
        "Repository settings → Webhooks → Add webhook",
        ("Repository: push", "Pull request: created, updated, merged, declined"),
        "Secret",
        "a repository access token with repository and webhook",
    ),
    "bitbucket-server": ByHand(
        "Repository settings → Webhooks → Create webhook",
        ("Repository: push", "Pull request: opened, source branch updated, modified, merged, declined, deleted"),
        "Secret",
        "an HTTP access token with repository admin",
    ),
    "azure-devops": ByHand(
        "Project settings → Service hooks → + → Web Hooks, once for each event",
        ("Code pushed", "Pull request created", "Pull request updated", "Pull request merge attempted"),
        "Basic authentication password",
        "a personal access token of a project administrator with Code (read)",
        "Basic authentication username: penstock. Resource details to send: All.",
    ),
    "aws-codecommit": ByHand(
        "Settings → Triggers → Create trigger, to an SNS topic with an HTTPS subscription to the address",
        ("All repository events",),
        "",
        "nothing: the topic signs by itself; make the address with `penstock hook add PROJECT aws-codecommit "
        "--topic-arn ARN`, or have a queue of EventBridge's read with --queue-url URL",
    ),
}


def steps(forge: str, address: str | None, secret: str | None) -> tuple[str, ...]:
    """
    Lines for whoever sets the hook by hand. secret: shown, where it has just been made.

    address: None before Penstock has one for the project.
    """
    if forge == PLAIN or forge not in FORGES:
        return (
            "No hook: Penstock polls it every 30 s.",
            "Where you run its server, a post-receive hook makes pushes run at once; see docs/connecting.md.",
        )
    told = FORGES[forge]
    lines = [f"At {forge}: {told.page}"]
    if address:
        lines.append(f"address  {address}")
    if secret and told.secret:
        lines.append(f"secret   {secret}  ({told.secret})")
    lines.append(f"events   {', '.join(told.events)}")
    if told.besides:
        lines.append(told.besides)
    lines.append(f"For Penstock to do it by itself, give {told.token}.")
    return tuple(lines)
