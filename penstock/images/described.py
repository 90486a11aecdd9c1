"""What an engine says of an image that it holds."""

from typing import TYPE_CHECKING

from penstock.images.talk import told_plainly
from penstock.steps.context import ImageMade

if TYPE_CHECKING:
    from penstock.engines.docker_server import Server


def image_made(server: "Server", name: str, image_id: str, digest: str | None = None) -> ImageMade:
    """
    An image's size, layers and platform. digest: of its manifest, where a registry has it.

    An image that the engine does not hold itself (of several platforms, or removed meanwhile) has none of the three.
    """
    from docker.errors import ImageNotFound

    with told_plainly(server.host):
        try:
            said = server.client.api.inspect_image(image_id)
        except ImageNotFound:
            return ImageMade(name, image_id, digest)
    layers = (said.get("RootFS") or {}).get("Layers")
    return ImageMade(
        name,
        image_id,
        digest,
        size_bytes=said.get("Size"),
        layers=None if layers is None else len(layers),
        platform="/".join(filter(None, (said.get("Os"), said.get("Architecture"), said.get("Variant")))) or None,
    )
