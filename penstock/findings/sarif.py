"""
Reading SARIF 2.1.0: `read_report` for a report at once, `open_report` for one of any size.

A document is read twice: once to find its parts (`survey`), once to decode its results block by block, for
rules may stand behind the results that they are needed for (Semgrep writes them so).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import force_setattr

from penstock.errors import ReportError
from penstock.findings.documents import (
    MemorySource,
    Source,
    check_version,
    foreign_report,
    source_of_bytes,
    source_of_file,
)
from penstock.findings.extract import RunReader, is_finding, parse_results
from penstock.findings.finding import (
    SEVERITIES,
    Finding,
    Quarantined,
    Report,
    RunOutcome,
    Scope,
    Summary,
    count_severities,
)
from penstock.findings.identity import (
    Fingerprinter,
    NumberByArrival,
    number_by_place,
    repeated,
    tool_fingerprint,
)
from penstock.findings.mend import Unmendable, loads_loosely
from penstock.findings.model import Marks
from penstock.findings.survey import RunSketch, Sketch, outline, results_in, survey

_marks = msgspec.json.Decoder(list[Marks]).decode


def read_report(data: bytes | Path, *, scope: Scope | None = None, where: str | None = None) -> Report:
    """
    Read a report to its end.

    data: its bytes, or its file. where: what errors call it; by default the path.
    Raises: ReportError if it is no SARIF 2.1.0, or if more than half of its results cannot be understood.
    """
    stream = open_report(data, scope=scope, where=where)
    findings = stream.read_all()
    return Report(findings, stream.summary, stream.quarantined, stream.runs)


def iter_findings(path: Path, scope: Scope | None = None) -> Iterator[Finding]:
    """
    The findings of a report of any size, in its order; in constant memory if it is a large one.

    Raises: ReportError at once if it is no SARIF 2.1.0; at the end if more than half of its results cannot
        be understood, so what was taken must not be kept.
    """
    for portion in open_report(path, scope=scope).portions():
        yield from portion


def open_report(data: bytes | Path, *, scope: Scope | None = None, where: str | None = None) -> ReportStream:
    """
    Find the parts of a report, without reading its results yet.

    Raises: ReportError if it is no SARIF 2.1.0.
    """
    name = where or (str(data) if isinstance(data, Path) else "report")
    source = source_of_file(data, name) if isinstance(data, Path) else source_of_bytes(data, name)
    source, sketch = _sketched(source, name)
    if sketch.runs is None:
        raise foreign_report(sketch.keys, name)
    check_version(sketch.version, sketch.schema, name)
    return ReportStream(source, sketch, name, scope or Scope())


def _sketched(source: Source, where: str) -> tuple[Source, Sketch]:
    """The parts of a document; one in memory that is almost JSON is rewritten first."""
    if isinstance(source, MemorySource) and (sketch := outline(source.data)) is not None:
        return source, sketch
    try:
        return source, survey(source, where)
    except ReportError:
        if not isinstance(source, MemorySource):
            raise
        try:
            text = json.dumps(loads_loosely(source.data), ensure_ascii=False)
            rewritten = MemorySource(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            rewritten = None
        if rewritten is None:
            raise
    return rewritten, survey(rewritten, where)


class ReportStream:
    """
    A report whose parts are known. Take `portions` to the end, once; or `batches`, or `read_all`.

    summary, quarantined and runs are complete only then.
    """

    def __init__(self, source: Source, sketch: Sketch, where: str, scope: Scope) -> None:
        self._source, self._where = source, where
        self._prints = Fingerprinter(scope)
        self._runs = [
            (run, RunReader(run, number, scope, self._prints)) for number, run in enumerate(sketch.runs or ())
        ]
        self._severities = dict.fromkeys(SEVERITIES, 0)
        self._suppressed = 0

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """The results that could not be understood, so far."""
        return tuple(one for _, reader in self._runs for one in reader.quarantined)

    @property
    def runs(self) -> tuple[RunOutcome, ...]:
        """What each run says of itself."""
        return tuple(reader.outcome() for _, reader in self._runs)

    @property
    def summary(self) -> Summary:
        """Counts of what has been read so far."""
        readers = [reader for _, reader in self._runs]
        results = sum(reader.results for reader in readers)
        passed = sum(reader.not_findings for reader in readers)
        broken = sum(len(reader.quarantined) for reader in readers)
        found = results - passed - broken
        return Summary(results, found, passed, broken, self._suppressed, dict(self._severities))

    def portions(self) -> Iterator[Sequence[Finding]]:
        """
        The findings: all at once from a document in memory, in batches from one that is left on disk.

        Raises: ReportError as `read_all` and `batches` do.
        """
        if isinstance(self._source, MemorySource):
            yield self.read_all()
        else:
            yield from self.batches()

    def batches(self) -> Iterator[list[Finding]]:
        """
        The findings, some thousand at a time, in the order of the report; memory does not grow with its size
        but for about 100 bytes per finding, by which those alike are numbered.

        Raises: ReportError at the end if more than half of the results cannot be understood.
        """
        self._prints.untrusted = self._repeated_marks()
        numbers = NumberByArrival()
        for findings in self._read():
            prints = [finding.fingerprint for finding in findings]
            yield self._sealed(findings, prints, numbers.number(prints))
        self._check()

    def read_all(self) -> tuple[Finding, ...]:
        """
        All findings in the order of the report, those alike numbered by their place in the code.

        Raises: ReportError if more than half of the results cannot be understood.
        """
        findings: list[Finding] = []
        for batch in self._read():
            findings += batch
        self._check()
        self._distrust(findings, repeated([finding.tool_fingerprint for finding in findings]))
        prints = [finding.fingerprint for finding in findings]
        return tuple(self._sealed(findings, prints, number_by_place(findings, prints)))

    def _read(self) -> Iterator[list[Finding]]:
        for sketch, reader in self._runs:
            if sketch.results is not None:
                yield from results_in(sketch.results, reader.read_guess)
            for block in self._blocks(sketch.blocks):
                yield reader.read(block)

    def _distrust(self, findings: Sequence[Finding], untrusted: frozenset[str]) -> None:
        """Identify those findings by something else whose tools' fingerprints turned out to identify nothing."""
        self._prints.untrusted = untrusted
        for finding in findings if untrusted else ():
            if finding.identity == "tool" and finding.tool_fingerprint in untrusted:
                basis, value = self._prints.again(finding)
                force_setattr(finding, "identity", basis)
                force_setattr(finding, "fingerprint", value)

    def _blocks(self, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        for start, end in spans:
            yield b"[" + self._source.read_at(start, end - start) + b"]"

    def _sealed(self, findings: list[Finding], prints: list[str], unique: list[str]) -> list[Finding]:
        """Give findings alike the numbers that could not be known when they were made; nobody has seen them yet."""
        for finding, value, other in zip(findings, prints, unique, strict=True) if unique is not prints else ():
            if value is not other:
                force_setattr(finding, "fingerprint", other)
        for name, count in count_severities(findings).items():
            self._severities[name] += count
        self._suppressed += sum([finding.suppressed for finding in findings])
        return findings

    def _repeated_marks(self) -> frozenset[str]:
        """The tool fingerprints that several findings share, found by a reading of their own."""
        seen: set[int] = set()
        shared: set[str] = set()
        for sketch, _ in self._runs:
            for mark in self._marks(sketch):
                own = tool_fingerprint(mark.fingerprints, mark.partial_fingerprints)
                if own is not None and is_finding(mark.kind, mark.baseline_state):
                    short = hash(own)
                    if short in seen:
                        shared.add(own)
                    seen.add(short)
        return frozenset(shared)

    def _marks(self, sketch: RunSketch) -> Iterator[Marks]:
        if sketch.results is not None:
            for marks in results_in(sketch.results, _marks_in_guess):
                yield from marks
        for block in self._blocks(sketch.blocks):
            yield from _marks_in(block) if b"ingerprints" in block else ()

    def _check(self) -> None:
        summary, quarantined = self.summary, self.quarantined
        if summary.quarantined * 2 > summary.results:
            first = quarantined[0]
            raise ReportError(
                f"{summary.quarantined} of {summary.results} results cannot be understood; "
                f"the first: runs[{first.run}].results[{first.index}]: {first.reason}",
                where=self._where,
                remedy="the scanner writes broken SARIF; update it or report it to its makers",
            )


def _marks_in_guess(block: bytes) -> list[Marks] | None:
    try:
        return _marks_in(block)
    except (msgspec.DecodeError, RecursionError):
        return None


def _marks_in(block: bytes) -> list[Marks]:
    try:
        return _marks(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = [one for one in parse_results(block) if not isinstance(one, Unmendable)]
        return [Marks(one.fingerprints, one.partial_fingerprints, one.kind, one.baseline_state) for one in parsed]
