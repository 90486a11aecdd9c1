"""What made-up projects are made of: components by list, images by build, coverage by run."""

import random
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from penstock.demo.history import History
from penstock.demo.lives import digest
from penstock.demo.packages import JAVA, JAVASCRIPT, LOG4J, PYTHON, SYSTEM, Package
from penstock.demo.words import GRYPE, MODULES, TRIVY
from penstock.warehouse.rows import Artifact, Coverage, Image, Sbom, Scan

UPGRADED = 0.002
"""How often a component is upgraded from one list of the default branch to the next."""


@attrs.frozen
class Stay:
    """A version of a package in the lists `first` to `last` of a source of the default branch."""

    package: Package
    version: str
    source: str
    direct: bool
    first: int
    last: int


@attrs.frozen
class Inventory:
    """Lists in order, each with its number among those of its source, and what stayed in them for how long."""

    lists: tuple[tuple[int, Sbom], ...]
    stays: tuple[Stay, ...]
    images: tuple[Image, ...]
    coverage: tuple[Coverage, ...]


def take_stock(history: History, seed: int) -> Inventory:
    """What a project's scans would have listed, its builds made and its tests reached; the same for the same seed."""
    chance = random.Random(f"{seed} {history.name} components")
    numbered = tuple(_lists(history, f"registry.demo.invalid/{history.name}"))
    packages = {
        "checkout": _choose(chance, has_java=history.name.endswith("shop")),
        f"registry.demo.invalid/{history.name}": SYSTEM,
    }
    stays = tuple(
        stay
        for source, chosen in packages.items()
        for package in chosen
        for stay in _stays(
            chance, package, source, max((at for at, one in numbered if one.source == source), default=0)
        )
    )
    counted = tuple((at, attrs.evolve(one, components=_present(stays, one.source, at))) for at, one in numbered)
    return Inventory(counted, stays, tuple(_images(history)), tuple(_coverage(history, chance)))


def _choose(chance: random.Random, *, has_java: bool) -> tuple[Package, ...]:
    """The dependencies of one or two languages, some of them left out."""
    languages = [JAVA] if chance.random() < 0.5 or has_java else []
    languages += [chance.choice((JAVASCRIPT, PYTHON))] if not languages or chance.random() < 0.6 else []
    every = [package for language in languages for package in language]
    return tuple(package for package in every if package is LOG4J or chance.random() < 0.85)


def _lists(history: History, image: str) -> Iterator[tuple[int, Sbom]]:
    """Each scan of packages that succeeded; a branch's has the number of the default branch's newest before it."""
    numbers = {GRYPE.name: 0, TRIVY.name: 0}
    scans = [row for row in history.rows if isinstance(row, Scan) and row.tool in numbers and row.state == "succeeded"]
    for scan in sorted(scans, key=lambda one: (one.committed_at, one.scanned_at)):
        numbers[scan.tool] += scan.branch == "main"
        source = image if scan.tool == TRIVY.name else "checkout"
        same = ("project", "commit", "branch", "run_id", "step", "committed_at")
        yield (
            max(numbers[scan.tool], 1),
            Sbom(
                **{name: getattr(scan, name) for name in same},
                source=source,
                listed_at=scan.scanned_at,
                image_digest=f"sha256:{digest(scan.commit, 'image')}" if source == image else None,
                tool=f"{scan.tool} {scan.tool_version}",
                report_sha256=digest(scan.run_id, scan.tool, "sbom"),
            ),
        )


def _stays(chance: random.Random, package: Package, source: str, count: int) -> Iterator[Stay]:
    at, first, is_direct = chance.randrange(max(len(package.versions) - 1, 1)), 1, chance.random() < 0.4
    for number in range(2, count + 1):
        if at + 1 < len(package.versions) and chance.random() < UPGRADED:
            yield Stay(package, package.versions[at], source, is_direct, first, number - 1)
            at, first = at + 1, number
    yield Stay(package, package.versions[at], source, is_direct, first, max(count, 1))


def _present(stays: tuple[Stay, ...], source: str, at: int) -> int:
    return sum(stay.source == source and stay.first <= at <= stay.last for stay in stays)


def stay_row(stay: Stay) -> Mapping[str, Any]:
    """A stay as columns of `components`."""
    package = stay.package
    files = {"maven": "pom.xml", "npm": "package-lock.json", "pypi": "requirements.txt"}
    named = f"{package.namespace}/{package.name}" if package.namespace else package.name
    return {
        "source": stay.source,
        "first": stay.first,
        "last": stay.last,
        "purl": f"pkg:{package.ecosystem}/{named}@{stay.version}",
        "ecosystem": package.ecosystem,
        "namespace": package.namespace or None,
        "name": package.name,
        "version": stay.version,
        "kind": "library",
        "licences": [package.licence],
        "path": files.get(package.ecosystem),
        "direct": stay.direct if package.ecosystem in files else None,
    }


def _images(history: History) -> Iterator[Image]:
    for row in history.rows:
        if isinstance(row, Artifact) and row.name == "image":
            same = ("project", "commit", "run_id", "step")
            yield Image(
                **{name: getattr(row, name) for name in same},
                name=f"registry.demo.invalid/{history.name}:{row.commit[:12]}",
                image_id=f"sha256:{digest(row.commit, 'image id')}",
                digest=f"sha256:{row.digest}",
                size_bytes=(row.size_bytes or 0) * 3,
                layers=7 + len(history.name) % 5,
                platform="linux/amd64",
                made_at=row.created_at,
            )


def _coverage(history: History, chance: random.Random) -> Iterator[Coverage]:
    """Of every run whose tests came to an end: shares that wander a little from run to run."""
    files = {f"src/{name}.py": (chance.randint(40, 600), chance.uniform(0.45, 0.98)) for name in MODULES}
    ended: dict[str, datetime | None] = {
        step.run_id: step.finished_at for step in history.steps if step.step == "test" and step.exit_code is not None
    }
    for run in history.runs:
        if run.run_id not in ended:
            continue
        for path, (lines, before) in list(files.items()):
            share = min(max(before + chance.gauss(0.0006, 0.006), 0.2), 1.0)
            files[path] = (lines, share)
            yield Coverage(
                project=run.project,
                commit=run.commit,
                run_id=run.run_id,
                step="test",
                path=path,
                lines=lines,
                lines_covered=round(lines * share),
                branches=lines // 4,
                branches_covered=round(lines // 4 * share * 0.9),
                measured_at=ended[run.run_id],
            )
