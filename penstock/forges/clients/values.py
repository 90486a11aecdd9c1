"""What is told to a forge, in Penstock's words, and what every client can do."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

import attrs

State: TypeAlias = Literal[
    "queued", "running", "succeeded", "failed", "cancelled", "timed_out", "skipped", "waiting", "infra_error"
]

# Markdown's definition of a link that nobody uses: it is in the text, and no forge shows it.
_MARKER = "[penstock]: # ({})"


@attrs.frozen
class Place:
    """
    One repository at a forge.

    url: where the forge's API begins, such as https://api.github.com. repository: the forge's full name for it.
    """

    forge: str
    url: str
    repository: str


@attrs.frozen
class Status:
    """
    How one run or step of a commit stands.

    context: what the forge calls it; the same for the next run of the same kind, so that it takes this one's place.
    line: at most 140 characters. external_id: the run, and the step if it is one.
    ref: full; pull_request: its number. source: its branch, None where that is in a fork.
    """

    commit: str
    context: str
    state: State
    line: str
    url: str
    external_id: str
    ref: str
    pull_request: int | None = None
    source: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@attrs.frozen
class Comment:
    """A text on a pull request, in Markdown. key: there is one comment with it, which is changed in place."""

    pull_request: int
    key: str
    text: str

    @property
    def marker(self) -> str:
        """The line by which it is known again; nobody sees it."""
        return _MARKER.format(self.key)

    @property
    def body(self) -> str:
        """Marker and text."""
        return f"{self.marker}\n\n{self.text}"


@attrs.frozen
class Asset:
    """A file of a release. tag: without refs/tags/. read: its bytes, piece by piece, from the beginning."""

    tag: str
    name: str
    size_bytes: int
    digest: str
    read: Callable[[], Iterator[bytes]]


@attrs.frozen
class Shown:
    """What the forge calls what it shows now; None where it has no name for it, or none is needed to change it."""

    id: str | None = None


class ForgeClient(Protocol):
    """
    One forge, one repository.

    All methods raise ForgeAway when it is worth trying again and ForgeRefused when it is not.
    """

    def show(self, status: Status, known: str | None, /) -> Shown:
        """Show a status. known: what `show` returned for the same run and context, if it did."""

    def comment(self, comment: Comment, known: str | None, /) -> Shown:
        """Write a comment, or change the one that is there. known: as for `show`."""

    def attach(self, asset: Asset, /) -> Shown:
        """Put a file to the release of a tag; one of the same name is there already: nothing is done."""

    def check(self) -> str:
        """Ask for the repository. Returns: one line on what answered."""

    def rest_until(self) -> datetime | None:
        """Until when the forge wants to be left alone, although it did what was asked."""

    def close(self) -> None:
        """Close the connections."""
