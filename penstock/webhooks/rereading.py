"""Deliveries that nobody signed: what they tell of is read again through the forge's API before it is trusted."""

from collections.abc import Callable

import attrs
import sqlalchemy as sa

from penstock.answers.connections import forge_access
from penstock.errors import AccessError
from penstock.forges import azure_devops
from penstock.forges.clients import ForgeRefused, Link
from penstock.forges.clients.azure_devops import AzureDevOps
from penstock.forges.event import Parsed
from penstock.vault import Vault

UNSIGNED = frozenset({azure_devops.NAME})
_REMEDY = "give one: penstock project edit NAME --token-file FILE; until then pushes are found by polling"

Reread = Callable[[str, bytes], tuple[Parsed, ...]]
"""Project, body → its events as the forge's API knows them. Raises: AccessError, EventError, PlatformError."""


@attrs.frozen
class Rereader:
    """Asks Azure DevOps with the project's token. vault: opened when it is needed."""

    database: sa.Engine
    vault: Callable[[], Vault]
    link: Link

    def __call__(self, project: str, body: bytes) -> tuple[Parsed, ...]:
        """
        The events of a delivery, as the forge knows them.

        Raises: AccessError when there is no token, or the forge knows nothing of what is told; EventError for a body
        that is no event; PlatformError when the forge or the vault is away.
        """
        resource = azure_devops.resource_of(body)
        if resource is None:
            return azure_devops.parse_all(body, {}, None)
        access = forge_access(self.database, self.vault(), project, azure_devops.NAME)
        if access is None:
            what = "the body is unsigned, and there is no token to read again what it tells"
            raise AccessError(what, where=azure_devops.NAME, remedy=_REMEDY)
        client = AzureDevOps(*access, self.link)
        try:
            return azure_devops.parse_reread(body, client.read_again(resource))
        except ForgeRefused as error:
            told = f"{resource.kind.replace('_', ' ')} {resource.number} cannot be read again: {error}"
            raise AccessError(told, where=azure_devops.NAME) from error
        finally:
            client.close()
