"""Definitions made from what the state database knows: projects and the shapes of their pipelines."""

import dagster as dg
import sqlalchemy as sa

from assets.steps import step_assets, structure_job
from assets.warehouse import warehouse_assets, warehouse_schedule
from definitions.executor import concurrent_executor
from penstock.events.dispatch import TAG_STRUCTURE, known_structures, structures_version
from penstock.pipeline.close import close_run
from penstock.settings import load_settings
from penstock.state.database import create_engine
from resources.session import PenstockSession, be_ready, begin
from sensors.git import git_events
from sensors.runs import run_records


def build(database: sa.Engine) -> dg.Definitions:
    """Every project's assets and jobs, the warehouse's assets, and the sensors."""
    known = known_structures(database)
    default = [structure for structure in known if structure.is_default]
    assets = [asset for structure in default for asset in step_assets(structure)]
    jobs: list[dg.JobDefinition | object] = [
        dg.define_asset_job(
            structure.job,
            selection=dg.AssetSelection.key_prefixes([structure.project]),
            tags={TAG_STRUCTURE: structure.structure.hash},
        )
        for structure in default
    ]
    jobs += [structure_job(structure) for structure in known if not structure.is_default]
    return dg.Definitions(
        assets=[*assets, *warehouse_assets],
        jobs=jobs,  # type: ignore[arg-type]
        schedules=[warehouse_schedule],
        sensors=[git_events, run_records],
        resources={"penstock": PenstockSession()},
        executor=concurrent_executor,
    )


def definitions() -> dg.Definitions:
    """The definitions as they are now."""
    database = create_engine(load_settings())
    try:
        return build(database)
    finally:
        database.dispose()


def current_version() -> str:
    """Changes when the definitions would."""
    database = create_engine(load_settings())
    try:
        return structures_version(database)
    finally:
        database.dispose()


def load() -> tuple[str, dg.RepositoryDefinition]:
    """For the run server: the version, and the repository of that version or a newer one."""
    version = current_version()
    be_ready()
    return version, definitions().get_repository_def()


def run_begins(run: dg.DagsterRun) -> None:
    """For a run's own process: what need not wait until Dagster has prepared the run."""
    begin(run)


def run_ended(run_id: str, state: str, reason: str) -> None:
    """For the run server: a run ended, by itself or not."""
    database = create_engine(load_settings())
    try:
        close_run(load_settings(), database, run_id, state, reason)
    finally:
        database.dispose()
