"""Does a connection work: git reads, the token may, the hook is there, a trial delivery is sent."""

from collections.abc import Callable, Iterator
from typing import Literal

import attrs

from penstock.connecting.connect import Connecting
from penstock.connecting.detect import PLAIN
from penstock.connecting.hooking import ForgeHooks
from penstock.errors import PenstockError
from penstock.sources.git import list_remote
from penstock.sources.projects import Project, get_project
from penstock.webhooks import hooks

Verdict = Literal["ok", "missing", "wrong"]
"""`missing`: it works without, by polling."""


@attrs.frozen
class Check:
    """One thing that was really tried."""

    name: str
    verdict: Verdict
    told: str


def try_connection(room: Connecting, name: str, *, ping: bool = True) -> tuple[Check, ...]:
    """
    Try everything that a connection consists of; each is one check, whatever fails.

    Raises: NotFoundError for a project that is not there.
    """
    project = get_project(room.database, name)
    checks = [_tried("git", lambda: _git(room, project))]
    place = room.place_of(project)
    if place.forge == PLAIN:
        return (*checks, Check("forge", "ok", "a plain git server"))
    checks.append(Check("forge", "ok", f"{place.forge}{f', {place.repository}' if place.repository else ''}"))
    return (*checks, *_at_forge(room, project, ping=ping))


def _tried(name: str, question: Callable[[], Check]) -> Check:
    try:
        return question()
    except PenstockError as error:
        return Check(name, "wrong", str(error))


def _git(room: Connecting, project: Project) -> Check:
    found = list_remote(project.remote(room.settings))
    branches = sum(ref.startswith("refs/heads/") for ref in found)
    tags = len(found) - branches
    told = f"{branches} {'branch' if branches == 1 else 'branches'}, {tags} {'tag' if tags == 1 else 'tags'}"
    if branches and f"refs/heads/{project.default_branch}" not in found:
        return Check("git", "wrong", f'{told}, but no branch "{project.default_branch}", which is the default one')
    return Check("git", "ok", told)


def _at_forge(room: Connecting, project: Project, *, ping: bool) -> Iterator[Check]:
    try:
        api = room.api(project)
    except PenstockError as error:
        yield Check("token", "wrong", str(error))
        return
    if api is None:
        yield Check("token", "missing", "there is none: hooks are set by hand")
        yield _own_hook(room, project)
        return
    yield _tried("token", lambda: _token(api))
    yield (hook := _tried("hook", lambda: _hook(room, project, api)))
    if ping and hook.verdict == "ok" and project.connection.forge_hook:
        yield _tried("ping", lambda: _ping(api, str(project.connection.forge_hook)))


def _token(api: ForgeHooks) -> Check:
    rights = api.rights()
    return Check("token", "wrong" if rights.hooks is False else "ok", rights.told())


def _hook(room: Connecting, project: Project, api: ForgeHooks) -> Check:
    paths = tuple(hook.path for hook in hooks.list_hooks(room.database, project.name))
    found = [hook for hook in api.list() if hook.url.endswith(paths)] if paths else []
    if not found:
        return Check("hook", "missing", "the forge has none: pushes are found by polling")
    if not all(hook.active for hook in found):
        return Check("hook", "wrong", f"the forge has switched {found[0].id} off; switch it on there")
    return Check("hook", "ok", f"{found[0].id}, to {found[0].url}")


def _own_hook(room: Connecting, project: Project) -> Check:
    """What can be said without asking the forge."""
    made = hooks.list_hooks(room.database, project.name)
    if not made:
        return Check("hook", "missing", "none: pushes are found by polling")
    if made[0].refused:
        return Check("hook", "wrong", f"{made[0].refused} deliveries were not believed: {made[0].refused_reason}")
    return Check("hook", "ok", f"the address {made[0].path} waits for deliveries")


def _ping(api: ForgeHooks, hook_id: str) -> Check:
    if not api.ping(hook_id):
        return Check("ping", "missing", "this forge sends none on request")
    return Check("ping", "ok", "the forge sends a trial delivery; it appears among the deliveries as ignored")
