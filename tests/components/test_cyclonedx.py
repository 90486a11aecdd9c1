"""Lists of components as tools write them, and as nobody should."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components import Component, read_bill
from penstock.components.cyclonedx import TEXT_LIMIT
from penstock.errors import ReportError


def document(*components: Any, **rest: Any) -> bytes:
    """A list of these components."""
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components, **rest}).encode()


def library(name: str = "express", version: str = "4.17.1", **rest: Any) -> dict[str, Any]:
    """An npm package."""
    purl = f"pkg:npm/{name}@{version}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl, **rest}


TRIVY = document(
    {"bom-ref": "lock", "type": "application", "name": "package-lock.json", "properties": [
        {"name": "aquasecurity:trivy:Class", "value": "lang-pkgs"}]},
    library(licenses=[{"license": {"id": "MIT"}}]),
    library("debug", "2.6.9", licenses=[{"expression": "MIT OR Apache-2.0"}]),
    specVersion="1.7",
    metadata={
        "tools": {"components": [{"type": "application", "name": "trivy", "version": "0.76.0"}]},
        "component": {"bom-ref": "root", "type": "application", "name": "app"},
    },
    dependencies=[
        {"ref": "root", "dependsOn": ["lock"]},
        {"ref": "lock", "dependsOn": ["pkg:npm/express@4.17.1"]},
        {"ref": "pkg:npm/express@4.17.1", "dependsOn": ["pkg:npm/debug@2.6.9"]},
    ],
)  # fmt: skip


def test_trivy_s_list_of_a_checkout():
    """Direct and transitive by its graph, the lock file as the place of both and no component itself."""
    bill = read_bill(TRIVY)
    assert (bill.tool, bill.subject, bill.image_digest, bill.broken) == ("trivy 0.76.0", "app", None, 0)
    same = {"ecosystem": "npm", "path": "package-lock.json"}
    assert bill.components == (
        Component("express", "4.17.1", "pkg:npm/express@4.17.1", licences=("MIT",), direct=True, **same),
        Component("debug", "2.6.9", "pkg:npm/debug@2.6.9", licences=("MIT OR Apache-2.0",), direct=False, **same),
    )


def test_list_of_an_image_says_which_image():
    """By its manifest's digest where the list knows it; the system is a component, its files are not."""
    of_image = {
        "bom-ref": "root",
        "type": "container",
        "name": "team/shop:1.0",
        "purl": f"pkg:oci/shop@sha256%3A{'A1' * 32}?repository_url=registry.example/team/shop",
        "properties": [{"name": "aquasecurity:trivy:ImageID", "value": f"sha256:{'b' * 64}"}],
    }
    deb = {
        "type": "library",
        "name": "openssl",
        "version": "3.0.9-1",
        "purl": "pkg:deb/debian/openssl@3.0.9-1?arch=amd64&distro=debian-12",
        "properties": [{"name": "syft:location:0:path", "value": "/var/lib/dpkg/status"}],
    }
    system = {"type": "operating-system", "name": "debian", "version": "12.5"}
    bill = read_bill(document(deb, system, {"type": "file", "name": "/bin/sh"}, metadata={"component": of_image}))
    assert bill.image_digest == f"sha256:{'a1' * 32}"
    openssl, debian = bill.components
    assert (openssl.purl, openssl.namespace, openssl.path) == (
        "pkg:deb/debian/openssl@3.0.9-1",
        "debian",
        "var/lib/dpkg/status",
    )
    assert (debian.kind, debian.ecosystem, debian.purl) == ("operating-system", "generic", None)


def test_nested_components_are_listed_too_and_each_once():
    """However deep, and whatever stands there twice."""
    inner = library("inner", "1")
    for number in range(30):
        inner = library(f"n{number}", "1", components=[inner])
    found = read_bill(document(inner, library("inner", "1")))
    assert len(found.components) == 31
    assert found.broken == 0


def test_component_without_purl_has_its_own_name():
    """With the group that it says."""
    (one,) = read_bill(document({"type": "library", "group": "com.acme", "name": "core", "version": 2})).components
    assert (one.ecosystem, one.namespace, one.name, one.version, one.purl) == ("generic", "com.acme", "core", "2", None)


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7"])
def test_every_version_with_json_is_read(version: str):
    """Tools of 1.2 to 1.4 stand in a list of their own shape."""
    tools = [{"vendor": "anchore", "name": "syft", "version": "1.0"}]
    bill = read_bill(document(library(), specVersion=version, metadata={"tools": tools}))
    assert (len(bill.components), bill.tool) == (1, "syft 1.0")


def test_broken_entries_are_counted_and_the_rest_is_read():
    """No name, a list in place of a name, no object at all."""
    broken = ({"type": "library"}, {"name": ["x"]}, "text", 7, None)
    good = [library(f"n{number}") for number in range(6)]
    bill = read_bill(document(*broken, *good))
    assert (len(bill.components), bill.broken) == (6, 5)


def test_parts_of_another_shape_are_left_out():
    """Licences, properties and evidence that are none do not cost the component."""
    odd = library(licenses="MIT", properties={"a": 1}, evidence=[], components=None)
    (one,) = read_bill(document(odd, dependencies={"ref": 1}, metadata=[])).components
    assert (one.name, one.licences, one.path, one.direct) == ("express", (), None, None)


def test_graph_that_runs_in_circles_ends():
    """Also where a component needs itself."""
    needs = [
        {"ref": "root", "dependsOn": ["a"]},
        {"ref": "a", "dependsOn": ["b", "a"]},
        {"ref": "b", "dependsOn": ["a", "root"]},
    ]
    parts = [library(name, **{"bom-ref": name}) for name in ("a", "b", "c")]
    found = read_bill(document(*parts, dependencies=needs, metadata={"component": {"bom-ref": "root", "name": "app"}}))
    assert {one.name: one.direct for one in found.components} == {"a": True, "b": False, "c": None}


def test_texts_cannot_command_a_terminal_or_fill_the_tables():
    """Control characters and line ends go, and what is endless is cut."""
    (one,) = read_bill(
        document({"name": "a\x1b[31m\nb" + "x" * 10_000, "version": "\u202e1", "type": "library"})
    ).components
    assert "\x1b" not in one.name
    assert "\n" not in one.name
    assert len(one.name) <= TEXT_LIMIT
    assert one.version == "1"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"{", "no CycloneDX JSON"),
        (b"[]", "no CycloneDX JSON"),
        (b"<?xml version='1.0'?><bom/>", "this is XML"),
        (b'{"spdxVersion": "SPDX-2.3"}', "this is an SPDX document"),
        (b'{"components": []}', "bomFormat is missing"),
        (document(specVersion="2.0"), "CycloneDX 2.0 is not known"),
        (document(1, 2, library()), "2 of 3 components cannot be read"),
        (b'{"bomFormat":"CycloneDX","components":' + b"[" * 100_000, "no CycloneDX JSON"),
    ],
)
def test_what_is_no_list_is_one_line(data: bytes, words: str):
    """Where, and what; never a traceback."""
    with pytest.raises(ReportError, match=words) as caught:
        read_bill(data, "sbom.json")
    assert str(caught.value).startswith("sbom.json: ")
    assert "\n" not in str(caught.value)


def test_bottomless_nesting_is_broken_not_fatal():
    """What is too deep is left out and counted."""
    deep: dict[str, Any] = library("deep", "1")
    for _ in range(80):
        deep = {"name": "holder", "version": "1", "components": [deep]}
    bill = read_bill(document(deep, *(library(f"n{number}") for number in range(3))))
    assert bill.broken == 1


def test_many_components_are_read():
    """A monorepo's list."""
    assert len(read_bill(document(*(library(f"n{number}") for number in range(20_000)))).components) == 20_000


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "purl", "version", "type", "components", "licenses", "bom-ref", "properties", "group"]
                ),
                inner,
            )
        ),
    )
)
def test_whatever_stands_there_it_is_read_or_refused(value: Any):  # fmt: skip
    """Any JSON as components: a list, or one line."""
    try:
        read_bill(document(library(), value))
        read_bill(json.dumps({"bomFormat": "CycloneDX", "components": value}).encode())
    except ReportError:
        return
