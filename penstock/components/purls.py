"""Package URLs taken apart. Source: https://github.com/package-url/purl-spec"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from penstock.findings.packages import bare_purl

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*")


class Purl(NamedTuple):
    """The parts of a package URL, decoded; namespace and version are None where there are none."""

    ecosystem: str
    namespace: str | None
    name: str
    version: str | None


def parse_purl(text: str) -> Purl | None:
    """The parts of `pkg:type/namespace/name@version`; None for what is none."""
    scheme, colon, rest = bare_purl(text).partition(":")
    kind, slash, path = rest.lstrip("/").partition("/")
    if scheme.lower() != "pkg" or not (colon and slash) or not _TYPE.fullmatch(kind):
        return None
    path, version = _split_version(path)
    namespace, _, name = path.strip("/").rpartition("/")
    if not name:
        return None
    return Purl(kind.lower(), unquote(namespace) or None, unquote(name), unquote(version) or None)


def _split_version(path: str) -> tuple[str, str]:
    # An unencoded scope (`@angular/core`) begins with the mark that also stands before the version.
    at = path.rfind("@")
    return (path[:at], path[at + 1 :]) if at > 0 and "/" not in path[at:] else (path, "")
