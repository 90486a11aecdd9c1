"""/releases and /rollouts: lists with filters and pages, and what people do by hand, audited."""

import httpx
import pytest
import sqlalchemy as sa
from api_calls import API

from penstock.deploy.plan import ContainerSettings, DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import Release, create_release, make_live
from penstock.deploy.rollouts import end, open_rollout

SERVICE = Service("shop", "production", "shop")
IMAGE = f"sha256:{'1' * 64}"


def made(database: sa.Engine, version: str) -> Release:
    """A release of a container that is live, by a rollout that is over."""
    container = ContainerSettings(image="shop:1", image_id=IMAGE, port=80)
    configuration = ServiceConfiguration(target="docker", container=container, env={"VERSION": version})
    plan = DeploymentPlan(SERVICE, version * 4, IMAGE, "graph", "run-1", None, configuration)
    with database.begin() as connection:
        release = create_release(connection, plan, None)
        rollout = open_rollout(connection, SERVICE, configuration.strategy, kind="deployment", release_id=release.id)
        make_live(connection, release)
        end(connection, rollout.id, "succeeded", None)
    return release


@pytest.fixture
def three(api: httpx.Client, database: sa.Engine) -> list[Release]:
    """v1 and v2 were live, v3 is."""
    return [made(database, version) for version in ("v1", "v2", "v3")]


def test_releases_are_listed_by_what_they_are(api: httpx.Client, three: list[Release]) -> None:
    """Newest first, filtered, page by page; one of them with its rollout."""
    found = api.get(f"{API}/releases").json()
    assert [(one["number"], one["state"]) for one in found] == [(3, "live"), (2, "superseded"), (1, "superseded")]
    assert [one["number"] for one in api.get(f"{API}/releases", params={"state": "live"}).json()] == [3]
    assert api.get(f"{API}/releases", params={"environment": "staging"}).json() == []
    first = api.get(f"{API}/releases", params={"limit": 2})
    assert [one["number"] for one in api.get(first.links["next"]["url"]).json()] == [1]
    one = api.get(f"{API}/releases/{three[0].id}").json()
    assert one["configuration"]["env"] == {"VERSION": "v1"}
    assert api.get(f"{API}/rollouts/{one['rollout']}").json()["release"] == three[0].id
    assert api.get(f"{API}/releases/nothing").status_code == 404


def test_difference_of_two_releases(api: httpx.Client, three: list[Release]) -> None:
    """Field by field."""
    found = api.get(f"{API}/releases/{three[0].id}/difference/{three[1].id}").json()
    assert {"field": "env.VERSION", "left": "v1", "right": "v2"} in found
    assert {one["field"] for one in found} == {"env.VERSION", "commit"}


def test_rollback_is_accepted_and_can_be_taken_back(api: httpx.Client, three: list[Release]) -> None:
    """It is stored when it is answered, with who and why; what is live cannot be gone back to."""
    asked = api.post(f"{API}/releases/{three[0].id}/rollback", json={"why": "orders fail"})
    assert asked.status_code == 202
    assert asked.headers["Location"] == f"{API}/rollouts/{asked.json()['id']}"
    assert (asked.json()["kind"], asked.json()["source"]) == ("rollback", three[0].id)
    refused = api.post(f"{API}/releases/{three[2].id}/rollback", json={})
    assert (refused.status_code, "it is live" in refused.json()["detail"]) == (409, True)
    told = api.get(f"{API}/audit", params={"action": "release.rollback"}).json()
    assert [(one["subject"], one["detail"]["why"]) for one in told] == [(str(SERVICE), "orders fail")]


def test_pin_and_unpin(api: httpx.Client, three: list[Release]) -> None:
    """Once each; the release says who holds it."""
    address = f"{API}/releases/{three[2].id}"
    assert api.post(f"{address}/pin", json={"why": "until Monday"}).status_code == 201
    assert api.get(address).json()["pin"]["why"] == "until Monday"
    assert api.post(f"{address}/pin", json={}).status_code == 409
    assert api.post(f"{address}/unpin", json={}).status_code == 200
    assert api.post(f"{address}/unpin", json={}).status_code == 404


def test_order_that_nobody_knows(api: httpx.Client, three: list[Release]) -> None:
    """And one to a rollout that is over."""
    rollout = api.get(f"{API}/releases/{three[0].id}").json()["rollout"]
    assert api.post(f"{API}/rollouts/{rollout}/hurry", json={}).status_code == 422
    over = api.post(f"{API}/rollouts/{rollout}/pause", json={})
    assert (over.status_code, "the rollout is over" in over.json()["detail"]) == (409, True)
