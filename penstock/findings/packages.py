"""
Which package a finding is about, as a purl, from what the common scanners write into SARIF.

No scanner fills a field of SARIF with a package, for there is none. Each has its own place: properties
(`purl`, Grype's and Docker Scout's `purls`), logical locations (Snyk, Dependency-Track, dependency-check),
the message (Trivy, Grype, osv-scanner, JFrog), the rule's help (Grype).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from penstock.findings.model import Bag, Descriptor, Result

ADVISORY = re.compile(
    r"(CVE-\d{4}-\d+|CVE-\d{4}-X+|GHSA(-[0-9a-zX]{4}){1,3}|SNYK-[A-Z0-9-]+-\d+|RUSTSEC-\d{4}-\d+|PYSEC-\d{4}-\d+"
    r"|GO-\d{4}-\d+|OSV-\d{4}-\d+|MAL-\d{4}-\d+|DSA-\d+|DLA-\d+|USN-\d+|RHSA-\d+|ALAS\w*-\d+|ELSA-\d+|TEMP-\d+"
    r"|XRAY-\d+|BDSA-\d{4}-\d+|sonatype-\d{4}-\d+|PVE-\d{4}-\d+|NSWG-ECO-\d+|GMS-\d{4}-\d+)"
)
_PURL = re.compile(r"pkg:[a-z][a-z0-9.+-]*/[^\s\"'`<>,;)\]]+")
_TRIVY = re.compile(r"Package: (?P<name>\S+)\s+Installed Version: (?P<version>\S*)")
_TRIVY_FIX = re.compile(r"Fixed Version:[ \t]*(\S[^\n]*)")
_GRYPE = re.compile(r"in (?P<type>[\w-]+) package: (?P<name>\S+), version (?P<version>\S+) was found")
_GRYPE_OLD = re.compile(
    r"reports (?P<name>\S+) at version (?P<version>\S*)\s+which would result in a vulnerable "
    r"\((?P<type>[\w-]+)\) package"
)
_OSV = re.compile(r"Package '(?P<name>[^'\s]+)@(?P<version>[^'@\s]+)' is vulnerable to")
_JFROG = re.compile(r"^\[[\w, .-]+\] (?P<name>\S+) (?P<version>\d\S*)$")
_NAME_VERSION = re.compile(r"(?P<name>@?[^@\s]+)@(?P<version>[^@\s/]+)$")
_SAFETY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+) (?P<version>\d[^\s:]*): ")
_PIP_AUDIT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)[ =]{1,2}(?P<version>\d\S*) (?:is vulnerable|has known vuln)")
_SPEECH = (  # a word without which the pattern cannot match, and the pattern
    ("Installed Version:", _TRIVY),
    (" was found", _GRYPE),
    (" which would result in ", _GRYPE_OLD),
    ("Package '", _OSV),
    ("] ", _JFROG),
    (": ", _SAFETY),
    ("vulnerable", _PIP_AUDIT),
    ("known vuln", _PIP_AUDIT),
)
_SAID = 4096
_REMEMBERED = 16_384
_HELP_FIX = re.compile(r"^Fix(?:ed)? Version: *(\S[^\n]*)$", re.MULTILINE)
_IMAGE_OS = re.compile(
    r"\((alpine|debian|ubuntu|redhat|centos|rocky|alma|fedora|amazon|oracle|suse|wolfi|chainguard)\b"
)

_TYPES = {
    "deb": "deb", "dpkg": "deb", "rpm": "rpm", "apk": "apk", "npm": "npm", "yarn": "npm", "pnpm": "npm",
    "python": "pypi", "python-pkg": "pypi", "pip": "pypi", "pipenv": "pypi", "poetry": "pypi", "pypi": "pypi",
    "java-archive": "maven", "maven": "maven", "gradle": "maven", "jar": "maven", "sbt": "maven",
    "go-module": "golang", "gomod": "golang", "gomodules": "golang", "golang": "golang", "go": "golang",
    "rust-crate": "cargo", "cargo": "cargo", "gem": "gem", "rubygems": "gem", "bundler": "gem",
    "dotnet": "nuget", "nuget": "nuget", "php-composer": "composer", "composer": "composer",
    "conan": "conan", "hex": "hex", "pub": "pub", "dart-pub": "pub", "swift": "swift", "cocoapods": "cocoapods",
    "alpine": "apk", "debian": "deb", "ubuntu": "deb", "redhat": "rpm", "centos": "rpm", "rocky": "rpm", "alma": "rpm",
    "fedora": "rpm", "amazon": "rpm", "oracle": "rpm", "suse": "rpm", "wolfi": "apk", "chainguard": "apk",
    "js": "npm", "linux": "deb", "java": "maven", "ruby": "gem", "php": "composer", "github-action": "github",
}  # fmt: skip
_FILES = (
    (re.compile(r"(package(-lock)?\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?)$"), "npm"),
    (
        re.compile(
            r"(requirements[\w.-]*\.(txt|in)|poetry\.lock|Pipfile(\.lock)?|uv\.lock|pdm\.lock|setup\.py"
            r"|pyproject\.toml|METADATA|PKG-INFO|\.whl|\.egg)$"
        ),
        "pypi",
    ),
    (re.compile(r"(go\.mod|go\.sum)$"), "golang"),
    (re.compile(r"Cargo\.(lock|toml)$"), "cargo"),
    (re.compile(r"(Gemfile(\.lock)?|\.gemspec)$"), "gem"),
    (re.compile(r"(pom\.xml|build\.gradle(\.kts)?|gradle\.lockfile|\.jar|\.war|\.ear|build\.sbt)$"), "maven"),
    (re.compile(r"(composer\.(lock|json)|installed\.json)$"), "composer"),
    (re.compile(r"(packages\.lock\.json|packages\.config|\.csproj|\.deps\.json|\.nupkg)$"), "nuget"),
    (re.compile(r"(mix\.lock)$"), "hex"),
    (re.compile(r"(pubspec\.lock)$"), "pub"),
    (re.compile(r"(lib/apk/db/installed)$"), "apk"),
    (re.compile(r"(var/lib/dpkg/)"), "deb"),
    (re.compile(r"(var/lib/rpm/|rpmdb)"), "rpm"),
)  # fmt: skip
_VERSIONS = (  # how the systems mark their builds
    (re.compile(r"-r\d+$"), "apk"),
    (re.compile(r"deb\d|ubuntu|\+b\d|-\d+build\d"), "deb"),
    (re.compile(r"\.(el|fc|amzn|oe|mga|cm|azl)\d"), "rpm"),
)
_NO_FIX = frozenset(("", "none", "null", "n/a", "no fix available", "not fixed", "-", "[]"))


class Package(NamedTuple):
    """A package by its purl, and the version that mends it."""

    purl: str
    fixed_version: str | None


def is_advisory(rule_id: str, rule: Descriptor | None) -> bool:
    """Whether a rule is a known vulnerability of a package."""
    if ADVISORY.search(rule_id):
        return True
    bag = rule.properties if rule is not None else None
    if bag is None:
        return False
    return bool(bag.purls or bag.purl) or (isinstance(bag.tags, list) and "vulnerability" in bag.tags)


def package_of(result: Result, rule: Descriptor | None, message: str, path: str | None) -> Package | None:
    """The package of a result, by the first place that names one."""
    bag, rule_bag = result.properties, rule.properties if rule is not None else None
    said = _named(message[:_SAID])
    purl = (
        (_stated(bag) if bag is not None else None)
        or _located(result, rule_bag)
        or (_stated(rule_bag) if rule_bag is not None else None)
        or (_described(bag, path) if bag is not None else None)
        or _spoken(said, result, rule, path)
        or (path if path and path.startswith("pkg:") else None)
    )
    return None if purl is None else Package(purl, _fixed(bag, rule_bag, rule, said))


def _stated(bag: Bag) -> str | None:
    for value in (bag.purl, bag.package_url, bag.package_url_2, bag.purls, bag.package):
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first.startswith("pkg:"):
            return first.strip()
    return None


def _located(result: Result, rule_bag: Bag | None) -> str | None:
    for location in result.locations or ():
        for logical in location.logical_locations or ():
            name = logical.fully_qualified_name or logical.name or ""
            if name.startswith("pkg:"):
                return name
            tags = rule_bag.tags if rule_bag is not None and isinstance(rule_bag.tags, list) else ()
            kind = next((_TYPES[tag] for tag in tags if isinstance(tag, str) and tag in _TYPES), None)
            if kind and (found := _NAME_VERSION.match(name)):  # Snyk: bzip2@1.0.6, with the type among the tags
                return purl_of(kind, found["name"], found["version"])
    return None


def _described(bag: Bag, path: str | None) -> str | None:
    """Black Duck: component, componentVersion, componentOrigin; safety: package, version."""
    name, version = bag.component or bag.package, bag.component_version or bag.version
    if not isinstance(name, str) or not isinstance(version, str) or not name.strip():
        return None
    origin = bag.component_origin if isinstance(bag.component_origin, str) else ""
    default = "pypi" if bag.component is None and path is None else "generic"
    return purl_of(_TYPES.get(origin.lower()) or type_of_path(path) or default, name, version)


def _spoken(spoken: _Spoken | None, result: Result, rule: Descriptor | None, path: str | None) -> str | None:
    if spoken is None:
        return _in_rule(rule)
    if spoken.name.startswith("pkg:"):
        return spoken.name
    return purl_of(spoken.kind or _type_around(result, path, spoken.version), spoken.name, spoken.version)


class _Spoken(NamedTuple):
    """What a message says: a type if it does, a name (or a purl), a version, and the version that mends it."""

    kind: str | None
    name: str
    version: str
    fixed_version: str | None


@lru_cache(maxsize=_REMEMBERED)
def _named(said: str) -> _Spoken | None:
    """
    What the beginning of a message says of a package. Remembered: an advisory is told once per place.
    """
    fix = _TRIVY_FIX.search(said) if "Fixed Version:" in said else None
    fixed = fix[1].strip() if fix is not None else None
    for mark, pattern in _SPEECH:
        if mark in said and (found := pattern.search(said)):
            parts = found.groupdict()
            return _Spoken(_TYPES.get(parts.get("type") or ""), parts["name"], parts["version"], fixed)
    purl = _PURL.search(said) if "pkg:" in said else None
    return _Spoken(None, purl[0], "", fixed) if purl is not None else None


def _type_around(result: Result, path: str | None, version: str) -> str:
    first = result.locations[0] if result.locations else None
    said = first.message.text if first is not None and first.message is not None else None
    if said and "(" in said and (image := _IMAGE_OS.search(said)):
        return _TYPES[image[1]]
    named = type_of_path(path) or type_of_path((said or "").partition(": ")[0])
    return named or next((kind for pattern, kind in _VERSIONS if pattern.search(version)), "generic")


def _in_rule(rule: Descriptor | None) -> str | None:
    """dependency-check puts the purl into the rule's short description."""
    for text in (rule.short_description, rule.full_description) if rule is not None else ():
        if text is not None and text.text and (found := _PURL.search(text.text)):
            return found[0].rstrip(".")
    return None


def _fixed(bag: Bag | None, rule_bag: Bag | None, rule: Descriptor | None, spoken: _Spoken | None) -> str | None:
    for one in (bag, rule_bag):
        for value in (one.fixed_version, one.fixed_version_2) if one is not None else ():
            if isinstance(value, str) and value.strip().lower() not in _NO_FIX:
                return value.strip().strip("[]")
    if spoken is not None and spoken.fixed_version is not None:
        return spoken.fixed_version if spoken.fixed_version.lower() not in _NO_FIX else None
    found = None
    if rule is not None and rule.help is not None and rule.help.text and "Fix" in rule.help.text:
        found = _HELP_FIX.search(rule.help.text)
    return found[1].strip() if found and found[1].strip().lower() not in _NO_FIX else None


@lru_cache(maxsize=_REMEMBERED)
def type_of_path(path: str | None) -> str | None:
    """The purl type that a lock file, manifest or archive stands for."""
    for pattern, kind in _FILES if path else ():
        if pattern.search(path or ""):
            return kind
    return None


@lru_cache(maxsize=_REMEMBERED)
def purl_of(kind: str, name: str, version: str | None) -> str:
    """A package URL. name: with its namespace, divided as its ecosystem writes it (`:` or `/`)."""
    parts = name.replace(":", "/").strip("/").split("/") if kind in {"maven", "golang", "npm", "composer"} else [name]
    text = "/".join(quote(part, safe="._-+~") for part in parts)
    text = text.lower().replace("_", "-") if kind == "pypi" else text
    return f"pkg:{kind}/{text}" + (f"@{quote(version, safe='._-+~:')}" if version else "")


def bare_purl(purl: str) -> str:
    """A purl without qualifiers and subpath: the part that an image's tag or architecture does not touch."""
    return purl.partition("#")[0].partition("?")[0]


def unversioned_purl(purl: str) -> str:
    """A purl without its version, too."""
    bare = bare_purl(purl)
    head, at, _ = bare.rpartition("@")
    return head if at and "/" not in bare[len(head) :] else bare
