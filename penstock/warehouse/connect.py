"""
Open the warehouse: DuckDB in memory with the lake attached, its extensions loaded from their wheels.

Nothing here asks the network for an extension, and the catalog's password travels in a DuckDB secret, so that
neither an error message nor `duckdb_databases()` shows it.
"""

import importlib.resources
import re
import tempfile
from pathlib import Path

import duckdb
import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.errors import InputError, NotFoundError, PlatformError, SettingsError

LAKE = "lake"
"""The name under which the lake is attached."""

INLINED_ROWS = 100
"""
Inserts of at most so many rows go into the catalog instead of a Parquet file of their own. Measured on DuckDB 1.5.5
with PostgreSQL: 100 rows of 29 columns 0.04 s inlined and 0.02 s as a file, 1000 rows 0.64 s against 0.02 s.
"""

_SECRET_KEYS = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "DATABASE"}
_REMOTE = re.compile(r"^(s3|gcs|gs|r2|https?)://")


@frozen
class ObjectStore:
    """
    How to reach the S3 that holds the Parquet files. endpoint: host:port; None is Amazon's own. token: of a session.
    """

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    region: str = "us-east-1"
    endpoint: str | None = None
    use_tls: bool = True
    token: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Location:
    """
    Where a warehouse is.

    catalog_url: a postgresql:// address; may hold a password, which no message shows.
    catalog_schema: the PostgreSQL schema that belongs to the lake alone.
    data_path: the folder or s3:// address of the Parquet files.
    """

    catalog_url: str = field(repr=False)
    data_path: str
    catalog_schema: str = field(default="lake")
    object_store: ObjectStore | None = None

    @catalog_schema.validator
    def _check_schema(self, _: object, value: str) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
            raise SettingsError(f'"{value}" is no name for a schema', where="warehouse", remedy="use a-z, 0-9 and _")

    @property
    def is_remote(self) -> bool:
        """Whether the data lies on an object store."""
        return _REMOTE.match(self.data_path) is not None


def connect(location: Location | None = None, *, read_only: bool | None = None) -> duckdb.DuckDBPyConnection:
    """
    A DuckDB connection with the lake attached and in use, in UTC. The caller closes it.

    location: None is the warehouse of PENSTOCK_HOME (or `.penstock` in this repository), to be read: whether the
    platform runs or not, its database answers until this process ends.
    read_only: readers of a `location` must pass it. SQL that somebody typed goes through `penstock.warehouse.sql`,
    which locks more.
    Raises: NotFoundError when a reader finds no warehouse yet; PlatformError when the catalog does not answer or an
    extension is missing; SettingsError when the catalog holds another `data_path`; InputError to write without a place.
    """
    if location is None:
        from penstock.warehouse.home import location_of_home

        if read_only is False:
            raise InputError("only reading needs no place", where="connect", remedy="write through Warehouse(location)")
        location, read_only = location_of_home(), True
    connection = duckdb.connect(config=_config())
    try:
        _load_extensions(connection, location)
        _create_secrets(connection, location)
        _attach(connection, location, read_only=bool(read_only))
    except BaseException:
        connection.close()
        raise
    return connection


def _config() -> dict[str, str | bool | int | float | list[str]]:
    return {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_persistent_secrets": False,
        # Checking the signatures of 73 MB takes 0.3 s of every connection. The files come from the same wheels, locked
        # by hash, as the Python that loads them.
        "allow_unsigned_extensions": True,
        # A missing table must not become a Python variable of the same name; `register` a DataFrame instead.
        "python_enable_replacements": False,
        "temp_directory": str(Path(tempfile.gettempdir()) / "penstock-duckdb"),
    }


def _load_extensions(connection: duckdb.DuckDBPyConnection, location: Location) -> None:
    names = ["ducklake", "postgres_scanner", *(["httpfs"] if location.is_remote else [])]
    for name in names:
        connection.execute(f"LOAD {quoted(str(_extension_file(name)))}")
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        connection.execute("SET enable_progress_bar = false")  # Jupyter without ipywidgets has none, and refuses
    connection.execute("SET TimeZone = 'UTC'")


def _extension_file(name: str) -> Path:
    try:
        package = Path(str(importlib.resources.files(f"duckdb_extension_{name}")))
    except ModuleNotFoundError:
        raise _missing_extension(name) from None
    found = sorted(package.glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension"))
    if not found:
        raise _missing_extension(name)
    return found[0]


def _missing_extension(name: str) -> PlatformError:
    package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
    return PlatformError(f"the DuckDB extension {name} is missing", remedy=f"install {package}")


def _create_secrets(connection: duckdb.DuckDBPyConnection, location: Location) -> None:
    known = {key: value for key, value in _parameters(location).items() if key in _SECRET_KEYS}
    parts = ["TYPE postgres", *(f"{_SECRET_KEYS[key]} {quoted(value)}" for key, value in known.items())]
    connection.execute(f"CREATE SECRET penstock_catalog ({', '.join(parts)})")
    if location.is_remote and (store := location.object_store):
        connection.execute(f"CREATE SECRET penstock_data ({', '.join(_store_parts(store))})")


def bucket_words(location: Location) -> tuple[str, str] | None:
    """The file of the extension and the words of CREATE SECRET that reach the location's bucket; None for a folder."""
    if not location.is_remote or location.object_store is None:
        return None
    return str(_extension_file("httpfs")), ", ".join(_store_parts(location.object_store))


def _store_parts(store: ObjectStore) -> list[str]:
    parts = [
        "TYPE s3",
        f"KEY_ID {quoted(store.key_id)}",
        f"SECRET {quoted(store.secret)}",
        f"REGION {quoted(store.region)}",
        f"USE_SSL {store.use_tls}",
    ]
    if store.token:
        parts.append(f"SESSION_TOKEN {quoted(store.token)}")
    if store.endpoint:
        parts += [f"ENDPOINT {quoted(store.endpoint)}", "URL_STYLE 'path'"]
    return parts


def _parameters(location: Location) -> dict[str, str]:
    try:
        parameters = conninfo_to_dict(location.catalog_url)
    except psycopg.ProgrammingError:
        raise SettingsError(
            "this is no PostgreSQL address",
            where="PENSTOCK_DATABASE_URL",
            remedy="write postgresql://user:password@host:5432/database",
        ) from None
    parameters.setdefault("connect_timeout", "10")
    return {key: str(value) for key, value in parameters.items() if value is not None}


def _attach(connection: duckdb.DuckDBPyConnection, location: Location, *, read_only: bool) -> None:
    rest = {key: value for key, value in _parameters(location).items() if key not in _SECRET_KEYS}
    options = [
        f"DATA_PATH {quoted(location.data_path)}",
        f"METADATA_SCHEMA {quoted(location.catalog_schema)}",
        "META_SECRET 'penstock_catalog'",
        f"DATA_INLINING_ROW_LIMIT {INLINED_ROWS}",
        *(["READ_ONLY"] if read_only else []),
    ]
    target = quoted(f"ducklake:postgres:{make_conninfo('', **rest)}")
    try:
        connection.execute(f"ATTACH {target} AS {LAKE} ({', '.join(options)})")
        connection.execute(f"USE {LAKE}")
    except duckdb.Error as error:
        raise _attach_error(str(error), location) from None


def _attach_error(text: str, location: Location) -> PlatformError | NotFoundError | InputError:
    if "creating a new DuckLake is explicitly disabled" in text:
        return NotFoundError("there is no warehouse yet", remedy="run a pipeline first: penstock run")
    if "does not match existing data path" in text:
        return SettingsError(
            f'the catalog "{location.catalog_schema}" keeps its data elsewhere than {location.data_path}',
            where="PENSTOCK_ARTIFACTS_URL",
            remedy="set it back, or give this warehouse a database of its own",
        )
    reason = redact(text, location).rsplit('": ', 1)[-1].splitlines()[0]
    return PlatformError(
        f"the warehouse's catalog does not answer: {reason}",
        remedy="see that PostgreSQL runs and PENSTOCK_DATABASE_URL is right",
    )


def redact(text: str, location: Location) -> str:
    """`text` without the secrets of `location`."""
    secrets = [location.catalog_url, _parameters(location).get("password")]
    if location.object_store:
        secrets += [location.object_store.secret, location.object_store.token]
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return text


def quoted(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
