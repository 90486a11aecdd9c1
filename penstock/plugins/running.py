"""A pipeline's step that runs a plugin: the plugin found and checked, run, and what it left brought in."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from penstock.errors import StepFailure
from penstock.folders import remove_tree
from penstock.plugins.bringing import Brought, bring_in
from penstock.plugins.checking import check_step
from penstock.plugins.contract import DATA_PREFIX, MEMORY_BYTES, PIDS
from penstock.plugins.data import PluginData, Scope
from penstock.plugins.installing import unpacked_plugin
from penstock.plugins.invocation import Ended, Invocation, Limits, run_plugin, with_defaults
from penstock.plugins.launch import Launch, check_engine, launch_command, launch_image, look_at_image
from penstock.plugins.manifest import Manifest
from penstock.plugins.network import parse_rule
from penstock.plugins.packages import packages_of
from penstock.plugins.proxy import Connect, Proxy
from penstock.plugins.resolve import Installed, InstalledPlugins, required
from penstock.steps.context import StepContext, StepResult

if TYPE_CHECKING:
    from penstock.steps.plugin import Config

TENANT = "default"
TOKEN_MARGIN = timedelta(minutes=1)
_CONNECT_LIMIT_S = 10.0


def run_step(config: "Config", context: StepContext) -> StepResult:
    """Run it; see `penstock.steps.plugin.run`."""
    check_engine(context.engine)
    installed = required(InstalledPlugins(context.database), config.plugin)
    manifest = installed.manifest
    _check(config, manifest)
    environment = _environment(config, context, manifest)
    scope = Scope(
        TENANT, context.run.project, context.run.id, config.name, context.run.commit, manifest.name, config.environment
    )
    ci = context.workspace.with_name(f"{context.workspace.name}.ci")
    try:
        with ExitStack() as stack:
            launch = _launch(context, installed, ci, stack)
            context, gateway, token = _ways_out(context, config, manifest, scope, stack)
            invocation = Invocation(
                manifest=manifest,
                info=context.run,
                step=config.name,
                inputs=with_defaults(manifest, config.given),
                launch=launch,
                workspace=context.workspace,
                ci=ci,
                limits=_limits(config),
                env=context.ci_env(config.name),
                secrets={its: context.secrets[name] for its, name in config.grants().items()},
                environment=environment,
                gateway=gateway.serve if gateway else None,
                token=token,
            )
            if not launch.apart:
                context.log.line(f"without bubblewrap the plugin runs as your user; {ci} is its /ci")
            ended = run_plugin(invocation, context.engine, context.log, context.token)
        return _result(context, ended, _brought(config, context, manifest, ended, scope))
    finally:
        remove_tree(ci)


def _check(config: "Config", manifest: Manifest) -> None:
    """Raises: StepFailure for the first thing that does not fit."""
    for complaint in check_step(config, manifest):
        raise StepFailure(f"{complaint.where}: {complaint.what}", where=manifest.full_name, remedy=complaint.remedy)


def _environment(config: "Config", context: StepContext, manifest: Manifest) -> Mapping[str, str] | None:
    """Name and type. Raises: StepFailure for one of a type that the plugin must not run in."""
    if config.environment is None:
        return None
    from penstock.plugins.environments import type_of

    kind = type_of(context.database, config.environment)
    if manifest.environments and kind not in manifest.environments:
        allowed = ", ".join(manifest.environments)
        what = f'"{config.environment}" is of the type {kind or "unknown"}, and the plugin runs in {allowed} alone'
        raise StepFailure(what, where=manifest.full_name, remedy="choose another environment")
    return {"name": config.environment, **({"type": kind} if kind else {})}


def _launch(context: StepContext, installed: Installed, ci: Path, stack: ExitStack) -> Launch:
    manifest = installed.manifest
    if context.engine.name == "docker":
        if manifest.image is None:
            raise StepFailure(
                "the plugin has a command alone, and the docker engine runs images",
                where=manifest.full_name,
                remedy="use the process engine, or a version of the plugin with `image:`",
            )
        facts = look_at_image(context.settings, manifest.image, context.token)
        return launch_image(manifest, facts, ci, installed.image_digest)
    folder = context.workspace.with_name(f"{context.workspace.name}.plugin")
    stack.enter_context(unpacked_plugin(context.store, installed, folder))
    packages = packages_of(context.settings, manifest.name, folder, context.token, context.log.line)
    return launch_command(manifest, folder, context.workspace, ci, packages)


def _limits(config: "Config") -> Limits:
    return Limits(
        timeout_s=float(config.timeout),
        memory_bytes=config.memory or MEMORY_BYTES,
        pids=config.pids or PIDS,
        cpus=config.cpu,
    )


def _ways_out(
    context: StepContext, config: "Config", manifest: Manifest, scope: Scope, stack: ExitStack
) -> tuple[StepContext, Proxy | None, str | None]:
    """The proxy and the token of the data API, as far as the manifest asks for them; the log, with the token masked."""
    if not manifest.network and not manifest.reads:
        return context, None, None
    token, local = None, None
    if manifest.reads:
        token = stack.enter_context(_minted(context, config, scope))
        context = stack.enter_context(_masking(context, token))
        local = stack.enter_context(_data_api(context))
    rules = [parse_rule(host) for host in manifest.network]
    allow = context.settings.allow_private_hosts
    return context, Proxy(rules, allow, context.log.line, local, DATA_PREFIX), token


@contextmanager
def _minted(context: StepContext, config: "Config", scope: Scope) -> Iterator[str]:
    """A token that ends with the step, and by itself soon after the step's time."""
    data = PluginData(context.database, context.settings)
    token = data.mint(scope, min(timedelta(seconds=config.timeout) + TOKEN_MARGIN, timedelta(days=2)))
    try:
        yield token
    finally:
        data.revoke(token)


@contextmanager
def _masking(context: StepContext, token: str) -> Iterator[StepContext]:
    # Imported here: `attempts` imports the step types, of which this is one.
    from penstock.pipeline.attempts import MaskedLog
    from penstock.vault.masking import Masker

    masked = MaskedLog(context.log, Masker([token.encode()]))
    try:
        yield attrs.evolve(context, log=masked)
    finally:
        masked.close()


@contextmanager
def _data_api(context: StepContext) -> Iterator[Connect]:
    """The platform's, or one for this step where there is no platform."""
    if context.platform_up:
        yield lambda: _connect_to_api(context)
        return
    from penstock.api.plugin_data_alone import served_alone

    with served_alone(context.database, context.settings) as connect:
        yield connect


def _connect_to_api(context: StepContext) -> socket.socket:
    settings = context.settings
    made = socket.create_connection((settings.host, settings.ports["api"]), _CONNECT_LIMIT_S)
    if settings.tls_cert is None:
        return made
    # Our own server on this machine, known by its very certificate, which may be made out to another name.
    tls = ssl.create_default_context(cafile=str(settings.tls_cert))
    tls.check_hostname = False
    return tls.wrap_socket(made)


def _brought(config: "Config", context: StepContext, manifest: Manifest, ended: Ended, scope: Scope) -> Brought | None:
    """What it left. Of a plugin that failed anyway, what cannot be read is only told."""
    if not ended.has_results or ended.state == "cancelled":
        return None
    try:
        return bring_in(config, context, manifest, ended.wrote, scope)
    except StepFailure as error:
        if ended.state == "succeeded":
            raise
        context.log.line(str(error))
        return None


def _result(context: StepContext, ended: Ended, brought: Brought | None) -> StepResult:
    state, reason = ended.state, ended.reason
    values: dict[str, Any] = {}
    if brought is not None:
        verdict = brought.verdict
        if state == "succeeded" and verdict is not None and not verdict.passed:
            state, reason = "failed", verdict.summary
        values = {
            "outputs": brought.outputs,
            "scans": brought.scans,
            "bills": brought.bills,
            "artifacts": brought.artifacts,
            "verdict": verdict,
            "metrics": brought.metrics,
        }
        if brought.told:
            context.log.line(f"{brought.told} metrics and data taken")
    return StepResult(
        state=state,
        reason=reason,
        exit_code=ended.exit.code,
        cpu_s=ended.exit.cpu_s,
        memory_peak_bytes=ended.exit.memory_peak_bytes,
        **values,
    )
