"""Which version is later, and which are asked for."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components import VersionRange, parse_question
from penstock.components.purls import Purl, parse_purl
from penstock.components.ranges import parse_range
from penstock.components.versions import version_key
from penstock.errors import InputError

ASCENDING = {
    "maven": "1.0-alpha-1 1.0-beta1 1.0-milestone1 1.0-rc1 1.0-SNAPSHOT 1.0 1.0-sp1 1.0.1 1.1 1.10 2.0.0.Alpha1 2",
    "npm": "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.10",
    "golang": "v0.0.0-20210101000000-abcdef v0.0.1 v1.2.3 v1.10.0 v2.0.0+incompatible",
    "gem": "1.0.0.beta1 1.0.0.beta2 1.0.0 1.0.1 1.0.1.1",
    "deb": "1.0~rc1 1.0~rc1-1 1.0 1.0-1 1.0-1+b1 1.0a 1.0+dfsg 3.0.9-1 3.0.11-1~deb12u2 3.0.11-1 1:0.5",
    "rpm": "1.0~rc1 1.0 1.0^git1 1.0a 1.0.1 1.0.1-2.el9 1.0.1-10.el9 1:0.1",
    "pypi": "nonsense 1.0.dev1 1.0a1 1.0rc1 1.0 1.0.post1 1.10 1!0.1",
    "generic": "1.0-pre1 1.0rc1 1.0 1.0.1 1.0.10",
}


@pytest.mark.parametrize("ecosystem", ASCENDING)
def test_versions_are_ordered_as_their_ecosystem_does(ecosystem: str):
    """Each is before every later one."""
    keys = [version_key(ecosystem, version) for version in ASCENDING[ecosystem].split()]
    for first, second in itertools.combinations(range(len(keys)), 2):
        assert keys[first] < keys[second], (ASCENDING[ecosystem].split()[first], ASCENDING[ecosystem].split()[second])


@pytest.mark.parametrize(
    ("ecosystem", "same"),
    [("maven", "1 1.0 1.0.0 1.0.GA 1.0.0.Final"), ("npm", "1.0.0 v1.0.0 1.0.0+build 1.0"), ("pypi", "1.0 1.0.0 v1.0")],
)
def test_what_says_the_same_is_the_same(ecosystem: str, same: str):
    """Zeros at the end, a leading v, a build."""
    assert len({version_key(ecosystem, version) for version in same.split()}) == 1


@settings(deadline=None)
@given(st.sampled_from(sorted(ASCENDING)), st.lists(st.text(max_size=30), min_size=2, max_size=5))
def test_any_texts_can_be_compared(ecosystem: str, texts: list[str]):
    """Whatever a list calls a version, there is an order, and it does not depend on where one begins."""
    ordered = sorted(texts, key=lambda text: version_key(ecosystem, text))
    backwards = texts[::-1]
    again = sorted(backwards, key=lambda text: version_key(ecosystem, text))
    assert [version_key(ecosystem, one) for one in ordered] == [version_key(ecosystem, one) for one in again]


@pytest.mark.parametrize(
    ("asked", "inside", "outside"),
    [
        ("log4j-core < 2.17.1", ["2.14.1", "2.17.0", "2.17.1-rc1"], ["2.17.1", "2.20.0", ""]),
        ("log4j-core>=2.0,<2.12.4||>=2.13 <2.17.1", ["2.0", "2.12.3", "2.16"], ["1.2.17", "2.12.4", "2.17.1"]),
        ("log4j-core 2.14.1", ["2.14.1"], ["2.14.0"]),
        ("log4j-core != 2.14.1", ["2.14.0"], ["2.14.1"]),
        ("org.apache.logging.log4j:log4j-core", ["1", ""], []),
        ("pkg:maven/org.apache.logging.log4j/log4j-core *", ["1"], []),
    ],
)
def test_question_holds_for_its_versions(asked: str, inside: list[str], outside: list[str]):
    """Limits, alternatives, one version, all of them; where there is no version, no limit holds."""
    versions = parse_question(asked).versions
    assert [one for one in inside if not versions.holds("maven", one)] == []
    assert [one for one in outside if versions.holds("maven", one)] == []


def test_name_is_what_stands_before_the_limits():
    """With a scope or a group."""
    assert parse_question(" @angular/core<15 ").name == "@angular/core"
    assert parse_question("django").versions == VersionRange()


@pytest.mark.parametrize("asked", ["", "  ", "< 1", "a <", "a < 1 >", "a 1 || ", "a , 1"])
def test_what_is_no_question_is_one_line(asked: str):
    """With an example of one."""
    with pytest.raises(InputError, match=r"log4j-core < 2\.17\.1"):
        parse_question(asked)


def test_empty_range_is_every_version():
    """As is a star."""
    assert parse_range("").holds("npm", "") is parse_range("*").holds("npm", "1") is True


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pkg:maven/org.apache/log4j-core@2.14.1?type=jar#x", Purl("maven", "org.apache", "log4j-core", "2.14.1")),
        ("pkg:npm/%40angular/core@14.0.0", Purl("npm", "@angular", "core", "14.0.0")),
        ("pkg:npm/@angular/core", Purl("npm", "@angular", "core", None)),
        ("PKG:PyPI//django@4.2", Purl("pypi", None, "django", "4.2")),
        ("pkg:deb/debian/zlib1g@1%3A1.2.13", Purl("deb", "debian", "zlib1g", "1:1.2.13")),
        ("pkg:npm", None),
        ("pkg:npm/", None),
        ("npm/express@1", None),
        ("pkg:9/x", None),
        ("", None),
    ],
)
def test_purls_are_taken_apart(text: str, parts: Purl | None):
    """Namespaces, scopes, encoded characters; what is none is None."""
    assert parse_purl(text) == parts
