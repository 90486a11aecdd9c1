"""The one database: its address is checked, its schema is brought up by one at a time, its secrets are not shown."""

import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from real_parts import server_url

from penstock.api.tokens import ensure_local_token, read_local_token, token_file
from penstock.errors import AccessError, PlatformError, SettingsError
from penstock.people.tokens import bearer_of
from penstock.pipeline.session import open_services
from penstock.settings import DATABASE_FILE, Settings, keep_secret, load_settings
from penstock.state.columns import metadata
from penstock.state.database import create_engine, dagster_url, database_url, hosted_database, migrate
from penstock.state.embedded import EmbeddedPostgres
from penstock.state.migrations import HEAD

SECRET = "swordfish"
EXTERNAL = f"postgresql://me:{SECRET}@127.0.0.1:1/ci"


def external(home: Path) -> Settings:
    return load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": EXTERNAL})


def test_no_secret_where_values_are_printed(home: Path):
    """Tracebacks, logs and debuggers print values."""
    settings = external(home)
    engine = create_engine(settings)
    for value in (settings, engine, engine.url, database_url(settings)):
        assert SECRET not in repr(value)
        assert SECRET not in str(value)
    assert SECRET in dagster_url(settings)


def test_services_do_not_show_the_secret(settings: Settings, database: sa.Engine, home: Path):
    """The values that steps are handed."""
    services = open_services(external(home), create_engine(external(home)), platform_up=False)
    assert SECRET not in repr(services)


def test_server_that_is_away_is_one_line_without_secret(home: Path):
    """It says what to look at."""
    with pytest.raises(PlatformError) as caught, hosted_database(external(home)):
        pass
    assert "the database does not answer" in str(caught.value)
    assert "PENSTOCK_DATABASE_URL" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"mysql://me:{SECRET}@h/d", f"sqlite:///{SECRET}", SECRET, f"postgresql://me:{SECRET}@h:port/d", "://"]
)
def test_what_is_no_postgresql_address_is_refused_without_repeating_it(home: Path, url: str):
    """It may hold a password."""
    settings = load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": url})
    with pytest.raises(SettingsError, match="PENSTOCK_DATABASE_URL: this is no PostgreSQL address") as caught:
        database_url(settings)
    assert SECRET not in str(caught.value)


def test_dagster_has_its_own_schema_and_driver(settings: Settings):
    """`postgresql+psycopg2`, because SQLAlchemy would take psycopg 3."""
    url = sa.make_url(dagster_url(settings))
    assert url.drivername == "postgresql+psycopg2"
    assert url.query["options"].startswith("-csearch_path=dagster ")


def test_schema_is_made_by_one_of_many(postgres: EmbeddedPostgres, home: Path):
    """Processes that start at once on a new database do not trip over each other."""
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE raced")
    address = {"PENSTOCK_HOME": str(home), "PENSTOCK_DATABASE_URL": server_url(postgres, "raced")}
    settings, errors = load_settings(address), []

    def bring_up() -> None:
        engine = create_engine(settings)
        try:
            migrate(engine)
        except sa.exc.SQLAlchemyError as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=bring_up) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    engine = create_engine(settings)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM penstock.alembic_version")).scalars().all() == [HEAD]
    assert set(sa.inspect(engine).get_table_names("penstock")) - {"alembic_version"} == {
        table.name for table in metadata.sorted_tables
    }
    engine.dispose()
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE raced")


def test_every_table_says_its_grain(database: sa.Engine):
    """In the database itself, for whoever looks there."""
    for table in metadata.sorted_tables:
        told = sa.inspect(database).get_table_comment(table.name, "penstock")["text"]
        assert told is not None
        assert told.startswith("One row per ")


def test_token_is_made_once_and_kept_privately(settings: Settings, database: sa.Engine):
    """Mode 0600; the database knows its hash alone."""
    ensure_local_token(database, settings)
    token = read_local_token(settings)
    ensure_local_token(database, settings)
    assert read_local_token(settings) == token
    assert token_file(settings).stat().st_mode & 0o777 == 0o600
    found = bearer_of(database, token)
    assert found is not None
    assert (found.subject, found.may("admin")) == ("local", True)
    assert bearer_of(database, f"{token}x") is None
    with database.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM penstock.tokens")).all()
    assert token not in str(rows)


def test_token_that_is_not_there_is_one_line(settings: Settings):
    """It says how to get one."""
    with pytest.raises(AccessError, match="cannot read the token: No such file or directory; start `penstock up`"):
        read_local_token(settings)


def test_secret_file_is_private_from_its_first_moment(home: Path):
    """Also over a file that was open to all, or a link to somewhere else."""
    elsewhere = home / "elsewhere"
    elsewhere.write_text("theirs")
    (home / DATABASE_FILE).symlink_to(elsewhere)
    keep_secret(home / DATABASE_FILE, "secret")
    assert elsewhere.read_text() == "theirs"
    assert (home / DATABASE_FILE).read_text() == "secret"
    assert (home / DATABASE_FILE).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.iterdir()) == [DATABASE_FILE, "elsewhere"]
