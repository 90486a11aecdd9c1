"""What a release that is taken up again is made of: of its own files, or of its artifact; no repository, no run."""

from pathlib import Path

import msgspec
import sqlalchemy as sa

from penstock.deploy.plan import DeploymentPlan, Source
from penstock.deploy.releases import Release, release_folder
from penstock.deploy.rollouts import Rollout
from penstock.errors import ConflictError
from penstock.settings import Settings
from penstock.state.tables import artifacts


def plan_again(source: Release, rollout: Rollout) -> DeploymentPlan:
    """The same commit, digest and configuration once more, rolled out as it was asked for."""
    configuration = msgspec.structs.replace(source.configuration, strategy=rollout.strategy)
    return DeploymentPlan(
        service=source.service,
        commit=source.commit,
        digest=source.digest,
        graph_hash=source.graph_hash,
        run_id=source.run_id,
        source=None if source.configuration.target == "docker" else Path(),
        configuration=configuration,
        rollback_of=source.id,
    )


def kept_source(settings: Settings, source: Release) -> Source | None:
    """The files of a process's release: kept beside it, else its artifact's. An image holds its files itself."""
    if source.configuration.target != "process":
        return None
    folder = release_folder(settings, source.id)
    if folder.is_dir():
        return folder

    def fetch(into: Path) -> None:
        from penstock.artifacts import open_store

        open_store(settings.artifacts_path).fetch_tree(source.digest, into)

    return fetch


def check_kept(connection: sa.Connection, settings: Settings, source: Release) -> None:
    """
    An image is asked for when it is placed: it may be fetched again.

    Raises: ConflictError when a process's files are gone, beside the release and in the artifact store's records.
    """
    if source.configuration.target != "process" or release_folder(settings, source.id).is_dir():
        return
    recorded = sa.select(artifacts.c.id).where(artifacts.c.digest == source.digest).limit(1)
    if connection.execute(recorded).scalar() is None:
        remedy = "deploy its commit again"
        raise ConflictError("its files are not kept any more", where=str(source), remedy=remedy)
