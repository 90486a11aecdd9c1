"""What a job of the process engine sees: bubblewrap's words, and the part of the host's environment that it gets."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from penstock.engines import Job
from penstock.hidden import covering, credential_places, outermost
from penstock.pipeline.spec import WORKSPACE

# Nothing of the host's environment reaches a job but these.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE")
# With the network on, package managers need to know the host's proxies and certificates.
_PASSED_ON_WITH_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("PIP_CERT", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "GIT_SSL_CAINFO"),
)
_NETWORK_FILES = (".config/pip/pip.conf", ".pip/pip.conf")
# The sandbox has its own; what lies there on the host cannot be seen, so it need not be covered.
_NOT_SHOWN = ("/dev", "/proc", "/tmp", "/run", "/sys", "/workspace", "/lost+found")
_BELOW_NOT_SHOWN = tuple(f"{folder}/" for folder in _NOT_SHOWN)
RUNNER = Path(__file__).with_name("sidecars.py")
RUNNER_INSIDE = "/run/penstock/sidecars.py"
HOSTS = Path("/etc/hosts")


def host_env(environment: Mapping[str, str], *, network: bool) -> dict[str, str]:
    """The part of the host's environment that a job sees. Penstock's own tools come last on PATH."""
    names = (*_PASSED_ON, *_PASSED_ON_WITH_NETWORK) if network else _PASSED_ON
    env = {name: environment[name] for name in names if name in environment}
    own = str(Path(sys.executable).parent)
    path = [folder for folder in env.get("PATH", os.defpath).split(":") if folder and folder != own]
    return {**env, "PATH": ":".join([*path, own])}


@cache
def bubblewrap() -> str | None:
    """The bwrap command, if it is there and this kernel lets it work."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    probe = [found, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(probe, check=False, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None


def sandbox_arguments(
    job: Job, private: Path, user_home: Path, secret: Iterable[Path], files: Iterable[str] = ()
) -> list[str]:
    """
    bubblewrap's words for a job: what it sees, what it does not.

    secret: places of Penstock's own that it must not see. files: words for what it is handed in memory.
    """
    arguments = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    if job.network:
        arguments.append("--share-net")
    arguments += read_only_host()
    arguments += ["--dev", "/dev", "--proc", "/proc", "--bind", str(private), "/tmp", "--dir", "/tmp/home"]
    arguments += covering(hidden(secret, user_home))
    if job.network:
        for name in _NETWORK_FILES:
            arguments += ["--ro-bind-try", str(user_home / name), f"/tmp/home/{name}"]
    # Penstock's own environment may lie where the private /tmp is now.
    for folder in (Path(sys.prefix), *job.read_only):
        arguments += ["--ro-bind", str(folder), str(folder)]
    for mount in job.mounts:
        arguments += ["--bind" if mount.writable else "--ro-bind", str(mount.folder), mount.inside]
    arguments += files
    arguments += ["--bind" if job.workspace_writable else "--ro-bind", str(job.workspace), WORKSPACE]
    arguments += ["--remount-ro", "/"]
    return [*arguments, "--chdir", str(Path(WORKSPACE, job.work_dir))]


def read_only_host() -> list[str]:
    """The host's top-level folders, read-only, on a root that has room for more."""
    arguments: list[str] = []
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            arguments += ["--symlink", str(entry.readlink()), str(entry)]
        elif entry.is_dir() and str(entry) not in _NOT_SHOWN:
            arguments += ["--ro-bind", str(entry), str(entry)]
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.is_relative_to("/run"):
        arguments += ["--ro-bind-try", str(resolver), str(resolver)]
    return arguments


def hidden(secret: Iterable[Path], user_home: Path) -> tuple[Path, ...]:
    """What must be covered of what the host shows: `secret`, and where people and programs keep credentials."""
    places = outermost([*secret, *credential_places(user_home)])
    return tuple(path for path in places if not f"{path}/".startswith(_BELOW_NOT_SHOWN))


def hosts_file(job: Job) -> bytes | None:
    """What /etc/hosts says inside: the sidecars' names are this machine; None where there are none, or no such file."""
    if not job.services or not HOSTS.is_file():
        return None
    names = [sidecar.name for sidecar in job.services]
    lines = [f"127.0.0.1 localhost {' '.join(names)}", "::1 localhost"]
    if job.network:
        taken = re.compile(rf"(?<!\S)({'|'.join(map(re.escape, names))}|localhost)(?!\S)")
        lines += [line for line in HOSTS.read_text().splitlines() if not taken.search(line)]
    return "\n".join([*lines, ""]).encode()
