"""
Where secrets lie: one Protocol, one file for each form, and the registry.

A secret belongs to a project, or to the whole platform (project `SHARED`). A project's own wins over the
platform's of the same name. Values are bytes, and are in no repr, message or log.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import attrs

from penstock.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from penstock.settings import Settings

SHARED = ""  # the project of what the whole platform shares
LARGEST_BYTES = 64 * 1024

_FILES = {"file": "file:FileVault", "hashicorp": "hashicorp:HashicorpVault"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
_PROJECT = re.compile(r"([a-z][a-z0-9_-]{0,62})?")


@attrs.frozen
class SecretInfo:
    """A secret without its value. project: `SHARED` for the platform's. updated_at: UTC."""

    project: str
    name: str
    updated_at: datetime


class Vault(Protocol):
    """
    What keeps secrets.

    All methods raise PlatformError when the vault is away, sealed or damaged, AccessError when it refuses, InputError
    for a name, project or value that cannot be, and SettingsError for settings that cannot be used.
    """

    def read(self, project: str, name: str) -> bytes:
        """
        The value: the project's own, else the platform's.

        Raises: NotFoundError when neither is there.
        """

    def names(self, project: str) -> tuple[SecretInfo, ...]:
        """What belongs to this very project (or to the platform), by name."""

    def write(self, project: str, name: str, value: bytes) -> None:
        """Keep the value, in place of an older one of this very project. At most 64 KiB, not empty."""

    def remove(self, project: str, name: str) -> None:
        """
        Forget the secret of this very project.

        Raises: NotFoundError when it is not there.
        """

    def check(self) -> str:
        """Really ask the vault. Returns: one line that says what answers; raises what is wrong."""


def open_vault(settings: "Settings") -> Vault:
    """
    The vault that the settings name; nothing is read or connected yet.

    Raises: SettingsError for a name that no vault has, or settings that it cannot use.
    """
    from penstock.errors import SettingsError

    if settings.vault not in _FILES:
        raise SettingsError(
            f'no vault is called "{settings.vault}"', where="PENSTOCK_VAULT", remedy=f"use {' or '.join(_FILES)}"
        )
    file, _, name = _FILES[settings.vault].partition(":")
    vault: Vault = getattr(import_module(f"penstock.vault.{file}"), name).of(settings)
    return vault


def granted(vault: Vault, project: str, names: Iterable[str]) -> dict[str, bytes]:
    """
    Name → value of each secret that a step names.

    Raises: NotFoundError for the first that is not there; whatever the vault raises.
    """
    return {name: vault.read(project, name) for name in names}


def check_place(project: str, name: str) -> None:
    """Raises: InputError for what is no name of a project (or `SHARED`) or of a secret."""
    if not _PROJECT.fullmatch(project):
        raise InputError(f'"{project[:80]}" is no name for a project', remedy="use small letters, digits, - and _")
    if not _NAME.fullmatch(name):
        raise InputError(
            f'"{name[:80]}" is no name for a secret', remedy="use a letter, then letters, digits, - and _, at most 128"
        )


def check_value(name: str, value: bytes) -> None:
    """Raises: InputError for an empty value, or one of more than 64 KiB."""
    if not value:
        raise InputError("the value is empty", where=f"secret {name}", remedy="give it on standard input")
    if len(value) > LARGEST_BYTES:
        raise InputError(
            f"the value has {len(value)} bytes, a secret at most {LARGEST_BYTES}",
            where=f"secret {name}",
            remedy="keep large files elsewhere and their key here",
        )


def absent(project: str, name: str) -> NotFoundError:
    """The error for a secret that is not there."""
    where, option = (f"project {project}", f" --project {project}") if project else ("the platform", "")
    return NotFoundError(f'{where} has no secret "{name}"', remedy=f"set it with `penstock secret set {name}{option}`")
