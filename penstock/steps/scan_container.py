"""step.scan_container: look into an image; known vulnerabilities of what it holds stop the pipeline."""

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.errors import PlatformError, StepFailure
from penstock.images.names import ImageText, is_image_id, parse_image
from penstock.pipeline.spec import ArtifactKey, SecretName
from penstock.scanners import ImageInput, ScanRequest, scanner_names
from penstock.steps.context import Artifact, StepContext, StepResult
from penstock.steps.package_scanning import (
    PackageScanFields,
    in_common,
    open_database,
    package_scanner,
    seen_files,
)
from penstock.steps.scanning import Scan, run_scan, scan_folder, tool_files

if TYPE_CHECKING:
    from penstock.images.stopping import Limit

    ImageScanner = str
else:
    ImageScanner = Literal[scanner_names("image")]

OUTPUT = "out"
_CHUNK = 1024 * 1024


class Config(PackageScanFields):
    """Which image to look into, by what, and from which severity on it fails."""

    summary: ClassVar[str] = "Scan a container image for known vulnerabilities (Trivy, Grype)."

    scanner: ImageScanner = Field("trivy", description="trivy: also secrets and misconfiguration. grype.")
    image: ImageText | None = Field(None, description="An image by its name, with tag or digest, or by its id.")
    source: Literal["engine", "registry"] = Field(
        "engine", description="engine: the image as the Docker engine has it. registry: as its registry has it."
    )
    artifact: ArtifactKey | None = Field(
        None, description="Instead of `image`: an archive (docker save, or OCI) that a step before put out."
    )
    username: str | None = Field(None, max_length=256, description="Who logs in to the registry.")
    password_secret: SecretName | None = Field(None, description="The secret with the password.")

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image is None) == (self.artifact is None):
            raise ValueError("a scan looks into one image; write `image:` or `artifact:`")
        if self.source == "registry" and (self.image is None or is_image_id(self.image)):
            raise ValueError("a registry knows an image by its name; write it in `image:`")
        return self

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if (self.username is None) != (self.password_secret is None):
            raise ValueError("a login needs `username` and `password_secret`")
        if self.username is not None and self.source != "registry":
            raise ValueError("a login is for a registry; write `source: registry` too")
        if self.password_secret is not None and self.password_secret not in self.secrets:
            raise ValueError(f'"{self.password_secret}" is no secret of this step; name it in `secrets` too')
        return self

    def artifacts_wanted(self) -> dict[str, str]:
        """The archive, if it scans one."""
        return {} if self.artifact is None else {"artifact": self.artifact}


def run(config: Config, context: StepContext) -> StepResult:
    """
    Scan the image, in a folder that holds nothing else.

    Raises: StepFailure when there is no such image, PlatformError when the scanner could not look.
    """
    # Imported here: `penstock check` reads this file's model and installs nothing.
    from penstock.scanners.tools import find_tool

    scanner = package_scanner(config.scanner)
    tool = find_tool(context.settings, scanner, token=context.token, say=context.log.line)
    with open_database(config, context, scanner, tool) as database, scan_folder(context.workspace) as folder:
        (folder / OUTPUT).mkdir()
        request = ScanRequest(
            workspace=folder,
            paths=(".",),
            exclude=(),
            output=OUTPUT,
            image=_image(config, context, folder),
            **in_common(config, tool, database),
        )
        visible = (*tool_files(tool, scanner), *seen_files(database))
        network = scanner.network or config.source == "registry"
        source = config.artifact or _repository(config.image or "", config.name)
        return run_scan(config, context, Scan(scanner, request, visible, network, source=source))


def _repository(image: str, step: str) -> str:
    """The image's name without tag and digest, the same for every build; of an id the step's."""
    return step if is_image_id(image) else parse_image(image).untagged


def _image(config: Config, context: StepContext, folder: Path) -> ImageInput:
    """The image, put into `folder` unless the scanner itself gets it from a registry."""
    if config.artifact is not None:
        return _from_artifact(config, context, folder, config.artifact)
    image = config.image or ""
    if config.source == "registry":
        password = context.secret(config.password_secret).strip() if config.password_secret else None
        return ImageInput("registry", image, config.username, password)
    # The name is part of each finding's identity: without tag, and the same for every build.
    archive = folder / f"{_short_name(image, config.name)}.tar"
    context.log.line(f"reading {image} from the Docker engine")
    _save(config, context, image, archive)
    return ImageInput("docker-archive", archive.name)


def _short_name(image: str, step: str) -> str:
    if is_image_id(image):
        return step
    last = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", last)


def _save(config: Config, context: StepContext, image: str, archive: Path) -> None:
    """What `docker save` writes, as it comes."""
    from docker.errors import ImageNotFound

    from penstock.engines.docker_client import engine_errors, open_docker
    from penstock.images.stopping import Limit

    limit = Limit(float(config.timeout), context.token)
    client = open_docker(context.settings)
    try:
        with engine_errors(client.api.base_url):
            try:
                client.api.inspect_image(image)
            except ImageNotFound as error:
                raise StepFailure(
                    f"there is no image {image} on the engine",
                    remedy="build it in a step that this one needs, or write `source: registry`",
                ) from error
            _write(client.api.get_image(image, chunk_size=_CHUNK), archive, limit)
    finally:
        client.close()


def _write(chunks: Iterable[bytes], archive: Path, limit: "Limit") -> None:
    with archive.open("wb", buffering=0) as file:
        for chunk in chunks:
            limit.check()
            try:
                file.write(chunk)
            except OSError as error:
                raise PlatformError(f"cannot keep the image to scan it: {error.strerror}") from error


def _from_artifact(config: Config, context: StepContext, folder: Path, key: str) -> ImageInput:
    found = _put_out(config, context, key)
    if found.kind == "tree":
        context.store.fetch_tree(found.digest, folder / key)
    else:
        archive = folder / f"{key}.tar"
        context.store.fetch_file(found.digest, archive)
        if "manifest.json" in _names(archive, key):
            return ImageInput("docker-archive", archive.name)
        _unpack(archive, folder / key, key)
        archive.unlink()
    if not (folder / key / "index.json").is_file():
        raise _no_image(key)
    return ImageInput("oci-dir", key)


def _put_out(config: Config, context: StepContext, key: str) -> Artifact:
    found = [made for made in context.upstream_artifacts(config.name) if made.key == key]
    if not found:
        raise StepFailure(
            f'no step that "{config.name}" needs put out an artifact "{key}"',
            remedy="name a key of its artifacts_out, and the step in needs",
        )
    return found[-1]


def _names(archive: Path, key: str) -> frozenset[str]:
    try:
        with tarfile.open(archive) as opened:
            return frozenset(name.removeprefix("./") for name in opened.getnames())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _no_image(key) from error


def _unpack(archive: Path, folder: Path, key: str) -> None:
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise _no_image(key) from error


def _no_image(key: str) -> StepFailure:
    return StepFailure(
        f'the artifact "{key}" is no image', remedy="put out what `docker save` or `skopeo copy … oci-archive:` wrote"
    )
