"""What is kept of each event, what moves, what waits for a person, and what a fork may not do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forge_payloads as made
import httpx
import pytest
import sqlalchemy as sa
from delivered import Json, with_commits
from git_builder import GitRepository

from penstock.events import inbox
from penstock.events.dispatch import prepare
from penstock.events.poll import poll
from penstock.settings import Settings
from penstock.sources.projects import get_project, known_heads
from penstock.webhooks.deliveries import Delivery

Tell = Callable[..., Delivery]
DEPLOYING = {
    "version": 1,
    "on": ["pull_request"],
    "steps": [
        {"name": "test", "type": "step.shell_exec", "commands": ["true"]},
        {"name": "publish", "type": "step.artifact_push", "key": "app", "path": "README", "needs": ["test"]},
        {"name": "after", "type": "step.shell_exec", "commands": ["true"], "needs": ["publish"]},
    ],
}


def event_of(database: sa.Engine, delivery: Delivery) -> inbox.EventRecord:
    (found,) = [one for one in inbox.list_events(database) if one.id == delivery.events[0]["event"]]
    return found


def pull_request(
    shop: GitRepository, number: int = 12, *, fork: bool = True, author: str = "grace", **more: object
) -> Json:
    """Of a branch that only the pull request's ref holds."""
    head_repo = {"id": 8, "full_name": "grace/api", "name": "api"} if fork else None
    body = made.github_pull_request(head_repo=head_repo, number=number, user={"login": author}, **more)
    body["number"] = number
    return with_commits(body, shop, after=f"refs/pull/{number}/head")


def propose(shop: GitRepository, files: dict[str, str | bytes], number: int = 12) -> str:
    """A commit that is on no branch, as a fork's is."""
    shop.git("checkout", "--quiet", "--detach", "main")
    commit = shop.commit(files, f"Proposal {number}")
    shop.git("checkout", "--quiet", "main")
    shop.git("update-ref", f"refs/pull/{number}/head", commit)
    return commit


def test_first_pull_request_of_a_strangers_fork_waits_for_a_person(
    told: Tell, database: sa.Engine, shop: GitRepository, api: httpx.Client
) -> None:
    """It is held and says so; once somebody let it start, later ones of the author start by themselves."""
    propose(shop, {"a": "1"})
    first = event_of(database, told("github", pull_request(shop), "pull_request"))
    assert (first.state, "approve" in str(first.reason)) == ("held", True)
    assert inbox.claim(database) == ()
    assert api.post(f"/api/v1/events/{first.id}/approve").json()["state"] == "received"
    assert api.post(f"/api/v1/events/{first.id}/approve").status_code == 404
    for number, author, state in ((13, "grace", "received"), (14, "mallory", "held")):
        propose(shop, {"a": str(number)}, number)
        delivery = told("github", pull_request(shop, number, author=author), "pull_request")
        assert event_of(database, delivery).state == state


def test_newer_head_takes_the_place_of_one_that_is_held(told: Tell, database: sa.Engine, shop: GitRepository) -> None:
    """Nobody approves what has been replaced."""
    propose(shop, {"a": "1"})
    first = told("github", pull_request(shop), "pull_request")
    propose(shop, {"a": "2"})
    told("github", pull_request(shop) | {"action": "synchronize"}, "pull_request")
    former = event_of(database, first)
    assert (former.state, "newer head" in str(former.reason)) == ("ignored", True)


def test_forks_pull_request_runs_without_what_asks_for_trust(
    told: Tell, database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """Steps that publish, deploy or decide, and what needs them, have a condition that says why they are skipped."""
    propose(shop, {"penstock.yaml": json.dumps(DEPLOYING)})
    event = event_of(database, told("github", pull_request(shop), "pull_request"))
    launch = prepare(database, settings, inbox.let_start(database, event.id, "ada"))
    assert launch is not None
    assert launch.info.from_fork
    assert {step.name: bool(step.when) for step in launch.graph.steps} == {
        "test": False,
        "publish": True,
        "after": True,
    }
    assert launch.graph.step("after").when[0].condition == "!pull_request.fork"


def test_pull_request_of_a_branch_keeps_all_its_steps(
    told: Tell, database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """Whoever may push a branch is trusted; the graph's hash is that of the push."""
    propose(shop, {"penstock.yaml": json.dumps(DEPLOYING)})
    event = event_of(database, told("github", pull_request(shop, fork=False), "pull_request"))
    launch = prepare(database, settings, event)
    assert launch is not None
    assert not any(step.when for step in launch.graph.steps)


def test_forks_commit_is_there_for_its_pull_request_alone(
    told: Tell, database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """A run of that commit under a branch's name, with the branch's rights, is refused until it is merged."""
    commit = propose(shop, {"a": "1"})
    event = event_of(database, told("github", pull_request(shop), "pull_request"))
    assert prepare(database, settings, event) is not None
    asked = inbox.ask_for_run(database, "shop", "refs/heads/main", commit, actor="ada")
    assert asked is not None
    assert prepare(database, settings, asked) is None
    assert "a fork's pull request only" in str(inbox.find(database, asked.key).reason)  # type: ignore[union-attr]
    shop.git("merge", "--quiet", "--ff-only", commit)
    project = get_project(database, "shop")
    project.with_ref(settings, "refs/heads/main")
    assert project.with_commit(settings, commit)


def test_forks_head_without_a_ref_is_not_fetched_from_the_fork(
    told: Tell, database: sa.Engine, settings: Settings, shop: GitRepository
) -> None:
    """Bitbucket Cloud offers none: the event says so, and the repository's own branch of that name is not taken."""
    source = made.cloud_repository("grace/api", "{2}")
    payload = made.cloud_pull_request(source=source)
    payload["pullrequest"]["source"] |= {"branch": {"name": "main"}, "commit": {"hash": "c" * 12}}
    event = event_of(database, told("bitbucket-cloud", payload, "pullrequest:created"))
    assert event.ref == "refs/pull/5/head"
    assert prepare(database, settings, event) is None
    closed = inbox.find(database, event.key)
    assert closed is not None
    assert "no ref for a fork's pull request" in str(closed.reason)


def test_deleted_branch_that_comes_again_is_news(told: Tell, database: sa.Engine, shop: GitRepository) -> None:
    """Also at the very commit where it was; a deletion that is told late leaves the new head alone."""
    new = with_commits(made.github_push(before=made.ZERO, created=True), shop)
    gone = with_commits(made.github_push(after=made.ZERO, before=made.B, deleted=True, head_commit=None), shop)
    told("github", new, "push")
    assert told("github", gone, "push").events[0]["became"] == "removed"
    assert known_heads(database, "shop") == {}
    told("github", new | {"compare": "again"}, "push")
    assert len(inbox.list_events(database)) == 2
    late = gone | {"before": shop.git("rev-parse", "HEAD~1")}
    assert told("github", late, "push").events[0]["became"] == "ignored"
    assert list(known_heads(database, "shop")) == ["refs/heads/main"]


def test_deletion_without_a_commit_is_left_to_polling(told: Tell, database: sa.Engine, shop: GitRepository) -> None:
    """GitHub's own `delete` may come after the branch has come again: polling sees what is there."""
    told("github", with_commits(made.github_push(), shop), "push")
    assert told("github", made.github_ref("main", "branch"), "delete").state == "ignored"
    assert list(known_heads(database, "shop")) == ["refs/heads/main"]


@pytest.mark.parametrize(
    ("payload", "name", "state"),
    [
        (made.github_push(before=made.B), "push", "ignored"),
        (made.github_push(ref="refs/notes/x"), "push", "ignored"),
        (made.github_pull_request("labeled"), "pull_request", "ignored"),
        (made.github_pull_request("closed", merged=True), "pull_request", "ignored"),
        (made.github_pull_request(draft=True), "pull_request", "done"),
        (made.github_push(forced=True), "push", "done"),
        (made.github_release("edited"), "release", "ignored"),
        ({"zen": "Keep it simple."}, "ping", "ignored"),
        (made.github_push(after="not-a-hash"), "push", "rejected"),
        (made.github_push(ref="refs/heads/" + "x" * 600), "push", "rejected"),
    ],
)
def test_each_kind_of_delivery_has_its_rule(
    told: Tell, database: sa.Engine, shop: GitRepository, payload: Json, name: str, *, state: str
) -> None:
    """What is ignored or rejected says why, and leaves nothing in the inbox."""
    if payload.get("after") == "not-a-hash":
        payload = payload | {"after": "26a8f2EXAMPLE"}
    delivery = told("github", with_commits(payload, shop), name)
    assert delivery.state == state
    assert bool(delivery.reason) is (state != "done")
    assert len(inbox.list_events(database)) == (state == "done")


def test_push_that_asks_for_no_run_is_on_record_and_polling_does_not_find_it(
    settings: Settings, told: Tell, database: sa.Engine, shop: GitRepository
) -> None:
    """GitLab's push option stands in no commit's message: only the hook knows of it."""
    shop.git("branch", "-D", "orders")
    delivery = told("gitlab", with_commits(made.gitlab_push(push_options={"ci": {"skip": True}}), shop), "Push Hook")
    assert delivery.state == "ignored"
    event = event_of(database, delivery)
    assert (event.state, event.reason, event.by_rule) == ("ignored", "[skip ci] is asked for", True)
    assert poll(database, settings, get_project(database, "shop")) == 0
    assert inbox.claim(database) == ()


def test_branch_that_is_gone_is_forgotten_by_polling(
    settings: Settings, database: sa.Engine, shop: GitRepository
) -> None:
    """So that it is news when it comes again; a repository that shows no refs at all loses none."""
    project = get_project(database, "shop")
    poll(database, settings, project)
    shop.git("branch", "-D", "orders")
    poll(database, settings, project)
    assert list(known_heads(database, "shop")) == ["refs/heads/main"]
    shop.git("branch", "orders")
    assert poll(database, settings, project) == 1
    shop.git("checkout", "--quiet", "--detach")
    shop.git("branch", "-D", "main", "orders")
    poll(database, settings, project)
    assert len(known_heads(database, "shop")) == 2


def test_what_started_nothing_is_listed_with_why(
    told: Callable[..., Delivery], shop: GitRepository, settings: Settings, env: dict[str, str], tmp_path: Path
) -> None:
    """`penstock events list --ignored`: events that rules left out, and deliveries that made none, but no run."""
    told("gitlab", with_commits(made.gitlab_push(push_options={"ci": {"skip": True}}), shop), "Push Hook")
    told("github", {"action": "created", "sender": {"login": "ada"}, "repository": made.github_repository()}, "star")
    told("github", with_commits(made.github_push(ref="refs/heads/orders", before=made.ZERO), shop), "push")
    environment = {**os.environ, **env, "PENSTOCK_VAULT_KEY_FILE": str(settings.vault_key_file)}

    def listed(*words: str) -> str:
        command = [str(Path(sys.executable).with_name("penstock")), "events", "list", *words]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    ignored = listed("--ignored", "--project", "shop")
    assert "[skip ci] is asked for" in ignored
    assert "star events start nothing" in ignored
    assert "refs/heads/orders" not in ignored
    assert "refs/heads/orders" in listed()
