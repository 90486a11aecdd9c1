"""From the tables to the slots: weights of releases, ready instances, and that traffic never goes nowhere."""

import pytest
import sqlalchemy as sa

from penstock.deploy.plan import Service
from penstock.deploy.routing import set_shares, shares_of, upstreams
from penstock.errors import InputError
from penstock.state.tables import instances, releases, routes

WEB = Service("shop", "production", "web")
PORT = 8710


@pytest.fixture
def connection(database):
    """One service with a live release `old` and one on its way, `new`; each with instances as a test says."""
    with database.connect() as connection, connection.begin():
        for number, (name, state) in enumerate([("old", "live"), ("new", "pending")], 1):
            connection.execute(
                sa.insert(releases).values(
                    id=name,
                    project=WEB.project,
                    environment=WEB.environment,
                    service=WEB.name,
                    number=number,
                    commit="c",
                    digest="d",
                    graph_hash="g",
                    run_id="r",
                    configuration={},
                    state=state,
                )
            )
        key = {"environment": WEB.environment, "project": WEB.project, "service": WEB.name}
        connection.execute(sa.insert(routes).values(port=PORT, release_id="old", **key))
        yield connection


def run(connection, release, port, *, ready=True, desired="running", state="running"):
    values = {"id": f"{release}-{port}", "release_id": release, "port": port, "ready": ready}
    connection.execute(sa.insert(instances).values(desired=desired, state=state, **values))


def slots(connection):
    return {one.instance_port: one.slots for one in upstreams(connection) if one.port == PORT}


def test_live_release_has_all_traffic_until_somebody_shares_it(connection):
    """And again when the shares are taken away."""
    run(connection, "old", 20001)
    run(connection, "new", 20002)
    assert slots(connection) == {20001: 100}
    set_shares(connection, WEB, {"old": 95, "new": 5})
    assert slots(connection) == {20001: 95, 20002: 5}
    set_shares(connection, WEB, {})
    assert slots(connection) == {20001: 100}


def test_only_ready_instances_that_shall_run_get_traffic(connection):
    """Not those that are being drained or stopped, or have no address yet."""
    run(connection, "old", 20001)
    run(connection, "old", 20002, ready=False)
    run(connection, "old", 20003, desired="draining")
    run(connection, "old", 20004, desired="stopped")
    run(connection, "old", None)
    assert slots(connection) == {20001: 100}


def test_share_without_a_ready_instance_goes_to_the_other_release(connection):
    """Whichever of the two it is."""
    run(connection, "old", 20001, ready=False)
    run(connection, "new", 20002)
    set_shares(connection, WEB, {"old": 99, "new": 1})
    assert slots(connection) == {20002: 100}


def test_service_without_any_instance_keeps_its_address(connection):
    """Requests wait there for the next one; closing the address would cost every other service its connections."""
    assert slots(connection) == {0: 100}


def test_service_that_was_never_live_has_no_address(connection):
    """Its first release does not answer yet."""
    connection.execute(sa.update(routes).values(release_id=None))
    assert slots(connection) == {}


def test_instance_of_another_service_gets_nothing(connection):
    """Though it is ready, and its release the newest."""
    connection.execute(sa.update(releases).where(releases.c.id == "new").values(service="other", state="live"))
    run(connection, "old", 20001)
    run(connection, "new", 20002)
    assert slots(connection) == {20001: 100}


def test_shares_are_replaced_whole(connection):
    """What is not named any more has no share."""
    set_shares(connection, WEB, {"old": 50, "new": 50})
    set_shares(connection, WEB, {"new": 100})
    assert shares_of(connection, WEB) == {"new": 100}


@pytest.mark.parametrize("weights", [{"old": 50}, {"old": 60, "new": 60}, {"old": 110, "new": -10}])
def test_weights_that_are_not_a_hundred_are_refused(connection, weights):
    """Nothing changes then."""
    with pytest.raises(InputError, match="are not 100 together"):
        set_shares(connection, WEB, weights)
    assert shares_of(connection, WEB) == {}
