"""
Where git may go: no address that only this machine can reach, unless the platform's operator allows it.

A repository's address is a user's word, as a forge's is (`penstock.webhooks.addresses`). Git looks names up by
itself, so the addresses that were checked are pinned: for the web by `http.curloptResolve` (git 2.37 and later), for
SSH by `HostName`. Redirects are not followed: they would lead past the check. Where the operator's own proxy or SSH
configuration takes git somewhere, that decides.
"""

import ipaddress
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs

from penstock.errors import AccessError, InputError
from penstock.settings import Settings, is_loopback
from penstock.sources.login import Login, is_ssh
from penstock.webhooks.addresses import Allowed, Resolve, allowed_hosts, check_host

_WEB = {"https": 443, "http": 80}
_SSH_PORT = 22
_LOOK_UP_S = 10.0


@attrs.frozen
class Reach:
    """
    How far git may go. hosts: those that may be private, as `check_address` says. closed: a folder of this machine that
    no address may lead into, but for its `open` parts. resolve: host, port → addresses; the machine's own by default.
    """

    hosts: Allowed = ()
    closed: Path | None = None
    open: tuple[str, ...] = ("repositories",)
    resolve: Resolve | None = None


def reach_of(settings: Settings) -> Reach:
    """What the platform's settings allow; other projects' mirrors and results under PENSTOCK_HOME are nobody's."""
    return Reach(allowed_hosts(settings), settings.home)


@attrs.frozen
class _Target:
    """Where git would connect to. is_told: by the operator's SSH configuration, whose addresses are not the user's."""

    host: str
    port: int
    is_ssh: bool = False
    is_told: bool = False


def pinned(url: str, reach: Reach, login: Login | None, env: Mapping[str, str]) -> dict[str, str]:
    """
    `env`, the environment of a git command, with the addresses behind `url` held fast.

    Raises: AccessError for an address that must not be asked, InputError for what is none, PlatformError when the name
    cannot be looked up.
    """
    target = _target(url, login)
    if target is None:
        _check_path(url, reach)
        return dict(env)
    if target.is_told or (not target.is_ssh and _by_proxy(url, target.host)):
        return dict(env)
    found = check_host(target.host, target.port, reach.hosts, resolve=reach.resolve)
    return _ssh_pinned(target, found[0], env) if target.is_ssh else _web_pinned(target, found, env)


def _target(url: str, login: Login | None) -> _Target | None:
    """None for a path on this machine."""
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if "::" in url.partition("/")[0]:  # a helper of git's, which it refuses to call
        return None
    if is_ssh(url):
        return _ssh_target(url, login)
    if scheme in ("", "file"):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError("this is no address of a repository", where="url", remedy="write https://host/path") from error
    if scheme not in _WEB or not host:
        raise InputError("git does not go there", where=url[:200], remedy="give https://, ssh:// or a path")
    return _Target(host, port or _WEB[scheme])


def _ssh_target(url: str, login: Login | None) -> _Target:
    if "://" in url:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    else:
        host, port = url.partition(":")[0].rpartition("@")[2].strip("[]"), None
    if not host or host.startswith("-"):
        raise InputError("this is no address of a repository", where="url", remedy="write ssh://host/path")
    if login is not None:  # then the user's own configuration is not read
        return _Target(host, port or _SSH_PORT, is_ssh=True)
    return _as_configured(host, port)


def _as_configured(host: str, port: int | None) -> _Target:
    """Where SSH goes for a host by the configuration of whoever runs Penstock, who may have called it otherwise."""
    words = ["ssh", "-G", *(["-p", str(port)] if port else []), "--", host]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LOOK_UP_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return _Target(host, port or _SSH_PORT, is_ssh=True)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    elsewhere = {told.get("proxycommand", "none"), told.get("proxyjump", "none")} != {"none"}
    own = told.get("hostname", host).casefold() != host.casefold()
    number = told.get("port", "")
    return _Target(host, int(number) if number.isdecimal() else _SSH_PORT, is_ssh=True, is_told=elsewhere or own)


def _by_proxy(url: str, host: str) -> bool:
    """Whether git leaves it to a proxy of the operator's to look the name up; a number is no name."""
    if _is_number(host):
        return False
    proxies = getproxies()
    scheme = urlsplit(url).scheme.lower()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return is_loopback(host)
    return True


def _web_pinned(target: _Target, found: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    addresses = ",".join(f"[{one}]" if ":" in one else one for one in found)
    count = int(env.get("GIT_CONFIG_COUNT", "0"))
    entry = {
        f"GIT_CONFIG_KEY_{count}": "http.curloptResolve",
        f"GIT_CONFIG_VALUE_{count}": f"{target.host}:{target.port}:{addresses}",
    }
    return {**env, **entry, "GIT_CONFIG_COUNT": str(count + 1)}


def _ssh_pinned(target: _Target, address: str, env: Mapping[str, str]) -> dict[str, str]:
    """Its key stays known under the name, as SSH itself would write it."""
    command = env.get("GIT_SSH_COMMAND") or os.environ.get("GIT_SSH_COMMAND") or "ssh -oBatchMode=yes"
    alias = target.host if target.port == _SSH_PORT else f"[{target.host}]:{target.port}"
    options = shlex.join(("-o", f"HostName={address}", "-o", f"HostKeyAlias={alias}"))
    return {**env, "GIT_SSH_COMMAND": f"{command} {options}"}


def _check_path(url: str, reach: Reach) -> None:
    """Raises: AccessError for what Penstock keeps for others."""
    if reach.closed is None:
        return
    parts = urlsplit(url) if url.lower().startswith("file:") else None
    if parts and parts.netloc not in ("", "localhost"):
        raise InputError("a file:// address names a host", where="url", remedy="write file:///path")
    closed, path = reach.closed.resolve(), Path(unquote(parts.path) if parts else url).resolve()
    if path.is_relative_to(closed) and not any(path.is_relative_to(closed / name) for name in reach.open):
        raise AccessError("what Penstock itself keeps is no repository to connect", where=url[:200])
