"""
Who Penstock is to a git server: user and password (or token) over https, or a key over SSH.

Git gets them through a file in memory that only this process holds open: they are in no argument, address,
configuration, mirror or file on a disk, and are gone with the command.
"""

import base64
import binascii
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from penstock.errors import InputError, PlatformError
from penstock.settings import is_loopback

_KEY = re.compile(rb"\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_OF_KEY = b"-----END"
# What forges want as user beside a token; all others take any.
_USERS = {"gitlab": "oauth2", "github": "x-access-token", "bitbucket-cloud": "x-token-auth"}
_ANY_USER = "penstock"


@attrs.frozen
class Login:
    """
    Either user and password, or a private key.

    known_hosts: where the keys of SSH servers are kept; one that has changed since is refused.
    """

    user: str = ""
    password: str = attrs.field(default="", repr=False)
    key: bytes = attrs.field(default=b"", repr=False)
    known_hosts: Path | None = None


def login_of(secret: bytes, *, forge: str | None = None, known_hosts: Path | None = None) -> Login:
    """
    The login that a secret is: a private key in PEM or OpenSSH's form, `user:password`, or a token alone.

    forge: decides the user that goes with a token alone.
    Raises: InputError, which repeats nothing of it.
    """
    if _KEY.match(secret):
        return Login(key=_checked_key(secret), known_hosts=known_hosts)
    try:
        text = secret.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _no_login("it is no text") from error
    if not text or any(not char.isprintable() for char in text):
        raise _no_login("it holds control characters" if text else "it is empty")
    user, colon, password = text.partition(":")
    if not colon:
        return Login(_USERS.get(forge or "", _ANY_USER), text)
    if not user or not password:
        raise _no_login("user or password is missing")
    return Login(user, password)


def _checked_key(secret: bytes) -> bytes:
    key = secret.strip().replace(b"\r\n", b"\n") + b"\n"
    if _OF_KEY not in key:
        raise _no_login("the key has no end")
    if b"ENCRYPTED" in key or _is_encrypted(key):
        raise _no_login("the key has a passphrase")
    return key


def _is_encrypted(key: bytes) -> bool:
    """OpenSSH's own form names the cipher after a magic word and a length."""
    if b"BEGIN OPENSSH" not in key:
        return False
    body = b"".join(line for line in key.splitlines() if b"-----" not in line)
    try:
        return not base64.b64decode(body, validate=True).startswith(b"openssh-key-v1\0\0\0\0\x04none")
    except binascii.Error as error:
        raise _no_login("the key is damaged") from error


def _no_login(what: str) -> InputError:
    remedy = "give user:token, a token, or a private key without a passphrase"
    return InputError(f"this is no login for git: {what}", remedy=remedy)


def is_ssh(url: str) -> bool:
    """Whether git goes there by SSH: `ssh://…` or `git@host:path`."""
    scheme, there, _ = url.partition("://")
    if there:
        return scheme.lower() in ("ssh", "git+ssh", "ssh+git")
    head, colon, _ = url.partition(":")
    return bool(colon) and "/" not in head


def check_login(login: Login, url: str) -> None:
    """Raises: InputError when the login cannot be used at that address."""
    if login.key:
        if not is_ssh(url):
            raise InputError("an SSH key opens only ssh:// addresses", where=url, remedy="give user:token")
        return
    parts = urlsplit(url) if "://" in url else None
    if parts is None or parts.scheme.lower() not in ("https", "http"):
        raise InputError("user and password open only https:// addresses", where=url, remedy="give an SSH key")
    if parts.scheme.lower() == "http" and not is_loopback(parts.hostname or ""):
        raise InputError("a password must not travel over http", where=url, remedy="use https://")


@contextmanager
def given_to_git(login: Login | None, url: str) -> Iterator[Mapping[str, str]]:
    """
    Environment variables that let git log in at `url`'s host, and at no other, for as long as the block runs.

    Raises: InputError when the login cannot be used there.
    """
    if login is None:
        yield {}
        return
    check_login(login, url)
    with _in_memory(login.key or _spoken(login)) as path:
        yield _ssh(login, path) if login.key else _helper(url, path)


def _spoken(login: Login) -> bytes:
    """In git's credential protocol."""
    return f"username={login.user}\npassword={login.password}\n".encode()


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that is on no disk, and that only this user's processes can open."""
    if not hasattr(os, "memfd_create"):
        raise PlatformError("logins for git need Linux", remedy="run Penstock on Linux, or use an address without one")
    handle = os.memfd_create("login")
    try:
        os.fchmod(handle, 0o600)
        os.write(handle, content)
        # Not through an inherited descriptor: ssh closes those that it does not know.
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _helper(url: str, path: str) -> Mapping[str, str]:
    parts = urlsplit(url)
    place = f"{parts.scheme.lower()}://{parts.netloc.lower()}"
    # The empty one first: the machine's own helpers neither answer nor keep what is ours.
    settings = (
        ("credential.helper", ""),
        (f"credential.{place}.helper", f"!cat {shlex.quote(path)} #"),
        ("credential.useHttpPath", "false"),
    )
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _ssh(login: Login, path: str) -> Mapping[str, str]:
    known = login.known_hosts or Path.home() / ".ssh" / "known_hosts"
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": path,
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": f'"{known}"',
        "ConnectTimeout": "20",
        "ClearAllForwardings": "yes",
    }
    words = ["ssh", "-F", "/dev/null", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    return {"GIT_SSH_COMMAND": shlex.join(words), "GIT_SSH_VARIANT": "ssh"}
