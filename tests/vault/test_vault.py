"""What every vault promises, whatever its form."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from bao_server import ROOT_TOKEN, Bao

from penstock.errors import InputError, NotFoundError, SettingsError
from penstock.settings import Settings
from penstock.vault import LARGEST_BYTES, SHARED, Vault, granted, open_vault


@pytest.fixture(params=["file", "hashicorp"])
def settings_of_form(request: pytest.FixtureRequest, vault_settings: Settings, tmp_path: Path) -> Settings:
    if request.param == "file":
        return vault_settings
    server: Bao = request.getfixturevalue("bao")
    for engine in list(server.client().sys.list_mounted_secrets_engines()["data"]):
        if engine == "tests/":
            server.client().sys.disable_secrets_engine("tests")
    server.client().sys.enable_secrets_engine("kv", path="tests", options={"version": "2"})
    (tmp_path / "token").write_text(f"{ROOT_TOKEN}\n")
    return attrs.evolve(
        vault_settings,
        vault="hashicorp",
        vault_addr=server.address,
        vault_token_file=tmp_path / "token",
        vault_mount="tests",
    )


@pytest.fixture
def vault(settings_of_form: Settings) -> Vault:
    return open_vault(settings_of_form)


@pytest.fixture
def another(settings_of_form: Settings) -> Callable[[], Vault]:
    """The same vault, opened again."""
    return lambda: open_vault(settings_of_form)


@pytest.mark.parametrize(
    "value", [b"hunter2", b"with newline\n", b"\x00\xff\xfe binary", "ü✓".encode(), b"x", b"k" * LARGEST_BYTES]
)
def test_value_comes_back_byte_for_byte(vault: Vault, another: Callable[[], Vault], value: bytes):
    """Text, newlines at its end, and bytes that are no text."""
    vault.write("shop", "TOKEN", value)
    assert another().read("shop", "TOKEN") == value


def test_a_projects_own_wins(vault: Vault):
    """The platform's is what projects get that have none of that name."""
    vault.write(SHARED, "TOKEN", b"of the platform")
    assert vault.read("shop", "TOKEN") == b"of the platform"
    vault.write("shop", "TOKEN", b"of the shop")
    assert vault.read("shop", "TOKEN") == b"of the shop"
    assert vault.read("other", "TOKEN") == b"of the platform"
    assert vault.read(SHARED, "TOKEN") == b"of the platform"
    vault.remove("shop", "TOKEN")
    assert vault.read("shop", "TOKEN") == b"of the platform"


def test_no_project_reads_anothers(vault: Vault):
    """Also one that is called as the platform's folder might be."""
    vault.write("shop", "TOKEN", b"value")
    for project in ("other", "shared", SHARED):
        with pytest.raises(NotFoundError):
            vault.read(project, "TOKEN")


def test_absent_secret_names_the_remedy(vault: Vault):
    """The command that sets it."""
    with pytest.raises(NotFoundError) as raised:
        vault.read("shop", "TOKEN")
    assert str(raised.value) == (
        'project shop has no secret "TOKEN"; set it with `penstock secret set TOKEN --project shop`'
    )


def test_names_tell_no_values(vault: Vault):
    """Of this very project, sorted, with the time of the last change."""
    before = datetime.now(UTC) - timedelta(minutes=5)
    for name in ("B", "A", "A-2_x"):
        vault.write("shop", name, b"hunter2")
    vault.write(SHARED, "C", b"hunter2")
    found = vault.names("shop")
    assert [info.name for info in found] == ["A", "A-2_x", "B"]
    assert {info.project for info in found} == {"shop"}
    assert all(before < info.updated_at for info in found)
    assert "hunter2" not in repr(found)
    assert [info.name for info in vault.names(SHARED)] == ["C"]
    assert vault.names("other") == ()


def test_written_again_is_replaced(vault: Vault):
    """One secret, the newer value, a newer time."""
    vault.write("shop", "TOKEN", b"old")
    (first,) = vault.names("shop")
    vault.write("shop", "TOKEN", b"new")
    (second,) = vault.names("shop")
    assert vault.read("shop", "TOKEN") == b"new"
    assert second.updated_at > first.updated_at


def test_removed_is_gone(vault: Vault):
    """Once; the second time nothing is there, and it can be set anew."""
    vault.write("shop", "TOKEN", b"value")
    vault.remove("shop", "TOKEN")
    assert vault.names("shop") == ()
    for again in (vault.read, vault.remove):
        with pytest.raises(NotFoundError):
            again("shop", "TOKEN")
    vault.write("shop", "TOKEN", b"anew")
    assert vault.read("shop", "TOKEN") == b"anew"


def test_removing_never_falls_back(vault: Vault):
    """The platform's secret stays when a project that has none of its own removes it."""
    vault.write(SHARED, "TOKEN", b"value")
    with pytest.raises(NotFoundError):
        vault.remove("shop", "TOKEN")
    assert vault.read("shop", "TOKEN") == b"value"


@pytest.mark.parametrize("project", ["../other", "a/b", "UPPER", "_shared", "-x", "a b", "x" * 80])
@pytest.mark.parametrize("name", ["../TOKEN", "a/b", "", "1A", "A B", "A\n", ".", "x" * 200])
def test_no_name_leads_elsewhere(vault: Vault, project: str, name: str):
    """Paths, white space and what is too long are refused before anything is asked."""
    for call in (vault.read, vault.remove, lambda *place: vault.write(*place, b"value")):
        with pytest.raises(InputError):
            call("shop", name)
        with pytest.raises(InputError):
            call(project, "TOKEN")
    with pytest.raises(InputError):
        vault.names(project)


@pytest.mark.parametrize("value", [b"", b"k" * (LARGEST_BYTES + 1)])
def test_value_that_cannot_be_is_refused(vault: Vault, value: bytes):
    """Empty, or larger than 64 KiB; the older one stays."""
    vault.write("shop", "TOKEN", b"older")
    with pytest.raises(InputError):
        vault.write("shop", "TOKEN", value)
    assert vault.read("shop", "TOKEN") == b"older"


def test_granted_are_those_that_the_step_names(vault: Vault):
    """One that is missing stops the step before it starts."""
    vault.write("shop", "A", b"1")
    vault.write(SHARED, "B", b"2")
    vault.write("shop", "C", b"3")
    assert granted(vault, "shop", ("A", "B")) == {"A": b"1", "B": b"2"}
    with pytest.raises(NotFoundError, match="MISSING"):
        granted(vault, "shop", ("A", "MISSING"))


def test_check_says_what_answers(vault: Vault):
    """One line, before the first secret and after it."""
    assert "\n" not in vault.check()
    vault.write(SHARED, "TOKEN", b"hunter2")
    assert vault.check().endswith(": 1")


def test_nothing_of_a_secret_is_in_its_repr(vault: Vault):
    """Neither in the vault's nor in that of the settings."""
    vault.write("shop", "TOKEN", b"hunter2")
    vault.read("shop", "TOKEN")
    assert "hunter2" not in repr(vault)
    assert ROOT_TOKEN not in repr(vault)


def test_unknown_form_is_refused(vault_settings: Settings):
    """With the forms that there are."""
    with pytest.raises(SettingsError, match='no vault is called "paper"; use file or hashicorp'):
        open_vault(attrs.evolve(vault_settings, vault="paper"))
