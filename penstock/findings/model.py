"""
SARIF 2.1.0 as msgspec types: only what Penstock reads, all of it optional.

Every field has a default because the wild leaves out each of them. Values that other tools type freely
(property bags, fingerprints) are `object` here and looked at where they are used.
"""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, gc=False, rename="camel"):
    """A part of a document; never in a reference cycle."""


class _Key(msgspec.Struct, gc=False, rename="camel", frozen=True):
    """A part that serves as a key of a cache."""


class ArtifactLocation(_Key, frozen=True):
    """Where a file is: a URI, relative to a base, or the index of an artifact."""

    uri: str | None = None
    uri_base_id: str | None = None
    index: int | None = None


class ComponentRef(_Key, frozen=True):
    """Which tool component (driver, extension, taxonomy) is meant."""

    name: str | None = None
    index: int | None = None
    guid: str | None = None


class DescriptorRef(_Key, frozen=True):
    """Which rule or taxon is meant."""

    id: str | None = None
    index: int | None = None
    guid: str | None = None
    tool_component: ComponentRef | None = None


class Text(_Part):
    """A multiformat message string."""

    text: str | None = None
    markdown: str | None = None


class Message(_Part):
    """A message: a text, or the id of one with arguments."""

    text: str | None = None
    markdown: str | None = None
    id: str | None = None
    arguments: list[str] | None = None


class Region(_Part):
    """A part of a file; lines and columns count from 1."""

    start_line: int | None = None
    start_column: int | None = None
    end_line: int | None = None
    snippet: Text | None = None


class ContextRegion(_Part):
    """The lines around a region, of which only the text is used."""

    snippet: Text | None = None


class PhysicalLocation(_Part):
    """A file and a region in it."""

    artifact_location: ArtifactLocation | None = None
    region: Region | None = None
    context_region: ContextRegion | None = None


class LogicalLocation(_Part):
    """A function, a resource, a package: something with a name that is no file."""

    name: str | None = None
    fully_qualified_name: str | None = None
    index: int | None = None


class Location(_Part):
    """Where a result is."""

    physical_location: PhysicalLocation | None = None
    logical_locations: list[LogicalLocation] | None = None
    message: Text | None = None


class Suppression(_Part):
    """Why a result is not to be acted on. Version 2.1.0 says `status`; drafts said `state`."""

    kind: str | None = None
    status: str | None = None
    state: str | None = None
    justification: str | None = None


_BAG = {
    "security_severity": "security-severity",
    "cwe_id": "cweId",
    "package_url": "packageUrl",
    "package_url_2": "package_url",
    "fixed_version_2": "fixed_version",
    "component_version": "componentVersion",
    "component_origin": "componentOrigin",
    "fixed_version": "fixedVersion",
}


class Bag(msgspec.Struct, gc=False, rename=_BAG):
    """The properties of a result or a rule that mean something to more than one tool."""

    security_severity: object = None
    tags: object = None
    cwe: object = None
    cwes: object = None
    cwe_id: object = None
    purl: object = None
    purls: object = None
    package_url: object = None
    package_url_2: object = None
    package: object = None
    version: object = None
    component: object = None
    component_version: object = None
    component_origin: object = None
    fixed_version: object = None
    fixed_version_2: object = None


class Result(_Part):
    """One result."""

    rule_id: str | None = None
    rule_index: int | None = None
    rule: DescriptorRef | None = None
    kind: str | None = None
    level: str | None = None
    message: Message | None = None
    locations: list[Location] | None = None
    analysis_target: ArtifactLocation | None = None
    fingerprints: dict[str, object] | None = None
    partial_fingerprints: dict[str, object] | None = None
    suppressions: list[Suppression] | None = None
    baseline_state: str | None = None
    rank: float | None = None
    taxa: list[DescriptorRef] | None = None
    properties: Bag | None = None
    code_flows: msgspec.Raw = msgspec.Raw(b"")


class Marks(_Part):
    """The part of a result that tells whether a tool's fingerprints can be trusted."""

    fingerprints: dict[str, object] | None = None
    partial_fingerprints: dict[str, object] | None = None
    kind: str | None = None
    baseline_state: str | None = None


class Configuration(_Part):
    """How a rule was configured."""

    level: str | None = None
    rank: float | None = None
    enabled: bool | None = None


class Relationship(_Part):
    """From a rule to a taxon."""

    target: DescriptorRef | None = None


class Descriptor(_Part):
    """A rule or a taxon."""

    id: str | None = None
    guid: str | None = None
    name: str | None = None
    deprecated_ids: list[str] | None = None
    short_description: Text | None = None
    full_description: Text | None = None
    help: Text | None = None
    help_uri: str | None = None
    message_strings: dict[str, Text] | None = None
    default_configuration: Configuration | None = None
    relationships: list[Relationship] | None = None
    properties: Bag | None = None


class Component(_Part):
    """The driver, an extension or a taxonomy."""

    name: str | None = None
    full_name: str | None = None
    guid: str | None = None
    version: str | None = None
    semantic_version: str | None = None
    global_message_strings: dict[str, Text] | None = None
    rules: list[Descriptor] | None = None
    taxa: list[Descriptor] | None = None


class Tool(_Part):
    """The tool that wrote a run."""

    driver: Component | None = None
    extensions: list[Component] | None = None


class ConfigurationOverride(_Part):
    """A rule's configuration for one invocation."""

    descriptor: DescriptorRef | None = None
    configuration: Configuration | None = None


class Notification(_Part):
    """What the tool says of its own run."""

    level: str | None = None
    message: Message | None = None


class Invocation(_Part):
    """One start of the tool."""

    execution_successful: bool | None = None
    working_directory: ArtifactLocation | None = None
    rule_configuration_overrides: list[ConfigurationOverride] | None = None
    tool_execution_notifications: list[Notification] | None = None


class Artifact(_Part):
    """A file that was looked at."""

    location: ArtifactLocation | None = None
    parent_index: int | None = None


class AutomationDetails(_Part):
    """What the run is one of."""

    id: str | None = None


class VersionControl(_Part):
    """Where the repository was checked out."""

    mapped_to: ArtifactLocation | None = None
