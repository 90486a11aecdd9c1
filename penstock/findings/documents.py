"""Bytes to be read as SARIF: where they are, what encoding they have, and what is plainly something else."""

from __future__ import annotations

import codecs
import os
import re
import tempfile
from pathlib import Path
from typing import IO, Protocol

import msgspec

from penstock.errors import ReportError

STREAM_ABOVE_BYTES = 64 * 1024 * 1024
"""Files above this size are read piece by piece."""

_SCHEMA_VERSION = re.compile(r"sarif-(?:schema-)?(\d+\.\d+\.\d+)")
_COPY_BYTES = 1024 * 1024
_MARKS = (  # the longer marks first: UTF-32-LE begins with the mark of UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PRINTED = frozenset(b" \t\r\n\"'#/-<abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[{=@*_.$%(!")
_FOREIGN = (  # keys that tell which report this is, and what to run instead
    (("SchemaVersion", "Results"), "Trivy's own JSON", "run trivy with `--format sarif`"),
    (("results", "paths", "errors"), "Semgrep's own JSON", "run semgrep with `--sarif`"),
    (("matches", "descriptor"), "Grype's own JSON", "run grype with `-o sarif`"),
    (("results", "metrics", "generated_at"), "Bandit's own JSON", "run bandit with `-f sarif`"),
    (("check_type", "results"), "checkov's own JSON", "run checkov with `-o sarif`"),
    (("bomFormat",), "a CycloneDX SBOM", "ingest it as components, not as findings"),
    (("spdxVersion",), "an SPDX SBOM", "ingest it as components, not as findings"),
)


class Source(Protocol):
    """Bytes that can be read from anywhere in them."""

    size: int

    def read_at(self, start: int, size: int) -> bytes:
        """At most size bytes from start; b"" at the end."""
        ...


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_at(self, start: int, size: int) -> bytes:
        """At most size bytes from start."""
        return self.data[start : start + size]


class ViewSource:
    """A part of bytes in memory, not copied until it is read."""

    def __init__(self, view: memoryview) -> None:
        self._view, self.size = view, len(view)

    def read_at(self, start: int, size: int) -> bytes:
        """At most size bytes from start."""
        return bytes(self._view[start : start + size])


class FileSource:
    """An open file, read where asked; nothing of it is kept."""

    def __init__(self, file: IO[bytes], skip: int = 0) -> None:
        self._file, self._skip = file, skip
        self.size = os.fstat(file.fileno()).st_size - skip

    def read_at(self, start: int, size: int) -> bytes:
        """At most size bytes from start."""
        return os.pread(self._file.fileno(), size, start + self._skip)


def source_of_bytes(data: bytes, where: str) -> MemorySource:
    """
    UTF-8 bytes of a report, its mark removed and UTF-16 or UTF-32 rewritten.

    Raises: ReportError if it is empty, or no text.
    """
    encoding, skip = sniff(data[:64], where)
    if encoding == "utf-8":
        return MemorySource(data[skip:] if skip else data)
    return MemorySource(data[skip:].decode(encoding, "replace").encode())


def source_of_file(path: Path, where: str) -> Source:
    """
    A report's file: in memory up to STREAM_ABOVE_BYTES, left on disk above.

    Raises: ReportError if it cannot be opened, is empty, or is no text.
    """
    try:
        if path.stat().st_size <= STREAM_ABOVE_BYTES:
            return source_of_bytes(path.read_bytes(), where)
        file = path.open("rb")
    except OSError as error:
        raise _unopened(error, where) from error
    encoding, skip = sniff(os.pread(file.fileno(), 64, 0), where)
    return FileSource(file, skip) if encoding == "utf-8" else FileSource(_rewritten(file, encoding, skip))


def _unopened(error: OSError, where: str) -> ReportError:
    remedy = "check the path and its permissions"
    if isinstance(error, IsADirectoryError):
        remedy = "give the path of a SARIF file, not of a directory"
    return ReportError(f"cannot be opened: {error.strerror or error}", where=where, remedy=remedy)


def _rewritten(file: IO[bytes], encoding: str, skip: int) -> IO[bytes]:
    """A nameless copy in UTF-8, written piece by piece; it goes when it is closed."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the source that is returned keeps it open
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    file.seek(skip)
    while piece := file.read(_COPY_BYTES):
        copy.write(decoder.decode(piece).encode())
    copy.write(decoder.decode(b"", final=True).encode())
    copy.flush()
    file.close()
    return copy


def sniff(head: bytes, where: str) -> tuple[str, int]:
    """
    The encoding of a text by its first bytes, and the length of its byte order mark.

    Raises: ReportError if there is nothing, or if it is no text.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if not head.strip():
        raise ReportError("the file is empty", where=where, remedy="run the scanner again and look at its exit code")
    if b"\0" in head[:4]:  # JSON begins with ASCII, so the zeros tell the width and the order
        return _unmarked(head, where), 0
    if head.lstrip()[0] not in _PRINTED:
        raise _binary(where)
    return "utf-8", 0


def _unmarked(head: bytes, where: str) -> str:
    for zeros, encoding in (
        (b"\1\0\0\0", "utf-32-le"), (b"\0\0\0\1", "utf-32-be"), (b"\1\0\1\0", "utf-16-le"), (b"\0\1\0\1", "utf-16-be"),
    ):  # fmt: skip
        if bytes(1 if byte else 0 for byte in head[:4]) == zeros:
            return encoding
    raise _binary(where)


def _binary(where: str) -> ReportError:
    return ReportError("binary data, not SARIF", where=where, remedy="give the scanner's SARIF report, unpacked")


def foreign_report(keys: frozenset[str], where: str) -> ReportError:
    """The error for JSON that has no runs, naming what it seems to be."""
    for signature, name, remedy in _FOREIGN:
        if keys.issuperset(signature):
            return ReportError(f"this is {name}, not SARIF", where=where, remedy=remedy)
    remedy = "have the scanner write SARIF 2.1.0"
    return ReportError("JSON, but not SARIF: it has no `runs`", where=where, remedy=remedy)


def check_version(version: bytes | None, schema: bytes | None, where: str) -> None:
    """
    Let SARIF 2.1 and later 2.x pass, and documents that do not say.

    version, schema: raw JSON. Raises: ReportError for SARIF 1.0, 2.0 and their drafts.
    """
    said = _said(version) or (_SCHEMA_VERSION.search(_said(schema)) or ("",) * 2)[1]
    major, _, rest = said.partition(".")
    minor = rest.partition(".")[0]
    if not said or (major == "2" and minor.isdigit() and int(minor) >= 1):
        return
    remedy = "have the tool write 2.1.0, or convert the file with `sarif transform` of Microsoft's sarif-multitool"
    raise ReportError(f"SARIF {said[:40]} cannot be read, only 2.1.0", where=where, remedy=remedy)


def _said(raw: bytes | None) -> str:
    value = msgspec.json.decode(raw) if raw else None
    return "" if value is None else str(value).strip()
