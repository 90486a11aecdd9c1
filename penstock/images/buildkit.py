"""Finds out whether this machine has a docker command that can build by BuildKit."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

PROBE_LIMIT_S = 20
_VERSION = re.compile(r"Docker version (\d+)\.")
# Docker's client had BuildKit inside from 18.09 on; since 23.0 it is a plugin of its own, buildx.
_FIRST_WITH_BUILDKIT, _FIRST_WITHOUT = 19, 23


@attrs.frozen
class BuildCommand:
    """A docker command that can build by BuildKit. buildx: by the plugin, else by itself."""

    path: str
    buildx: bool


@cache
def build_command(path: str) -> BuildCommand | None:
    """
    The first docker command on `path` that can build by BuildKit, one with buildx before others.

    A newer client without its plugin cannot, although an older one beside it may.
    """
    found = [command for docker_path in _docker_commands(path) if (command := _probe(docker_path))]
    return next((command for command in found if command.buildx), found[0] if found else None)


def _docker_commands(path: str) -> Iterator[str]:
    seen = set()
    for folder in path.split(os.pathsep):
        command = shutil.which("docker", path=folder) if folder else None
        if command and (real := Path(command).resolve()) not in seen:
            seen.add(real)
            yield command


def _probe(command: str) -> BuildCommand | None:
    # podman-docker answers to both names, with words of its own
    if "github.com/docker/buildx" in _said(command, "buildx", "version"):
        return BuildCommand(command, buildx=True)
    version = _VERSION.search(_said(command, "--version"))
    inside = version and _FIRST_WITH_BUILDKIT <= int(version[1]) < _FIRST_WITHOUT
    return BuildCommand(command, buildx=False) if inside else None


def _said(*words: str) -> str:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
