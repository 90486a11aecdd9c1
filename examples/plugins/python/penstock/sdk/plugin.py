"""A plugin at work: what it was given, and where it leaves what it found."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from penstock.sdk.ending import BadConfiguration, Ending, Failed
from penstock.sdk.pipes import PipesMessages
from penstock.sdk.querying import DataApi
from penstock.sdk.sarif import LEVELS, Finding, sarif_of

CI = "/ci"
TOKEN = "penstock-data-token"


def plugin(env: Mapping[str, str] | None = None) -> Plugin:
    """
    The plugin that this process is; use it in a `with`.

    env: the variables; this process's own by default. PENSTOCK_CI_DIR says where /ci is, if it is elsewhere.
    Raises: BadConfiguration when there is no input.json to read.
    """
    known = os.environ if env is None else env
    return Plugin(Path(known.get("PENSTOCK_CI_DIR") or CI), known)


class Secrets(Mapping[str, str]):
    """Secrets by the names of the manifest, each read from its file when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> str:
        if name not in set(self):
            raise KeyError(name)
        return (self._folder / name).read_text(encoding="utf-8")

    def __iter__(self) -> Iterator[str]:
        names = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        return iter([name for name in names if name != TOKEN])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self)})"


class Plugin:
    """
    inputs: as the pipeline gives them, with their types. secrets: by name. workspace: the checkout, read-only.

    project, commit, ref, run, step: texts. event: its name and what is known of it. environment: name and type.
    """

    def __init__(self, ci: Path, env: Mapping[str, str]) -> None:
        self.ci, self._env = ci, env
        try:
            given = json.loads((ci / "input.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadConfiguration(f"cannot read {ci / 'input.json'}: {error}") from error
        self.inputs: dict[str, Any] = given["inputs"]
        self.name, self.version = str(given["plugin"]["name"]), str(given["plugin"]["version"])
        self.project, self.commit, self.ref = str(given["project"]), str(given["commit"]), str(given["ref"])
        self.run, self.step = str(given["run"]), str(given["step"])
        self.event: dict[str, Any] = given["event"]
        self.environment: dict[str, str] | None = given["environment"]
        self.workspace = Path(given["workspace"])
        self.artifacts = ci / "artifacts"
        self._secrets_folder = Path(env.get("PENSTOCK_SECRETS") or ci / "secrets")
        self.secrets = Secrets(self._secrets_folder)
        self._outputs: dict[str, Any] = {}
        self._findings: list[Finding] | None = None
        self._files: dict[str, TextIO] = {}
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._pipes: PipesMessages | None = None

    @property
    def cancelled(self) -> bool:
        """Whether somebody stopped the run; a plugin has three seconds to end after that."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """A pause that ends when the run is stopped. Returns: whether it was."""
        return self._cancelled.wait(seconds)

    def log(self, text: str) -> None:
        """A line of the log."""
        print(text, flush=True)

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        """What is printed in the block belongs together, under a title."""
        self.log(f"::group::{_one_line(title)}")
        try:
            yield
        finally:
            self.log("::endgroup::")

    def progress(self, share: float, text: str = "") -> None:
        """How much is done: 0 to 1."""
        self.log(f"::progress::{round(100 * min(max(share, 0.0), 1.0))} {_one_line(text)}".rstrip())

    def metric(
        self,
        name: str,
        value: float,
        *,
        unit: str | None = None,
        kind: str | None = None,
        labels: Mapping[str, str] | None = None,
        at: str | None = None,
    ) -> None:
        """
        A number that was measured; the manifest declares its name. unit, kind: the manifest's by default.

        at: RFC 3339 with its zone; now by default. Raises: ValueError for what is no finite number.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"metric {name}: {value!r} is no finite number")
        line: dict[str, Any] = {"name": name, "value": value, "unit": unit, "kind": kind, "labels": labels, "at": at}
        self._append("metrics.jsonl", {key: one for key, one in line.items() if one is not None})
        if self._pipes is not None:
            self._pipes.metric(name, value)

    def data(self, kind: str, value: Any, *, key: str | None = None) -> None:
        """Anything else that others may read; the manifest declares its kind. key: what it is about."""
        self._append("data.jsonl", {"kind": kind, "value": value, **({"key": key} if key is not None else {})})

    def finding(
        self,
        rule: str,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        line: int | None = None,
        end_line: int | None = None,
        severity: str = "medium",
        rule_name: str | None = None,
        help_uri: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """
        Something that is wrong at a place of the checkout. severity: critical, high, medium, low or info.

        Raises: ValueError for another severity, a path outside of the checkout, or a line before the first.
        """
        if severity not in LEVELS:
            raise ValueError(f"{severity!r} is no severity; use one of {', '.join(LEVELS)}")
        if (line is not None and line < 1) or (end_line is not None and end_line < (line or 1)):
            raise ValueError(f"{rule}: lines count from 1, and end after they begin")
        place = None if path is None else self._relative(path)
        found = Finding(rule, message, severity, place, line, end_line, rule_name, help_uri, fingerprint)
        with self._lock:
            self.scanned()
            assert self._findings is not None
            self._findings.append(found)

    def scanned(self) -> None:
        """Say that it looked for findings: a report is written even if there are none, which closes former ones."""
        with self._lock:
            self._findings = [] if self._findings is None else self._findings

    def output(self, name: str, value: Any) -> None:
        """What later steps read as `${{ steps.THIS.outputs.NAME }}`; the manifest declares it."""
        with self._lock:
            self._outputs[name] = value

    def query(
        self,
        plugin: str | None = None,
        *,
        kind: str | None = None,
        metric: str | None = None,
        key: str | None = None,
        commit: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page: int = 200,
    ) -> Iterator[dict[str, Any]]:
        """
        What plugins told of this project, the newest first: data of a `kind`, or a `metric`.

        The manifest names whom it `reads`. Raises: QueryError.
        """
        if (metric is None) == (kind is None and key is None):
            raise ValueError("ask for a metric, or for data by kind or key")
        wanted = {"plugin": plugin, "commit": commit, "since": since, "until": until, "limit": page}
        if metric is not None:
            return self._data_api().rows("metrics", {**wanted, "name": metric})
        return self._data_api().rows("data", {**wanted, "kind": kind, "key": key})

    def sql(self, text: str) -> list[dict[str, Any]]:
        """One SELECT over `plugin_metrics` and `plugin_data` of this project. Raises: QueryError."""
        return self._data_api().sql(text)

    def __enter__(self) -> Plugin:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._cancelled.set())
        self._pipes = PipesMessages.found(self._env, str(self.ci))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what was found, and end the process as the contract says."""
        if isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit)):
            self._write(None if error is None else str(error))
            return
        if self.cancelled and error is None:
            error = Failed("stopped")
        self._write(None if error is None else str(error))
        if error is None:
            return
        if not isinstance(error, Ending):
            traceback.print_exception(kind, error, trace, file=sys.stderr)
        print(f"{type(error).__name__}: {error}" if not isinstance(error, Ending) else str(error), flush=True)
        sys.exit(error.exit_code if isinstance(error, Ending) else 1)

    def _write(self, failure: str | None) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            if self._findings is not None:
                text = sarif_of(self._findings, self.name, self.version)
                _write_whole(self.ci / "results" / f"{self.name}.sarif", text)
            if self._outputs:
                _write_whole(self.ci / "output.json", json.dumps(self._outputs, allow_nan=False))
            if self._pipes is not None:
                self._pipes.close(failure)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        with self._lock:
            if name not in self._files:
                self._files[name] = (self.ci / name).open("a", encoding="utf-8")
            self._files[name].write(f"{text}\n")

    def _relative(self, path: str | os.PathLike[str]) -> str:
        given = Path(path)
        inside = os.path.relpath(given, self.workspace) if given.is_absolute() else os.path.normpath(given)
        if Path(inside).parts[0:1] == (os.pardir,):
            raise ValueError(f"{given} is outside of the checkout")
        return Path(inside).as_posix()

    def _data_api(self) -> DataApi:
        url, token = self._env.get("PENSTOCK_DATA_URL"), self._secrets_folder / TOKEN
        if not url or not token.is_file():
            raise BadConfiguration("this plugin may not read; name whom it reads in plugin.yaml: `reads:`")
        return DataApi(url, token.read_text(encoding="utf-8").strip())


def _write_whole(path: Path, text: str) -> None:
    """A file that is complete, or not there."""
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())
