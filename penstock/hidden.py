"""
What no sandbox shows: the places where people and programs keep credentials. One list for steps and for services.

A sandbox of bubblewrap shows the host read-only. Root inside of it can read what only root may, also without
its capabilities, because the files belong to it; so these places are covered with something empty.
"""

import os
import stat
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from penstock.settings import Settings

_OF_THE_USER = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".docker", ".kube", ".config", ".local/share/keyrings", ".password-store"),
    *(".mozilla", ".thunderbird", ".claude", ".oci", ".terraform.d", ".cargo/credentials", ".cargo/credentials.toml"),
    *(".gem/credentials", ".m2/settings.xml", ".m2/settings-security.xml", ".gradle/gradle.properties"),
    *(".composer/auth.json", ".nuget/NuGet", ".netrc", ".git-credentials", ".gitconfig", ".pypirc", ".npmrc"),
    *(".yarnrc", ".yarnrc.yml", ".pgpass", ".my.cnf", ".mylogin.cnf", ".vault-token", ".dockercfg", ".boto", ".s3cfg"),
    *(".curlrc", ".wgetrc", ".msmtprc", ".Xauthority", ".pip", ".bash_history", ".zsh_history", ".python_history"),
    *(".psql_history", ".mysql_history", ".node_repl_history", ".viminfo"),
)
_OF_THE_HOST = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh"),
    *("/etc/ssl/private", "/etc/krb5.keytab", "/etc/kubernetes", "/etc/rancher", "/etc/letsencrypt", "/etc/wireguard"),
    *(
        "/etc/NetworkManager/system-connections",
        "/etc/docker",
        "/var/spool/cron",
        "/var/lib/docker",
        "/var/lib/kubelet",
    ),
    *("/var/lib/containerd", "/var/lib/containers", "/var/lib/rancher", "/var/lib/cloud", "/var/lib/postgresql"),
    *("/var/lib/mysql", "/var/lib/redis", "/var/log", "/var/backups", "/var/mail", "/var/spool/mail"),
)
_LOOK_AGAIN_S = 60
_DEPTH = 3


def credential_places(user_home: Path) -> tuple[Path, ...]:
    """
    Those folders and files with credentials that exist, links followed; none lies in another.

    For root, also what other users may not read under /etc.
    """
    named = [*(f"{user_home}/{name}" for name in _OF_THE_USER), *_OF_THE_HOST]
    places = [Path(path).resolve() for path in named if _exists(path)]
    if os.geteuid() == 0:
        places += _closed_to_others("/etc", int(time.monotonic() // _LOOK_AGAIN_S))
    return outermost(places)


def secrets_of(settings: Settings) -> tuple[Path, ...]:
    """PENSTOCK_HOME and the key files that settings name outside of it, as far as they exist."""
    files = (settings.vault_key_file, settings.vault_token_file, settings.kubeconfig, settings.tls_key)
    return outermost(path.resolve() for path in (settings.home, *files) if path is not None and _exists(path))


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """`paths` in their order, without repetitions and without those that lie in another of them."""
    known = list(dict.fromkeys(paths))
    folders = tuple(f"{path}/" for path in known)
    return tuple(path for path in known if not str(path).startswith(folders))


def covering(paths: Iterable[Path]) -> list[str]:
    """bubblewrap's words for an empty folder or an empty file over each of `paths`."""
    words: list[str] = []
    for path in paths:
        words += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
    return words


@lru_cache(maxsize=4)
def _closed_to_others(folder: str, when: int) -> list[Path]:
    """Looked up again every minute: `when` is which one it is."""
    del when
    return list(_walk_closed(Path(folder).resolve(), _DEPTH))


def _walk_closed(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if _is_closed(entry, stat.S_IXOTH if is_folder else stat.S_IROTH):
            yield Path(entry.path)
        elif is_folder and depth > 1:
            yield from _walk_closed(Path(entry.path), depth - 1)


def _is_closed(entry: "os.DirEntry[str]", open_to_others: int) -> bool:
    try:
        return not entry.stat(follow_symlinks=False).st_mode & open_to_others
    except OSError:
        return False


def _exists(path: str | Path) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - sixty of them before each job: a Path for each costs more than the look
    except OSError:  # where this user may not look, a sandbox may not either
        return False
    return True
