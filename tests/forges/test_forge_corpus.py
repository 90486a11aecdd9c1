"""Real deliveries, recorded by others: each parses to the right kind or is ignored with a reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import AccessError
from penstock.forges.event import GitEvent, Ignored, event_key
from penstock.forges.registry import FORGES
from penstock.forges.verify import Trust

CORPUS = Path(__file__).parents[2] / ".." / "shared" / "corpus" / "webhooks"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of recorded deliveries is not here")

KINDS = {
    "push": "push",
    "push_delete": "delete",
    "tag": "tag",
    "tag_create": "tag",
    "tag_delete": "delete",
    "ref_delete": "delete",
    "pr": "pull_request",
    "release": "release",
    # A new ref without its commits: the push that made it is the event.
    "ref_create": "ignored",
    "other": "ignored",
}


def rows() -> list[dict[str, str]]:
    if not CORPUS.is_dir():
        return []
    with (CORPUS / "manifest.csv").open(newline="") as manifest:
        return list(csv.DictReader(manifest))


def vectors() -> list[dict[str, Any]]:
    return json.loads((CORPUS / "signature_vectors.json").read_bytes()) if CORPUS.is_dir() else []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["file"])
def test_a_recorded_delivery_has_its_kind(row):
    """The kind follows from the recorder's category, and what was told is complete."""
    told = FORGES[row["provider"]].parse((CORPUS / row["file"]).read_bytes(), {}, row["event"])
    if isinstance(told, Ignored):
        assert KINDS[row["category"]] == "ignored", told.reason
        return
    assert isinstance(told, GitEvent)
    assert told.kind == KINDS[row["category"]]
    assert told.ref.startswith("refs/")
    assert told.repository
    assert told.commit or told.kind in ("delete", "release")
    assert (told.pull_request is not None) == (told.kind == "pull_request")
    assert len(event_key(told)) == 64


def test_the_corpus_is_read_at_all():
    """A manifest that lost its rows would let everything pass."""
    assert len(rows()) > 200
    assert {row["provider"] for row in rows()} == set(FORGES)


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["source"][:40])
def test_published_signatures_verify(vector):
    """Each vector is believed as it is, and not with one byte more."""
    body = vector["body"].encode() if "body" in vector else (CORPUS / vector["body_file"]).read_bytes()
    headers = {vector["header"]: vector["value"], **vector.get("headers", {})}
    now_s = float(vector.get("headers", {}).get("webhook-timestamp", 0))
    verify = FORGES[vector["provider"]].verify
    verify(body, headers, Trust(secrets=("another", vector["secret"])), now_s)
    with pytest.raises(AccessError):
        verify(body + b" ", headers, Trust(secrets=(vector["secret"],)), now_s)
