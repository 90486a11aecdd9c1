"""A folder as the source of a commit, for matching."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.errors import InputError
from penstock.findings.matching import Source

_LINE_END = re.compile(r"\r\n|\n|\r")
_MAX_BYTES = 16 * 1024 * 1024


def folder_source(root: Path) -> Source:
    """
    The files below a folder. A path that leads out of it, by `..` or by a link, names no file: reports are
    written by others.

    Raises: InputError if there is no such folder.
    """
    if not root.is_dir():
        raise InputError("no such folder", where=str(root), remedy="give the checkout that the report is about")
    top = root.resolve()

    def lines(path: str) -> list[str] | None:
        try:
            file = (top / path).resolve()
            if not file.is_relative_to(top) or not file.is_file() or file.stat().st_size > _MAX_BYTES:
                return None
            return _LINE_END.split(file.read_bytes().decode("utf-8", "replace"))
        except (OSError, ValueError):
            return None

    return lines
