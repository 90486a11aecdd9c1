"""docs/api.md: its addresses and methods are the API's own, and its examples work."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from api_calls import API, MAIN
from git_builder import GitRepository

from penstock.artifacts import open_store
from penstock.pipeline import records
from penstock.pipeline.log import FileLog, log_path
from penstock.settings import Settings
from penstock.steps.context import Artifact, RunInfo, StepResult

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
# What Dagster would be asked for, and what another machine would: their refusals are tested elsewhere.
ELSEWHERE = ("/cancel", "/rerun", "/approve", "git.example", "/projects/api")


def commands() -> Iterator[str]:
    """Every curl command of the page, on one line."""
    for block in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL):
        joined = block.replace("\\\n", " ")
        yield from (line for line in joined.splitlines() if line.startswith("curl"))


@pytest.fixture
def ended(run: RunInfo, database: sa.Engine, settings: Settings) -> str:
    """The digest of an artifact; its run is over and has printed something."""
    with FileLog(log_path(settings.home, run.id, "hello")) as log:
        log.output(b"hello\nworld\n")
    blob = open_store(settings.artifacts_path).put_bytes(b"made")
    made = Artifact("dist", "dist", "file", blob.digest, blob.size_bytes)
    records.finish_step(database, run, "hello", StepResult("succeeded", artifacts=(made,), exit_code=0))
    records.finish_run(database, run.id)
    return blob.digest


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_example_works(api: httpx.Client, shop: GitRepository, ended: str, settings: Settings) -> None:
    """In the order of the page, in a shell, with this API's address and names in place of the words in capitals."""
    shop.git("tag", "v1.2")
    shop.write({"app.tar": "an archive"})
    commit = shop.git("rev-parse", "HEAD")
    api.post(f"{API}/projects/shop/events", json={"ref": MAIN, "commit": commit})
    head = f'API={api.base_url}{API}; AUTH="Authorization: {api.headers["Authorization"]}"'
    names = {"RUN": "run-1", "DIGEST": ended, "steps/test/": "steps/hello/", "steps/build/": "steps/hello/"}
    tried = 0
    for command in commands():
        if any(word in command for word in ELSEWHERE):
            continue
        told = command.replace('"COMMIT"', f'"{commit}"')
        for word, name in names.items():
            told = told.replace(word, name)
        script = f"{head}; COMMIT={commit}; {told} --noproxy '*' -w '\\n%{{http_code}}'"
        done = subprocess.run(["bash", "-c", script], cwd=shop.root, capture_output=True, check=False, timeout=120)
        status = done.stdout.decode("utf-8", "replace").splitlines()[-1]
        expected = "422" if "steps: []" in command else "416" if "-C -" in command else "2"
        assert status.startswith(expected), (command, done.stdout, done.stderr)
        tried += 1
    assert tried >= 20


def test_problem_on_the_page_is_the_one_that_is_sent(api: httpx.Client) -> None:
    """Word for word."""
    (block,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    steps = "  - {name: build, type: step.shell_exec, commands: [x]}\n"
    wrong = "  - {name: test, type: step.shell_exec, commands: [x], needs: [biuld]}\n"
    answer = api.post(f"{API}/pipelines/check", content=f"version: 1\nsteps:\n{steps}{wrong}".encode())
    assert answer.json() == json.loads(block)
