"""Where a finding is: URIs of every making become paths relative to the repository."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from penstock.findings.model import Artifact, ArtifactLocation

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(pkg|urn|jar|empty|data|mailto):")
_DRIVE = re.compile(r"/?[A-Za-z]:/")
_BASE_IN_URI = re.compile(r"%[A-Za-z_]{2,}%/")
_MACHINE = re.compile(
    r"/(home|Users|root|usr|var|tmp|opt|etc|mnt|media|private|builds|bin|lib|lib64|sbin|srv|proc|sys|dev|run|"
    r"github|workspace|Volumes|codebuild|drone|woodpecker|nix|snap|azp|agent|jenkins|data|host)/"
)
_WORKSPACES = re.compile(  # where the usual CI servers check out
    r"(/github/workspace|/home/runner/work/[^/]+/[^/]+|/home/vsts/work/\d+/s|/builds/[^/]+/[^/]+"
    r"|/(home/jenkins|var/jenkins_home|var/lib/jenkins)(/agent)?/workspace/[^/]+|/drone/src"
    r"|/(root|home/circleci)/project|/opt/atlassian/pipelines/agent/build"
    r"|/codebuild/output/src\d+/src/[^/]+/[^/]+/[^/]+/[^/]+|/workspace(/source)?"
    r"|[A-Za-z]:/a/\d+/s|[A-Za-z]:/a/[^/]+/[^/]+)/"
)
_SIMPLE = re.compile(r"[A-Za-z0-9_]+(?:[./-][A-Za-z0-9_]+)*")
_MAX_BASES = 16


class _Base(NamedTuple):
    """A resolved base: an absolute directory ("" if none is known) and what leads from there."""

    absolute: str
    relative: str


_NO_BASE = _Base("", "")


class PathBook:
    """Repository paths by artifact location, for one run."""

    def __init__(
        self,
        *,
        bases: Mapping[str, ArtifactLocation | None],
        artifacts: Sequence[Artifact | None] = (),
        roots: Iterable[str] = (),
        hints: Iterable[ArtifactLocation | None] = (),
    ) -> None:
        """roots: where the repository was checked out. hints: places that the run names as such."""
        self._bases, self._artifacts = bases, artifacts
        self._resolved: dict[str, _Base] = {}
        self._roots = [_as_root(root) for root in roots]
        resolved = [self._base(name).absolute for name in bases]
        named = [_absolute(hint.uri) for hint in hints if hint is not None and hint.uri]
        guessed = [_as_root(place) for place in (*resolved, *named) if place]
        self._hints = sorted({place for place in guessed if len(place) > 1}, key=len, reverse=True)
        self.latest: dict[str | None, tuple[ArtifactLocation, str | None]] = {}
        self._paths: dict[ArtifactLocation, str | None] = {}

    def path(self, location: ArtifactLocation) -> str | None:
        """
        The path of a location, relative to the repository where that is known; None if it names no file.

        `latest` has it under its URI afterwards, with the location: to compare costs less than to hash.
        """
        if location not in self._paths:
            self._paths[location] = self._resolve(location)
        self.latest[location.uri] = location, self._paths[location]
        return self._paths[location]

    def _resolve(self, location: ArtifactLocation) -> str | None:
        uri, base = (location.uri or "").strip(), location.uri_base_id
        index = location.index if location.index is not None else -1
        if not uri and 0 <= index < len(self._artifacts):
            artifact = self._artifacts[index]
            found = artifact.location if artifact is not None else None
            uri, base = (found.uri or "").strip() if found else "", found.uri_base_id if found else None
        return self._repository_path(uri, base) if uri else None

    def _repository_path(self, uri: str, base_name: str | None) -> str | None:
        if _SIMPLE.fullmatch(uri):  # most are: a shortcut, not another rule
            base = self._base(base_name) if base_name is not None else _NO_BASE
            if not base.relative and not (base.absolute and self._roots):
                return uri
        absolute = _absolute(uri)
        if absolute is not None:
            return self._relative(absolute) or None
        scheme = _SCHEME.match(uri)
        if scheme and scheme[0].lower() != "file://":
            return uri
        text = _BASE_IN_URI.sub("", _plain(uri), count=1) if uri.startswith("%") else _plain(uri)
        if base_name is None:
            return self._unbased(text)
        base = self._base(base_name)
        inner = _tidy(posixpath.join(base.relative, text.lstrip("/")))
        if base.absolute and (found := _below(f"{base.absolute}/{inner}", self._roots)) is not None:
            return found
        return inner or None

    def _unbased(self, text: str) -> str | None:
        """
        A path without a base. checkov and others write repository paths with a slash before them.
        """
        if text.startswith("/") and _MACHINE.match(text):
            return self._relative(_tidy(text))
        if (found := _below(_tidy(text), self._roots)) is not None:
            return found
        return _tidy(text.lstrip("/")) or None

    def _relative(self, absolute: str) -> str:
        for roots in (self._roots, self._hints):
            if (found := _below(absolute, roots)) is not None:
                return found
        workspace = _WORKSPACES.match(absolute)
        return absolute[workspace.end() :] if workspace else absolute

    def _base(self, name: str) -> _Base:
        if name not in self._resolved:
            self._resolved[name] = self._follow(name, 0)
        return self._resolved[name]

    def _follow(self, name: str, depth: int) -> _Base:
        entry = self._bases.get(name) or self._bases.get(name.strip("%")) or self._bases.get(f"%{name}%")
        if entry is None or depth > _MAX_BASES:
            return _NO_BASE
        uri = (entry.uri or "").strip()
        absolute = _absolute(uri)
        if absolute is not None:
            return _Base(absolute.rstrip("/"), "")
        if _SCHEME.match(uri):
            return _NO_BASE
        parent = self._follow(entry.uri_base_id, depth + 1) if entry.uri_base_id else _NO_BASE
        return _Base(parent.absolute, posixpath.join(parent.relative, _plain(uri).lstrip("/")))


def _plain(uri: str) -> str:
    return unquote(uri.replace("\\", "/"), errors="replace").replace("\0", "")


def _absolute(uri: str) -> str | None:
    """The path of a `file:` URI or of a path with a drive, tidied; None for all else."""
    text = uri.replace("\\", "/")
    if text[:5].lower() == "file:":
        rest = unquote(text[5:], errors="replace").replace("\0", "")
        if rest.startswith("//"):
            host, slash, path = rest[2:].partition("/")
            local = host == "" or host.lower() == "localhost"
            rest = (slash + path) if local else rest[2:]  # file://dir/name: a host that is none
        return _tidy(rest[1:] if _DRIVE.match(rest) and rest[0] == "/" else rest)
    return _tidy(unquote(text, errors="replace")) if _DRIVE.match(text) and text[0] != "/" else None


def _tidy(path: str) -> str:
    """Without `.`, empty and resolvable `..` segments; a path above the root begins with `..`."""
    if not path:
        return ""
    tidied = posixpath.normpath(path)
    return "/" + tidied.lstrip("/") if path.startswith("/") else tidied


def _as_root(root: str) -> str:
    return (_absolute(root) or root.replace("\\", "/")).rstrip("/")


def _below(path: str, roots: Sequence[str]) -> str | None:
    """The path from the first root that it lies in."""
    for root in roots:
        windows = root[1:2] == ":"
        start = path[: len(root)]
        if (start.lower() == root.lower() if windows else start == root) and path[len(root) : len(root) + 1] == "/":
            return path[len(root) + 1 :]
    return None
