"""PENSTOCK_SMTP_URL: what may stand there, and that nothing of it is told."""

import os
from pathlib import Path

import pytest

from penstock.errors import SettingsError
from penstock.notify.smtp import read_server
from penstock.platform.parts import environment, keep_mail_address
from penstock.settings import SMTP_FILE, load_settings


def test_url_names_server_login_and_encryption():
    server = read_server("smtp+starttls://ci:p%40ss@mail.example.org", "Penstock <ci@example.org>")
    assert (server.scheme, server.host, server.port) == ("smtp+starttls", "mail.example.org", 587)
    assert (server.user, server.password) == ("ci", "p@ss")
    assert "p@ss" not in repr(server)
    assert read_server("smtps://mail.example.org", None).port == 465


@pytest.mark.parametrize(
    "url",
    [
        *("mail.example.org", "http://mail.example.org", "smtp://", "smtp://user:sesame@host:port"),
        *("smtp://user:sesame@host:25/path", "smtp://[::1"),
    ],
)
def test_url_that_is_none_is_one_line_without_its_password(url: str, tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        load_settings({"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_SMTP_URL": url})
    assert str(caught.value).startswith("PENSTOCK_SMTP_URL: ")
    assert "sesame" not in str(caught.value)


def test_sender_that_is_none_is_named():
    with pytest.raises(SettingsError, match="PENSTOCK_MAIL_FROM"):
        read_server("smtp://mail.example.org", "nobody")


def test_address_that_the_home_was_started_with_is_remembered(tmp_path: Path):
    """In a file, as the database's: the environment of processes holds no password."""
    (tmp_path / SMTP_FILE).write_text("smtp://mail.example.org\n")
    assert load_settings({"PENSTOCK_HOME": str(tmp_path)}).smtp_url == "smtp://mail.example.org"


def test_password_is_in_no_parts_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept in a file of the owner's, which the parts read."""
    monkeypatch.setenv("PENSTOCK_SMTP_URL", "smtps://ci:sesame@mail.example.org")
    settings = load_settings({"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_SMTP_URL": os.environ["PENSTOCK_SMTP_URL"]})
    keep_mail_address(settings)
    assert "sesame" not in str(environment(settings, tmp_path))
    assert (tmp_path / SMTP_FILE).stat().st_mode & 0o777 == 0o600
    assert load_settings({"PENSTOCK_HOME": str(tmp_path)}).smtp_url == settings.smtp_url
