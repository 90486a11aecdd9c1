"""docs/findings.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from sarif_made import encoded, result, run

from penstock.findings import Finding, severity

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "findings.md").read_text()


def test_python_of_the_docs_runs(tmp_path, monkeypatch):
    """The example reads two reports that are there."""
    monkeypatch.chdir(tmp_path)
    for name in ("trivy.sarif", "huge.sarif"):
        (tmp_path / name).write_bytes(encoded(run([result()])))
    names = {}
    exec(re.search(r"```python\n(.*?)```", DOCS, re.DOTALL)[1], names)
    assert names["report"].summary == names["stream"].summary
    assert names["table"].num_rows == 1


def test_docs_name_every_severity_source():
    """The table of sources is the one in the code, in its order."""
    rows = re.findall(r"^\| `([a-z.-]+)` \|", DOCS.split("## Severity")[1].split("##")[0], re.MULTILINE)
    code = Path(severity.__file__).read_text().split("def _decide")[1]
    said = re.findall(r'"((?:override|result|rule|configuration|rank|default)[a-z.-]*)"', code)
    assert [name for name in rows if name != "severity_source"] == said


def test_docs_name_every_identity():
    """The table of identities has what findings can stand on."""
    rows = re.findall(r"^\| `([a-z]+)` \|", DOCS.split("## Identity")[1].split("## ")[0], re.MULTILINE)
    assert [name for name in rows if name != "identity"] == ["package", "tool", "snippet", "message"]
    assert Finding("t", "r").identity in rows
