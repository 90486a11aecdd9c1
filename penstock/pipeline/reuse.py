"""A step whose result is known is not run again: the same image, commands, variables, inputs and platform."""

import hashlib
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from penstock.components import read_bill
from penstock.pipeline import records
from penstock.pipeline.patterns import matches
from penstock.pipeline.plan import canonical_json
from penstock.pipeline.spec import Model, StepFields
from penstock.state.tables import results, steps, verdicts
from penstock.steps.context import Artifact, BillOutcome, RunInfo, StepContext, StepResult, Verdict
from penstock.steps.listing import REPORTS, SUFFIX

_OF_NO_EFFECT = ("name", "type", "needs", "when", "timeout", "retry", "continue_on_error", "combination", "inputs")


def inputs_of(config: StepFields) -> tuple[str, ...]:
    """The patterns of the files that a step depends on; none when it has not said so."""
    return tuple(getattr(config, "inputs", ()))


def keep_inputs(workspace: Path, files: Mapping[str, str], patterns: Sequence[str]) -> None:
    """Remove what is none of the inputs from a fresh checkout, so that a wrong list shows at once."""
    for name in files:
        if not matches(name, patterns):
            (workspace / name).unlink(missing_ok=True)
    folders = (path for path in workspace.rglob("*") if path.is_dir() and not path.is_symlink())
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def result_key(
    config: StepFields, context: StepContext, files: Mapping[str, str], upstream: Sequence[Artifact]
) -> str | None:
    """
    SHA-256 of all that the result depends on; None when it cannot be known.

    A step that has not named its inputs, or has secrets, is run every time.
    files: those of the commit, by what marks their content.
    """
    patterns = inputs_of(config)
    if not patterns or config.secrets:
        return None
    services = {name: context.services[name] for name in getattr(config, "services", ())}
    images = (getattr(config, "image", None), *(one.image for one in services.values()))
    digests = {image: context.engine.image_digest(image) for image in images if image}
    if None in digests.values() and context.engine.name != "process":
        return None  # what an image's name stands for may change
    known = {
        "type": config.type,
        "does": {key: value for key, value in _values(config).items() if key not in _OF_NO_EFFECT},
        "env": dict(context.defaults_env),
        "files": sorted((name, mark) for name, mark in files.items() if matches(name, patterns)),
        "artifacts": sorted((made.path, made.kind, made.digest) for made in upstream),
        "engine": context.engine.name,
        "platform": this_platform(),
        "images": digests,
        "services": {name: _values(service) for name, service in services.items()},
    }
    return hashlib.sha256(canonical_json(known)).hexdigest()


def _values(config: Model) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_defaults=True, by_alias=True)


@cache
def this_platform() -> str:
    """What of this machine a result may depend on: its kind, its system, what is installed."""
    release = Path("/etc/os-release")
    installed = Path("/var/lib/dpkg/status")
    parts = [platform.machine(), platform.release(), sys.version, release.read_text() if release.exists() else ""]
    if installed.exists():
        parts.append(hashlib.sha256(installed.read_bytes()).hexdigest())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def known_result(database: sa.Engine, context: StepContext, key: str) -> StepResult | None:
    """The result that an earlier run of the project gave, if it is known and all of its artifacts are still there."""
    wanted = (
        sa.select(results.c.run_id, results.c.step, steps.c.produced)
        .join(steps, sa.and_(steps.c.run_id == results.c.run_id, steps.c.step == results.c.step))
        .where(results.c.project == context.run.project, results.c.key == key)
    )
    with database.connect() as connection:
        row = connection.execute(wanted).first()
        if row is None:
            return None
        given = sa.select(verdicts.c.evidence).where(verdicts.c.run_id == row.run_id, verdicts.c.step == row.step)
        evidence = connection.execute(given).scalar()
    artifacts = records.artifacts_of(database, [(row.run_id, row.step)])
    if not all(context.store.claim(made.digest) for made in artifacts):
        return None
    return StepResult(
        "succeeded",
        bills=_bills(context, artifacts),
        artifacts=artifacts,
        outputs=row.produced.get("outputs", {}),
        verdict=_verdict(evidence),
        reused_from=row.run_id,
        produced=row.produced.get("text", ""),
    )


def _bills(context: StepContext, artifacts: Sequence[Artifact]) -> tuple[BillOutcome, ...]:
    """The lists of components among the artifacts: this commit is made of the same."""
    found = []
    for made in artifacts:
        if made.path.startswith(f"{REPORTS}/") and made.key.endswith(SUFFIX):
            bill = read_bill(b"".join(context.store.read(made.digest)), made.key)
            found.append(BillOutcome(bill, made.digest))
    return tuple(found)


def _verdict(evidence: Mapping[str, Any] | None) -> Verdict | None:
    if not evidence or "tests" not in evidence:
        return None
    rest = {name: value for name, value in evidence.items() if name != "summary"}
    return Verdict("tests", passed=True, summary=str(evidence["summary"]), evidence=rest)


def keep_result(database: sa.Engine, info: RunInfo, step: str, key: str) -> None:
    """Know a step's result by its key from now on; the newest counts."""
    row = insert(results).values(project=info.project, key=key, run_id=info.id, step=step)
    newer = row.on_conflict_do_update(index_elements=["project", "key"], set_={"run_id": info.id, "step": step})
    with database.begin() as connection:
        connection.execute(newer)
