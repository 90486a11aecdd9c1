"""What Dagster shows of a deployment."""

import dagster as dg

from assets.steps import metadata_of
from penstock.steps.context import StepResult, Verdict


def test_deployment_says_what_is_where_and_how_well():
    """Release, environment, health and strategy as they are; the address can be clicked, words cannot."""
    evidence = {"release": 7, "environment": "production", "strategy": "canary", "url": "http://127.0.0.1:8710"}
    health = {"health": "GET http://127.0.0.1:9/health: 200", "verification": "passed", "smoke tests": "not asked"}
    verdict = Verdict("healthy", passed=True, summary="release 7", evidence={**evidence, **health})
    found = metadata_of(StepResult("succeeded", verdict=verdict))
    assert found["url"] == dg.MetadataValue.url("http://127.0.0.1:8710")
    assert {name: found[name] for name in health} == health
    assert (found["release"], found["environment"], found["strategy"]) == (7, "production", "canary")
