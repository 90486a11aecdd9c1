"""
How much a client may send, and how patiently it is served.

    PENSTOCK_API_UPLOAD_LIMIT    the largest artifact that the API takes, such as 500m or 20g; default 16g
"""

from collections.abc import Mapping

import attrs

from penstock.errors import SettingsError
from penstock.pipeline.spec import size_bytes
from penstock.plugins.data.limits import DataLimits

UPLOAD_LIMIT = "PENSTOCK_API_UPLOAD_LIMIT"


@attrs.frozen
class Limits:
    """
    Of the API.

    upload_bytes: of an artifact. body_bytes: of any other body; a pipeline has 1 MB at most, JSON escapes it.
    look_every_s: how often a log that is followed is looked at. heartbeat_s: its longest silence.
    plugin_data: of what plugins tell and ask.
    """

    upload_bytes: int = 16 * 1024**3
    body_bytes: int = 4 * 1024**2
    look_every_s: float = 0.25
    heartbeat_s: float = 15.0
    plugin_data: DataLimits = attrs.field(factory=DataLimits)


def load_limits(env: Mapping[str, str]) -> Limits:
    """Raises: SettingsError naming the variable and the remedy."""
    if not (text := env.get(UPLOAD_LIMIT)):
        return Limits()
    try:
        return Limits(upload_bytes=int(str(size_bytes(text))))
    except ValueError as error:
        raise SettingsError(f'"{text}" is no size', where=UPLOAD_LIMIT, remedy="write 500m or 20g") from error
