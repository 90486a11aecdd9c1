"""The step that looks into an image: the real Trivy, a real Docker Engine, a real registry."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import attrs
import docker
import httpx
import pytest
from containers import DockerEngine, running_registry
from image_archives import DEBIAN, described, docker_archive, oci_archive, oci_files, write_folder
from pydantic import ValidationError
from trivy_database import database_layer, write_database

from penstock.errors import PlatformError, StepFailure
from penstock.steps.context import Artifact, StepContext
from penstock.steps.scan_container import Config, run

pytestmark = pytest.mark.xdist_group("docker")

CVE = "CVE-2023-5363"
IMAGE = "team/shop:1.0"


def config(**fields: object) -> Config:
    return Config.model_validate({"name": "image-scan", "type": "step.scan_container", **fields})


def known(**fields: object) -> Config:
    return config(database={"update": False}, **fields)


@pytest.fixture
def trivy_knows(context: StepContext) -> StepContext:
    """A database of vulnerabilities lies where a site that is offline puts it."""
    write_database(context.settings.home / "tools" / "trivy-database")
    return context


@pytest.fixture
def with_engine(trivy_knows: StepContext, docker_engine: DockerEngine) -> StepContext:
    """The Docker engine has the image."""
    client = docker_engine.client()
    client.images.load(docker_archive(IMAGE))
    client.close()
    return attrs.evolve(trivy_knows, settings=attrs.evolve(trivy_knows.settings, docker_host=docker_engine.host))


Upstream = Callable[[bytes | Path], StepContext]


@pytest.fixture
def upstream(trivy_knows: StepContext) -> Upstream:
    """upstream(bytes or folder) → a context in which a step before put it out as `image`."""

    def put_out(made: bytes | Path) -> StepContext:
        store = trivy_knows.store
        blob = store.put_tree(made) if isinstance(made, Path) else store.put_bytes(made)
        kind = "tree" if isinstance(made, Path) else "file"
        artifact = Artifact("image", "dist/image", kind, blob.digest, blob.size_bytes)
        return attrs.evolve(trivy_knows, upstream_artifacts=lambda _step: (artifact,))

    return put_out


def test_vulnerable_image_of_the_engine_fails_the_step(with_engine: StepContext):
    """By its name, as the engine has it: the system's package, with its purl, and what mends it."""
    result = run(known(image=IMAGE), with_engine)
    assert result.state == "failed"
    assert result.reason == f"1 finding at or above high: debian/openssl@3.0.9-1 {CVE}"
    (finding,) = result.scans[0].report.findings
    assert finding.package is not None
    assert finding.package.startswith("pkg:deb/debian/openssl@3.0.9-1")
    assert finding.fixed_version == "3.0.11-1~deb12u2"
    assert result.verdict is not None
    assert result.verdict.evidence["packages"] == 1


def test_image_may_be_named_by_its_id(with_engine: StepContext, docker_engine: DockerEngine):
    """What step.docker_build puts out."""
    client = docker_engine.client()
    image_id = client.images.get(IMAGE).id
    client.close()
    result = run(known(image=image_id, fail_on_severity="none"), with_engine)
    assert [one.rule_id for one in result.scans[0].report.findings] == [CVE]


def test_same_finding_in_another_tag_is_the_same(with_engine: StepContext, docker_engine: DockerEngine):
    """A finding's identity does not change with the image's tag."""
    client = docker_engine.client()
    client.images.get(IMAGE).tag("team/shop", "2.0")
    client.close()
    prints = [
        {
            one.fingerprint
            for one in run(known(image=name, fail_on_severity="none"), with_engine).scans[0].report.findings
        }
        for name in (IMAGE, "team/shop:2.0")
    ]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 1


def test_image_that_is_not_there_fails(with_engine: StepContext):
    """The step's own fault, with the remedy."""
    with pytest.raises(StepFailure, match="there is no image team/none:1 on the engine; build it"):
        run(known(image="team/none:1"), with_engine)


def test_engine_that_is_away_is_a_platform_error(trivy_knows: StepContext, tmp_path: Path):
    """No engine, no scan."""
    away = attrs.evolve(trivy_knows.settings, docker_host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(PlatformError, match="no engine is there"):
        run(known(image=IMAGE), attrs.evolve(trivy_knows, settings=away))


def test_image_is_read_from_a_registry(with_engine: StepContext, docker_engine: DockerEngine, registry: str):
    """Trivy itself asks the registry."""
    name = push(docker_engine, f"{registry}/team/shop:1.0")
    result = run(known(image=name, source="registry"), with_engine)
    assert result.state == "failed"
    assert [one.rule_id for one in result.scans[0].report.findings] == [CVE]


def test_registry_that_wants_a_login_gets_it(with_engine: StepContext, docker_engine: DockerEngine, tmp_path: Path):
    """By a secret, which stands in no log; without it the scan is no clean one."""
    with running_registry(tmp_path / "registry", user="ci", password="s3cret-pass") as address:
        name = push(docker_engine, f"{address}/team/shop:1.0", {"username": "ci", "password": "s3cret-pass"})
        with pytest.raises(PlatformError, match="trivy exited with 1"):
            run(known(image=name, source="registry"), with_engine)
        login = {"username": "ci", "password_secret": "REGISTRY", "secrets": ["REGISTRY"]}
        granted = attrs.evolve(with_engine, secrets={"REGISTRY": b"s3cret-pass\n"})
        result = run(known(image=name, source="registry", **login), granted)
    assert [one.rule_id for one in result.scans[0].report.findings] == [CVE]
    assert b"s3cret-pass" not in with_engine.log.printed  # type: ignore[attr-defined]


def push(engine: DockerEngine, name: str, login: dict[str, str] | None = None) -> str:
    client: docker.DockerClient = engine.client()
    client.images.get(IMAGE).tag(name)
    said = client.api.push(name, auth_config=login)
    client.close()
    assert "errorDetail" not in said, said
    return name


@pytest.mark.parametrize("form", ["docker save", "OCI archive", "OCI folder"])
def test_image_is_an_artifact(form: str, upstream: Upstream, tmp_path: Path):
    """An archive or a folder that a step before put out, without any engine."""
    made: dict[str, bytes | Path] = {
        "docker save": docker_archive(IMAGE),
        "OCI archive": oci_archive(),
        "OCI folder": write_folder(tmp_path / "layout", oci_files()),
    }
    result = run(known(artifact="image"), upstream(made[form]))
    assert result.state == "failed"
    assert [one.rule_id for one in result.scans[0].report.findings] == [CVE]


@pytest.mark.parametrize("made", [b"", b"no archive", oci_archive()[:2000], b"\0" * 10240])
def test_artifact_that_is_no_image_fails(made: bytes, upstream: Upstream):
    """Empty, text, cut off, an archive of nothing: the step fails and says what it wants."""
    with pytest.raises((StepFailure, PlatformError)) as caught:
        run(known(artifact="image"), upstream(made))
    assert 'the artifact "image" is no image' in str(caught.value)


def test_artifact_that_nobody_put_out_fails(trivy_knows: StepContext):
    """With what to mend."""
    with pytest.raises(StepFailure, match='no step that "image-scan" needs put out an artifact "image"'):
        run(known(artifact="image"), trivy_knows)


def test_image_without_packages_is_not_clean(upstream: Upstream):
    """A lone program: Trivy exits 0 and knows nothing of it."""
    result = run(known(artifact="image"), upstream(docker_archive(IMAGE, {"app/program": b"\x7fELF"})))
    assert result.state == "failed"
    assert "no package to look at" in str(result.reason)


@pytest.mark.parametrize(
    ("version", "words"), [("99", "does not know debian 99.1"), ("8", "debian 8.1 is no longer maintained")]
)
def test_system_of_which_little_is_known_is_told(version: str, words: str, upstream: Upstream):
    """Trivy exits 0 without findings; the verdict says why that may be too little."""
    release = {"etc/debian_version": f"{version}.1\n", "etc/os-release": f'ID=debian\nVERSION_ID="{version}"\n'}
    files = {**DEBIAN, **{name: text.encode() for name, text in release.items()}}
    result = run(known(artifact="image"), upstream(docker_archive(IMAGE, files)))
    assert result.verdict is not None
    assert words in result.verdict.summary
    assert words in str(result.verdict.evidence["caution"])


def test_system_that_the_scanner_does_not_know_is_not_clean(upstream: Upstream):
    """It has packages, and Trivy does not look at them."""
    files = {"etc/os-release": b"ID=devuan\nVERSION_ID=5\n", "var/lib/dpkg/status": DEBIAN["var/lib/dpkg/status"]}
    result = run(known(artifact="image"), upstream(docker_archive(IMAGE, files)))
    assert result.state == "failed"
    assert "does not know the system" in str(result.reason)


def test_java_archives_without_their_index_are_no_clean_scan(upstream: Upstream):
    """Trivy names what is in a .jar by an index of its own, which is fetched only when asked for."""
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    with pytest.raises(PlatformError, match="no index of Java archives"):
        run(known(artifact="image"), upstream(docker_archive(IMAGE, {**DEBIAN, "app/shop.jar": jar.getvalue()})))


def test_secrets_in_an_image_need_no_database(upstream: Upstream):
    """Trivy's other eyes work on a machine that is offline; the path is the one in the image."""
    result = run(config(artifact="image", look_for="secrets"), upstream(docker_archive(IMAGE)))
    assert result.state == "failed"
    assert {(one.rule_id, one.path) for one in result.scans[0].report.findings} == {("github-pat", "app/conf.env")}


def test_database_comes_from_a_mirror(context: StepContext, upstream: Upstream, registry: str):
    """A site's own registry has it: it is fetched before the scan, and the scan finds what it says."""
    mirror = f"{registry}/mirror/trivy-db:2"
    push_database(registry, "mirror/trivy-db", "2")
    result = run(config(artifact="image", database={"mirror": mirror}), upstream(docker_archive(IMAGE)))
    assert [one.rule_id for one in result.scans[0].report.findings] == [CVE]
    (kept,) = (path for path in context.settings.home.glob("tools/trivy-database-*") if path.is_dir())
    assert (kept / "db" / "trivy.db").is_file()


def test_database_is_fetched_once(upstream: Upstream, registry: str):
    """The next scan within the hour does not ask again, so the mirror may be gone meanwhile."""
    push_database(registry, "mirror/once", "2")
    fields = {"artifact": "image", "database": {"mirror": f"{registry}/mirror/once:2"}, "fail_on_severity": "none"}
    ready = upstream(docker_archive(IMAGE))
    for _ in range(2):
        assert run(config(**fields), ready).state == "succeeded"
    said = [line for line in ready.log.lines if "up to date" in line]  # type: ignore[attr-defined]
    assert len(said) == 1


def test_mirror_that_has_something_else_is_no_clean_scan(upstream: Upstream, registry: str):
    """An artifact that is no database: infra_error in one line."""
    push_database(registry, "mirror/wrong", "2", media_type="application/vnd.example.other")
    wrong = {"mirror": f"{registry}/mirror/wrong:2"}
    with pytest.raises(PlatformError, match="trivy has no database of vulnerabilities"):
        run(config(artifact="image", database=wrong), upstream(docker_archive(IMAGE)))


def push_database(
    registry: str, repository: str, tag: str, media_type: str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
) -> None:
    """As Aqua's own registry holds it."""
    layer, empty = database_layer(), b"{}"
    with httpx.Client(base_url=f"http://{registry}/v2/{repository}", trust_env=False, timeout=60) as http:
        for blob in (layer, empty):
            place = httpx.URL(http.post("/blobs/uploads/").headers["location"])
            digest = str(described("", blob)["digest"])
            done = http.put(place.copy_merge_params({"digest": digest}), content=blob)
            assert done.status_code == 201, done.text
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": described("application/vnd.aquasec.trivy.config.v1+json", empty),
            "layers": [
                {**described(media_type, layer), "annotations": {"org.opencontainers.image.title": "db.tar.gz"}}
            ],
        }
        done = http.put(f"/manifests/{tag}", content=json.dumps(manifest), headers={"content-type": kind})
        assert done.status_code == 201, done.text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image": IMAGE, "artifact": "image"},
        {"image": "Team/Shop"},
        {"image": "--input=/etc/passwd"},
        {"image": IMAGE, "scanner": "pip-audit"},
        {"image": IMAGE, "scanner": "semgrep"},
        {"image": IMAGE, "source": "cloud"},
        {"artifact": "image", "source": "registry"},
        {"image": "sha256:" + 64 * "a", "source": "registry"},
        {"image": IMAGE, "source": "registry", "username": "ci"},
        {"image": IMAGE, "source": "registry", "username": "ci", "password_secret": "REGISTRY"},
        {"image": IMAGE, "username": "ci", "password_secret": "REGISTRY", "secrets": ["REGISTRY"]},
        {"image": IMAGE, "scanner": "grype", "look_for": ["secrets"]},
        {"image": IMAGE, "paths": ["src"]},
    ],
)
def test_wrong_words_are_refused(fields: dict[str, object]):
    """No image, two images, names that are none, a registry without a name, half a login, a secret not granted."""
    with pytest.raises(ValidationError):
        config(**fields)
