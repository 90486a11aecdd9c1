"""What cannot be deployed is refused before anything is started."""

from pathlib import Path

import pytest

from penstock.deploy.health import HealthCheck
from penstock.deploy.plan import DeploymentPlan, Service, ServiceConfiguration
from penstock.errors import InputError


def plan(service=None, **configuration):
    settings = {"command": "true", **configuration}
    service = service or Service("shop", "production", "web")
    return DeploymentPlan(service, "c" * 40, "sha256:d", "g", "r", Path(), ServiceConfiguration(**settings))


def test_command_line_goes_to_the_shell():
    """A string is a line for /bin/sh, words are taken as they are."""
    assert plan(command="a && b").configuration.argv == ["/bin/sh", "-c", "a && b"]
    assert plan(command=("a", "b c")).configuration.argv == ["a", "b c"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", " ", "a\0b", "a\nb", "x" * 81])
def test_names_that_are_none(name):
    """Neither empty, nor a way out of a folder, nor a control character."""
    for service in (Service(name, "e", "s"), Service("p", name, "s"), Service("p", "e", name)):
        with pytest.raises(InputError):
            plan(service)


@pytest.mark.parametrize("name", ["group/shop", "../../etc", "größe", "a b", "x%2Fy"])
def test_folder_of_a_service_stays_where_it_belongs(name):
    """Any name that is allowed gives one folder per part, inside."""
    try:
        plan(Service(name, "e", "s"))
    except InputError:
        return
    folder = Service(name, "e", "s").folder
    assert len(folder.parts) == 3
    assert ".." not in folder.parts


def test_different_services_have_different_folders():
    """Also when their names only differ in a separator."""
    assert Service("a/b", "e", "c").folder != Service("a", "e", "b/c").folder


@pytest.mark.parametrize("command", ["", "  ", (), ("",), ("a", "b\0")])
def test_commands_that_are_none(command):
    """There must be something to run."""
    with pytest.raises(InputError, match="no command"):
        plan(command=command)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B"])
def test_names_of_variables(name):
    """Names that the system would not take are refused."""
    with pytest.raises(InputError, match="no environment variable"):
        plan(env={name: "x"})


@pytest.mark.parametrize("name", ["PORT", "HOST", "DATA_DIR", "PENSTOCK_INSTANCE"])
def test_variables_that_penstock_gives_cannot_be_set(name):
    """A service on another port than the one it was given would never be found."""
    with pytest.raises(InputError, match="given by Penstock"):
        plan(env={name: "x"})


@pytest.mark.parametrize("limit", [{"drain_s": -1}, {"stop_grace_s": float("nan")}, {"drain_s": 1e9}])
def test_limits_out_of_range(limit):
    """Waiting has an end and no negative length."""
    with pytest.raises(InputError):
        plan(**limit)


def test_health_is_checked_too():
    """The field is named with its place."""
    with pytest.raises(InputError, match="no path"):
        plan(health=HealthCheck(path="x"))
