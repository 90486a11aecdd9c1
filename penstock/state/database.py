"""The one database: opened, migrated, and told to those who need its address."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from penstock.errors import PlatformError, SettingsError
from penstock.settings import Settings, create_home
from penstock.state.embedded import EmbeddedPostgres

SCHEMA, DAGSTER_SCHEMA, LAKE_SCHEMA = "penstock", "dagster", "lake"
MIGRATION_LOCK = 7_036_871  # an advisory lock's number: any, but always the same


def database_url(settings: Settings) -> URL:
    """
    The address of the database, for whatever driver.

    Raises: SettingsError when PENSTOCK_DATABASE_URL is no PostgreSQL address.
    """
    if settings.database_url is None:
        return make_url(EmbeddedPostgres(settings.home).url())
    try:
        url = make_url(settings.database_url)
    except (sa.exc.ArgumentError, ValueError) as error:  # ValueError: of a port that is no number
        raise _bad_url() from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise _bad_url()
    return url.set(drivername="postgresql")


def _bad_url() -> SettingsError:
    return SettingsError(
        "this is no PostgreSQL address",
        where="PENSTOCK_DATABASE_URL",
        remedy="write postgresql://user:password@host:5432/database",
    )


def dagster_url(settings: Settings) -> str:
    """The same database for Dagster, in its own schema, with the driver that it wants; may hold a password."""
    # Dagster's events need not wait for the disk, ten times a step. PostgreSQL's log is written in order: whatever
    # Penstock commits later makes them durable too. A crash can lose Dagster's last half second, and no record of ours.
    url = database_url(settings).set(drivername="postgresql+psycopg2")
    url = url.update_query_dict({"options": f"-csearch_path={DAGSTER_SCHEMA} -csynchronous_commit=off"})
    return url.render_as_string(hide_password=False)


def create_engine(settings: Settings, *, pool_size: int = 5) -> sa.Engine:
    """An engine on Penstock's schema. Opens nothing until used; make it after a fork, not before."""
    url = database_url(settings).set(drivername="postgresql+psycopg")
    return sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        connect_args={"options": f"-csearch_path={SCHEMA}", "connect_timeout": 10},
    )


def is_there(settings: Settings) -> bool:
    """Whether there is a database to ask: one that the settings name, or the embedded one once it was made."""
    return settings.database_url is not None or EmbeddedPostgres(settings.home).is_made


@contextmanager
def hosted_database(settings: Settings) -> Iterator[sa.Engine]:
    """
    The database up and migrated for as long as the block runs, whether anybody else runs it or not.

    Raises: PlatformError when it cannot be started or reached.
    """
    create_home(settings)
    if settings.database_url is not None:
        yield from _migrated(settings)
        return
    with EmbeddedPostgres(settings.home).hosted():
        yield from _migrated(settings)


def _migrated(settings: Settings) -> Iterator[sa.Engine]:
    engine = create_engine(settings)
    try:
        migrate(engine)
        yield engine
    except sa.exc.OperationalError as error:
        raise _away(error) from error
    finally:
        engine.dispose()


def migrate(engine: sa.Engine) -> None:
    """
    Bring the schema to the newest revision; one process at a time, at no cost when it is there already.

    Raises: PlatformError when the server cannot be reached.
    """
    from penstock.state.migrations import HEAD

    try:
        with engine.begin() as connection:
            if _revision(connection) == HEAD:
                return
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            for schema in (SCHEMA, DAGSTER_SCHEMA, LAKE_SCHEMA):
                connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
            _upgrade(connection)
    except sa.exc.OperationalError as error:
        raise _away(error) from error


def _away(error: sa.exc.OperationalError) -> PlatformError:
    return PlatformError(
        f"the database does not answer: {str(error.orig).splitlines()[0]}",
        remedy="see that PostgreSQL runs and PENSTOCK_DATABASE_URL (or PENSTOCK_HOME/database.url) is right",
    )


def _revision(connection: sa.Connection) -> str | None:
    table = sa.select(sa.func.to_regclass(f"{SCHEMA}.alembic_version"))
    if connection.execute(table).scalar() is None:
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "penstock.state:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
