"""Traffic while releases come and go: nobody is refused, cut off or answered wrongly."""

import http.client
import threading
from urllib.parse import urlsplit

import attrs
import pytest

from penstock.errors import StepFailure
from tests.deploy.load import Load


def test_no_request_fails_over_releases(platform):
    """Four switches under load, forward and to failing releases: each request is answered by a live version."""
    platform.deploy(platform.plan("load", "v0"))
    with Load(urlsplit(platform.url("load")).netloc) as load:
        for number in range(1, 4):
            platform.deploy(platform.plan("load", f"v{number}"))
        with pytest.raises(StepFailure):
            platform.deploy(platform.plan("load", "bad", CRASH="x"))
        platform.deploy(platform.plan("load", "v4"))
    assert load.failures == []
    assert set(load.answers) == {"v0", "v1", "v2", "v3", "v4"}
    assert load.answers[-1] == "v4"


def test_request_that_takes_longer_than_the_deployment_is_finished(platform):
    """It began at the former release, and is answered by it after the switch."""
    platform.deploy(platform.plan("long", "v1"))
    answers = []
    client = threading.Thread(target=lambda: answers.append(platform.get("long", "/?s=3")))
    client.start()
    platform.deploy(platform.plan("long", "v2"))
    client.join()
    assert answers == ["v1"]
    assert platform.get("long") == "v2"


def test_draining_has_an_end(platform):
    """A request that never ends holds no deployment up."""
    plan = platform.plan("endless", "v1")
    impatient = type(plan.configuration)(
        command=plan.configuration.command,
        env=plan.configuration.env,
        health=plan.configuration.health,
        drain_s=0.3,
        stop_grace_s=0.2,
    )
    platform.deploy(attrs.evolve(plan, configuration=impatient))
    netloc = urlsplit(platform.url("endless")).netloc
    connection = http.client.HTTPConnection(netloc, timeout=30)
    connection.request("GET", "/?s=600")
    platform.deploy(platform.plan("endless", "v2"))
    assert any("connections open after 0.3 s of draining" in line for line in platform.said)
    assert platform.get("endless") == "v2"
    connection.close()
