"""Does an environment work: its target really answers, the secrets that it names are in the vault."""

import fcntl
from collections.abc import Callable, Iterator
from functools import partial

import attrs
import sqlalchemy as sa

from penstock.deploy.caddy import running_configuration
from penstock.deploy.targets.docker import check_engine_is_here
from penstock.engines.docker_client import DEFAULT_HOST
from penstock.engines.docker_server import connected
from penstock.environments.docker_asking import Answer, ask_docker
from penstock.environments.kubernetes_asking import may, open_named_cluster, version_of
from penstock.environments.model import DockerTarget, Environment, KubernetesTarget
from penstock.errors import NotFoundError, PenstockError, PlatformError
from penstock.pipeline.patterns import matches
from penstock.settings import Settings
from penstock.sources.projects import list_projects
from penstock.vault import SHARED, Vault, open_vault


@attrs.frozen
class Check:
    """One thing that was really tried. told: what was found, or what is wrong. remedy: what helps; empty if nothing."""

    name: str
    passed: bool
    told: str
    remedy: str = ""


def try_environment(environment: Environment, settings: Settings, database: sa.Engine) -> tuple[Check, ...]:
    """Try everything that an environment names; each is one check, whatever fails. Without a target: process."""
    target = environment.rules.target
    secret = partial(_secret, settings)
    match target.name if target else "process":
        case "docker":
            found = _docker((target and target.docker) or DockerTarget(), settings, secret)
        case "kubernetes":
            found = _kubernetes((target and target.kubernetes) or KubernetesTarget(), settings, secret)
        case _:
            found = _process(settings)
    return (*found, *_secrets(environment, settings, database))


def _secret(settings: Settings, name: str) -> bytes:
    return open_vault(settings).read(SHARED, name)


def _tried(name: str, question: Callable[[], str]) -> Check:
    try:
        return Check(name, True, question())
    except PenstockError as error:
        told = f"{error.where}: {error.what}" if error.where else error.what
        return Check(name, False, " ".join(told.split()), error.remedy or "")


def _process(settings: Settings) -> Iterator[Check]:
    yield _tried("keeper", lambda: _keeper(settings))
    yield _tried("router", lambda: _caddy(settings))


def _keeper(settings: Settings) -> str:
    """Whoever keeps the instances holds a lock for as long as it lives."""
    away = PlatformError("no keeper runs", remedy="start `penstock up`")
    try:
        with (settings.home / "keeper.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "the keeper runs"
    except OSError:
        raise away from None
    raise away


def _caddy(settings: Settings) -> str:
    if running_configuration(settings) is None:
        raise PlatformError("Caddy does not answer at its admin socket", remedy="start `penstock up`")
    return "Caddy answers"


def _docker(target: DockerTarget, settings: Settings, secret: Callable[[str], bytes]) -> Iterator[Check]:
    ask = partial(_ask, target, settings, secret)
    engine = _tried("engine", lambda: _engine(ask))
    yield engine
    if engine.passed and target.network:
        yield _tried("network", lambda: _network(ask, str(target.network)))
    yield _tried("services", lambda: _here(target, settings))
    yield from _process(settings)


def _ask(target: DockerTarget, settings: Settings, secret: Callable[[str], bytes], path: str) -> Answer:
    if target.host is not None:
        return ask_docker(target, path, secret)
    with connected(settings) as server:
        api = server.client.api
        answer = api.get(f"{api.base_url}{path}")
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status_code, answer.json() if is_json else None)


def _engine(ask: Callable[[str], Answer]) -> str:
    if (ping := ask("/_ping")).status != 200:
        raise PlatformError(f"what answers is no Docker Engine: HTTP {ping.status}", remedy="mend the host")
    answer = ask("/version")
    if answer.status != 200 or not isinstance(answer.body, dict) or "Version" not in answer.body:
        raise PlatformError(f"the engine does not tell its version: HTTP {answer.status}", remedy="mend the host")
    return f"version {answer.body['Version']}, API {answer.body.get('ApiVersion', 'unknown')}"


def _network(ask: Callable[[str], Answer], name: str) -> str:
    answer = ask(f"/networks/{name}")
    if answer.status != 200:
        raise PlatformError(f'there is no network "{name}"', remedy=f"make it with `docker network create {name}`")
    return f"{name} is there, driver {answer.body.get('Driver', 'unknown')}"


def _here(target: DockerTarget, settings: Settings) -> str:
    """Services are reached through this machine's loopback, and run by the keeper on the engine of the settings."""
    ours = settings.docker_host or DEFAULT_HOST
    if target.host is not None and target.host != ours:
        what = f"this Penstock runs services on {ours}, and refuses to deploy to {target.host}"
        raise PlatformError(what, remedy="set PENSTOCK_DOCKER_HOST to it, or leave the host out")
    check_engine_is_here(settings)
    return f"run on {ours}"


def _kubernetes(target: KubernetesTarget, settings: Settings, secret: Callable[[str], bytes]) -> Iterator[Check]:
    yield (version := _tried("cluster", lambda: version_of(open_named_cluster(target, settings, secret))))
    if not version.passed:
        return
    for group, resource in (("apps", "deployments"), ("", "services"), ("", "secrets")):
        yield _tried(f"may make {resource}", partial(_right, target, settings, secret, (group, resource)))


def _right(target: KubernetesTarget, settings: Settings, secret: Callable[[str], bytes], what: tuple[str, str]) -> str:
    cluster = open_named_cluster(target, settings, secret)
    if not may(cluster, "create", *what):
        told = f"we may not create {what[1]} in the namespace {cluster.namespace}"
        raise PlatformError(told, remedy="bind a role that lets create them to the account of the kubeconfig")
    return f"in the namespace {cluster.namespace}"


def _secrets(environment: Environment, settings: Settings, database: sa.Engine) -> Iterator[Check]:
    names = sorted(set(environment.rules.secret_env.values()))
    if not names:
        return
    try:
        vault = open_vault(settings)
        told = vault.check()
    except PenstockError as error:
        yield Check("vault", False, error.what, error.remedy or "")
        return
    yield Check("vault", True, told)
    patterns = environment.rules.projects
    projects = [each.name for each in list_projects(database) if not patterns or matches(each.name, patterns)]
    for name in names:
        yield _tried(f"secret {name}", partial(_held, vault, projects, name))


def _held(vault: Vault, projects: list[str], name: str) -> str:
    """The platform has it, or each project that may come here has one of its own."""
    try:
        vault.read(SHARED, name)
    except NotFoundError as error:
        lacking = [project for project in projects if not _has(vault, project, name)]
        if not projects or lacking:
            of = f" for {', '.join(lacking)}" if lacking else ""
            remedy = f"set it with `penstock secret set {name}`"
            raise NotFoundError(f"it is not in the vault{of}", remedy=remedy) from error
        return f"of {', '.join(projects)}"
    return "of the platform"


def _has(vault: Vault, project: str, name: str) -> bool:
    try:
        vault.read(project, name)
    except NotFoundError:
        return False
    return True
