"""
Grype: known vulnerabilities of packages, in a checkout or an image.

No Python package brings it: it is the command on PATH. It exits 0 with or without findings, 1 on an error (no
database, or one older than five days, among them). That it found no package at all is exit 0 and only to be seen in
its CycloneDX, which lists every package that it read and where.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

import attrs
import msgspec

from penstock.scanners import (
    VULNERABILITIES,
    DatabaseRequest,
    Looked,
    Refused,
    ScanRequest,
    ToolRun,
    Weakness,
    last_line,
    own_environment,
)
from penstock.scanners.manifests import LOCK_FILES

_PACKAGES = frozenset(("library", "application", "framework"))
_SCHEMES = {"docker-archive": "docker-archive", "oci-dir": "oci-dir", "registry": "registry"}


class _Property(msgspec.Struct, frozen=True):
    name: str = ""
    value: str = ""


class _Component(msgspec.Struct, frozen=True):
    type: str = ""
    properties: list[_Property] = []


class _Bill(msgspec.Struct, frozen=True):
    form: str = msgspec.field(name="bomFormat")
    components: list[_Component] = []


@attrs.frozen
class Grype:
    """Anchore's Grype."""

    name: str = "grype"
    read_only: tuple[Path, ...] = ()
    network: bool = False
    one_path: bool = True
    looks_for: tuple[Weakness, ...] = VULNERABILITIES
    reads: tuple[str, ...] = LOCK_FILES

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """From the report's folder, for a `.grype.yaml` of the repository's could send it elsewhere."""
        outputs = (f"--output=sarif={Path(request.sarif).name}", f"--output=cyclonedx-json={Path(request.detail).name}")
        command = [str(request.bin / "grype"), "--by-cve", *outputs, *_excluded(request)]
        start = f"cd {shlex.quote(request.output)} && exec {shlex.join(command)}"
        return ("/bin/sh", "-c", f"top=$PWD && {start} {_subject(request)}")

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """The database as it was fetched, never by itself; the login for a registry is on no command line."""
        found = {**own_environment(request), **_ENV, "GRYPE_DB_AUTO_UPDATE": "false", "NO_COLOR": "1"}
        if request.database is not None:
            found["GRYPE_DB_CACHE_DIR"] = str(request.database)
        if request.image and request.image.username is not None:
            found["GRYPE_REGISTRY_AUTH_AUTHORITY"] = request.image.place.partition("/")[0]
            found["GRYPE_REGISTRY_AUTH_USERNAME"] = request.image.username
            found["GRYPE_REGISTRY_AUTH_PASSWORD"] = request.image.password or ""
        return found

    def fetch(self, request: DatabaseRequest) -> tuple[str, ...]:
        """See `KeepsDatabase.fetch`."""
        command = shlex.join([str(request.bin / "grype"), "db", "update"])
        return ("/bin/sh", "-c", f'GRYPE_DB_CACHE_DIR="$PWD" exec {command}')

    def fetch_env(self, request: DatabaseRequest) -> Mapping[str, str]:
        """See `KeepsDatabase.fetch_env`."""
        mirror = {"GRYPE_DB_UPDATE_URL": request.mirror} if request.mirror else {}
        return {**_ENV, **mirror, "PATH": f"{request.bin}:/usr/bin:/bin", "NO_COLOR": "1"}

    def why_not(self, run: ToolRun) -> str:
        """See `KeepsDatabase.why_not`."""
        return last_line(run.output) or "it said nothing"

    def look(self, run: ToolRun) -> Looked | Refused:
        """See `Scanner.look`."""
        if run.code != 0 or run.detail is None or run.sarif is None:
            return Refused(f"grype exited with {run.code}: {last_line(run.output) or 'it said nothing'}")
        try:
            bill = msgspec.json.decode(run.detail, type=_Bill)
        except msgspec.DecodeError as error:
            return Refused(f"grype's list of packages cannot be read: {error}")
        packages = [one for one in bill.components if one.type in _PACKAGES]
        if not packages:
            reason = "grype found no package to look at; check what is scanned, or remove the step"
            return Refused(reason, fault="repository")
        read = {path for one in packages for path in _places(one)}
        return Looked(len(packages), tuple(sorted(set(run.manifests) - read)), unit="package", sbom=run.detail)


_ENV = {"GRYPE_CHECK_FOR_APP_UPDATE": "false", "SYFT_CHECK_FOR_APP_UPDATE": "false"}


def _subject(request: ScanRequest) -> str:
    """A word of shell: the engine decides where the workspace is, so the shell puts its path in front."""
    image = request.image
    if image is None:
        path = "" if request.paths[0] == "." else f"/{request.paths[0]}"
        scheme = "file" if (request.workspace / request.paths[0]).is_file() else "dir"
        return f'"{scheme}:$top"{shlex.quote(path)}'
    if image.form == "registry":
        return shlex.quote(f"registry:{image.place}")
    return f'"{_SCHEMES[image.form]}:$top"{shlex.quote("/" + image.place)}'


def _excluded(request: ScanRequest) -> list[str]:
    words = (word.strip("/") for word in (*request.exclude, request.output))
    return [] if request.image else [f"--exclude={glob}" for word in words for glob in (f"**/{word}", f"**/{word}/**")]


def _places(component: _Component) -> list[str]:
    return [
        one.value.lstrip("/")
        for one in component.properties
        if one.name.startswith("syft:location:") and one.name.endswith(":path")
    ]


SCANNER = Grype()
