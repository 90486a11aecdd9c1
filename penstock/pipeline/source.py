"""What a file says of one step, and the places in files where it says so."""

from collections.abc import Sequence
from typing import Any

import attrs

from penstock.pipeline.document import Document

Place = tuple[Document, tuple[str | int, ...]]


@attrs.frozen
class Source:
    """
    Values as written, templates' and matrix' values put in.

    places: where they stand; the first place that has a field is the one that counts.
    """

    values: dict[str, Any]
    places: tuple[Place, ...]

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line: steps.name.field` of a field."""
        for document, base in self.places:
            if document.has((*base, *path[:1])):
                return document.where((*base, *path))
        document, base = self.places[0]
        return document.where((*base, *path))

    def line(self, path: Sequence[str | int]) -> int:
        """The line of a field, from 1."""
        document, base = self.places[0]
        return document.line((*base, *path))
