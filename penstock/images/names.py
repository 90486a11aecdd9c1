"""Names of images, as Docker reads them: `[registry/]repository[:tag][@digest]`."""

import ipaddress
import re
from typing import Annotated

import attrs
from pydantic import AfterValidator

from penstock.errors import InputError

DOCKER_HUB = "docker.io"
EXPRESSION = "${{"  # a text with an expression is read again when its value is known
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST = 512


@attrs.frozen
class ImageName:
    """
    A name, taken apart. registry: host, with port if there is one; Docker Hub when none is written.

    tag: `latest` when neither tag nor digest is written.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None = None

    @property
    def untagged(self) -> str:
        """What the engine and people write before the tag."""
        return self.repository if self.registry == DOCKER_HUB else f"{self.registry}/{self.repository}"

    @property
    def path(self) -> str:
        """The repository as the registry's own API knows it."""
        official = self.registry == DOCKER_HUB and "/" not in self.repository
        return f"library/{self.repository}" if official else self.repository

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine: Docker allows plain HTTP there."""
        host = re.sub(r":\d+$", "", self.registry).strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def pinned(self, digest: str) -> str:
        """`repository@digest`: the one name that never means anything else."""
        return f"{self.untagged}@{digest}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.untagged}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_image(text: str) -> ImageName:
    """
    The parts of a name.

    Raises: InputError when it is none.
    Source: https://pkg.go.dev/github.com/distribution/reference
    """
    rest, at, digest = text.partition("@")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry = first
    else:
        registry, path = DOCKER_HUB, rest
    repository, colon, tag = path.partition(":")
    right = len(text) <= _LONGEST and _HOST.fullmatch(registry) and _REPOSITORY.fullmatch(repository)
    if not right or (colon and not _TAG.fullmatch(tag)) or (at and not _DIGEST.fullmatch(digest)):
        raise InputError(f'"{text[:80]}" is no name of an image', remedy="write registry.example/team/app:1.0")
    return ImageName(registry, repository, tag or (None if at else "latest"), digest or None)


def auth_address(registry: str) -> str:
    """Under which name Docker keeps and sends a registry's login."""
    return "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry


def is_image_id(text: str) -> bool:
    """Whether `text` names an image by the hash that the engine gave it."""
    return _DIGEST.fullmatch(text) is not None


def is_pinned(text: str) -> bool:
    """Whether `text` can mean one image only: by its id, or by its digest in a registry."""
    return is_image_id(text) or parse_image(text).digest is not None


def _an_image(text: str) -> str:
    if EXPRESSION not in text and not is_image_id(text):
        _checked(text)
    return text


def _a_tag(text: str) -> str:
    if EXPRESSION not in text and _checked(text).digest:
        raise ValueError(f'"{text[:80]}" has a digest; a tag is a name that an image gets')
    return text


def _checked(text: str) -> ImageName:
    try:
        return parse_image(text)
    except InputError as error:
        raise ValueError(str(error)) from error


ImageText = Annotated[str, AfterValidator(_an_image)]  # by name, or by id
TagText = Annotated[str, AfterValidator(_a_tag)]
