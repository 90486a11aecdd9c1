"""What goes into the room, and what comes out of it."""

from typing import Any

import msgspec


class Source(msgspec.Struct, frozen=True):
    """
    The rows of one table. files: Parquet, as pairs of a path and of the path of the file that says which of its rows
    are gone. tail: whether a Parquet file of what is not there yet came along.
    """

    files: tuple[tuple[str, str | None], ...] = ()
    tail: bool = False


class Bucket(msgspec.Struct, frozen=True):
    """How the files are reached that lie in S3."""

    extension: str
    secret: str


class Question(msgspec.Struct, frozen=True):
    """
    SQL over the rows of one project.

    is_own: it was written by Penstock, with `parameters`; what a plugin wrote is looked at first.
    """

    tenant: str
    project: str
    sources: dict[str, Source]
    sql: str
    views: tuple[str, ...]
    is_own: bool
    parameters: dict[str, Any]
    rows: int
    bytes: int
    time_s: float
    memory_bytes: int
    bucket: Bucket | None = None


class Answer(msgspec.Struct, frozen=True):
    """
    Rows as JSON takes them.

    is_cut: there were more, or they were too large. foreign: other tenants and projects that the query named.
    refused: why there are none ("input", "access", "timeout", "memory"), with words and remedy.
    """

    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    is_cut: bool = False
    foreign: tuple[str, ...] = ()
    refused: str | None = None
    what: str = ""
    remedy: str | None = None
