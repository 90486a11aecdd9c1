"""A plugin as a step of a pipeline, on the process engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from plugin_runs import Bench, write_plugin

from penstock.state.plugin_tables import plugin_tokens
from penstock.vault import open_vault
from penstock.warehouse import connect, warehouse_location

COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def test_inputs_come_with_their_types_and_as_variables(bench: Bench, folder: Path) -> None:
    """input.json holds what `with:` says; scalars are PLUGIN_* too, defaults are put in."""
    properties = {
        "max-lines": {"type": "integer"},
        "deep": {"type": "object"},
        "on": {"type": "boolean", "default": True},
        "word": {"type": "string"},
    }
    script = 'echo "$PLUGIN_MAX_LINES $PLUGIN_ON $PLUGIN_WORD ${PLUGIN_DEEP-none}"; cat $ci/input.json'
    bench.install(write_plugin(folder, script, inputs={"properties": properties}))
    seen = bench.run(**{"with": {"max-lines": 3, "deep": {"a": [1, None]}, "word": "it's $(reboot)"}})
    assert seen.step().state == "succeeded", seen.log()
    assert "3 true it's $(reboot) none" in seen.log()
    given = json.loads(seen.log()[seen.log().index("{") :])
    assert given["inputs"] == {"max-lines": 3, "deep": {"a": [1, None]}, "on": True, "word": "it's $(reboot)"}
    assert (given["project"], given["commit"], given["run"]) == ("shop", seen.info.commit, seen.info.id)
    assert (given["step"], given["ref"], given["environment"]) == ("probe", "refs/heads/main", None)


def test_outputs_are_typed_and_later_steps_read_them(bench: Bench, folder: Path) -> None:
    """`${{ steps.x.outputs.y }}` is what output.json says, numbers as numbers."""
    bench.install(write_plugin(folder, "echo '{\"count\": 41}' >$ci/output.json", outputs=COUNT))
    after = """  - name: next
    type: step.shell_exec
    needs: [probe]
    when: {if: steps.probe.outputs.count + 1 == 42}
    commands: ["echo it is ${{ steps.probe.outputs.count }}"]
"""
    seen = bench.run(after=after)
    assert seen.outputs() == {"count": 41}
    assert "it is 41" in seen.log("next"), seen.log()


def test_secrets_are_files_and_only_those_that_were_granted(bench: Bench, folder: Path) -> None:
    """A secret is there by the plugin's name for it, masked in the log; others of the project are not."""
    vault = open_vault(bench.services.settings)
    vault.write("shop", "SHOP_KEY", b"hunter2-hunter2")
    vault.write("shop", "OTHER", b"never-to-be-seen")
    script = "ls $PENSTOCK_SECRETS $ci/secrets; cat $ci/secrets/KEY; env; df $ci/secrets | grep -c tmpfs"
    secrets = [{"name": "KEY", "why": "to sign"}, {"name": "MORE", "why": "to do more", "required": False}]
    bench.install(write_plugin(folder, script, secrets=secrets))
    seen = bench.run(secrets={"KEY": "SHOP_KEY"})
    assert seen.step().state == "succeeded", seen.log()
    assert "***" in seen.log()
    for hidden in ("hunter2-hunter2", "OTHER", "SHOP_KEY", "never-to-be-seen"):
        assert hidden not in seen.log()
    refused = bench.run()
    assert refused.step().state == "failed"
    assert 'needs the secret "KEY": to sign' in str(refused.step().reason)
    fork = bench.run(secrets={"KEY": "SHOP_KEY"}, facts={"about": {"pull_request": {"fork": True}}})
    assert "a pull request from a fork gets no secrets" in str(fork.step().reason)


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (1, "failed", "exit code 1: last words"),
        (3, "failed", "exit code 3: last words"),
        (78, "failed", "bad configuration: last words"),
    ],
)
def test_exit_codes_say_how_it_went(bench: Bench, folder: Path, code: int, state: str, reason: str) -> None:
    """1 is failed, 78 is shown as bad configuration."""
    bench.install(write_plugin(folder, f"echo last words; exit {code}"))
    step = bench.run().step()
    assert (step.state, step.reason, step.exit_code) == (state, reason, code)


def test_who_asks_to_be_tried_again_is_within_its_time(bench: Bench, folder: Path) -> None:
    """75 is tried again after a pause, with a fresh /ci; and never beyond the step's limit."""
    script = """test -e $ci/output.json && exit 1
echo '{"count": 1}' >$ci/output.json
echo came; exit 75"""
    bench.install(write_plugin(folder, script, outputs=COUNT))
    seen = bench.run(timeout=2)
    assert (seen.step().state, seen.step().exit_code) == ("infra_error", 75)
    assert "asked to be tried again, at last too: came" in str(seen.step().reason)
    assert seen.log().count("it asks to be tried again") == 1, "one second, then two would be too late"
    assert seen.outputs() == {}, "what it left is not taken"


def test_output_that_does_not_fit_fails_the_step(bench: Bench, folder: Path) -> None:
    """output.json is held against the manifest."""
    bench.install(write_plugin(folder, 'echo \'{"count": "x"}\' >$ci/output.json', outputs=COUNT))
    step = bench.run().step()
    assert (step.state, step.reason) == (
        "failed",
        '/ci/output.json: outputs.count "x" is no integer; mend the plugin',
    )


def test_findings_artifacts_metrics_and_data_are_brought_in(bench: Bench, folder: Path) -> None:
    """SARIF becomes findings with a verdict; artifacts are there for later steps; metrics get the manifest's unit."""
    sarif = {
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "probe"}}, "results": [_result("R1", 3), _result("R2", 5)]}],
    }
    script = f"""cat >$ci/results/probe.sarif <<'END'
{json.dumps(sarif)}
END
mkdir $ci/artifacts/pages; echo hello >$ci/artifacts/pages/index.html
echo '{{"name": "lines", "value": 12}}' >$ci/metrics.jsonl
echo '{{"name": "unknown", "value": 1}}' >>$ci/metrics.jsonl
echo '{{"kind": "thing", "value": {{"id": 1}}}}' >$ci/data.jsonl
echo '{{"kind": "thing", "value": {{"id": "one"}}}}' >>$ci/data.jsonl
echo '{{"kind": "thing", "value": {{"id": 2}}}}' >>$ci/data.jsonl"""
    thing = {"type": "object", "properties": {"id": {"type": "integer"}}}
    metrics = {"lines": {"type": "integer", "unit": "lines", "kind": "gauge"}}
    bench.install(write_plugin(folder, script, metrics=metrics, data={"thing": thing}))
    after = """  - name: next
    type: step.shell_exec
    needs: [probe]
    commands: [cat .penstock/probe/pages/index.html]
"""
    seen = bench.run(after=after, artifacts_out=["pages"])
    assert seen.step().state == "succeeded", seen.log()
    assert "hello" in seen.log("next")
    assert "2 findings" in seen.log()
    assert 'metrics.jsonl: line 2: metric "unknown" is not declared' in seen.log()
    assert 'data.jsonl: line 2: data of kind thing: value.id: "one" is no integer' in seen.log()
    with connect(warehouse_location(bench.services.settings), read_only=True) as lake:
        measured = lake.sql("SELECT plugin, name, value, unit FROM plugin_metrics").fetchall()
        told = lake.sql("SELECT plugin, kind, value FROM plugin_data ORDER BY value").fetchall()
    assert measured == [("probe", "lines", 12, "lines")]
    assert told == [("probe", "thing", '{"id": 1}'), ("probe", "thing", '{"id": 2}')]
    strict = bench.run(fail_on_severity="medium")
    assert (strict.step().state, str(strict.step().reason)[:10]) == ("failed", "2 findings")


def _result(rule: str, line: int) -> dict[str, Any]:
    place = {"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": line}}}
    return {"ruleId": rule, "level": "warning", "message": {"text": rule}, "locations": [place]}


def test_the_checkout_is_there_and_cannot_be_changed(bench: Bench, folder: Path) -> None:
    """$WORKSPACE is the commit's files, read-only; the plugin starts in its own folder, read-only too."""
    script = (
        "cat $WORKSPACE/penstock.yaml >/dev/null && echo read; echo x >$WORKSPACE/new || echo kept; pwd; touch y; true"
    )
    bench.install(write_plugin(folder, script))
    log = bench.run().log()
    assert "read" in log
    assert "kept" in log
    assert "/plugin" in log
    assert log.count("Read-only file system") == 2


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("probe@2.0.0", 'the plugin "probe" is not installed in version 2.0.0; did you mean "1.0.0"?'),
        ("prob@1.0.0", 'no plugin "prob" is installed; did you mean "probe"?'),
    ],
)
def test_a_plugin_that_is_not_installed_is_said_so(bench: Bench, folder: Path, plugin: str, words: str) -> None:
    """One line with the remedy."""
    bench.install(write_plugin(folder, "true"))
    assert bench.run(plugin=plugin).step().reason == words


def test_inputs_are_checked_again_when_they_are_worked_out(bench: Bench, folder: Path) -> None:
    """An expression that gives the wrong type fails the step before the plugin starts."""
    schema = {"properties": {"n": {"type": "integer"}}}
    bench.install(write_plugin(folder, "echo started", inputs=schema))
    seen = bench.run(**{"with": {"n": "${{ branch }}"}})
    assert (seen.step().state, "started" in seen.log()) == ("failed", False)
    assert 'with.n: "main" is no integer' in str(seen.step().reason)


def test_a_plugin_reads_what_another_told(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """Who `reads` gets a token that ends with the step, and the data API at its own loopback address."""
    teller = write_plugin(
        tmp_path / "teller",
        'echo \'{"kind": "thing", "value": {"id": 7}}\' >$ci/data.jsonl',
        name="teller",
        data={"thing": {"type": "object"}},
    )
    script = """cat >/tmp/ask.py <<'END'
import json, os, urllib.request
token = open(os.environ["PENSTOCK_SECRETS"] + "/penstock-data-token").read()
url = os.environ["PENSTOCK_DATA_URL"] + "/data?kind=thing"
ask = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
print([row["value"] for row in json.load(urllib.request.urlopen(ask))], token)
END
python3 /tmp/ask.py"""
    bench.install(teller)
    bench.install(write_plugin(folder, script, reads=["teller"]))
    assert bench.run(plugin="teller@1.0.0").step().state == "succeeded"
    seen = bench.run()
    assert seen.step().state == "succeeded", seen.log()
    assert "[{'id': 7}] ***" in seen.log()
    with bench.services.database.connect() as connection:
        left = connection.execute(sa.select(plugin_tokens.c.hash).where(plugin_tokens.c.revoked_at.is_(None))).all()
    assert not left
