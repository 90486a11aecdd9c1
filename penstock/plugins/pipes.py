"""
Dagster Pipes: a plugin written with `dagster_pipes` finds the variables that it looks for, and its messages are read.

Numbers of a materialization's metadata that the manifest declares are metrics; a custom message formed as a line of
data.jsonl is data; log lines and checks are told in the log. Source of the format: dagster_pipes, protocol 0.1.
"""

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

from penstock.plugins.contract import PIPES
from penstock.plugins.manifest import Manifest

_SHOWN = 200


@attrs.frozen
class PipesLines:
    """What messages say, as lines of metrics.jsonl and data.jsonl."""

    metrics: tuple[bytes, ...]
    data: tuple[bytes, ...]


def pipes_env(ci: str, run_id: str, extras: Mapping[str, Any]) -> dict[str, str]:
    """The variables that `open_dagster_pipes()` reads. ci: the folder /ci as the plugin sees it."""
    context = {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": run_id,
        "job_name": None,
        "retry_number": 0,
        "extras": dict(extras),
    }
    return {
        "DAGSTER_PIPES_CONTEXT": _encoded({"data": context}),
        "DAGSTER_PIPES_MESSAGES": _encoded({"path": f"{ci}/{PIPES}"}),
    }


def _encoded(value: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def read_messages(lines: Iterable[bytes], manifest: Manifest, say: Callable[[str], None]) -> PipesLines:
    """Lines that are no messages are told and left out."""
    metrics, data = list[bytes](), list[bytes]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            message = msgspec.json.decode(line)
            method, params = message["method"], message["params"] or {}
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError):
            say(f"{PIPES}: line {number} is no message of Dagster Pipes")
            continue
        if not isinstance(params, dict):
            continue
        if method == "report_asset_materialization":
            metrics += _metrics(params.get("metadata"), manifest, say)
        elif method == "report_custom_message" and _is_data(params.get("payload")):
            data.append(msgspec.json.encode(params["payload"]))
        elif method in _TOLD:
            say(_TOLD[method](params)[:_SHOWN])
    return PipesLines(tuple(metrics), tuple(data))


def _metrics(metadata: object, manifest: Manifest, say: Callable[[str], None]) -> Iterator[bytes]:
    for name, value in metadata.items() if isinstance(metadata, dict) else ():
        raw = value.get("raw_value") if isinstance(value, dict) else value
        is_number = isinstance(raw, int | float) and not isinstance(raw, bool)
        if name in manifest.metrics and is_number:
            yield msgspec.json.encode({"name": name, "value": raw})
        else:
            say(f"{name}: {raw}"[:_SHOWN])


def _is_data(payload: object) -> bool:
    return isinstance(payload, dict) and {"kind", "value"} <= set(payload) <= {"kind", "value", "key"}


def _check(params: Mapping[str, Any]) -> str:
    return f"check {params.get('check_name')}: {'passed' if params.get('passed') else 'failed'}"


_TOLD: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "log": lambda params: f"{str(params.get('level', 'INFO')).lower()}: {params.get('message', '')}",
    "report_asset_check": _check,
}
