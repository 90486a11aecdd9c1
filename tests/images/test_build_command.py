"""Which docker command can build by BuildKit: told by what each says of itself."""

from pathlib import Path

import pytest

from penstock.images.buildkit import BuildCommand, build_command

OLD = 'case "$1" in --version) echo "Docker version 20.10.24+dfsg1, build 297e128";; *) exit 1;; esac'
NEW = 'case "$1" in --version) echo "Docker version 28.2.2, build e6534b4";; *) exit 1;; esac'
NEW_WITH_BUILDX = (
    'case "$1" in --version) echo "Docker version 28.2.2, build e6534b4";; '
    'buildx) echo "github.com/docker/buildx v0.24.0 d0e5e86";; esac'
)
PODMAN = 'case "$1" in --version) echo "podman version 4.3.1";; buildx) echo "buildah 1.28.2";; esac'


def path_of(folder: Path, *scripts: str) -> str:
    """A PATH of folders, each with such a docker command."""
    folders = []
    for number, script in enumerate(scripts):
        place = folder / str(number)
        place.mkdir()
        (place / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (place / "docker").chmod(0o755)
        folders.append(str(place))
    return ":".join(folders)


@pytest.mark.parametrize(
    ("scripts", "chosen", "buildx"),
    [
        ((OLD,), 0, False),
        ((NEW_WITH_BUILDX,), 0, True),
        ((NEW, OLD), 1, False),
        ((OLD, NEW_WITH_BUILDX), 1, True),
        ((PODMAN, OLD), 1, False),
    ],
)
def test_command_that_can_is_chosen(tmp_path: Path, scripts: tuple[str, ...], chosen: int, buildx: bool):
    """One with buildx first, then one that has BuildKit inside, wherever on PATH it is."""
    path = path_of(tmp_path, *scripts)
    assert build_command(path) == BuildCommand(f"{tmp_path}/{chosen}/docker", buildx)


@pytest.mark.parametrize("scripts", [(), (NEW,), (PODMAN,), ("exit 1",), ("echo Docker version 1.13.1",)])
def test_command_that_cannot_is_not_chosen(tmp_path: Path, scripts: tuple[str, ...]):
    """A newer client without its plugin, Podman's stand-in, one that is broken, one of long ago."""
    assert build_command(path_of(tmp_path, *scripts)) is None
