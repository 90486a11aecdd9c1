"""Several registries as one: the first that knows a plugin answers for it, and one that is away is told of."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import attrs

from penstock.errors import NotFoundError, PenstockError, PlatformError
from penstock.plugins.registries.wire import Detail, Entry, Found, Registry, Trouble

T = TypeVar("T")


@attrs.frozen
class CompositeRegistry:
    """
    See `Registry`. parts: in the order in which they are asked; the platform's own comes first.

    A plugin belongs to the first registry that knows its name: a stranger's newer version of a name that the platform
    has itself is never taken for it.
    """

    parts: Sequence[Registry]
    name: str = "all"

    def search(self, text: str = "", kind: str | None = None) -> Found:
        """Asks all at once."""
        with ThreadPoolExecutor(max_workers=max(1, min(8, len(self.parts)))) as pool:
            answers = list(pool.map(lambda part: _tried(part, text, kind), self.parts))
        owners: dict[str, Entry] = {}
        for found in answers:
            for entry in found.entries:
                owners.setdefault(entry.name, entry)
        troubles = tuple(trouble for found in answers for trouble in found.troubles)
        return Found(tuple(owners[name] for name in sorted(owners)), troubles)

    def versions(self, name: str) -> tuple[Entry, ...]:
        """See `Registry`."""
        return self._first(lambda part: part.versions(name), name)

    def get(self, name: str, version: str) -> Detail:
        """See `Registry`."""
        return self._owner(name).get(name, version)

    def fetch(self, entry: Entry, into: Path) -> None:
        """From the registry that told of it."""
        for part in self.parts:
            if part.name == entry.source:
                return part.fetch(entry, into)
        raise NotFoundError(f'there is no registry "{entry.source}"', where=str(entry))

    def _owner(self, name: str) -> Registry:
        return self._first(lambda part: (part.versions(name), part)[1], name)

    def _first(self, ask: Callable[[Registry], T], name: str) -> T:
        """
        The answer of the first that knows it.

        Raises: PlatformError when one before it is away, since the name may be its own; NotFoundError when all say no.
        """
        for part in self.parts:
            try:
                return ask(part)
            except NotFoundError:
                continue
            except PlatformError as error:
                raise PlatformError(
                    f"{error.what}, and {name} may be its own",
                    where=error.where or f"registry {part.name}",
                    remedy="try again later, or name another with --registry",
                ) from error
        raise NotFoundError(f'no registry knows a plugin "{name}"', remedy="see `penstock plugin search`")


def _tried(part: Registry, text: str, kind: str | None) -> Found:
    try:
        return part.search(text, kind)
    except PenstockError as error:
        return Found((), (Trouble(part.name, error.what),))
