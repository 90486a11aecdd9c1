"""A gate waits while everything is stopped, killed and started again, and what was approved meanwhile goes on."""

import pytest
import yaml
from penstock_running import Penstock, state_of, wait_for

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.timeout(900)]


def test_gate_waits_over_a_restart_of_everything_and_goes_on(penstock: Penstock) -> None:
    """Approved by a command while nothing runs; a second gate is approved over HTTP by a user's token after kill -9."""
    gate = {"type": "step.gate", "approval": {"users": ["grace"]}}
    anybody = {"type": "step.gate", "approval": {}}
    done = {"type": "step.shell_exec", "commands": ["echo gone"]}
    steps = [
        {"name": "first", **anybody},
        {"name": "between", "needs": ["first"], **done},
        {"name": "second", "needs": ["between"], **gate},
        {"name": "after", "needs": ["second"], **done},
    ]
    project = penstock.connect("patient", {"penstock.yaml": yaml.safe_dump({"version": 1, "steps": steps})})
    waited = penstock.ended_run_of(project.push())
    assert (waited["state"], state_of(waited, "first")) == ("waiting", "waiting")

    assert penstock.down() == 0
    said = penstock.command("approve", waited["id"][:8], "first", "--why", "while it was down")
    assert "the rest goes on as soon as" in said.stdout, said.stderr
    assert penstock.command("user", "add", "grace", "--mail", "grace@example.org").returncode == 0
    made = penstock.command("token", "create", "grace", "--scope", "approve", "--expires", "1d")
    assert made.returncode == 0, made.stderr
    penstock.up("--no-example")

    def of(run_id: str) -> dict[str, object] | None:
        others = [run for run in penstock.runs(waited["commit"]) if run["id"] != run_id]
        return others[0] if others else None

    newer = penstock.ended(wait_for(lambda: of(waited["id"]), "a run that goes on")["id"])
    assert (newer["state"], state_of(newer, "between"), state_of(newer, "second")) == (
        "waiting",
        "succeeded",
        "waiting",
    )
    assert penstock.run(waited["id"])["state"] == "skipped"

    penstock.kill()
    penstock.up("--no-example")
    (asked,) = penstock.api("GET", "/approvals?state=waiting&project=patient")
    assert (asked["step"], asked["run_id"]) == ("second", newer["id"])
    refused = penstock.command("approve", newer["id"][:8], "second")
    assert refused.returncode == 2
    assert "is not among those who are asked" in refused.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    answer = penstock.http.post(f"/api/v1/approvals/{asked['id']}/approve", json={"why": "ok"}, headers=headers)
    assert answer.status_code == 200, answer.text

    def last() -> dict[str, object] | None:
        found = [run for run in penstock.runs(waited["commit"]) if run["id"] not in {waited["id"], newer["id"]}]
        return found[0] if found else None

    ended = penstock.ended(wait_for(last, "the run that is left")["id"])
    assert (ended["state"], state_of(ended, "after")) == ("succeeded", "succeeded")
    assert len(penstock.runs(waited["commit"])) == 3, "each approval goes on once"
    told = penstock.sql("SELECT person, decision, how, why FROM approvals WHERE project = 'patient' ORDER BY request")
    assert [(row["decision"], row["how"], row["why"]) for row in told] == [
        ("approved", "cli", "while it was down"),
        ("approved", "api", "ok"),
    ]
