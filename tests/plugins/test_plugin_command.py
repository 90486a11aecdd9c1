"""`penstock plugin`: the commands, and the plugins that come with Penstock as examples."""

import filecmp
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import DockerEngine
from git_builder import GitRepository
from plugin_runs import build_image, write_plugin

from penstock.plugins.folder import open_folder
from penstock.plugins.label import label_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "plugins"


def penstock(*words: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """The command, as a process."""
    command = [str(Path(sys.executable).with_name("penstock")), *words]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": env["PENSTOCK_HOME"]}
    return subprocess.run(command, env={**path, **env}, capture_output=True, text=True, timeout=120, check=False)


def _needs(language: str) -> None:
    if language == "node" and shutil.which("node") is None:
        pytest.skip("node is not installed")


@pytest.mark.parametrize("language", ["python", "shell", "node"])
def test_a_new_plugin_passes_its_checks_and_cases(tmp_path: Path, home: Path, language: str) -> None:
    """As it was made, without an edit."""
    _needs(language)
    env = {"PENSTOCK_HOME": str(home)}
    made = penstock("plugin", "new", "licence-report", "--language", language, "--into", str(tmp_path), env=env)
    folder = tmp_path / "licence-report"
    assert (made.returncode, "penstock plugin test" in made.stdout) == (0, True), made.stderr
    checked = penstock("plugin", "check", str(folder), env=env)
    assert (checked.returncode, checked.stdout) == (0, "licence-report@0.1.0: fine\n"), checked.stdout
    tested = penstock("plugin", "test", str(folder), "--engine", "process", env=env)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "3 cases passed on the process engine" in tested.stdout
    again = penstock("plugin", "new", "licence-report", "--into", str(tmp_path), env=env)
    assert (again.returncode, "there is something already" in again.stderr) == (2, True)


@pytest.mark.parametrize("language", ["python", "shell", "node"])
def test_the_examples_pass_their_checks_and_cases(home: Path, tmp_path: Path, language: str) -> None:
    """In whatever language, with the SDK and without."""
    _needs(language)
    folder = tmp_path / language
    shutil.copytree(EXAMPLES / language, folder)
    env = {"PENSTOCK_HOME": str(home)}
    for command in ("check", "test"):
        done = penstock("plugin", command, str(folder), env=env)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_brings_the_sdk_as_it_is() -> None:
    """Its copy is this Penstock's; `penstock plugin sdk examples/plugins/python` renews it."""
    copy, own = EXAMPLES / "python" / "penstock" / "sdk", ROOT / "penstock" / "sdk"
    names = sorted(path.name for path in own.glob("*.py"))
    assert sorted(path.name for path in copy.glob("*.py")) == names
    assert filecmp.cmpfiles(copy, own, names, shallow=False)[0] == names


def test_a_case_that_fails_is_said_and_fails_the_command(tmp_path: Path, home: Path) -> None:
    """Breaches of the contract and of what a case expects, one line each."""
    script = """echo '{"name": "m", "value": NaN}' >$ci/metrics.jsonl
echo '{"name": "k", "value": 1}' >>$ci/metrics.jsonl
echo '{"x": 1}' >$ci/output.json; echo '{' >$ci/results/a.sarif; ln -s /etc $ci/artifacts/a"""
    folder = write_plugin(tmp_path / "plugin", script, metrics={"m": {"type": "number"}})
    (folder / "tests" / "cases").mkdir(parents=True)
    case = {"expect": {"metrics": {"m": 3}, "log": ["never said"], "findings": ["R1"]}}
    (folder / "tests" / "cases" / "one.yaml").write_text(json.dumps(case))
    done = penstock("plugin", "test", str(folder), env={"PENSTOCK_HOME": str(home)})
    assert done.returncode == 1
    for words in (
        "outputs.x is not known",
        'metric "k" is not declared',
        "metrics.jsonl: line 1: JSON is malformed",
        "a.sarif",
        "/ci/artifacts/a: this link leads out",
        "metric m: expected 3, it is not there",
        "findings: expected ['R1'], they are []",
        'log: "never said" was not printed',
    ):
        assert words in done.stdout, done.stdout
    assert "1 of 1 cases failed" in done.stderr


def test_install_list_check_run_and_uninstall(tmp_path: Path, env: dict[str, str]) -> None:
    """From a folder to a pipeline on the command line."""
    folder = write_plugin(
        tmp_path / "plugin", "echo hello $PLUGIN_WHO", inputs={"properties": {"who": {"type": "string"}}}
    )
    installed = penstock("plugin", "install", str(folder), env=env)
    assert installed.returncode == 0, installed.stderr
    assert "probe@1.0.0: installed" in installed.stdout
    assert "probe@1.0.0  other  installed" in penstock("plugin", "list", env=env).stdout
    shop = tmp_path / "shop"
    shop.mkdir()
    for who, code in (("5", 2), ("you", 0)):
        text = f"version: 1\nsteps:\n  - {{name: p, type: plugin, plugin: probe@1.0.0, with: {{who: {who}}}}}\n"
        (shop / "penstock.yaml").write_text(text)
        checked = penstock("check", str(shop), env=env)
        assert checked.returncode == code, checked.stderr
    refused = '5" is no string; give a string'
    (shop / "penstock.yaml").write_text(text.replace("you", "5"))
    assert refused in penstock("check", str(shop), env=env).stderr
    (shop / "penstock.yaml").write_text(text.replace("probe@", "else@"))
    unknown = penstock("check", str(shop), env=env)
    assert (unknown.returncode, "warning: " in unknown.stderr) == (0, True)
    assert penstock("plugin", "uninstall", "probe@1.0.0", env=env).returncode == 0
    gone = penstock("plugin", "uninstall", "probe@1.0.0", env=env)
    assert (gone.returncode, 'no plugin "probe" is installed' in gone.stderr) == (2, True)


@pytest.mark.xdist_group("docker")
def test_on_docker_the_image_is_looked_at_and_run(
    tmp_path: Path,
    env: dict[str, str],
    docker_engine: DockerEngine,
    make_repository: Callable[..., GitRepository],
) -> None:
    """A label that says something else is refused; the image is run as the platform would; a changed one is refused."""
    host = docker_engine.host
    own = {**env, "PENSTOCK_DOCKER_HOST": host, "PENSTOCK_ENGINE": "docker"}
    folder = write_plugin(tmp_path / "plugin", "echo from the image", image="probe:command", command=None)
    build_image(host, folder, "probe:command", "dev.penstock.plugin={}")
    refused = penstock("plugin", "check", str(folder), env=own)
    assert (refused.returncode, "holds no manifest" in refused.stdout) == (2, True)
    build_image(host, folder, "probe:command", f"dev.penstock.plugin={label_of(open_folder(folder).manifest)}")
    tested = penstock("plugin", "test", str(folder), env=own)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "from the image" in tested.stdout
    assert penstock("plugin", "install", str(folder), env=own).returncode == 0
    pipeline = "version: 1\nsteps:\n  - {name: p, type: plugin, plugin: probe@1.0.0}\n"
    shop = make_repository("shop", {"penstock.yaml": pipeline}).root
    fine = penstock("run", str(shop), "--verbose", env=own)
    assert (fine.returncode, "from the image" in fine.stdout) == (0, True), fine.stdout + fine.stderr
    (folder / "plugin.sh").write_text("echo tampered\n")
    build_image(host, folder, "probe:command")
    tampered = penstock("run", str(shop), "--verbose", env=own)
    assert tampered.returncode == 1, tampered.stdout
    assert "is not the one that was installed" in " ".join(tampered.stdout.split())
    assert "tampered" not in tampered.stdout
