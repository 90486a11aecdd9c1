"""Every forge end to end at the wire: connected, hooked, told of a push, run by the whole platform, and answered."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from git_builder import GitRepository
from penstock_running import Penstock, wait_for

sys.path.append(str(Path(__file__).parents[1] / "forges"))  # payloads, and forges at the wire
sys.path.append(str(Path(__file__).parents[1] / "webhooks"))  # their signatures
sys.path.append(str(Path(__file__).parents[1] / "sources"))  # git's own server

import forge_payloads as made
from delivered import with_commits
from forge_sender import Sender
from forge_server import ForgeServer, running
from forge_servers import SERVERS
from git_servers import HttpServer, serving_http

from penstock.platform.example import write_hook

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]

PASSWORD = "of-the-git-server-1"
PIPELINE = "version: 1\nsteps: [{name: hello, type: step.shell_exec, commands: [echo hello]}]\n"
# Where each forge has its repositories below its host.
PATHS = {
    "gitlab": "group/sub/api.git",
    "bitbucket-server": "scm/SHOP/api.git",
    "azure-devops": "shop-org/Shop/_git/api",
    "aws-codecommit": "v1/repos/api",
}
PUSHES: Mapping[str, tuple[Any, str]] = {
    "github": (made.github_push, "push"),
    "gitlab": (lambda: made.gitlab_push(project={"id": 15, "path_with_namespace": "group/sub/api"}), "Push Hook"),
    "gitea": (made.gitea_push, "push"),
    "forgejo": (made.gitea_push, "push"),
    "bitbucket-cloud": (made.cloud_push, "repo:push"),
    "bitbucket-server": (made.server_push, "repo:refs_changed"),
    "azure-devops": (made.azure_push, ""),
    "aws-codecommit": (made.codecommit_reference, ""),
}
SUCCESS = {
    **dict.fromkeys(("github", "gitea", "forgejo", "gitlab"), "success"),
    **dict.fromkeys(("bitbucket-cloud", "bitbucket-server"), "SUCCESSFUL"),
    **dict.fromkeys(("azure-devops", "aws-codecommit"), "succeeded"),
}


@attrs.frozen
class Told:
    """A push that a forge has told of. commit: its head."""

    forge: ForgeServer
    project: str
    commit: str


@attrs.frozen
class Street:
    """Eight forges, each with a repository behind git's own server, and a platform that they are connected to."""

    penstock: Penstock
    stack: ExitStack

    def tell(self, name: str) -> Told:
        """Connect it as a person does, push, and let the forge tell of that as it does."""
        forge = self.stack.enter_context(running(SERVERS[name]))
        folder = self.penstock.folder / "forges" / name
        tree, bare = GitRepository(folder / "tree"), folder / "served" / PATHS.get(name, "shop/api.git")
        tree.commit({"penstock.yaml": PIPELINE, "forge": name}, "First")
        tree.git("clone", "--quiet", "--bare", str(tree.root), str(bare))
        self._connect(forge, self.stack.enter_context(serving_http(folder / "served")), bare)
        told = Told(forge, _project(name), tree.commit({"README": name}, "Second"))
        forge.commits.add(told.commit)
        tree.git("push", "--quiet", str(bare), "main")
        self._deliver(forge, told.project, tree)
        return told

    def _connect(self, forge: ForgeServer, git: HttpServer, bare: Path) -> None:
        git.password = PASSWORD
        body = {
            "name": _project(forge.name),
            "url": f"{git.url}/{bare.relative_to(git.folder)}",
            "forge": forge.name,
            "login": f"ada:{PASSWORD}",
            "token": forge.secret,
            "api_url": forge.url,
            "public_url": self.penstock.settings.api_url,
        }
        connected = self.penstock.api("POST", "/connections", body)
        assert connected["connection"]["answers"] is True, connected
        # Polling would find the push too, and this is about hooks.
        self.penstock.api("PATCH", f"/connections/{body['name']}", {"polled": False})

    def _deliver(self, forge: ForgeServer, project: str, tree: GitRepository) -> None:
        payload, event = PUSHES[forge.name]
        body = with_commits(payload(), tree)
        if forge.name == "aws-codecommit":
            added = self.penstock.command("hook", "add", project, forge.name, "--queue-url", forge.queue_url)
            assert added.returncode == 0, added.stderr
            forge.put(body, "message-1")
            return
        (hook,) = self.penstock.api("GET", f"/hooks?project={project}")
        api = forge if forge.name == "azure-devops" else None
        sender = Sender(self.penstock.http, forge.name, hook["path"], forge.told_with(), api)
        answer = sender.send(body, event)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text


def _project(forge: str) -> str:
    return f"at-{forge}"


@pytest.fixture(scope="module")
def told(home_of_all: Penstock) -> Iterator[Mapping[str, Told]]:
    """A push at each forge, told to one platform that runs them side by side."""
    home_of_all.up(*(["--no-example"] if home_of_all.home.exists() else []))
    with ExitStack() as stack:
        street = Street(home_of_all, stack)
        yield {name: street.tell(name) for name in SERVERS}


@pytest.mark.parametrize("name", SERVERS)
def test_push_at_a_forge_runs_and_is_answered_there(penstock: Penstock, told: Mapping[str, Told], name: str) -> None:
    """The hook that Penstock made, signed as the forge signs: one run, by the hook, and its result at the commit."""
    push = told[name]
    run = penstock.ended_run_of(push.commit)
    assert run["state"] == "succeeded", run["reason"]
    (event,) = [one for one in penstock.api("GET", f"/events?project={push.project}") if one["commit"] == push.commit]
    assert (event["source"], event["run_id"]) == ("hook", run["id"])
    wait_for(lambda: push.forge.shown().get("penstock/push") == SUCCESS[name], f"{name} shows how it stands")
    page = f"{penstock.settings.dashboards_url}/run?id={run['id']}"
    assert any(page in seen.body.decode() and push.commit in f"{seen.path}{seen.body.decode()}" for seen in sent(push))


def sent(push: Told) -> list[Any]:
    """What was asked of the forge with a body."""
    return [seen for seen in push.forge.seen if seen.body]


def test_secrets_of_forges_are_in_no_log_and_no_answer(penstock: Penstock, told: Mapping[str, Told]) -> None:
    """Neither tokens nor logins nor the hooks' secrets."""
    secrets = {PASSWORD, *(one.forge.token for one in told.values())}
    secrets |= {one.forge.told_with() for one in told.values() if one.forge.hooks}
    shown = json.dumps([penstock.api("GET", path) for path in ("/deliveries", "/events", "/hooks", "/projects")])
    shown += "".join(path.read_text(errors="replace") for path in penstock.home.glob("logs/**/*") if path.is_file())
    shown += penstock.output.read_text()
    assert [secret[:4] for secret in secrets if secret in shown] == []


def test_push_over_http_is_run_by_the_servers_own_hook(penstock: Penstock) -> None:
    """A plain git server: git's own `http-backend` takes the push, the post-receive hook tells of it."""
    folder = penstock.folder / "plain"
    tree, bare = GitRepository(folder / "tree"), folder / "served" / "team" / "plain.git"
    tree.commit({"penstock.yaml": PIPELINE, "server": "plain"}, "First")
    tree.git("clone", "--quiet", "--bare", str(tree.root), str(bare))
    with serving_http(folder / "served") as git:
        git.password = PASSWORD
        url = f"{git.url}/team/plain.git"
        body = {"name": "plain", "url": url, "forge": "git", "login": f"ada:{PASSWORD}"}
        assert penstock.api("POST", "/connections", body)["connection"]["forge"] == "git"
        penstock.api("PATCH", "/connections/plain", {"polled": False})
        write_hook(penstock.settings, bare, "plain")
        commit = tree.commit({"README": "pushed"}, "Second")
        tree.git("push", "--quiet", url.replace("http://", f"http://ada:{PASSWORD}@"), "main")
        run = penstock.ended_run_of(commit)
    assert run["state"] == "succeeded", run["reason"]
    (event,) = [one for one in penstock.api("GET", "/events?project=plain") if one["commit"] == commit]
    assert (event["source"], event["run_id"]) == ("hook", run["id"])
