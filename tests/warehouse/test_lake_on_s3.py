"""The tables' files on S3, by a real server that checks signatures; reached by the settings of the artifact store."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import httpx
import psycopg
import pytest
from containers import free_port
from lake_rows import finding, findings, run, scan

from penstock.errors import InputError, PlatformError, SettingsError
from penstock.settings import load_settings
from penstock.warehouse import Location, Warehouse, compact, connect, flush, warehouse_location
from penstock.warehouse.sql import ask

RCLONE = Path(sys.executable).with_name("rclone")
KEY, SECRET = "LAKEKEY", "lake-secret-key"
START_LIMIT_S = 60.0


@attrs.frozen
class Bucket:
    """A bucket called `lake` at a port; its objects are files below folder."""

    port: int
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What the artifact store is told of it."""
        return {
            "PENSTOCK_ARTIFACTS_URL": "s3://lake/team",
            "PENSTOCK_ARTIFACTS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "PENSTOCK_ARTIFACTS_ACCESS_KEY_ID": KEY,
            "PENSTOCK_ARTIFACTS_SECRET_ACCESS_KEY": SECRET,
        }


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """`rclone serve s3`, for the tests of this file."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    (folder / "data" / "lake").mkdir(parents=True)
    (folder / "rclone.conf").touch()
    words = [str(RCLONE), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    words += ["--config", str(folder / "rclone.conf"), "--dir-cache-time", "1ms", str(folder / "data")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(port, process)
        yield Bucket(port, folder / "data")
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
            return
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("rclone does not serve") from None
            time.sleep(0.05)


@pytest.fixture
def on_s3(bucket: Bucket, location: Location, tmp_path: Path) -> Location:
    """Where a warehouse is by such settings, in a catalog and under a prefix of the test's own."""
    env = {
        **bucket.env,
        "PENSTOCK_HOME": str(tmp_path / "home"),
        "PENSTOCK_ARTIFACTS_URL": f"s3://lake/{tmp_path.name}",
        "PENSTOCK_DATABASE_URL": location.catalog_url,
    }
    return attrs.evolve(warehouse_location(load_settings(env), env), catalog_schema=location.catalog_schema)


def test_tables_live_in_the_bucket(on_s3: Location, bucket: Bucket):
    """Written, read by a reader and by typed SQL, compacted: the files are objects of the bucket."""
    with Warehouse(on_s3) as warehouse:
        for number in (1, 2, 3):
            warehouse.record(run(number))
            warehouse.record_scan(scan(number), findings(map(str, range(150))))
            flush(warehouse)
        done = compact(warehouse, kept=timedelta(0), grace=timedelta(0))
    assert done.files_merged >= 3
    with connect(on_s3, read_only=True) as lake:
        assert lake.sql("SELECT count(*), count(DISTINCT fingerprint) FROM findings").fetchone() == (450, 150)
    assert ask(on_s3, "SELECT count(*) FROM runs").rows == ((3,),)
    kept = [path for path in bucket.folder.rglob("*.parquet") if Path(on_s3.data_path).parent.name in path.parts]
    assert any("findings" in path.parts for path in kept)


def test_catalog_remembers_its_bucket(on_s3: Location):
    """With another prefix, the same catalog is refused."""
    with Warehouse(on_s3) as warehouse:
        warehouse.record_scan(scan(1), [finding("a")])
    with pytest.raises((InputError, PlatformError), match="keeps its data elsewhere"):
        connect(attrs.evolve(on_s3, data_path="s3://lake/other/lake"), read_only=True)


def test_wrong_secret_is_told_and_not_shown(on_s3: Location):
    """What the server refuses is an error of the platform, without the secret in it; nothing is acknowledged."""
    assert on_s3.object_store is not None
    wrong = attrs.evolve(on_s3, object_store=attrs.evolve(on_s3.object_store, secret="wrong-lake-secret"))
    with Warehouse(wrong) as warehouse, pytest.raises(PlatformError) as caught:
        warehouse.record_scan(scan(1), findings(map(str, range(150))))
    assert "wrong-lake-secret" not in str(caught.value)
    assert SECRET not in repr(on_s3)
    with Warehouse(on_s3) as warehouse:
        assert warehouse.record_scan(scan(1), findings(map(str, range(150))))


def test_session_token_and_tls_are_passed_on(bucket: Bucket, catalog_url: str, tmp_path: Path):
    """Region, token and endpoint come from where the artifact store has them."""
    env = {
        **bucket.env,
        "PENSTOCK_HOME": str(tmp_path),
        "PENSTOCK_DATABASE_URL": catalog_url,
        "PENSTOCK_ARTIFACTS_ENDPOINT": "https://minio.example.com:9000",
        "PENSTOCK_ARTIFACTS_REGION": "eu-central-1",
        "PENSTOCK_ARTIFACTS_SESSION_TOKEN": "the-token",
    }
    store = warehouse_location(load_settings(env), env).object_store
    assert store is not None
    assert (store.endpoint, store.use_tls) == ("minio.example.com:9000", True)
    assert (store.region, store.token) == ("eu-central-1", "the-token")
    assert "the-token" not in repr(store)


def test_bucket_without_a_key_is_refused(bucket: Bucket, catalog_url: str, tmp_path: Path):
    """DuckDB cannot use a machine's role: that is said at once, with what to set."""
    env = {
        "PENSTOCK_HOME": str(tmp_path),
        "PENSTOCK_DATABASE_URL": catalog_url,
        "PENSTOCK_ARTIFACTS_URL": "s3://lake/team",
    }
    with pytest.raises(SettingsError, match="PENSTOCK_ARTIFACTS_ACCESS_KEY_ID"):
        warehouse_location(load_settings(env), env)


def test_folder_needs_no_key(catalog_url: str, tmp_path: Path):
    """Without S3, nothing of it is asked."""
    env = {"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_DATABASE_URL": catalog_url}
    found = warehouse_location(load_settings(env), env)
    assert (found.object_store, found.is_remote) == (None, False)
    psycopg.connect(found.catalog_url).close()
