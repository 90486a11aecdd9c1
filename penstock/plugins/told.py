"""The lines of metrics.jsonl and data.jsonl, held against what the manifest declares."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

from penstock.pipeline.complaints import shortened, suggestion
from penstock.plugins.manifest import Manifest
from penstock.plugins.schemas import Schema, checker

_PLAIN = frozenset({"type", "unit", "kind", "title", "description", "minimum", "maximum", "examples", "$comment"})
_SAID = 20


class _MetricLine(msgspec.Struct):
    name: str
    value: float
    unit: str | None = None
    kind: str | None = None
    labels: msgspec.Raw = msgspec.Raw(b"null")
    at: msgspec.Raw = msgspec.Raw(b"null")


class _DataLine(msgspec.Struct):
    kind: str
    value: msgspec.Raw
    key: msgspec.Raw = msgspec.Raw(b"null")


@attrs.define
class Told:
    """
    Lines that fit the manifest, for the store of plugins' data; counts those that do not.

    A line that does not fit is left empty, so that numbers of lines stay what they are. A line that cannot be read is
    passed on: the store says what is wrong with it.
    """

    manifest: Manifest
    refused: int = 0
    reasons: list[str] = attrs.field(factory=list)
    last: dict[tuple[str, bytes], float] = attrs.field(factory=dict)

    def totals(self) -> dict[str, float]:
        """The last value of each metric that was taken, summed over its labels."""
        summed: dict[str, float] = {}
        for (name, _), value in self.last.items():
            summed[name] = summed.get(name, 0.0) + value
        return summed

    def metrics(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """With unit and kind of the manifest where a line has none."""
        checks = {name: _number_check(schema) for name, schema in self.manifest.metrics.items()}
        encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(_MetricLine)
        for number, line in enumerate(lines, start=1):
            try:
                metric = decoder.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                yield line
                continue
            check = checks.get(metric.name)
            wrong = check(metric.value) if check else f"is not declared; {suggestion(metric.name, list(checks))}"
            if wrong:
                yield self._refuse(number, f'metric "{shortened(metric.name)}" {wrong}')
                continue
            declared = self.manifest.metrics[metric.name]
            self.last[metric.name, bytes(metric.labels)] = metric.value
            if (metric.unit is None and "unit" in declared) or (metric.kind is None and "kind" in declared):
                metric.unit = metric.unit or declared.get("unit")
                metric.kind = metric.kind or declared.get("kind")
                yield encoder.encode(_without_nulls(metric))
            else:
                yield line

    def data(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Whose values fit the schema of their kind."""
        checks = {kind: checker(schema) for kind, schema in self.manifest.data.items()}
        decoder = msgspec.json.Decoder(_DataLine)
        for number, line in enumerate(lines, start=1):
            try:
                datum = decoder.decode(line)
                value = msgspec.json.decode(datum.value)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                yield line
                continue
            if datum.kind not in checks:
                words = suggestion(datum.kind, list(checks))
                yield self._refuse(number, f'data of kind "{shortened(datum.kind)}" is not declared; {words}')
            elif wrong := checks[datum.kind](value, "value"):
                yield self._refuse(number, f"data of kind {datum.kind}: {wrong[0]}")
            else:
                yield line

    def _refuse(self, number: int, why: str) -> bytes:
        self.refused += 1
        if len(self.reasons) < _SAID:
            self.reasons.append(f"line {number}: {why}")
        return b""


def _without_nulls(metric: _MetricLine) -> dict[str, Any]:
    values = {name: getattr(metric, name) for name in ("name", "value", "unit", "kind", "labels", "at")}
    return {name: value for name, value in values.items() if value is not None and value != msgspec.Raw(b"null")}


def _number_check(schema: Schema) -> Callable[[float], str]:
    """Says what is wrong with a number, in little time where the schema is as plain as most are."""
    if set(schema) - _PLAIN:
        check = checker(schema)
        return lambda value: "; ".join(one.what for one in check(_whole(value), "value")[:1])
    whole, least, most = schema.get("type") == "integer", *_bounds(schema)

    def check_plain(value: float) -> str:
        if whole and not value.is_integer():
            return f"is {value:g}, no whole number"
        return "" if least <= value <= most else f"is {value:g}, out of bounds"

    return check_plain


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    return float(schema.get("minimum", "-inf")), float(schema.get("maximum", "inf"))


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value
