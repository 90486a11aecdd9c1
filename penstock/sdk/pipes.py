"""Messages for Dagster, when it is Dagster that runs the plugin: the protocol of `dagster_pipes`, version 0.1."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = "0.1"


class PipesMessages:
    """
    Writes messages where DAGSTER_PIPES_MESSAGES says. params: what that variable holds, decoded.

    asset: the key of the one asset that this process makes; None when there are others, or none.
    """

    def __init__(self, params: Mapping[str, Any], asset: str | None) -> None:
        self._path, self._stdio, self._asset = params.get("path"), params.get("stdio"), asset
        self._numbers: dict[str, float] = {}
        self.send("opened", {"extras": {}})

    @classmethod
    def found(cls, env: Mapping[str, str], ci: str) -> PipesMessages | None:
        """
        None without Dagster: when the variables are not there, or are Penstock's own, which reads metrics.jsonl.

        ci: the folder /ci.
        """
        messages, context = (_decoded(env.get(f"DAGSTER_PIPES_{name}")) for name in ("MESSAGES", "CONTEXT"))
        if context is None or messages is None or not {"path", "stdio"} & set(messages):
            return None
        if str(messages.get("path", "")).startswith(f"{ci.rstrip('/')}/"):
            return None
        return cls(messages, _only_asset(context))

    def metric(self, name: str, value: float) -> None:
        """Kept until the end: an asset can be reported only once."""
        self._numbers[name] = value

    def close(self, failure: str | None) -> None:
        """Report what was measured as metadata of the asset, and that this is all."""
        if self._numbers and self._asset is not None:
            metadata = {
                name: {"raw_value": value, "type": "int" if isinstance(value, int) else "float"}
                for name, value in self._numbers.items()
            }
            params = {"asset_key": self._asset, "data_version": None, "metadata": metadata}
            self.send("report_asset_materialization", params)
        elif self._numbers:
            self.send("report_custom_message", {"payload": {"metrics": self._numbers}})
        said: dict[str, Any] = {"message": failure, "stack": [], "name": None, "cause": None, "context": None}
        self.send("closed", {"exception": said} if failure else {})

    def send(self, method: str, params: Mapping[str, Any]) -> None:
        """One message, on a line."""
        line = json.dumps({"__dagster_pipes_version": VERSION, "method": method, "params": params})
        if self._path is not None:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        else:
            print(line, file=sys.stderr if self._stdio == "stderr" else sys.stdout, flush=True)


def _decoded(variable: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(zlib.decompress(base64.b64decode(variable or "")))
    except (ValueError, zlib.error):
        return None
    return value if isinstance(value, dict) else None


def _only_asset(context: Mapping[str, Any]) -> str | None:
    try:
        data = context["data"] if "data" in context else json.loads(Path(context["path"]).read_text(encoding="utf-8"))
        keys = data.get("asset_keys") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return str(keys[0]) if len(keys) == 1 else None
