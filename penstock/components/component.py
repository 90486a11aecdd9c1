"""A component, and a list of them (a bill of materials)."""

import attrs


@attrs.frozen
class Component:
    """
    One package, library, system or image that something is made of.

    purl: without qualifiers and subpath; None where the list names none. ecosystem: the purl's type, or `generic`.
    namespace: what stands before the name, such as a Maven group or an npm scope. kind: as CycloneDX calls it
    (library, application, operating-system, …). licences: SPDX identifiers, expressions or names, as listed.
    path: the file that names it, where the list says so. direct: whether the project itself asks for it, None where
    the list has no such graph.
    """

    name: str
    version: str
    purl: str | None = None
    ecosystem: str = "generic"
    namespace: str | None = None
    kind: str = "library"
    licences: tuple[str, ...] = ()
    path: str | None = None
    direct: bool | None = None


@attrs.frozen
class Bill:
    """
    Everything that a list names, once each.

    subject: what it is the list of, as it calls it. image_digest: `sha256:…` of the image, if it is one.
    tool: who made it. broken: entries that could not be read and were left out.
    """

    components: tuple[Component, ...]
    subject: str | None = None
    image_digest: str | None = None
    tool: str | None = None
    broken: int = 0
