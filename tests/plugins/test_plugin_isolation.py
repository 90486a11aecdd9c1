"""What plugins may try, and what comes of it: on Docker and on the process engine."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugin_runs import Bench, Seen, build_image, write_plugin

from penstock.errors import StepFailure
from penstock.plugins import invocation, results
from penstock.plugins.manifest import Manifest
from penstock.plugins.results import Left
from penstock.vault import open_vault

Run = Callable[..., Seen]
OUTPUTS = {"properties": {"n": {"type": "number"}, "text": {"type": "string"}}}


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.xdist_group("docker"))])
def run(request: pytest.FixtureRequest, folder: Path) -> Run:
    """run(script, **fields) → the step, on each engine."""
    bench: Bench = request.getfixturevalue("bench" if request.param == "process" else "docker_bench")

    def run_script(script: str, **fields: object) -> Seen:
        manifest = {"image": "probe:isolation"} if request.param == "docker" else {}
        write_plugin(folder, script, outputs=OUTPUTS, metrics={"m": {"type": "number"}}, **manifest)
        if request.param == "docker":
            build_image(str(bench.services.settings.docker_host), folder, "probe:isolation")
        bench.install(folder)
        return bench.run(**fields)

    return run_script


def test_other_secrets_and_the_host_are_not_there(run: Run, request: pytest.FixtureRequest) -> None:
    """Neither Penstock's home nor the vault, nor the engine's socket, nor credentials; it is alone in its processes."""
    bench = request.getfixturevalue("bench" if "process" in request.node.name else "docker_bench")
    settings = bench.services.settings
    open_vault(settings).write("shop", "OTHER", b"never-to-be-seen")
    places = f"{settings.home}/vault* {settings.vault_key_file} /etc/shadow /root/.ssh/* /var/run/docker.sock"
    socket = settings.docker_host or "/run/docker.sock"
    script = f"""for place in {places} {socket}; do test -s "${{place#unix://}}" && echo "seen: $place"; done
grep -ra never-to-be-seen /proc/[0-9]*/environ 2>/dev/null && echo "seen: environ"
ls /run/secrets 2>/dev/null
mkdir /escape 2>/dev/null && echo "seen: root can be written"
mount -t tmpfs none /tmp 2>/dev/null && echo "seen: mount"
echo "$(ls -d /proc/[0-9]* | wc -l) processes"; grep CapEff /proc/self/status"""
    seen = run(script)
    assert seen.step().state == "succeeded", seen.log()
    assert "seen:" not in seen.log()
    assert "0000000000000000" in seen.log()
    assert int(seen.log().split(" processes")[0].splitlines()[-1]) < 12


def test_a_fork_bomb_is_held(run: Run) -> None:
    """It gets so many processes and no more; the machine does not notice."""
    seen = run("bomb() { bomb | bomb & }; bomb; sleep 1; echo still", pids=32, timeout=20)
    assert seen.step().state in ("succeeded", "failed"), seen.log()
    assert "fork" in seen.log().lower() or "resource" in seen.log().lower() or "stopped" in seen.log().lower()


def test_filling_the_disk_is_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes to /ci is bounded while it writes."""
    monkeypatch.setattr(
        "penstock.plugins.running.Limits", lambda **said: invocation.Limits(**said, ci_bytes=8 * 1024 * 1024)
    )
    seen = run("while dd if=/dev/zero bs=65536 count=16 2>/dev/null >>$ci/artifacts/big; do :; done; sleep 30")
    assert (seen.step().state, seen.step().reason) == ("failed", "stopped: it has written more than 8 MiB")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("truncate -s 5G $ci/metrics.jsonl", "/ci/metrics.jsonl: 5120 MiB, at most 256 MiB are read; write less of it"),
        ('printf \'{"text": "\\377"}\' >$ci/output.json', "/ci/output.json: this is no JSON: not UTF-8"),
        ("echo '{\"n\": NaN}' >$ci/output.json", "/ci/output.json: this is no JSON"),
        ("echo '{\"n\": 1e999}' >$ci/output.json", "/ci/output.json: this is no JSON: Number out of range"),
        ("printf '{\"n\": %0200000d}' 1 >$ci/output.json", "/ci/output.json: this is no JSON"),
        ("head -c 10000000 /dev/zero | tr '\\0' 9 >$ci/output.json", "at most 0.25 MiB are read"),
        ("echo '{\"more\": 1}' >$ci/output.json", "outputs.more is not known"),
        ("ln -s /etc/passwd $ci/output.json", "/ci/output.json: a link or a pipe is not read"),
        ("mkfifo $ci/output.json", "/ci/output.json: only regular files are read"),
        ("ln -s /etc/passwd $ci/results/a.sarif", "/ci/results/a.sarif: a link or a pipe is not read"),
        ("rmdir $ci/results; ln -s /etc $ci/results", "/ci/results: it is no folder any more"),
        ("ln -s /etc/passwd $ci/artifacts/a", "/ci/artifacts/a: this link leads out of the artifact"),
        ("mkdir $ci/artifacts/d; ln -s ../../input.json $ci/artifacts/d/x", "d/x: this link leads out of the artifact"),
        ("mkfifo $ci/artifacts/a", "/ci/artifacts/a: a pipe, a socket or a device is no artifact"),
        ('touch "$ci/artifacts/a b"', '"a b" is no name of an artifact'),
    ],
    ids=lambda value: value[:30] if "$ci" in value else "",
)
def test_results_that_are_traps_are_refused(tmp_path: Path, script: str, words: str) -> None:
    """Each with one clear line; nothing outside of /ci is read, nothing hangs."""
    for name in ("results", "artifacts"):
        (tmp_path / name).mkdir()
    subprocess.run(["sh", "-c", script], env={**os.environ, "ci": str(tmp_path)}, check=True)
    left = Left(tmp_path)

    def read_all() -> None:
        left.outputs(_manifest(outputs=OUTPUTS))
        list(left.lines("metrics.jsonl"))
        left.reports()
        left.artifacts()

    with pytest.raises(StepFailure) as refused:
        read_all()
    assert words in str(refused.value)


def test_a_trap_fails_the_step(bench: Bench, folder: Path) -> None:
    """What is refused is the step's reason, and what was sound beside it is not taken."""
    script = "truncate -s 5G $ci/metrics.jsonl; echo '{\"n\": 1}' >$ci/output.json"
    bench.install(write_plugin(folder, script, outputs=OUTPUTS))
    seen = bench.run()
    assert (seen.step().state, seen.outputs()) == ("failed", {})
    assert seen.step().reason == "/ci/metrics.jsonl: 5120 MiB, at most 256 MiB are read; write less of it"


def test_broken_metrics_are_left_out_and_told(bench: Bench, folder: Path) -> None:
    """Infinities, NaN, endless numbers and bytes that are no UTF-8 do not get in; what is sound does."""
    lines = [
        '{"name": "m", "value": 1}',
        '{"name": "m", "value": NaN}',
        '{"name": "m", "value": 2}',
        '{"name": "m", "value": 1e999}',
        '{"name": "m", "value": 3}',
        '{"name": "m", "value": 4}',
        '{"name": "m", "value": 5}',
    ]
    script = "\n".join(f"echo '{line}' >>$ci/metrics.jsonl" for line in lines)
    script += "\nprintf '\\377\\n' >>$ci/metrics.jsonl"
    bench.install(write_plugin(folder, script, metrics={"m": {"type": "number"}}))
    seen = bench.run()
    assert seen.step().state == "succeeded", seen.log()
    assert "metrics.jsonl: 3 lines were not taken, 5 were" in seen.log()


def test_links_within_an_artifact_are_kept(tmp_path: Path) -> None:
    """A link inside of a folder to what lies in it leads nowhere else."""
    made = tmp_path / "artifacts" / "d"
    made.mkdir(parents=True)
    (made / "file").write_text("x")
    (made / "link").symlink_to("file")
    assert Left(tmp_path).artifacts() == (made,)
    (made / "circle").symlink_to("circle")
    with pytest.raises(StepFailure, match="leads out"):
        Left(tmp_path).artifacts()


def test_a_bottomless_folder_is_counted_without_harm(bottomless: Path) -> None:
    """What is nested deeper than a path may be long ends the count, not Penstock."""
    size, count = results.ci_bytes((bottomless,), 10**9, 10**6)
    assert count > 500
    assert size >= 0


def _manifest(**more: Any) -> Manifest:
    said = {"name": "a", "version": "1.0.0", "kind": "other", "summary": "s", "maintainer": "m", "licence": "MIT"}
    return Manifest.model_validate({**said, "image": "a", **more})


def test_a_manifest_says_what_outputs_there_are(tmp_path: Path) -> None:
    """Names that a schema does not list are refused, unless it says that there may be others."""
    manifest = _manifest(outputs={"additionalProperties": True})
    (tmp_path / "output.json").write_text(json.dumps({"anything": [1]}))
    assert Left(tmp_path).outputs(manifest) == {"anything": [1]}
