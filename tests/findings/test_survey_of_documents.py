"""Cutting a document into parts without keeping it: exact, whatever stands in it."""

from __future__ import annotations

import json
import tempfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sarif_made import document, encoded, result, run

from penstock.errors import ReportError
from penstock.findings import iter_findings, open_report, read_report
from penstock.findings.documents import FileSource, MemorySource
from penstock.findings.survey import outline, results_in, survey

TRICKY = st.sampled_from(['},{"ruleId":"x"}', '"}],"results":[{', "\\", "é😀", "a" * 70, "", "]}", '{"'])
VALUE = st.recursive(
    TRICKY | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ruleId", "results", "runs", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RESULT = st.fixed_dictionaries({"ruleId": TRICKY, "m": VALUE}) | VALUE
RUNS = st.lists(st.fixed_dictionaries({"tool": VALUE, "results": st.lists(RESULT, max_size=9)}), max_size=3)


@settings(max_examples=80)
@given(RUNS, st.sampled_from([1, 7, 64, 700]), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_blocks_hold_exactly_the_results(runs, block_bytes, indent, wide):
    """Blocks put together are the results, however small the blocks and whatever the strings contain."""
    separators = (" , ", " : ") if wide and indent is None else None
    text = json.dumps({"x": runs, "runs": runs, "version": "2.1.0"}, indent=indent, separators=separators).encode()
    sketch = survey(MemorySource(text), "here", block_bytes)
    for made, found in zip(runs, sketch.runs or (), strict=True):
        blocks = [msgspec.json.decode(b"[" + text[start:end] + b"]") for start, end in found.blocks]
        assert [one for block in blocks for one in block] == made["results"]
        assert msgspec.json.decode(found.parts["tool"]) == made["tool"]


@given(RUNS, st.sampled_from([1, 7, 64, 700]), st.data())
def test_cut_document_is_refused(runs, block_bytes, data):
    """A document that ends too early is refused, wherever it ends."""
    text = json.dumps({"runs": runs, "version": "2.1.0"}).encode()
    end = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(ReportError):
        survey(MemorySource(text[:end]), "here", block_bytes)


@given(RUNS, st.sampled_from([1, 7, 64, 700]), st.data())
def test_damaged_document_is_judged_like_json(runs, block_bytes, data):
    """One byte changed: accepted exactly if it is still JSON."""
    text = json.dumps({"runs": runs, "version": "2.1.0"}).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = (
        text[:at] + data.draw(st.sampled_from([b"{", b"}", b"[", b"]", b'"', b",", b":", b"1", b" "])) + text[at + 1 :]
    )
    try:
        msgspec.json.decode(damaged, type=msgspec.Raw)
        well_formed = damaged.lstrip()[:1] in (b"{", b"[")
    except msgspec.DecodeError:
        well_formed = False
    try:
        survey(MemorySource(damaged), "here", block_bytes)
        accepted = True
    except ReportError:
        accepted = False
    assert accepted == well_formed


def test_file_is_surveyed_like_memory():
    """A file read piece by piece has the parts that its bytes have."""
    data = encoded(run([result(f"R{n % 7}", "x" * (n % 50), line=n + 1) for n in range(3000)]))
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        for block_bytes in (1000, 4096, 1 << 20):
            assert survey(FileSource(file), "f", block_bytes) == survey(MemorySource(data), "m", block_bytes)


def test_streamed_report_is_the_same_report(tmp_path, monkeypatch):
    """Streaming finds what reading at once finds, fingerprints included, tool fingerprints repeated or not."""
    monkeypatch.setattr("penstock.findings.documents.STREAM_ABOVE_BYTES", 1000)
    some = [
        result(f"R{n % 5}", f"message {n} {'x' * 400}", f"src/{n % 11}.py", line=n + 1, snippet=f"code {n % 40}",
               fingerprints={"v1": f"abcdef{n // 2 if n % 3 else n:06}"})
        for n in range(6000)
    ]  # fmt: skip
    data = json.dumps(document(run([*some, {"ruleId": {}}]), run(some[:10], tool="other"))).encode()
    file = tmp_path / "big.sarif"
    file.write_bytes(data)
    stream = open_report(file)
    streamed = [one for batch in stream.batches() for one in batch]
    whole = read_report(data)
    assert stream.summary == whole.summary
    assert stream.quarantined == whole.quarantined
    assert streamed == list(whole.findings)
    assert list(iter_findings(file)) == streamed


@settings(max_examples=80)
@given(RUNS, st.sampled_from([1, 7, 64, 700]), st.sampled_from([None, 1, "\t"]))
def test_blocks_of_a_document_in_memory_hold_exactly_the_results(runs, block_bytes, indent):
    """What is cut by guessing is put right wherever the guess was wrong."""
    text = json.dumps({"x": runs, "runs": runs, "version": "2.1.0"}, indent=indent).encode()
    sketch = outline(text)
    assert sketch is not None

    def take(block):
        try:
            return msgspec.json.decode(block)
        except msgspec.DecodeError:
            return None

    for made, found in zip(runs, sketch.runs or (), strict=True):
        blocks = list(results_in(found.results, take, block_bytes))
        assert [one for block in blocks for one in block] == made["results"]
        assert msgspec.json.decode(found.parts["tool"]) == made["tool"]


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{}", b'{"runs": 1}', b'{"runs": [null]}', b'{"runs": []', b'{"runs": []} x', b'{"version": "2.1.0"}'],
)
def test_outline_leaves_odd_documents_to_the_survey(text):
    """Only what is as SARIF should be takes the short way."""
    assert outline(text) is None
