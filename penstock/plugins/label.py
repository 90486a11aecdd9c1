"""The manifest as an image carries it: one line of JSON in the OCI label (or annotation) `dev.penstock.plugin`."""

import msgspec
from pydantic import ValidationError

from penstock.errors import InputError
from penstock.pipeline.plan import canonical_json
from penstock.plugins.contract import MANIFEST_BYTES
from penstock.plugins.manifest import Manifest, load_manifest, stored_values


def label_of(manifest: Manifest) -> str:
    """
    The label's value: always the same text for the same manifest.

    Without `image`, which an image cannot know of itself.
    """
    values = {name: value for name, value in stored_values(manifest).items() if name != "image"}
    return canonical_json(values).decode()


def read_label(text: str) -> Manifest:
    """
    The manifest that a label holds; its image is the one that carries it.

    Raises: InputError when it holds none.
    """
    if len(text) > MANIFEST_BYTES:
        raise InputError("is too large for a manifest")
    try:
        values = msgspec.json.decode(text.encode())
        return load_manifest({"image": "this", **values})
    except (msgspec.MsgspecError, ValidationError, TypeError, ValueError, RecursionError) as error:
        raise InputError("holds no manifest") from error
