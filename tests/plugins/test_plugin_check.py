"""Manifests, folders and the steps that name them: everything that is wrong is said, with where and the remedy."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from plugin_runs import Bench, write_plugin

from penstock.errors import ConflictError, InputError, SpecError
from penstock.pipeline.load import load_spec
from penstock.plugins.checking import PluginCheck
from penstock.plugins.folder import examine
from penstock.plugins.label import label_of, read_label
from penstock.plugins.manifest import Manifest, read_manifest
from penstock.plugins.resolve import Installed
from penstock.plugins.schemas import check_value, closed

WHOLE = {
    "name": "probe",
    "version": "1.0.0",
    "kind": "scanner",
    "summary": "Looks.",
    "maintainer": "Somebody",
    "licence": "MIT",
    "image": "probe:1",
}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "Probe"}, 'name: "Probe" is no plugin\'s name'),
        ({"version": "1"}, 'version: "1" is no semantic version'),
        ({"version": 1.0}, "version: expected a text"),
        ({"kind": "scaner"}, 'kind: "scaner" cannot stand here'),
        ({"licence": None}, "licence: expected a text"),
        ({"colour": "red"}, '"colour" is not known here'),
        ({"image": None, "command": None}, "it has nothing to run"),
        ({"command": []}, "command: the list is empty"),
        ({"secrets": [{"name": "A"}]}, '"why" is missing'),
        ({"secrets": [{"name": "../x", "why": "y"}]}, 'secrets.../x.name: "../x" cannot stand here'),
        ({"network": ["*"]}, '"*" is no host'),
        ({"inputs": {"type": "array"}}, "inputs are an object"),
        ({"inputs": {"properties": {"a": {"type": "intger"}}}}, "inputs.properties.a.type"),
        ({"inputs": {"properties": {"a": {"$ref": "https://a.test/b"}}}}, "is no part of this schema"),
        ({"inputs": {"properties": {"a": {"pattern": "(?=a)"}}}}, 'the pattern "(?=a)" cannot be used'),
        ({"inputs": {"properties": {"a-b": {"type": "string"}, "a_b": {"type": "null"}}}}, "$PLUGIN_A_B"),
        ({"metrics": {"m": {"type": "string"}}}, "a metric is a number"),
        ({"metrics": {"m": {"kind": "sum"}}}, "this is no kind of metric"),
        ({"data": {"d": {"type": 3}}}, "data.d.type"),
        ({"contract": 2}, "contract: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manifest_that_is_wrong_is_said_with_its_line(more: dict[str, Any], words: str) -> None:
    """`plugin.yaml:LINE: place: what; remedy`."""
    text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in {**WHOLE, **more}.items())
    said = [str(one) for one in read_manifest(text.encode()).complaints]
    assert any(words in line for line in said), said
    assert all(line.startswith("plugin.yaml:") and "; " in line for line in said)


def test_a_folder_without_docs_is_refused_with_everything_that_is_missing(tmp_path: Path) -> None:
    """README and docs must be there and say something; all of it is told at once."""
    (tmp_path / "plugin.yaml").write_text("name: x\n")
    (tmp_path / "README.md").write_text("# Only a heading\n\n")
    said = [str(one) for one in examine(tmp_path).complaints]
    assert sum("is missing" in line for line in said if "plugin.yaml" in line) == 5
    assert f"{tmp_path}/README.md: says nothing; describe how the plugin is built: its architecture" in said
    assert any(line.startswith(f"{tmp_path}/docs: is missing; write at least docs/index.md") for line in said)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("\n \n")
    assert any("docs: has no page that says anything" in str(one) for one in examine(tmp_path).complaints)


@pytest.mark.parametrize("trap", ["nothing", "a pipe", "a link", "not UTF-8", "too large", "an anchor bomb"])
def test_a_manifest_that_is_a_trap_is_refused(tmp_path: Path, trap: str) -> None:
    """Nothing hangs, nothing outside is read."""
    file = tmp_path / "plugin.yaml"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghi"
    )
    make = {
        "nothing": lambda: None,
        "a pipe": lambda: os.mkfifo(file),
        "a link": lambda: file.symlink_to("/etc/passwd"),
        "not UTF-8": lambda: file.write_bytes(b"name: \xff"),
        "too large": lambda: file.write_bytes(b"# " + b"x" * 300_000),
        "an anchor bomb": lambda: file.write_text(bomb),
    }
    make[trap]()
    assert examine(tmp_path).folder is None
    assert len([one for one in examine(tmp_path).complaints if "plugin.yaml" in one.where]) == 1


def test_the_label_of_an_image_must_say_the_same(tmp_path: Path) -> None:
    """A label that is missing, broken or of another manifest is told; the same is fine."""
    folder = write_plugin(tmp_path / "plugin", "true", image="probe:1")
    manifest = examine(folder).folder.manifest  # type: ignore[union-attr]
    assert examine(folder, label_of(manifest)).complaints == ()
    other = label_of(manifest.model_copy(update={"network": ("a.test",)}))
    for label, words in (("", "is missing"), ("{", "holds no manifest"), (other, "says something else")):
        assert [words in one.what for one in examine(folder, label).complaints] == [True]
    assert read_label(label_of(manifest)).name == "probe"


def test_a_pattern_cannot_keep_penstock_busy() -> None:
    """Patterns that drive backtracking engines mad take no time."""
    schema = closed({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    assert check_value(schema, {"a": "a" * 50_000 + "!"}, "with")
    assert not check_value(schema, {"a": "aaa"}, "with")


class Known:
    """One plugin, probe@1.0.0."""

    def __init__(self, **manifest: Any) -> None:
        self._manifest = Manifest.model_validate({**WHOLE, **manifest})

    def find(self, name: str, version: str) -> Installed | None:
        found = (name, version) == ("probe", "1.0.0")
        return Installed(self._manifest, "0" * 64, None, "installed", "tests") if found else None

    def versions(self, name: str) -> tuple[str, ...]:
        return ("1.0.0",) if name == "probe" else ()

    def names(self) -> tuple[str, ...]:
        return ("probe",)


INPUTS = {"properties": {"limit": {"type": "integer"}, "word": {"enum": ["a", "b"]}}, "required": ["limit"]}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, '"limit" is missing'),
        ({"with": {"limit": "x"}}, '"x" is no integer'),
        ({"with": {"limt": 1, "limit": 1}}, 'did you mean "limit"?'),
        ({"with": {"limit": 1, "word": "c"}}, "one of a, b"),
        ({"with": {"limit": 1}, "plugin": "probe@3.0.0"}, "is not installed in version 3.0.0"),
        ({"with": {"limit": 1}, "plugin": "probe"}, '"probe" names no version; write probe@1.0.0'),
        ({"with": {"limit": 1}, "secrets": {}}, 'the plugin needs the secret "KEY": to sign'),
        ({"with": {"limit": 1}, "secrets": {"KEY": "A", "KYE": "A"}}, 'asks for no secret "KYE"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_step_that_does_not_fit_its_plugin_is_wrong(step: dict[str, Any], words: str) -> None:
    """Said at check time, with the line of the pipeline."""
    known = Known(inputs=INPUTS, secrets=[{"name": "KEY", "why": "to sign"}])
    whole = {"name": "probe", "type": "plugin", "plugin": "probe@1.0.0", "secrets": {"KEY": "A"}, **step}
    check = PluginCheck(known)
    with pytest.raises(SpecError) as refused:
        load_spec(f"version: 1\nsteps:\n  - {json.dumps(whole)}\n".encode(), look_at=check)
    assert words in str(refused.value)
    assert str(refused.value).startswith("penstock.yaml:3: ")


def test_what_is_not_installed_here_and_what_is_not_known_yet_are_no_errors() -> None:
    """Another platform may have it; an expression has no value before the run."""
    steps = [
        {"name": "a", "type": "step.plugin", "plugin": "other@1.0.0", "with": {"x": 1}},
        {"name": "b", "type": "plugin", "plugin": "probe@1.0.0", "with": {"limit": "${{ commit }}"}},
    ]
    check = PluginCheck(Known(inputs=INPUTS))
    spec = load_spec(f"version: 1\nsteps: {json.dumps(steps)}\n".encode(), look_at=check)
    assert [step.type for step in spec.steps] == ["step.plugin", "step.plugin"]
    assert len(check.missing) == 1
    assert 'no plugin "other" is installed here' in check.missing[0]


def test_a_version_is_installed_once(bench: Bench, folder: Path) -> None:
    """The same bytes again are fine; others under the same version are refused."""
    bench.install(write_plugin(folder, "true"))
    bench.install(folder)
    (folder / "plugin.sh").write_text("false\n")
    with pytest.raises(ConflictError, match="installed with other files"):
        bench.install(folder)


def test_a_plugin_for_a_newer_penstock_is_not_installed(bench: Bench, folder: Path) -> None:
    """Said before anything is kept."""
    with pytest.raises(InputError, match=r"it needs Penstock 99\.0\.0, and this is"):
        bench.install(write_plugin(folder, "true", minimum_penstock="99.0.0"))


def test_manifest_in_json_and_back_is_the_same() -> None:
    """What the catalog keeps is the manifest."""
    manifest = Manifest.model_validate({**WHOLE, "network": ["a.test:8443"], "inputs": INPUTS})
    assert Manifest.model_validate(manifest.model_dump(mode="json", exclude_defaults=True)) == manifest
