"""Secrets of a service: names in its release, values read from the vault each time an instance starts."""

from collections.abc import Mapping

from penstock.deploy.plan import Service
from penstock.settings import Settings


def secret_values(settings: Settings, service: Service, secret_env: Mapping[str, str]) -> dict[str, bytes]:
    """
    Variable → value, for variable → name of a secret.

    Raises: NotFoundError for a name that neither project nor platform has; whatever the vault raises.
    """
    if not secret_env:
        return {}
    # What opens vaults is slow to load, and most services have no secrets.
    from penstock.vault import granted, open_vault

    values = granted(open_vault(settings), service.project, secret_env.values())
    return {variable: values[name] for variable, name in secret_env.items()}
