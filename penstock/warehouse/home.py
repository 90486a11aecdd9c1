"""The warehouse of a PENSTOCK_HOME: where it is, by the settings, and a connection for notebooks and programs."""

import atexit
import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from penstock.errors import NotFoundError, SettingsError
from penstock.settings import Settings, load_settings
from penstock.warehouse.connect import Location, ObjectStore, connect

KEEP_DAYS = "PENSTOCK_WAREHOUSE_KEEP_DAYS"


@contextmanager
def open_home(home: Path | str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """
    A read-only DuckDB connection to the warehouse, whether the platform runs or not.

    home: a PENSTOCK_HOME; None takes the one that the environment names, or `.penstock` in this repository.
    Raises: NotFoundError when nothing was ever recorded there.
    """
    from penstock.state.database import hosted_database

    named = {"PENSTOCK_HOME": str(home)} if home is not None else {}
    settings = load_settings({**os.environ, **named})
    with hosted_database(settings), connect(warehouse_location(settings), read_only=True) as lake:
        yield lake


def location_of_home() -> Location:
    """
    Where the warehouse of this environment's home is, with its database up until this process ends.

    Raises: NotFoundError where nothing was ever recorded; nothing is made then.
    """
    settings = load_settings()
    if settings.database_url is None and not (settings.home / "postgres").is_dir():
        raise NotFoundError(
            "there is no warehouse yet",
            where=str(settings.home),
            remedy="set PENSTOCK_HOME to a home that has one, or run a pipeline first: penstock run",
        )
    _keep_up(settings.home, settings.database_url)
    return warehouse_location(settings)


@functools.cache
def _keep_up(home: Path, database_url: str | None) -> None:
    """The database of these settings answers from now on, once for each; whoever leaves last stops it."""
    from penstock.state.database import hosted_database

    settings = load_settings()
    assert (settings.home, settings.database_url) == (home, database_url)
    stack = contextlib.ExitStack()
    stack.enter_context(hosted_database(settings))
    atexit.register(stack.close)


def warehouse_location(settings: Settings, env: Mapping[str, str] | None = None) -> Location:
    """
    Where the warehouse of these settings is: beside the artifacts, and reached like them.

    env: what `penstock.artifacts.opening` says of S3; None is this process's own environment.
    Raises: SettingsError for a bucket that cannot be reached so.
    """
    from penstock.state.database import LAKE_SCHEMA, database_url

    return Location(
        catalog_url=database_url(settings).render_as_string(hide_password=False),
        catalog_schema=LAKE_SCHEMA,
        data_path=settings.lake_path,
        object_store=_object_store(settings.lake_path, os.environ if env is None else env),
    )


def _object_store(data_path: str, env: Mapping[str, str]) -> ObjectStore | None:
    if not data_path.startswith("s3://"):
        return None
    from penstock.artifacts.opening import KEY_ID, s3_access

    access = s3_access(env)
    if access.key_id is None or access.secret is None:
        raise SettingsError(
            "the warehouse needs a key for its bucket: DuckDB cannot use the machine's own role",
            where=KEY_ID[0],
            remedy="set it and its secret",
        )
    endpoint = urlsplit(access.endpoint).netloc if access.endpoint else None
    return ObjectStore(
        key_id=access.key_id,
        secret=access.secret,
        token=access.token,
        region=access.region,
        endpoint=endpoint,
        use_tls=not access.plain_http,
    )


def keep_days(env: Mapping[str, str] | None = None) -> int | None:
    """
    For how many days the warehouse keeps the rows of old scans and runs; None is for ever.

    Raises: SettingsError for what is no number of days.
    """
    said = (os.environ if env is None else env).get(KEEP_DAYS) or None
    if said is not None and not (said.isdecimal() and int(said) > 0):
        raise SettingsError(f'"{said[:20]}" is no number of days', where=KEEP_DAYS, remedy="write one, such as 400")
    return None if said is None else int(said)
