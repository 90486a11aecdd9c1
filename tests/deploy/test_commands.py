"""Health by a command: on this machine, in a process's sandbox, and in a container."""

import os
import shutil
from pathlib import Path

import attrs
import psutil
import pytest
from containers import BUSYBOX

from penstock.deploy.commands import ask_container, ask_process, words
from penstock.deploy.health import HealthCheck, check_health
from penstock.deploy.releases import instances_of
from penstock.deploy.targets import open_target
from penstock.engines.docker_server import connected
from penstock.errors import InputError, StepFailure
from penstock.processes import wait_until
from penstock.settings import load_settings

ENV = {"PATH": os.defpath}


def check(command, **changes) -> HealthCheck:
    fields = {"interval_s": 0.1, "timeout_s": 20.0, "healthy_after": 1, "unhealthy_after": 2, "start_period_s": 0.5}
    return HealthCheck(kind="exec", command=command, **{**fields, **changes})


def ask(command, **changes):
    asked = check(command, **changes)
    return ask_process(asked, words(asked), ENV, Path("/"))


def test_exit_code_decides():
    """And what it said stands in the answer."""
    good, bad = ask("echo all fine"), ask(("sh", "-c", "echo no database >&2; exit 3"))
    assert (good.good, good.text) == (True, '`echo all fine`: exit code 0 "all fine"')
    assert (bad.good, bad.text) == (False, '`sh -c echo no database >&2; exit 3`: exit code 3 "no database"')


def test_command_that_is_not_there():
    """An answer, not an error."""
    assert ask(("/no/such/command",)).text == "`/no/such/command`: no such file or directory"


def test_command_that_takes_too_long_leaves_nothing():
    """It and what it started are gone when the answer is there."""
    mark = "86399.25"
    found = ask(f"sleep {mark} & sleep {mark}", timeout_s=0.5)
    assert (found.good, found.text.endswith("no end within 0.5 s")) == (False, True)
    assert wait_until(lambda: not [one for one in psutil.process_iter() if _runs(one, mark)], limit_s=20)


def _runs(process: psutil.Process, word: str) -> bool:
    try:
        return word in process.cmdline()
    except psutil.Error:
        return False


def test_command_that_closes_its_output_is_waited_for_no_longer_than_its_limit():
    """Silence is not the end."""
    assert ask("exec >&- 2>&-; sleep 86399.5", timeout_s=0.5).text.endswith("no end within 0.5 s")


def test_flood_of_words_is_bounded():
    """Megabytes of output cost nothing."""
    found = ask("yes | head -c 30000000; echo the end")
    assert found.good
    assert len(found.text) < 400


@pytest.mark.parametrize(
    "wrong", [HealthCheck(kind="exec"), HealthCheck(kind="exec", command=()), HealthCheck(kind="http", command="true")]
)
def test_exec_and_a_command_belong_together(wrong):
    """One without the other is refused."""
    with pytest.raises(InputError) as error:
        check_health(wrong, where="health")
    assert error.value.where == "health.command"


def test_process_is_asked_in_a_sandbox_like_its_own(platform):
    """It sees the release's files, the data and the service's variables; nothing of Penstock's."""
    line = 'test -f service.py && test "$VERSION" = v1 && touch "$DATA_DIR/asked" && echo "port $PORT"'
    plan = platform.plan("exec", "v1", health=check(line))
    release = platform.deploy(plan)
    assert platform.get("exec") == "v1"
    with platform.engine.begin() as connection:
        (instance,) = instances_of(connection, release.id)
    target = open_target("process", platform.settings)
    assert target.probe(plan.configuration.health, instance).text.endswith(f'exit code 0 "port {instance.port}"')
    asked = target.probe(check(f"ls {platform.settings.home}/caddy"), instance)
    assert asked.good is (shutil.which("bwrap") is None)
    gone = attrs.evolve(instance, pid=None)
    assert target.probe(plan.configuration.health, gone).text.endswith("the instance does not run")


def test_release_whose_command_fails_does_not_go_live(platform):
    """The message has the command, its exit code and its words; the former release serves."""
    platform.deploy(platform.plan("exec-bad", "v1"))
    plan = platform.plan("exec-bad", "v2", health=check("echo queue is full; exit 4"))
    with pytest.raises(StepFailure, match='last answer `echo queue is full; exit 4`: exit code 4 "queue is full"'):
        platform.deploy(plan)
    assert platform.get("exec-bad") == "v1"


@pytest.mark.xdist_group("docker")
def test_container_is_asked_inside(docker_engine, tmp_path):
    """By a command of its image; one that takes too long is killed; one of a stopped container is an answer."""
    settings = load_settings({"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_DOCKER_HOST": docker_engine.host})
    with connected(settings) as server:
        container = server.client.containers.run(BUSYBOX, ["sleep", "86398"], detach=True, init=True)
        try:
            assert ask_container(check("echo $((40 + 2))"), server, container.id).text.endswith('exit code 0 "42"')
            assert not ask_container(check(("false",)), server, container.id).good
            assert not ask_container(check(("/no/such",)), server, container.id).good
            late = ask_container(check("sleep 86397", timeout_s=0.5), server, container.id)
            assert late.text.endswith("no end within 0.5 s")
            assert wait_until(lambda: b"86397" not in container.exec_run("ps").output, limit_s=20)
            container.stop(timeout=0)
            assert not ask_container(check("true"), server, container.id).good
        finally:
            container.remove(force=True)
