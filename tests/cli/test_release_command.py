"""`penstock release` and `penstock rollout` as people call them."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from cli_process import Penstock

from penstock.deploy.plan import ContainerSettings, DeploymentPlan, Service, ServiceConfiguration
from penstock.deploy.releases import create_release, make_live
from penstock.deploy.rollouts import open_rollouts

IMAGE = f"sha256:{'1' * 64}"


@pytest.fixture
def two(database: sa.Engine) -> sa.Engine:
    """v1 was live in production, v2 is; another service of that name is in staging."""
    for environment, version in (("production", "v1"), ("production", "v2"), ("staging", "v3")):
        container = ContainerSettings(image="shop:1", image_id=IMAGE, port=80)
        configuration = ServiceConfiguration(target="docker", container=container, env={"VERSION": version})
        service = Service("shop", environment, "web")
        plan = DeploymentPlan(service, version * 4, IMAGE, "graph", "run-1", None, configuration)
        with database.begin() as connection:
            make_live(connection, create_release(connection, plan, None))
    return database


def test_releases_from_the_command_line(penstock: Penstock, two: sa.Engine, tmp_path: Path) -> None:
    """Listed, compared, gone back to, held; what is wrong is one line."""
    listed = penstock("release", "list", "--environment", "production")
    assert [line.split()[2:4] for line in listed.stdout.splitlines()[1:]] == [["2", "live"], ["1", "superseded"]]
    several = penstock("release", "show", "web")
    assert (several.returncode, "write PROJECT/SERVICE and --environment" in several.stderr) == (2, True)
    difference = penstock("release", "diff", "web", "1", "-e", "production")
    assert "env.VERSION" in difference.stdout
    back = penstock("release", "rollback", "shop/web", "-e", "production", "--why", "orders fail", "--no-wait", "--pin")
    assert (back.returncode, back.stderr) == (0, "")
    with two.begin() as connection:
        (asked,) = open_rollouts(connection)
    assert (asked.kind, asked.asked_why) == ("rollback", "orders fail")
    assert asked.id[:8] in penstock("rollout", "list").stdout
    assert penstock("rollout", "abort", asked.id[:6]).returncode == 0
    over = penstock("rollout", "pause", asked.id)
    assert (over.returncode, "the rollout is over" in over.stderr) == (2, True)
    assert penstock("release", "unpin", "web", "-e", "production").returncode == 0
    unknown = penstock("release", "rollback", "nothing")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
