"""What a run's own process could not do at its end, done for it."""

import dagster as dg

from penstock.pipeline import records
from penstock.pipeline.close import close_run
from penstock.pipeline.ingest import Ingest
from penstock.settings import load_settings
from penstock.state.database import create_engine

ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dg.sensor(
    name="run_records",
    asset_selection=dg.AssetSelection.all(),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the records of runs that have ended, and brings into the warehouse what is not there yet.",
)
def run_records(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Never starts a run itself."""
    settings = load_settings()
    database = create_engine(settings)
    try:
        closed = 0
        for run_id in records.unfinished_runs(database):
            run = context.instance.get_run_by_id(run_id)
            if run and run.status.value in ENDED:
                close_run(settings, database, run_id, run.status.value, "")
                closed += 1
        brought = Ingest(settings, database).left_behind()
    finally:
        database.dispose()
    return dg.SkipReason(f"{closed} runs closed, {brought} brought into the warehouse")
