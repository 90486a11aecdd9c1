"""step.docker_push on a real engine and real registries: what arrives, what is refused, what goes wrong on the way."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import docker
import httpx
import pytest
from containers import BUSYBOX, free_port, running_registry
from image_steps import PASSWORD, Bench
from pydantic import ValidationError
from real_parts import short_folder
from wire import Wire

from penstock.errors import Cancelled, PlatformError, StepFailure, StepTimeout
from penstock.images import push as pushing
from penstock.images.names import parse_image

pytestmark = pytest.mark.xdist_group("docker")

MakeBench = Callable[..., Bench]


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    """A bench on which `shop:1` has been built."""
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nCOPY a /a\n", "a": "a"}, secrets={"password": PASSWORD})
    bench.run("docker_build", tags=["shop:1"])
    return bench


def test_pushed_image_is_in_the_registry_under_its_digest(built: Bench, registry: str, client: docker.DockerClient):
    """The reference can be pulled, and is what was built."""
    result = built.run("docker_push", image="shop:1", to=f"{registry}/team/shop:1")
    answer = httpx.get(f"http://{registry}/v2/team/shop/manifests/{result.outputs['digest']}", trust_env=False)
    assert answer.status_code == 200
    assert result.outputs["reference"] == f"{registry}/team/shop@{result.outputs['digest']}"
    assert result.outputs["image"] == f"{registry}/team/shop:1"
    assert client.images.pull(result.outputs["reference"]).id == client.images.get("shop:1").id
    assert "pushed and verified" in built.log()


def test_several_names_are_pushed_each(built: Bench, registry: str):
    """One digest under all of them; the first is the reference."""
    names = [f"{registry}/several:1", f"{registry}/several:latest"]
    result = built.run("docker_push", image="shop:1", to=names)
    tags = httpx.get(f"http://{registry}/v2/several/tags/list", trust_env=False).json()["tags"]
    assert sorted(tags) == ["1", "latest"]
    assert result.outputs["image"] == names[0]


def test_image_can_be_named_by_its_id(built: Bench, registry: str, client: docker.DockerClient):
    """As the build step's output `digest` gives it."""
    result = built.run("docker_push", image=client.images.get("shop:1").id, to=f"{registry}/by-id:1")
    assert result.state == "succeeded"


def test_login_by_name_and_password(built: Bench, locked_registry: str, tmp_path: Path):
    """The password is a secret of the step; it is neither in the log nor in anybody's docker configuration."""
    result = built.run(
        "docker_push",
        image="shop:1",
        to=f"{locked_registry}/shop:1",
        username="ada",
        password_secret="password",
        secrets=["password"],
    )
    assert result.state == "succeeded"
    assert PASSWORD not in built.log()
    configuration = Path.home() / ".docker" / "config.json"
    assert not configuration.exists() or locked_registry not in configuration.read_text()


@pytest.mark.parametrize(
    "login",
    [{}, {"username": "ada", "password_secret": "wrong", "secrets": ["wrong"]}],
    ids=["no login", "wrong password"],
)
def test_refused_login_fails_at_once_in_clear_words(make_bench: MakeBench, built: Bench, locked_registry: str, login):
    """It is the pipeline's fault, so it is not tried again."""
    bench = make_bench(secrets={"wrong": "guessed"})
    with pytest.raises(StepFailure, match=r"refused the push of shop: .*check username and password_secret"):
        bench.run("docker_push", image="shop:1", to=f"{locked_registry}/shop:1", **login)
    assert "attempt 1" not in bench.log()
    assert "guessed" not in bench.log()


def test_registry_that_is_down_is_not_the_users_fault(built: Bench, monkeypatch: pytest.MonkeyPatch):
    """After three attempts, each told in the log."""
    monkeypatch.setattr(pushing, "PAUSES_S", (0.1, 0.1))
    with pytest.raises(PlatformError, match="registry does not answer"):
        built.run("docker_push", image="shop:1", to=f"127.0.0.1:{free_port()}/shop:1")
    assert "attempt 1 of 3" in built.log()
    assert "attempt 2 of 3" in built.log()


def test_registry_that_stops_in_mid_push_is_not_the_users_fault(
    make_bench: MakeBench, registry: str, monkeypatch: pytest.MonkeyPatch
):
    """The connection is cut while a layer is on its way, and nobody answers afterwards."""
    monkeypatch.setattr(pushing, "PAUSES_S", ())  # one attempt: the engine makes five of its own
    bench = make_bench({"Dockerfile": f"FROM {BUSYBOX}\nRUN head -c 20000000 /dev/urandom > /big\n"})
    bench.run("docker_build", tags=["big"])
    with Wire(registry, cut_after_bytes=5_000_000) as wire:
        with pytest.raises(PlatformError, match="registry does not answer"):
            bench.run("docker_push", image="big", to=f"{wire.address}/big:1")
        assert wire.was_cut


def test_registry_that_comes_back_gets_the_image(built: Bench, monkeypatch: pytest.MonkeyPatch):
    """An attempt that failed is forgotten when the next one succeeds."""
    folder, port = short_folder(), free_port()
    started = threading.Event()
    name = f"127.0.0.1:{port}/again:1"
    monkeypatch.setattr(pushing, "PAUSES_S", (60.0, 60.0))
    with running_registry(folder) as behind:
        wire = Wire(behind, port=port)
        token = built.context.token

        class StartsTheRegistry(type(token)):  # type: ignore[misc] - the pause is when it comes back
            def wait(self, _timeout_s: float) -> bool:
                wire.__enter__()
                started.set()
                return False

        bench = attrs.evolve(built, context=attrs.evolve(built.context, token=StartsTheRegistry()))
        result = bench.run("docker_push", image="shop:1", to=name)
        wire.__exit__(None, None, None)
    shutil.rmtree(folder, ignore_errors=True)
    assert started.is_set()
    assert result.outputs["image"] == name


def test_digest_that_differs_in_the_registry_fails_the_step(built: Bench, registry: str):
    """Whoever changes what is behind the tag between push and question is found out."""
    other = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}).encode()
    with (
        Wire(registry, manifest=other) as wire,
        pytest.raises(StepFailure, match=r"sha256:.* but sha256:.* was pushed"),
    ):
        built.run("docker_push", image="shop:1", to=f"{wire.address}/mismatch:1")


def test_nothing_is_pushed_while_something_upstream_has_not_passed(built: Bench, registry: str):
    """A push re-reads the verdicts itself."""
    context = attrs.evolve(built.context, undecided=lambda _step: ("scan", "tests"))
    with pytest.raises(StepFailure, match="no pass is on record for scan, tests"):
        attrs.evolve(built, context=context).run("docker_push", image="shop:1", to=f"{registry}/unscanned:1")
    assert httpx.get(f"http://{registry}/v2/unscanned/tags/list", trust_env=False).status_code == 404


def test_name_that_another_commit_has_built_since_is_not_pushed(make_bench: MakeBench, built: Bench, registry: str):
    """A tag without the commit in it may stand for another run's image."""
    bench = make_bench(run={"commit": "f" * 40})
    with pytest.raises(StepFailure, match="is of commit 0123456789ab by now, not of ffffffffffff"):
        bench.run("docker_push", image="shop:1", to=f"{registry}/other:1")


def test_image_that_is_not_there_is_said_with_the_remedy(make_bench: MakeBench, registry: str):
    """Build it first."""
    with pytest.raises(StepFailure, match=r"no image nothing:1 on the engine; build it with step\.docker_build"):
        make_bench().run("docker_push", image="nothing:1", to=f"{registry}/nothing:1")


@pytest.mark.parametrize(("how", "error"), [("cancel", Cancelled), ("timeout", StepTimeout)])
def test_stopped_push_ends_at_once(built: Bench, registry: str, how: str, error: type[Exception]):
    """Although the registry does not answer at all."""
    with Wire(registry, silent=True) as wire:
        watch = built.cancel_when("pushing ") if how == "cancel" else threading.Thread()
        with pytest.raises(error):
            built.run("docker_push", image="shop:1", to=f"{wire.address}/x:1", timeout=3600 if how == "cancel" else 2)
        if how == "cancel":
            watch.join()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": "sha256:" + "0" * 64}, "give a name in `to`"),
        ({"image": "Shop"}, "no name of an image"),
        ({"image": "a", "to": "a@sha256:" + "0" * 64}, "has a digest"),
        ({"image": "a", "username": "ada"}, "needs password_secret too"),
        ({"image": "a", "auth": "ecr"}, "needs username and password_secret too"),
        ({"image": "a", "auth": "gcr"}, "needs password_secret too"),
        ({"image": "a", "auth": "acr", "username": "a", "password_secret": "b"}, "needs tenant too"),
        ({"image": "a", "username": "ada", "password_secret": "b"}, "name it in `secrets` too"),
    ],
)
def test_incomplete_push_is_refused_at_check_time(make_bench: MakeBench, fields: dict[str, str], words: str):
    """Before anything runs."""
    with pytest.raises(ValidationError, match=words):
        make_bench().run("docker_push", **fields)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("unauthorized: authentication required", StepFailure),
        ("denied: requested access to the resource is denied", StepFailure),
        ("no basic auth credentials", StepFailure),
        ("unexpected status from HEAD request: 403 Forbidden", StepFailure),
        ("blob upload invalid", StepFailure),
        ("dial tcp 10.0.0.1:443: connect: connection refused", PlatformError),
        ("received unexpected HTTP status: 503 Service Unavailable", PlatformError),
        ("net/http: TLS handshake timeout", PlatformError),
        ("EOF", PlatformError),
        ("toomanyrequests: slow down", PlatformError),
        ("write: no space left on device", PlatformError),
    ],
)
def test_words_of_the_engine_say_whose_fault_a_failed_push_is(text: str, error: type[Exception]):
    """Refused and unusable: the pipeline's. Away: nobody's, and tried again."""
    assert type(pushing.failed_push(text, parse_image("registry.example/shop:1"))) is error
