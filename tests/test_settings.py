"""PENSTOCK_* variables: read once, wrong ones refused with the variable's name and the remedy."""

from pathlib import Path

import pytest

from penstock.errors import SettingsError
from penstock.settings import DATABASE_FILE, PORTS, create_home, is_loopback, load_settings, repository_root


def test_defaults_are_closed(tmp_path: Path):
    """Loopback, embedded database, everything in the repository's own folder."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    settings = load_settings({}, tmp_path / "a" / "b")
    assert settings.home == tmp_path / ".penstock"
    assert is_loopback(settings.host)
    assert settings.database_url is None
    assert settings.ports == PORTS
    assert settings.artifacts_path == str(tmp_path / ".penstock" / "artifacts")
    assert settings.lake_path == str(tmp_path / ".penstock" / "lake")
    assert settings.api_url == "http://127.0.0.1:8700"


def test_home_can_be_anywhere(tmp_path: Path):
    """Relative paths and ~ are made absolute; empty is as good as unset."""
    assert load_settings({"PENSTOCK_HOME": str(tmp_path / "x")}, tmp_path).home == tmp_path / "x"
    assert load_settings({"PENSTOCK_HOME": "~/x"}, tmp_path).home == Path.home() / "x"
    assert load_settings({"PENSTOCK_HOME": ""}, tmp_path).home == tmp_path / ".penstock"
    assert load_settings({"PENSTOCK_HOME": "x"}, tmp_path).home.is_absolute()


@pytest.mark.parametrize("port", ["x", "", "80", "65001", "-1", "8700.0", "1e4", "99999999999999999999"])
def test_port_that_cannot_be_used_is_refused(port: str):
    """Privileged ones too."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"PENSTOCK_API_PORT": port})
    assert str(caught.value) == f'PENSTOCK_API_PORT: "{port}" is no usable port; give a number from 1024 to 65000'


def test_port_for_two_is_refused():
    """Both are named."""
    with pytest.raises(SettingsError, match="PENSTOCK_DAGSTER_PORT: port 8700 is also PENSTOCK_API_PORT"):
        load_settings({"PENSTOCK_DAGSTER_PORT": "8700"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org", "[::1]"])
def test_listening_elsewhere_without_tls_is_refused(host: str):
    """Tokens would cross the network in the clear."""
    with pytest.raises(SettingsError, match=r"PENSTOCK_HOST: refusing to listen on .* without TLS; set PENSTOCK_TLS"):
        load_settings({"PENSTOCK_HOST": host})


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.9", "http://127.0.0.9:8700"), ("localhost", "http://localhost:8700"), ("::1", "http://[::1]:8700")],
)
def test_loopback_needs_no_tls(host: str, url: str):
    """By any of its names."""
    assert load_settings({"PENSTOCK_HOST": host}).api_url == url


def test_listening_elsewhere_with_tls(tmp_path: Path):
    """Certificate and key go together, and both must be files."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    cert, key = {"PENSTOCK_TLS_CERT": str(tmp_path / "cert.pem")}, {"PENSTOCK_TLS_KEY": str(tmp_path / "key.pem")}
    settings = load_settings({"PENSTOCK_HOST": "0.0.0.0", **cert, **key})
    assert settings.api_url == "https://0.0.0.0:8700"
    for half in (cert, key):
        with pytest.raises(SettingsError, match="certificate and key go together; set both"):
            load_settings({"PENSTOCK_HOST": "0.0.0.0", **half})
    with pytest.raises(SettingsError, match="PENSTOCK_TLS_KEY: no file"):
        load_settings({**cert, "PENSTOCK_TLS_KEY": str(tmp_path)})


def test_dagster_and_dashboards_stay_on_loopback(tmp_path: Path):
    """They have no authentication of their own, whatever the API listens on."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    tls = {"PENSTOCK_TLS_CERT": str(tmp_path / "cert.pem"), "PENSTOCK_TLS_KEY": str(tmp_path / "key.pem")}
    settings = load_settings({"PENSTOCK_HOST": "0.0.0.0", **tls})
    assert settings.dagster_url.startswith("http://127.0.0.1:")
    assert settings.dashboards_url.startswith("http://127.0.0.1:")


def test_database_is_taken_from_the_home(tmp_path: Path):
    """Kept in a file, so that no environment listing shows it; the variable wins."""
    (tmp_path / DATABASE_FILE).write_text("postgresql://kept/ci\n")
    home = {"PENSTOCK_HOME": str(tmp_path)}
    assert load_settings(home).database_url == "postgresql://kept/ci"
    assert (
        load_settings({**home, "PENSTOCK_DATABASE_URL": "postgresql://told/ci"}).database_url == "postgresql://told/ci"
    )
    assert "kept" not in repr(load_settings(home))


def test_database_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    """It names the file."""
    (tmp_path / DATABASE_FILE).mkdir()
    with pytest.raises(SettingsError, match=r"database\.url: cannot read it: Is a directory"):
        load_settings({"PENSTOCK_HOME": str(tmp_path)})


def test_remote_store_takes_the_lake_too():
    """Artifacts and Parquet beside each other."""
    settings = load_settings({"PENSTOCK_ARTIFACTS_URL": "s3://bucket/ci/"})
    assert (settings.artifacts_path, settings.lake_path) == ("s3://bucket/ci/", "s3://bucket/ci/lake")


def test_home_that_cannot_be_made_is_one_line(tmp_path: Path):
    """A file is in the way."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"PENSTOCK_HOME: cannot write .*; name a folder you own"):
        create_home(load_settings({"PENSTOCK_HOME": str(tmp_path / "file" / "home")}))


def test_root_of_a_work_tree_may_have_a_git_file(tmp_path: Path):
    """As `git worktree add` and submodules make it; outside of any, the folder itself."""
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / ".git").write_text("gitdir: elsewhere\n")
    assert repository_root(tmp_path / "tree" / "sub") == tmp_path / "tree"
    assert repository_root(tmp_path) == tmp_path
