"""How a step logs in to a registry: by name and password, or by the token call of a cloud."""

from collections.abc import Callable
from typing import Literal, Self

import attrs
from pydantic import Field, model_validator

from penstock.pipeline.spec import Model, SecretName

Auth = Literal["basic", "ecr", "gcr", "acr"]

_NEEDED: dict[Auth, tuple[str, ...]] = {
    "basic": ("username", "password_secret"),
    "ecr": ("username", "password_secret"),
    "gcr": ("password_secret",),
    "acr": ("username", "password_secret", "tenant"),
}


class Login(Model):
    """Who logs in to a registry. Passwords are named secrets of the vault, never written here."""

    auth: Auth = Field(
        "basic",
        description="basic: name and password. ecr: an AWS access key. gcr: a Google service account's key, for "
        "Artifact Registry too. acr: an Azure service principal.",
    )
    username: str | None = Field(
        None, max_length=256, description="The user; the id of the access key for ecr, of the application for acr."
    )
    password_secret: SecretName | None = Field(
        None, description="The secret with the password, the secret access key, or the key file's JSON for gcr."
    )
    session_token_secret: SecretName | None = Field(
        None, description="The secret with the session token, for a temporary access key of ecr."
    )
    tenant: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]{1,128}$", description="The directory's id, for acr.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name in ("username", "password_secret", "tenant") if getattr(self, name) is not None}
        if not given and self.auth == "basic":
            return self
        if missing := [name for name in _NEEDED[self.auth] if name not in given]:
            raise ValueError(f"a login by {self.auth} needs {' and '.join(missing)} too")
        return self

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The secrets that it needs."""
        return tuple(name for name in (self.password_secret, self.session_token_secret) if name)


@attrs.frozen
class Account:
    """A login with its secrets looked up."""

    auth: Auth
    username: str
    password: str = attrs.field(repr=False)
    session_token: str | None = attrs.field(default=None, repr=False)
    tenant: str = ""


@attrs.frozen
class Credentials:
    """What a registry, or the engine that talks to it, is given."""

    username: str
    password: str = attrs.field(repr=False)


def account_of(login: Login, secret: Callable[[str], str]) -> Account | None:
    """
    The login with its secrets; None when there is none.

    secret: name → value; what it raises is raised. A value's surrounding white space is not part of it.
    """
    if login.password_secret is None:
        return None
    token = secret(login.session_token_secret).strip() if login.session_token_secret else None
    password = secret(login.password_secret).strip()
    return Account(login.auth, login.username or "", password, token, login.tenant or "")
