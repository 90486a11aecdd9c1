"""/pipelines/check and /step-types: the same answers as the command line's, in the same words."""

import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import pytest
from api_calls import API, problem_of
from git_builder import PIPELINE

from penstock.cli import __name__ as cli
from penstock.pipeline.templates import keep_template
from penstock.settings import Settings
from penstock.steps import step_types

URL = f"{API}/pipelines/check"
YAML = {"Content-Type": "application/yaml"}
TWO = """\
version: 1
steps:
  - {name: build, type: step.shell_exec, commands: [make]}
  - {name: test, type: step.shell_exec, needs: [build], commands: [make test]}
"""
WRONG: dict[str, bytes] = {
    "unknown need": TWO.replace("needs: [build]", "needs: [biuld]").encode(),
    "unknown type": TWO.replace("step.shell_exec", "step.shel_exec").encode(),
    "tab": b"version: 1\nsteps:\n\t- name: x\n",
    "no steps": b"version: 1\n",
    "version": b"version: 2\nsteps: []\n",
    "cycle": TWO.replace("make]", "make], needs: [test]", 1).encode(),
    "list": b"[1, 2]",
    "empty": b"",
    "latin": "version: 1\n# grün\n".encode("latin-1"),
    "binary": bytes(range(256)),
    "deep": b"[" * 5000,
    "lost template": b"version: 1\ninclude: {file: more.yaml}\n",
}


def test_right_pipeline_is_answered_with_its_graph(api: httpx.Client) -> None:
    """Whatever media type its bytes are sent as, or as JSON: steps in their order, with hashes."""
    plain = api.post(URL, content=TWO.encode(), headers=YAML).json()
    assert [(step["name"], step["needs"], step["kind"]) for step in plain["steps"]] == [
        ("build", [], "build"),
        ("test", ["build"], "build"),
    ]
    assert (len(plain["hash"]), len(plain["structure_hash"]), plain["graph"]["version"]) == (64, 64, 1)
    assert api.post(URL, content=TWO.encode()).json() == plain
    assert api.post(URL, content=TWO.encode(), headers={"Content-Type": "text/plain"}).json() == plain
    assert api.post(URL, json={"file": TWO}).json() == plain


def test_templates_come_along_or_from_the_library(api: httpx.Client, settings: Settings) -> None:
    """Files of the repository are sent with it; the platform knows its own."""
    template = b"version: 1\nsteps:\n  - {name: lint, type: step.shell_exec, commands: [make lint]}\n"
    pinned = keep_template(settings.templates_path, "lint", template)
    sent = {"file": "version: 1\ninclude: {file: ci/lint.yaml}\n", "templates": {"ci/lint.yaml": template.decode()}}
    kept = {"file": f"version: 1\ninclude: {{template: {pinned}}}\n"}
    for body in (sent, kept):
        answer = api.post(URL, json=body)
        assert [step["name"] for step in answer.json()["steps"]] == ["lint"], answer.text


def test_wrong_pipeline_is_told_in_the_words_of_the_command_line(api: httpx.Client, tmp_path: Path) -> None:
    """The detail is the line that `penstock check` prints; where, what, remedy and line are its parts."""
    for name, data in WRONG.items():
        (tmp_path / "penstock.yaml").write_bytes(data)
        command = [sys.executable, "-c", f"from {cli} import main; main()", "check"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        answer = api.post(URL, content=data, headers=YAML)
        assert problem_of(answer, 422) == done.stderr.strip().removeprefix("penstock: "), name
        told = answer.json()
        whole = f"{told['where']}: {told['what']}" + (f"; {told['remedy']}" if "remedy" in told else "")
        assert " ".join(whole.split()) == told["detail"], name
        assert told["where"].startswith(f"penstock.yaml:{told['line']}"), name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[]", "body"),
        (b"{}", "body"),
        (b'{"file": 1}', "body"),
        (b'{"file": "", "more": 1}', "body"),
        (b'{"file": "version: 1", "templates": ["x"]}', "body"),
    ],
)
def test_bad_json_is_refused(api: httpx.Client, content: bytes, told: str) -> None:
    """With what is wrong in it."""
    assert told in problem_of(api.post(URL, content=content, headers={"Content-Type": "application/json"}), 422)


def test_huge_pipeline_is_refused(api: httpx.Client) -> None:
    """In the words of the command line up to what the API reads, and by its length beyond that."""
    assert "2 MB is too large; keep it below 1 MB" in problem_of(api.post(URL, content=b"#" * 2_000_000), 422)
    try:
        answer = api.post(URL, content=b"#" * 50_000_000)
    except httpx.TransportError:  # the connection was closed while it was being sent
        return
    assert "larger than" in problem_of(answer, 413)


def test_step_types_are_told_with_the_schema_of_what_they_take(api: httpx.Client) -> None:
    """Every one that is registered; a step that is right passes its schema, one that is wrong does not."""
    told = {found["name"]: found for found in api.get(f"{API}/step-types").json()}
    assert list(told) == list(step_types())
    for name, found in told.items():
        assert api.get(f"{API}/step-types/{name}").json() == found
        assert found["summary"]
        assert found["kind"] in ("build", "report", "image", "deployment")
        jsonschema.Draft202012Validator.check_schema(found["schema"])
    schema = told["step.shell_exec"]["schema"]
    step = {"name": "x", "type": "step.shell_exec", "commands": ["make"]}
    jsonschema.validate(step, schema)
    for wrong in ({"type": "step.deploy"}, {"commands": 3}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**step, **wrong}, schema)
    assert "step.shell_exec" in problem_of(api.get(f"{API}/step-types/step.shel_exec"), 404)


def test_example_of_the_tests_is_right(api: httpx.Client) -> None:
    """What other tests push."""
    assert api.post(URL, content=PIPELINE.encode()).status_code == 200
