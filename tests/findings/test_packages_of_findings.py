"""Which package a finding is about: by each scanner's own way of saying it."""

from __future__ import annotations

import pytest
from sarif_made import read_one, result

from penstock.findings.packages import bare_purl, purl_of, unversioned_purl

GRYPE_HELP = "Vulnerability CVE-2024-1\nSeverity: high\nPackage: openssl\nVersion: 3.0.1\nFix Version: 3.0.2\nType: deb"


@pytest.mark.parametrize(
    ("message", "path", "package", "fixed"),
    [
        (
            "Package: ajv\nInstalled Version: 6.12.6\nVulnerability CVE-2025-1\nSeverity: MEDIUM\n"
            "Fixed Version: 8.18.0, 6.14.0\nLink: [x](y)",
            "package-lock.json", "pkg:npm/ajv@6.12.6", "8.18.0, 6.14.0",
        ),
        (
            "Package: libcrypto1.1\nInstalled Version: 1.1.1c-r0\nVulnerability CVE-2019-1549\nSeverity: LOW\n"
            "Fixed Version: \nLink: [x](y)",
            "library/alpine", "pkg:apk/libcrypto1.1@1.1.1c-r0", None,
        ),
        (
            "Package: @babel/traverse\nInstalled Version: 7.0.0\nVulnerability CVE-2023-45133\nSeverity: HIGH",
            "web/yarn.lock", "pkg:npm/%40babel/traverse@7.0.0", None,
        ),
        (
            "Package: org.apache.logging.log4j:log4j-core\nInstalled Version: 2.14.1\nVulnerability CVE-2021-44228",
            "app.jar", "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", None,
        ),
        (
            "A high vulnerability in deb package: openssl, version 3.0.1 was found in image web at: /var/lib",
            "web/var/lib/dpkg/status", "pkg:deb/openssl@3.0.1", None,
        ),
        (
            "The path lib/a.jar reports a at version 1.0  which would result in a vulnerable (java-archive) package",
            "lib/a.jar", "pkg:maven/a@1.0", None,
        ),
        (
            "Package 'github.com/gogo/protobuf@1.3.1' is vulnerable to 'CVE-2021-3121' (also known as 'GO-2021-0053').",
            "go.mod", "pkg:golang/github.com/gogo/protobuf@1.3.1", None,
        ),
        ("[CVE-2020-8203] lodash 4.17.0", "package.json", "pkg:npm/lodash@4.17.0", None),
        ("Flask_Login 0.1 is vulnerable to something", "requirements.txt", "pkg:pypi/flask-login@0.1", None),
        ("nodejs ejs versions older than 2.5.3 is vulnerable to remote code execution", None, None, None),
        ("no package is named here", "a.py", None, None),
    ],
)  # fmt: skip
def test_package_is_read_from_the_message(message, path, package, fixed):
    """Trivy, Grype (new and old), osv-scanner, JFrog and pip-audit say it in their messages."""
    found = read_one(result("CVE-2024-0001", message, path))
    assert (found.package, found.fixed_version) == (package, fixed)


def test_grype_says_the_fix_in_the_rule():
    """Grype's fixed version stands in the help of its rule."""
    message = "A high vulnerability in deb package: openssl, version 3.0.1 was found at: /x"
    rules = [{"id": "CVE-2024-1-openssl", "help": {"text": GRYPE_HELP}}]
    assert read_one(result("CVE-2024-1-openssl", message), rules=rules).fixed_version == "3.0.2"


@pytest.mark.parametrize(
    ("rule", "said", "package"),
    [
        ({"properties": {"purls": ["pkg:deb/debian/zlib@1.2?distro=12"]}}, {}, "pkg:deb/debian/zlib@1.2?distro=12"),
        ({}, {"properties": {"purl": "pkg:npm/a@1"}}, "pkg:npm/a@1"),
        ({}, {"properties": {"packageUrl": "pkg:npm/b@1"}}, "pkg:npm/b@1"),
        ({"properties": {"tags": ["security", "deb"]}},
         {"locations": [{"logicalLocations": [{"fullyQualifiedName": "bzip2@1.0.6-8.1"}]}]}, "pkg:deb/bzip2@1.0.6-8.1"),
        ({}, {"locations": [{"logicalLocations": [{"fullyQualifiedName": "pkg:maven/org.acme/c1@1.1?type=jar"}]}]},
         "pkg:maven/org.acme/c1@1.1?type=jar"),
        ({}, {"locations": [], "properties": {"package": "requests", "version": "2.19.0"}}, "pkg:pypi/requests@2.19.0"),
        ({}, {"properties": {"component": "left-pad", "componentVersion": "1.0", "componentOrigin": "npm"}},
         "pkg:npm/left-pad@1.0"),
        ({"shortDescription": {"text": "medium severity - vulnerability in pkg:javascript/bootstrap@3.3.7"}}, {},
         "pkg:javascript/bootstrap@3.3.7"),
    ],
)  # fmt: skip
def test_package_is_read_from_where_scanners_put_it(rule, said, package):
    """Properties of result and rule, logical locations with the type among the tags, the rule's description."""
    found = read_one(result("GHSA-aaaa-bbbb-cccc") | said, rules=[{"id": "GHSA-aaaa-bbbb-cccc"} | rule])
    assert found.package == package
    assert found.identity == "package"


def test_code_findings_have_no_package():
    """A rule that is no advisory is not about a package, whatever its message looks like."""
    assert read_one(result("py/rule", "Package 'a@1' is vulnerable to 'x'")).package is None


@pytest.mark.parametrize(
    ("purl", "bare", "unversioned"),
    [
        ("pkg:deb/debian/zlib@1.2?arch=amd64#x", "pkg:deb/debian/zlib@1.2", "pkg:deb/debian/zlib"),
        ("pkg:npm/%40a/b@1", "pkg:npm/%40a/b@1", "pkg:npm/%40a/b"),
        ("pkg:npm/@a/b", "pkg:npm/@a/b", "pkg:npm/@a/b"),
        ("pkg:generic/a", "pkg:generic/a", "pkg:generic/a"),
    ],
)
def test_purls_are_stripped(purl, bare, unversioned):
    """Qualifiers, subpath and version come off; a scope is no version."""
    assert (bare_purl(purl), unversioned_purl(purl)) == (bare, unversioned)


def test_purls_are_escaped():
    """What a purl gives another meaning is escaped."""
    assert purl_of("generic", "a b@c", "1?2#3") == "pkg:generic/a%20b%40c@1%3F2%233"
