"""The safety net behind direct starts: heads that no hook told of, and events that nobody started."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from penstock.errors import PenstockError, PlatformError
from penstock.events import inbox
from penstock.events.dispatch import SENSOR, TAG_STRUCTURE, Launch, prepare
from penstock.events.poll import poll_all
from penstock.platform.dagster import DagsterClient
from penstock.settings import Settings, load_settings
from penstock.state.database import create_engine

# The API starts an event within a second; what is older has been forgotten.
OVERDUE = timedelta(seconds=10)


@dg.sensor(
    name=SENSOR,
    asset_selection=dg.AssetSelection.all(),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Polls the heads of every project and starts what no hook started.",
)
def git_events(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One run for each push, with the run key that a direct start has too."""
    settings = load_settings()
    database = create_engine(settings)
    try:
        for trouble in poll_all(database, settings):
            context.log.warning(trouble)
        launches = list(_overdue(context, database))
    finally:
        database.dispose()
    if not launches:
        return dg.SkipReason("every head has its run")
    partitions = [dg.DynamicPartitionsDefinition(name=launch.partitions) for launch in launches]
    added = [
        definition.build_add_request([launch.info.partition])
        for definition, launch in zip(partitions, launches, strict=True)
    ]
    return dg.SensorResult([_run_request(launch) for launch in launches], dynamic_partitions_requests=added)


def _overdue(context: dg.SensorEvaluationContext, database: sa.Engine) -> Iterator[Launch]:
    settings = load_settings()
    for event in inbox.claim(database, older_than=OVERDUE):
        try:
            launch = prepare(database, settings, event)
        except PenstockError as error:
            inbox.let_go(database, event, str(error))
            context.log.warning(str(error))
            continue
        if launch and launch.group and inbox.wait_for_group(database, event, launch.group, newest_only=False):
            continue
        if launch and _is_loaded(context, launch):
            yield launch
        elif launch:
            _load_anew(context, settings)


def _load_anew(context: dg.SensorEvaluationContext, settings: Settings) -> None:
    """This tick's definitions are too old; the next one finds the event again, with newer ones."""
    try:
        DagsterClient.at(settings.dagster_url).reload()
    except PlatformError as error:
        context.log.warning(str(error))


def _is_loaded(context: dg.SensorEvaluationContext, launch: Launch) -> bool:
    repository = context.repository_def
    if repository is None or not repository.has_job(launch.job):
        return False
    return repository.get_job(launch.job).tags.get(TAG_STRUCTURE) == launch.info.structure_hash


def _run_request(launch: Launch) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=launch.event_key, job_name=launch.job, partition_key=launch.info.partition, tags=dict(launch.tags)
    )
