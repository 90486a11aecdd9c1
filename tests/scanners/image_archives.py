"""Images of a few files, made without an engine: as `docker save` writes them, and in OCI layout."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

DEBIAN = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    "etc/debian_version": b"12.1\n",
    "var/lib/dpkg/status": b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.9-1\nArchitecture: amd64\n"
    b"Maintainer: Debian\nDescription: TLS\n\n",
    "app/conf.env": b"TOKEN=ghp_aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5\n",
}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _config(layer: bytes) -> bytes:
    layers = {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layers}).encode()


def docker_archive(name: str, files: Mapping[str, bytes] = DEBIAN) -> bytes:
    """What `docker save NAME` writes."""
    layer = _tar(files)
    config = _config(layer)
    config_name, layer_name = f"{_sha256(config)}.json", f"{_sha256(layer)}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]
    return _tar({config_name: config, layer_name: layer, "manifest.json": json.dumps(manifest).encode()})


def oci_files(files: Mapping[str, bytes] = DEBIAN) -> dict[str, bytes]:
    """The files of a folder in OCI layout."""
    layer = _tar(files)
    config = _config(layer)
    kind = "application/vnd.oci.image.{}".format
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind("manifest.v1+json"),
            "config": described(kind("config.v1+json"), config),
            "layers": [described(kind("layer.v1.tar"), layer)],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [described(kind("manifest.v1+json"), manifest)]}
    blobs = {f"blobs/sha256/{_sha256(blob)}": blob for blob in (layer, config, manifest)}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}


def oci_archive(files: Mapping[str, bytes] = DEBIAN) -> bytes:
    """What `skopeo copy … oci-archive:` writes."""
    return _tar(oci_files(files))


def described(kind: str, blob: bytes) -> dict[str, object]:
    """A descriptor, as manifests have them."""
    return {"mediaType": kind, "digest": f"sha256:{_sha256(blob)}", "size": len(blob)}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
