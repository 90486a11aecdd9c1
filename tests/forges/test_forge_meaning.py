"""What each forge's deliveries mean, from payloads written after its documentation."""

from __future__ import annotations

from urllib.parse import quote

import forge_payloads as made
import pytest
from forge_payloads import ZERO, A, B, C, as_bytes

from penstock.errors import EventError, NotFoundError
from penstock.forges.event import GitEvent, Ignored
from penstock.forges.registry import FORGES, forge_named


def parsed(forge: str, payload: object, event: str | None = None) -> GitEvent | Ignored:
    return forge_named(forge).parse(as_bytes(payload), {}, event)


def event_of(forge: str, payload: object, event: str | None = None) -> GitEvent:
    told = parsed(forge, payload, event)
    assert isinstance(told, GitEvent), told
    return told


PUSHES = [
    ("github", made.github_push(), "push", "shop/api"),
    ("gitlab", made.gitlab_push(), "Push Hook", "shop/web/api"),
    ("gitlab", made.gitlab_push(object_kind=None), "System Hook", "shop/web/api"),
    ("gitea", made.gitea_push(), "push", "shop/api"),
    ("forgejo", made.gitea_push(), "push", "shop/api"),
    ("bitbucket-cloud", made.cloud_push(), "repo:push", "shop/api"),
    ("bitbucket-server", made.server_push(), "repo:refs_changed", "SHOP/api"),
    ("bitbucket-server", made.addon_push(), "repo:push", "SHOP/api"),
    ("azure-devops", made.azure_push(), "git.push", "Shop/api"),
    ("aws-codecommit", made.codecommit_reference(), None, "api"),
]


@pytest.mark.parametrize(("forge", "payload", "name", "repository"), PUSHES)
def test_a_push_says_where_from_and_where_to(forge, payload, name, repository):
    """The full ref, both heads, the pusher; and None, not zeros, where there was nothing."""
    event = event_of(forge, payload, name)
    assert (event.forge, event.kind, event.repository) == (forge, "push", repository)
    assert (event.ref, event.before, event.commit) == ("refs/heads/main", A, B)
    assert (event.author or "").startswith("ada")
    assert event.pull_request is None
    assert event.skip_ci is False


@pytest.mark.parametrize(("forge", "payload", "name", "repository"), PUSHES)
def test_the_event_is_known_without_its_name(forge, payload, name, repository):
    """A body alone says enough for push events, where a relay has lost the headers."""
    assert event_of(forge, payload) == event_of(forge, payload, name)


PULL_REQUESTS = [
    ("github", made.github_pull_request(), "pull_request", 12, "refs/pull/12/head"),
    ("gitlab", made.gitlab_merge_request(), "Merge Request Hook", 3, "refs/merge-requests/3/head"),
    ("gitea", made.gitea_pull_request(), "pull_request", 4, "refs/pull/4/head"),
    ("forgejo", made.gitea_pull_request(), "pull_request", 4, "refs/pull/4/head"),
    ("bitbucket-cloud", made.cloud_pull_request(), "pullrequest:created", 5, "refs/heads/orders"),
    ("bitbucket-server", made.server_pull_request(), "pr:opened", 6, "refs/pull-requests/6/from"),
    ("bitbucket-server", made.addon_pull_request(), "pullrequest:created", 6, "refs/pull-requests/6/from"),
    ("azure-devops", made.azure_pull_request(), "git.pullrequest.created", 8, "refs/heads/orders"),
    ("aws-codecommit", made.codecommit_pull_request(), None, 9, "refs/heads/orders"),
]


@pytest.mark.parametrize(("forge", "payload", "name", "number", "ref"), PULL_REQUESTS)
def test_an_opened_pull_request_has_number_source_and_target(forge, payload, name, number, ref):
    """Its head, a ref that fetches it where there is one, both branches, and that it is no fork."""
    event = event_of(forge, payload, name)
    assert (event.kind, event.action, event.ref) == ("pull_request", "opened", ref)
    assert event.commit is not None
    assert B.startswith(event.commit)
    request = event.pull_request
    assert request is not None
    assert (request.number, request.source, request.target, request.fork) == (number, "orders", "main", False)
    assert event.title == "Count orders once"
    assert (event.author or "grace").startswith(("grace", "ada"))


FORKS = [
    ("github", made.github_pull_request(head_repo={"id": 8, "full_name": "eve/api"}), "pull_request"),
    ("github", made.github_pull_request(head={"ref": "orders", "sha": B, "repo": None}), "pull_request"),
    ("gitlab", made.gitlab_merge_request(source_project_id=16), None),
    (
        "gitlab",
        made.gitlab_merge_request(source_project_id=None, target_project_id=None, source=None),
        None,
    ),
    ("gitea", made.gitea_pull_request(head_repo=made.gitea_repository(8, "eve/api")), "pull_request"),
    ("gitea", made.gitea_pull_request(head={"ref": "orders", "sha": B, "repo_id": None}), "pull_request"),
    (
        "bitbucket-cloud",
        made.cloud_pull_request(source=made.cloud_repository("eve/api", "{2}")),
        "pullrequest:created",
    ),
    ("bitbucket-server", made.server_pull_request(source=made.server_repository(8, "~EVE")), None),
    (
        "azure-devops",
        made.azure_pull_request(forkSource={"repository": made.azure_repository("api.eve")}),
        None,
    ),
]


@pytest.mark.parametrize(("forge", "payload", "name"), FORKS)
def test_a_fork_is_a_fork_also_where_its_repository_is_gone(forge, payload, name):
    """Unknown origin counts as a fork, because a fork gets no secrets."""
    request = event_of(forge, payload, name).pull_request
    assert request is not None
    assert request.fork is True


def test_a_pull_request_without_repositories_is_told_apart_by_id():
    """Old Forgejo payloads name the ends' repositories by number only."""
    head = {"ref": "orders", "sha": B, "repo_id": 7}
    base = {"ref": "main", "sha": A, "repo_id": 7}
    request = event_of("forgejo", made.gitea_pull_request(head=head, base=base), "pull_request").pull_request
    assert request is not None
    assert request.fork is False


ACTIONS = [
    ("github", made.github_pull_request("synchronize"), "pull_request", "synchronize"),
    ("github", made.github_pull_request("labeled"), "pull_request", "labeled"),
    ("github", made.github_pull_request("closed"), "pull_request", "closed"),
    ("github", made.github_pull_request("closed", merged=True), "pull_request", "merged"),
    ("gitlab", made.gitlab_merge_request("update", oldrev=A), None, "synchronize"),
    ("gitlab", made.gitlab_merge_request("update"), None, "edited"),
    ("gitlab", made.gitlab_merge_request("reopen"), None, "reopened"),
    ("gitlab", made.gitlab_merge_request("close"), None, "closed"),
    ("gitlab", made.gitlab_merge_request("merge"), None, "merged"),
    ("gitlab", made.gitlab_merge_request("approved"), None, "approved"),
    ("gitlab", made.gitlab_merge_request(None), None, "synchronize"),
    ("gitlab", made.gitlab_merge_request(None, state="merged"), None, "merged"),
    ("gitea", made.gitea_pull_request("synchronized"), "pull_request", "synchronize"),
    ("gitea", made.gitea_pull_request("synchronized"), "pull_request_sync", "synchronize"),
    ("gitea", made.gitea_pull_request("label_updated"), "pull_request_label", "labeled"),
    ("gitea", made.gitea_pull_request("closed", merged=True), "pull_request", "merged"),
    ("bitbucket-cloud", made.cloud_pull_request(), "pullrequest:updated", "synchronize"),
    ("bitbucket-cloud", made.cloud_pull_request("MERGED"), "pullrequest:fulfilled", "merged"),
    ("bitbucket-cloud", made.cloud_pull_request("DECLINED"), "pullrequest:rejected", "closed"),
    ("bitbucket-cloud", made.cloud_pull_request("DECLINED"), None, "closed"),
    ("bitbucket-server", made.server_pull_request("pr:from_ref_updated"), None, "synchronize"),
    ("bitbucket-server", made.server_pull_request("pr:modified"), None, "edited"),
    ("bitbucket-server", made.server_pull_request("pr:merged"), None, "merged"),
    ("bitbucket-server", made.server_pull_request("pr:declined"), None, "closed"),
    ("bitbucket-server", made.server_pull_request("pr:deleted"), None, "deleted"),
    ("azure-devops", made.azure_pull_request("git.pullrequest.updated"), None, "synchronize"),
    ("azure-devops", made.azure_pull_request("git.pullrequest.updated", status="completed"), None, "merged"),
    ("azure-devops", made.azure_pull_request("git.pullrequest.updated", status="abandoned"), None, "closed"),
    ("azure-devops", made.azure_pull_request("git.pullrequest.merged"), None, "edited"),
    (
        "aws-codecommit",
        made.codecommit_pull_request("pullRequestSourceBranchUpdated"),
        None,
        "synchronize",
    ),
    (
        "aws-codecommit",
        made.codecommit_pull_request("pullRequestMergeStatusUpdated", isMerged="True"),
        None,
        "merged",
    ),
    (
        "aws-codecommit",
        made.codecommit_pull_request("pullRequestStatusChanged", pullRequestStatus="Closed"),
        None,
        "closed",
    ),
]


@pytest.mark.parametrize(("forge", "payload", "name", "action"), ACTIONS)
def test_actions_have_one_vocabulary(forge, payload, name, action):
    """GitHub's words on every forge, and `merged` apart from `closed`."""
    assert event_of(forge, payload, name).action == action


def test_leaving_draft_is_an_action_of_its_own_on_gitlab():
    """GitLab hides it in `changes`; it starts a run."""
    payload = made.gitlab_merge_request("update") | {"changes": {"draft": {"previous": True, "current": False}}}
    assert event_of("gitlab", payload).action == "ready_for_review"


@pytest.mark.parametrize(
    ("forge", "payload", "name"),
    [
        ("github", made.github_pull_request(draft=True), "pull_request"),
        ("gitlab", made.gitlab_merge_request(draft=True), None),
        ("gitlab", made.gitlab_merge_request(draft=None, work_in_progress=True), None),
        ("gitea", made.gitea_pull_request(title="WIP: Count orders"), "pull_request"),
        ("gitea", made.gitea_pull_request(draft=True), "pull_request"),
        ("bitbucket-cloud", made.cloud_pull_request(draft=True), "pullrequest:created"),
        ("azure-devops", made.azure_pull_request(isDraft=True), None),
    ],
)
def test_drafts_are_known(forge, payload, name):
    """Also where only the title tells."""
    assert event_of(forge, payload, name).draft is True


DELETIONS = [
    ("github", made.github_push(after=ZERO, deleted=True, head_commit=None, commits=[]), "push", A),
    ("github", made.github_ref("main", "branch"), "delete", None),
    ("gitlab", made.gitlab_push(after=ZERO, checkout_sha=None, commits=[]), None, A),
    ("gitea", made.gitea_push(after=ZERO, head_commit=None, commits=[]), "push", A),
    ("gitea", made.github_ref("main", "branch"), "delete", None),
    ("bitbucket-cloud", made.cloud_push({"new": None, "old": made.cloud_ref("main", A)}), "repo:push", A),
    ("bitbucket-server", made.server_push(made.server_change(after=ZERO, kind="DELETE")), None, A),
    ("azure-devops", made.azure_push(made.azure_update(after=ZERO)), None, A),
    ("aws-codecommit", made.codecommit_reference("referenceDeleted", commitId=None), None, A),
    (
        "aws-codecommit",
        made.codecommit_trigger({"commit": A, "ref": "refs/heads/main", "deleted": True}),
        None,
        A,
    ),
]


@pytest.mark.parametrize(("forge", "payload", "name", "before"), DELETIONS)
def test_a_deleted_branch_has_no_commit(forge, payload, name, before):
    """The kind is `delete`, whichever event told it; the last head is `before`."""
    event = event_of(forge, payload, name)
    assert (event.kind, event.ref, event.commit, event.before) == ("delete", "refs/heads/main", None, before)


TAGS = [
    ("github", made.github_push(ref="refs/tags/v1", before=ZERO, after=C), "push", B, C),
    ("gitlab", made.gitlab_push(object_kind="tag_push", ref="refs/tags/v1", after=C), None, B, C),
    ("gitea", made.gitea_push(ref="refs/tags/v1", before=ZERO, after=C), "push", B, C),
    ("gitea", made.gitea_created("v1"), "create", B, B),
    ("forgejo", made.gitea_created("v1"), "create", B, B),
    (
        "bitbucket-cloud",
        made.cloud_push({"new": made.cloud_ref("v1", B, "tag"), "old": None}),
        "repo:push",
        B,
        B,
    ),
    (
        "bitbucket-server",
        made.server_push(made.server_change("refs/tags/v1", ZERO, C, "ADD"), toCommit={"id": B}),
        None,
        B,
        C,
    ),
    ("azure-devops", made.azure_push(made.azure_update("refs/tags/v1", ZERO)), None, B, B),
    (
        "aws-codecommit",
        made.codecommit_reference("referenceCreated", referenceType="tag", referenceFullName=None, referenceName="v1"),
        None,
        B,
        B,
    ),
]


@pytest.mark.parametrize(("forge", "payload", "name", "commit", "ref_object"), TAGS)
def test_a_tag_names_its_commit_and_its_object(forge, payload, name, commit, ref_object):
    """An annotated tag is built at the commit, not at the tag object, where the forge tells both."""
    event = event_of(forge, payload, name)
    assert (event.kind, event.ref, event.tag) == ("tag", "refs/tags/v1", "v1")
    assert (event.commit, event.ref_object) == (commit, ref_object)


@pytest.mark.parametrize(
    ("forge", "payload", "action"),
    [
        ("github", made.github_release(), "published"),
        ("github", made.github_release("deleted"), "deleted"),
        ("gitlab", made.gitlab_release(), "published"),
        ("gitlab", made.gitlab_release("delete"), "deleted"),
        ("gitea", made.gitea_release(), "published"),
        ("gitea", made.gitea_release(None), "published"),
        ("forgejo", made.gitea_release("updated"), "edited"),
    ],
)
def test_a_release_names_its_tag(forge, payload, action):
    """Tag, title and what was done with it."""
    event = event_of(forge, payload, "release")
    assert (event.kind, event.ref, event.tag) == ("release", "refs/tags/v1.2.0", "v1.2.0")
    assert (event.release, event.action) == ("Spring", action)


def test_a_release_made_at_a_commit_names_it():
    """target_commitish is a branch as a rule, and sometimes a whole commit id."""
    assert event_of("github", made.github_release(), "release").commit is None
    assert event_of("github", made.github_release(target_commitish=B), "release").commit == B


IGNORED = [
    ("github", {"zen": "Keep it simple", "hook_id": 1}, "ping"),
    ("github", made.github_ref("main", "branch"), "create"),
    ("github", {"action": "created", "sender": {"login": "ada"}}, "star"),
    ("github", {"action": "created", "sender": {"login": "ada"}}, None),
    ("github", {"action": "checks_requested", "merge_group": {}}, "merge_group"),
    ("github", made.github_pull_request("submitted") | {"review": {"id": 1}}, "pull_request_review"),
    ("github", made.github_pull_request("submitted") | {"review": {"id": 1}}, None),
    ("github", made.github_push(ref="refs/notes/commits"), "push"),
    ("gitlab", {"object_kind": "note"}, "Note Hook"),
    ("gitlab", {"event_name": "project_create"}, "System Hook"),
    ("gitlab", {"event_name": "repository_update"}, "System Hook"),
    ("gitea", made.gitea_created("topic", "branch"), "create"),
    ("gitea", made.gitea_pull_request("reviewed"), "pull_request_approved"),
    ("forgejo", {"action": "opened", "sender": {"login": "ada"}}, "issues"),
    ("bitbucket-cloud", {"actor": {}, "repository": {}, "comment": {}}, "pullrequest:comment_created"),
    ("bitbucket-cloud", {"actor": {}, "commit_status": {}}, None),
    ("bitbucket-cloud", made.cloud_push(push={"changes": []}), "repo:push"),
    (
        "bitbucket-cloud",
        made.cloud_push(repository={"full_name": "shop/api", "scm": "hg"}),
        "repo:push",
    ),
    ("bitbucket-server", {"test": True}, "diagnostics:ping"),
    ("bitbucket-server", {"test": True}, None),
    ("bitbucket-server", {"eventKey": "mirror:repo_synchronized", "changes": []}, None),
    ("bitbucket-server", made.server_push(changes=[]), None),
    ("azure-devops", made.azure("build.complete", {"id": 1}), None),
    ("azure-devops", made.azure("ms.vss-code.git-pullrequest-comment-event", {}), None),
    ("aws-codecommit", made.codecommit_event("commentOnCommitCreated"), None),
    ("aws-codecommit", made.codecommit_pull_request("pullRequestApprovalStateChanged"), None),
    ("aws-codecommit", made.sns_envelope("You have chosen", Type="SubscriptionConfirmation"), None),
    ("aws-codecommit", made.codecommit_trigger() | {"Records": []}, None),
]


@pytest.mark.parametrize(("forge", "payload", "name"), IGNORED)
def test_genuine_deliveries_without_git_event_are_ignored_with_a_reason(forge, payload, name):
    """Comments, pings, stars and the like are no error and no run."""
    told = parsed(forge, payload, name)
    assert isinstance(told, Ignored)
    assert len(told.reason) > 10


REJECTED = [
    ("github", b"", "push"),
    ("github", b"\xff\xfe", "push"),
    ("github", b'"push"', "star"),
    ("github", as_bytes([made.github_push()]), "push"),
    ("github", as_bytes({}), None),
    ("github", as_bytes({}), "push"),
    ("github", as_bytes(made.github_push(repository=None)), "push"),
    ("github", as_bytes(made.github_push(after=None)), "push"),
    ("github", as_bytes(made.github_push(after="--upload-pack=x")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/a b")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/a..b")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/x:refs/heads/y")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/x\n")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/")), "push"),
    ("github", as_bytes(made.github_push(ref="refs/heads/" + "x" * 2000)), "push"),
    ("github", as_bytes(made.github_push(ref=5)), "push"),
    ("github", as_bytes(made.github_pull_request(head=None)), "pull_request"),
    ("github", as_bytes(made.github_pull_request() | {"number": -1}), "pull_request"),
    ("github", as_bytes(made.github_pull_request() | {"number": 10**30}), "pull_request"),
    ("github", b'{"a":' * 100_000, "push"),
    ("github", as_bytes(made.gitlab_push()), "push"),
    ("gitlab", as_bytes(made.github_push()), "push"),
    ("gitlab", as_bytes(made.gitlab_push(project=None)), None),
    ("gitlab", as_bytes(made.gitlab_push(project={"web_url": "http://[::"})), None),
    ("gitlab", as_bytes({"object_kind": "merge_request"}), None),
    ("gitea", as_bytes({}), None),
    ("gitea", as_bytes(made.gitea_push(repository={})), "push"),
    ("forgejo", as_bytes(made.gitlab_push()), "pull_request"),
    ("bitbucket-cloud", as_bytes({}), None),
    ("bitbucket-cloud", as_bytes(made.cloud_push(repository=None)), "repo:push"),
    ("bitbucket-cloud", as_bytes(made.cloud_push({"new": None, "old": None})), "repo:push"),
    ("bitbucket-cloud", as_bytes(made.cloud_push({"new": {"name": "main"}})), "repo:push"),
    ("bitbucket-cloud", as_bytes(made.server_pull_request()), "pullrequest:created"),
    ("bitbucket-server", as_bytes({}), None),
    ("bitbucket-server", as_bytes(made.server_push(repository={"slug": "api"})), None),
    ("bitbucket-server", as_bytes(made.addon_pull_request() | {"pullrequest": {"id": "x"}}), None),
    ("azure-devops", as_bytes({}), None),
    ("azure-devops", as_bytes(made.azure("git.push", None)), None),
    ("azure-devops", as_bytes(made.azure_pull_request(pullRequestId=None)), None),
    ("aws-codecommit", as_bytes({}), None),
    ("aws-codecommit", as_bytes(made.sns_envelope("not JSON")), None),
    ("aws-codecommit", as_bytes(made.codecommit_reference(commitId=None)), None),
    ("aws-codecommit", as_bytes(made.codecommit_pull_request(pullRequestId="nine")), None),
]


@pytest.mark.parametrize(("forge", "body", "name"), REJECTED)
def test_what_is_no_event_of_the_forge_is_an_event_error(forge, body, name):
    """One line that starts with the forge; never another exception."""
    with pytest.raises(EventError) as refusal:
        forge_named(forge).parse(body, {}, name)
    assert str(refusal.value).startswith(f"{forge}: ")
    assert "\n" not in str(refusal.value)


def test_an_azure_delivery_without_details_says_what_to_set():
    """Subscriptions can be told to send no resource; the remedy is in the message."""
    with pytest.raises(EventError, match="resource details to All"):
        parsed("azure-devops", made.azure("git.push", None))


@pytest.mark.parametrize(
    ("forge", "headers", "payload"),
    [
        ("github", {"X-GitHub-Event": "delete"}, made.github_ref("main", "branch")),
        ("github", {"x-github-event": "delete"}, made.github_ref("main", "branch")),
        ("gitea", {"X-Gitea-Event": "delete"}, made.github_ref("main", "branch")),
        ("forgejo", {"X-FORGEJO-EVENT": "delete", "X-Gitea-Event": "push"}, made.github_ref("main", "branch")),
        ("forgejo", {"X-Gitea-Event": "delete"}, made.github_ref("main", "branch")),
        (
            "bitbucket-cloud",
            {"X-Event-Key": "repo:push"},
            made.cloud_push({"new": None, "old": made.cloud_ref("main", A)}),
        ),
    ],
)
def test_the_event_is_read_from_the_forges_header(forge, headers, payload):
    """In any letter case; a given event name goes before it."""
    told = forge_named(forge).parse(as_bytes(payload), headers)
    assert isinstance(told, GitEvent)
    assert told.kind == "delete"
    assert isinstance(forge_named(forge).parse(as_bytes(payload), headers, "issues"), Ignored)


@pytest.mark.parametrize("forge", ["github", "gitea", "forgejo"])
def test_a_form_encoded_delivery_reads_the_same(forge):
    """These forges can be told to send application/x-www-form-urlencoded."""
    body = as_bytes(made.gitea_push())
    form = b"payload=" + quote(body.decode()).encode()
    parse = forge_named(forge).parse
    assert parse(form, {}, "push") == parse(body, {}, "push")


def test_a_reason_stays_on_one_line():
    """An event's name is a stranger's word: no line breaks, no terminal codes, no end of it."""
    told = FORGES["github"].parse(b"{}", {}, "x\n\x1b[2J\udcff" + "y" * 500)
    assert isinstance(told, Ignored)
    assert told.reason.isprintable()
    assert len(told.reason) < 120


def test_every_change_of_a_delivery_is_an_event():
    """A push of three refs is three events, in the delivery's order; `parse` gives the first of ours."""
    payload = made.server_push(
        made.server_change("refs/notes/commits"),
        made.server_change("refs/heads/main"),
        made.server_change("refs/heads/old", kind="DELETE"),
    )
    told = FORGES["bitbucket-server"].parse_all(as_bytes(payload), {}, None)
    assert [type(each) for each in told] == [Ignored, GitEvent, GitEvent]
    first = FORGES["bitbucket-server"].parse(as_bytes(payload), {})
    assert first == told[1]


def test_a_delivery_of_several_changes_gives_none_of_them_the_head_message():
    """Data Center tells one toCommit for the whole delivery; it must not skip the wrong branch."""
    changes = (made.server_change("refs/heads/a"), made.server_change("refs/heads/b", after=C))
    payload = made.server_push(*changes, toCommit={"id": C, "message": "x [skip ci]"})
    told = FORGES["bitbucket-server"].parse_all(as_bytes(payload), {}, None)
    assert [each.skip_ci for each in told if isinstance(each, GitEvent)] == [False, False]


def test_sns_and_bridge_tell_the_same_push():
    """A trigger, the trigger inside SNS and the EventBridge event name the same ref and commit."""
    trigger = made.codecommit_trigger()
    told = [
        event_of("aws-codecommit", payload)
        for payload in (trigger, made.sns_envelope(trigger), made.codecommit_reference())
    ]
    assert {(e.kind, e.repository, e.ref, e.commit, e.author) for e in told} == {
        ("push", "api", "refs/heads/main", B, "ada")
    }


def test_names_with_blanks_behind_them_are_read():
    """Samples of GitLab group hooks from 2016 write "iid " for "iid"."""
    payload = made.gitlab_merge_request()
    payload["object_attributes"] = {f"{k} ": v for k, v in payload["object_attributes"].items()}
    request = event_of("gitlab", payload).pull_request
    assert request is not None
    assert request.number == 3


def test_old_gitlab_payloads_name_the_project_by_address():
    """Before 8.5 there was no path_with_namespace."""
    payload = made.gitlab_push(project=None, repository={"homepage": "http://gitlab.test/shop/api"})
    assert event_of("gitlab", payload).repository == "shop/api"


def test_a_deleted_head_branch_keeps_its_name_on_gitea():
    """Gitea then writes refs/pull/N/head as the ref."""
    head = {"ref": "refs/pull/4/head", "label": "orders", "sha": B, "repo_id": 7}
    request = event_of("gitea", made.gitea_pull_request("closed", head=head), "pull_request").pull_request
    assert request is not None
    assert request.source == "orders"


@pytest.mark.parametrize(
    "message",
    ["Fix [skip ci]", "[CI SKIP] fix", "fix [no ci]", "fix [skip penstock]", "fix\n\nskip-checks: true\n"],
)
def test_skip_ci_is_read_from_the_head_commit_alone(message):
    """An earlier commit of the push that says so does not count."""
    head = made.listed(message=message)
    event = event_of("github", made.github_push(head_commit=head, commits=[head]), "push")
    assert event.skip_ci is True
    earlier = made.github_push(commits=[made.listed(A, message), made.listed()])
    assert event_of("github", earlier, "push").skip_ci is False


@pytest.mark.parametrize(
    ("forge", "payload"),
    [
        ("gitlab", made.gitlab_push(commits=[made.listed(message="x [ci skip]")])),
        ("gitlab", made.gitlab_push(push_options={"ci": {"skip": True}})),
        ("gitea", made.gitea_push(head_commit=made.listed(message="x [skip ci]"))),
        (
            "bitbucket-cloud",
            made.cloud_push({"new": made.cloud_ref("main", B, message="x [skip ci]"), "old": None}),
        ),
        ("bitbucket-server", made.server_push(toCommit={"id": B, "message": "x [skip ci]"})),
        ("azure-devops", made.azure_push(comment="x ***NO_CI***")),
        ("gitlab", made.gitlab_merge_request(last_commit={"id": B, "message": "x [skip ci]"})),
        ("github", made.github_pull_request(title="x [skip ci]")),
    ],
)
def test_skip_ci_is_understood_on_every_forge_that_tells_the_message(forge, payload):
    """From commit message, title, push option or Azure's own word."""
    assert event_of(forge, payload).skip_ci is True


@pytest.mark.parametrize("forge", ["github", "gitlab", "gitea"])
def test_changed_files_are_named_when_the_list_is_whole(forge):
    """Sorted, once each, over all commits."""
    push = {"github": made.github_push, "gitlab": made.gitlab_push, "gitea": made.gitea_push}[forge]
    commits = [made.listed(A, added=["z.py"]), made.listed(removed=["a.py"])]
    payload = push(commits=commits, total_commits_count=2, total_commits=2)
    assert event_of(forge, payload).changed_files == ("a.py", "app.py", "z.py")


@pytest.mark.parametrize(
    ("forge", "payload", "count"),
    [
        ("gitlab", made.gitlab_push(total_commits_count=1000), 1000),
        ("gitea", made.gitea_push(total_commits=1000), 1000),
        ("gitea", made.gitea_push(total_commits=None), 1),
        ("github", made.github_push(commits=[made.listed()] * 2048), 2048),
        ("github", made.github_push(forced=True), 1),
        ("github", made.github_push(created=True), 1),
        ("github", made.github_push(commits=[]), 0),
        ("gitlab", made.gitlab_push(before=ZERO), 1),
    ],
)
def test_changed_files_are_unknown_where_the_list_may_be_cut(forge, payload, count):
    """A push of 1,000 commits lists 20; after a force push the list is not the difference."""
    event = event_of(forge, payload)
    assert event.changed_files is None
    assert event.commits_count == count


def test_a_force_push_says_so_where_the_forge_does():
    """None elsewhere: only git can tell."""
    assert event_of("github", made.github_push(forced=True)).forced is True
    assert event_of("gitlab", made.gitlab_push()).forced is None


def test_unknown_forges_are_refused_with_the_known_names():
    """The remedy lists all eight."""
    with pytest.raises(NotFoundError) as refusal:
        forge_named("sourceforge")
    assert all(name in str(refusal.value) for name in FORGES)
    assert len(FORGES) == 8
