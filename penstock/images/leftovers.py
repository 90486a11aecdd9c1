"""What a run has on the Docker engine beyond its steps (services, volumes), and that it goes with the run."""

import logging
from pathlib import Path

from penstock.errors import PlatformError
from penstock.settings import Settings

_log = logging.getLogger(__name__)


def note_run(settings: Settings, run_id: str) -> None:
    """Before something is started that outlives its step: a note on disk, which a `kill -9` does not take along."""
    folder = _notes(settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / run_id).touch()


def noted_runs(settings: Settings) -> tuple[str, ...]:
    """Runs that may still have something on the engine."""
    folder = _notes(settings)
    return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()


def remove_of_run(settings: Settings, run_id: str) -> int:
    """
    Remove the run's services and volumes. The engine is asked only if the run has had any.

    Returns: how many containers there were. An engine that is away is said in the log, and the note stays.
    """
    if run_id not in noted_runs(settings):
        return 0
    try:
        removed = _remove(settings, run_id)
    except PlatformError as error:
        _log.warning("what run %s has on the engine is still there: %s", run_id, error)
        return 0
    (_notes(settings) / run_id).unlink(missing_ok=True)
    return removed


def _remove(settings: Settings, run_id: str) -> int:
    from penstock.engines.docker_container import labels
    from penstock.engines.docker_server import connected

    wanted = {"label": [f"{key}={value}" for key, value in labels(settings.home, run_id).items()]}
    with connected(settings) as server:
        api = server.client.api
        removed = sum(server.remove(one["Id"]) for one in api.containers(all=True, quiet=True, filters=wanted))
        for volume in api.volumes(filters=wanted)["Volumes"] or ():
            api.remove_volume(volume["Name"], force=True)
        return removed


def _notes(settings: Settings) -> Path:
    return settings.home / "containers"
